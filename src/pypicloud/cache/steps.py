"""What the caches without transactions over everything share: they change one project at a time.

A project is changed in one atomic step, which is made only if the project's revision still is the one that
was read before; else all is read again. So no change is lost, and no reader sees a project half-changed.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pypicloud.cache.base import ICache
from pypicloud.cache.batches import batches
from pypicloud.cache.changes import Change
from pypicloud.cache.choose import version_key
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package, parse_version

#: How often a change is tried while others change the same project.
ATTEMPTS: Final = 50

#: The longest pause before another try, in seconds; it begins at a hundredth of that.
LONGEST_PAUSE: Final = 0.5

#: How many files are read and changed at once.
BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Digest:
    """A project without its files: what ``summary`` tells, and which files that came from.

    ``summary``, ``version`` and ``filename`` are those of the newest version, ``last_modified`` that of the
    file that came last, ``latest``.
    """

    summary: str | None
    last_modified: datetime
    version: str
    filename: str
    latest: str

    def with_file(self, package: Package) -> Digest:
        """The digest of one more file."""
        digest = self
        if version_key(package) > (parse_version(self.version), self.filename):
            digest = replace(digest, summary=package.summary, version=package.version, filename=package.filename)
        if package.last_modified > self.last_modified:
            digest = replace(digest, last_modified=package.last_modified, latest=package.filename)
        return digest


def digest_of(packages: Iterable[Package], digest: Digest | None = None) -> Digest | None:
    """The digest of these files, beside those of another digest; None of no files."""
    for package in packages:
        if digest is None:
            filename = package.filename
            digest = Digest(package.summary, package.last_modified, package.version, filename, filename)
        else:
            digest = digest.with_file(package)
    return digest


@dataclass(frozen=True, slots=True)
class Project:
    """What must be known of a project to change it, as it was at one moment.

    ``revision`` is None if none was ever written. Without files, or if an earlier version wrote it,
    ``digest`` is None. ``count`` is the number of files; without any there is no such project.
    """

    name: str
    revision: str | None
    digest: Digest | None
    count: int


@dataclass(frozen=True, slots=True)
class Step:
    """One project's change, to be made at once or not at all.

    ``saved`` are the files with new facts; ``dropped`` the names of those whose facts are forgotten; ``moved``
    the names of those that belong to another project now, whose facts must stay with that. ``replaced`` are the
    files of all these that were the project's before, with the facts they had; ``files`` all that are the
    project's afterwards, or None if they did not have to be looked at.
    """

    before: Project
    saved: tuple[Package, ...]
    dropped: tuple[str, ...]
    moved: tuple[str, ...]
    after: Project
    replaced: tuple[Package, ...] = ()
    files: tuple[Package, ...] | None = None

    @property
    def name(self) -> str:
        """The project."""
        return self.before.name

    @property
    def comes(self) -> bool:
        """Whether the project is a new one in the list."""
        return self.before.count == 0 and self.after.count > 0

    @property
    def goes(self) -> bool:
        """Whether the project leaves the list."""
        return self.before.count > 0 and self.after.count == 0


class StepCache(ICache):
    """A cache that changes one project at a time.

    A subclass gives ``read_projects`` and ``commit``, beside what every cache must give except ``save``,
    ``clear`` and ``clear_all``, and the optional powers.
    """

    def read_projects(self, names: Iterable[str]) -> Mapping[str, Project]:
        """What must be known of each of these projects to change it."""
        raise NotImplementedError

    def commit(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step; False for one whose project is not as it was read, or is being changed by others.

        A step that makes a project come or go gives the list of projects a new revision, too. Steps that
        share a file are made together where the service can.
        """
        raise NotImplementedError

    def save(self, package: Package) -> None:
        """Keep the facts about a package, in place of those of the same file name."""
        self.save_all([package])

    def save_all(self, packages: Iterable[Package]) -> None:
        """``save`` for many; all of one project at once."""
        for some in batches({package.filename: package for package in packages}.values(), BATCH):
            self._change({package.filename: package for package in some}, {package.name for package in some})

    def clear(self, package: Package) -> None:
        """Forget the package of this file name, whatever else is known about it; none is no error."""
        self.clear_many([package])

    def clear_many(self, packages: Iterable[Package]) -> None:
        """``clear`` for many; all of one project at once."""
        for some in batches({package.filename: package for package in packages}.values(), BATCH):
            self._change({package.filename: None for package in some}, {package.name for package in some})

    def clear_all(self) -> None:
        """Forget everything; every page and the list of projects get a new revision."""
        self.clear_many(self.everything())

    def exchange(self, changes: Sequence[Change]) -> set[str]:
        """Make each change whose file's facts are still as they were read; the names of the files changed."""
        expected = {change.filename: change for change in changes}
        names: set[str] = {change.wanted.name for change in changes if change.wanted is not None}
        names |= {change.known[0] for change in changes if change.known is not None}
        return self._change({name: change.wanted for name, change in expected.items()}, names, expected)

    def _change(
        self, left: dict[str, Package | None], names: set[str], expected: Mapping[str, Change] | None = None
    ) -> set[str]:
        """Give files the facts wanted, or none; the names of those changed.

        ``names`` are the projects they most likely belong to. With ``expected``, only what is as expected is changed.
        """
        changed: set[str] = set()
        leaving: dict[str, set[str]] = defaultdict(set)
        for pause in _pauses():
            # The projects are read before the files: what changes in between makes the step fail.
            projects = self.read_projects(names)
            rows = self.fetch_many([*left, *(name for some in leaving.values() for name in some)])
            if not names.issuperset(owners := {row.name for row in rows.values()}):
                names = names | owners
                continue
            possible = {
                filename: package
                for filename, package in left.items()
                if expected is None or expected[filename].is_possible(rows.get(filename))
            }
            steps = self._plan(possible, rows, leaving, projects)
            made = [step for step, is_made in zip(steps, self.commit(steps), strict=True) if is_made]
            changed.update(package.filename for step in made for package in step.saved)
            changed.update(filename for step in made for filename in step.dropped)
            if len(made) == len(steps):
                return changed
            left = {filename: package for filename, package in possible.items() if filename not in changed}
            leaving = _still_leaving(steps, {step.name for step in made}, changed)
            time.sleep(pause)
        raise BackendUnavailable("too many others are changing the same project; please try again")

    def _plan(
        self,
        wanted: Mapping[str, Package | None],
        rows: Mapping[str, Package],
        leaving: Mapping[str, set[str]],
        projects: Mapping[str, Project],
    ) -> list[Step]:
        """A step for each project that changes."""
        saved: dict[str, list[Package]] = defaultdict(list)
        dropped: dict[str, list[str]] = defaultdict(list)
        moved: dict[str, list[str]] = defaultdict(list)
        for owner, filenames in leaving.items():
            moved[owner] += (name for name in sorted(filenames) if name not in rows or rows[name].name != owner)
        for filename, package in wanted.items():
            row = rows.get(filename)
            if package is not None:
                saved[package.name].append(package)
                if row is not None and row.name != package.name:
                    moved[row.name].append(filename)
            elif row is not None:
                dropped[row.name].append(filename)
        names = dict.fromkeys(name for some in (saved, dropped, moved) for name, files in some.items() if files)
        return [self._step(projects[name], saved[name], dropped[name], moved[name], rows) for name in names]

    def _step(
        self,
        before: Project,
        saved: Sequence[Package],
        dropped: Sequence[str],
        moved: Sequence[str],
        rows: Mapping[str, Package],
    ) -> Step:
        gone = {*dropped, *moved}
        touched = {*gone, *(package.filename for package in saved)}
        replaced = [rows[name] for name in sorted(touched) if name in rows and rows[name].name == before.name]
        digest, files = before.digest, None
        if digest is not None and len(replaced) == before.count:
            digest, count = digest_of(saved), len(saved)
        elif before.count and (digest is None or not touched.isdisjoint((digest.filename, digest.latest))):
            files = {package.filename: package for package in self.all(before.name) if package.filename not in gone}
            files.update((package.filename, package) for package in saved)
            digest, count = digest_of(files.values()), len(files)
        else:
            known = [row for row in replaced if row.filename not in gone]
            digest = digest_of(saved, digest)
            count = before.count + len(saved) - len(known) - len(gone)
        after = Project(before.name, secrets.token_hex(16), digest if count > 0 else None, max(count, 0))
        everything = None if files is None else tuple(files.values())
        return Step(before, tuple(saved), tuple(dropped), tuple(moved), after, tuple(replaced), everything)


def _still_leaving(steps: Iterable[Step], made: set[str], changed: set[str]) -> dict[str, set[str]]:
    """The files that have moved to another project, while the one they come from was not told yet."""
    leaving = defaultdict(set)
    for step in steps:
        if step.name not in made:
            # Those that did not arrive are planned again; the others are known by their new project only.
            leaving[step.name] = {filename for filename in step.moved if filename in changed}
    return leaving


def _pauses() -> Iterator[float]:
    """How long to wait before each next try, in seconds; at random, so that two who collide do not collide again."""
    for attempt in range(ATTEMPTS):
        yield random.uniform(0, min(LONGEST_PAUSE, LONGEST_PAUSE / 100 * 2**attempt))  # noqa: S311 - no secret
