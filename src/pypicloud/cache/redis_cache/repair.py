"""What a rebuild puts right in Redis beside the facts: all that was worked out from them, by us or by 1.3.12."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pypicloud.cache.batches import batches
from pypicloud.cache.redis_cache.layout import MEMBERS, PACKAGE
from pypicloud.cache.redis_cache.rows import texts_of
from pypicloud.cache.redis_cache.scripts import DISCARD, run
from pypicloud.cache.steps import BATCH, Digest, Project, Step, digest_of
from pypicloud.models import Package

if TYPE_CHECKING:
    from pypicloud.cache.changes import Facts
    from pypicloud.cache.redis_cache import RedisCache

#: How often a project is looked at that others are changing; what they change is right afterwards anyway.
ATTEMPTS: Final = 5

#: How many seconds to leave to those others.
PAUSE: Final = 0.01


class Repair:
    """Makes members, summaries, the list of projects and, in a cluster, the index of files agree with the rows.

    ``known`` are the facts of the rows, as they were read not long ago. A project that does not agree with
    them is read again, and changed if it still is as it was read.
    """

    def __init__(self, cache: RedisCache, known: Mapping[str, Facts]) -> None:
        self._cache = cache
        self._layout = cache.layout
        self._wire = cache.layout.wire
        self._files: dict[str, list[Package]] = defaultdict(list)
        for filename, (name, version, last_modified, summary, _) in known.items():
            self._files[name].append(Package(name, version, filename, last_modified, summary))

    def run(self) -> None:
        """Put everything right, while others read and write."""
        self._discard()
        self._layout.repair_index(
            {name: [package.filename for package in packages] for name, packages in self._files.items()}
        )
        listed = self._texts([self._layout.projects])[0]
        for some in batches(sorted({*self._files, *listed, *self._named()}), BATCH):
            wrong = self._wrong(some)
            for _ in range(ATTEMPTS):
                wrong = self._heal(wrong)
                if not wrong:
                    break
                time.sleep(PAUSE)
            self._layout.relist(name for name in some if (name in listed) != (name in self._files))

    def _discard(self) -> None:
        """Delete what stands where files do and is none, or not the one that is found."""
        known = {
            self._layout.package(name, package.filename)
            for name, packages in self._files.items()
            for package in packages
        }
        for keys in self._wire.scan(PACKAGE + b"*"):
            unknown = [key for key in keys if key not in known]
            rows = self._wire.run((b"HGETALL", key) for key in unknown)
            packages = self._cache.packages(unknown, rows)
            self._wire.run(
                run(DISCARD, [key], *(row or ()))
                for key, row, package in zip(unknown, rows, packages, strict=True)
                if package is None
            )

    def _wrong(self, names: Collection[str]) -> list[str]:
        """Those projects that do not agree with what is known."""
        members, projects = self._members(names), self._cache.read_projects(names)
        wrong = []
        for name in names:
            files = {package.filename: package for package in self._files.get(name, ())}
            if members[name] != files.keys() or not _is_same(projects[name].digest, digest_of(files.values()), files):
                wrong.append(name)
        return wrong

    def _heal(self, names: Collection[str]) -> list[str]:
        """Give projects the members and summaries they should have; the names of those that were changed meanwhile."""
        projects, members = self._cache.read_projects(names), self._members(names)
        steps, joined = [], {}
        for name, (right, others) in self._rows(members).items():
            digest = digest_of(right.values())
            stale = (members[name] - right.keys()) | others
            joined[name] = right.keys() - members[name]
            if stale or joined[name] or not _is_same(projects[name].digest, digest, right):
                after = Project(name, secrets.token_hex(16), digest, len(right))
                steps.append(Step(projects[name], (), (), tuple(stale), after))
        made = self._layout.change(steps, joined)
        return [step.name for step, is_made in zip(steps, made, strict=True) if not is_made]

    def _members(self, names: Collection[str]) -> dict[str, set[str]]:
        return dict(zip(names, self._texts([self._layout.members(name) for name in names]), strict=True))

    def _named(self) -> Iterator[str]:
        """The projects that have a set of file names, whatever is in it."""
        for keys in self._wire.scan(MEMBERS + b"*"):
            yield from texts_of(map(self._layout.name_of, keys))

    def _texts(self, keys: Sequence[bytes]) -> list[set[str]]:
        """The members of sets, without those that are no texts, which are taken out."""
        found = self._wire.run((b"SMEMBERS", key) for key in keys)
        sets = [set(texts_of(members)) for members in found]
        self._wire.run(
            (b"SREM", key, member)
            for key, members, texts in zip(keys, found, sets, strict=True)
            if members and len(members) != len(texts)
            for member in members
            if not set(texts_of([member]))
        )
        return sets

    def _rows(self, members: Mapping[str, Iterable[str]]) -> dict[str, tuple[dict[str, Package], set[str]]]:
        """Of each project: the files that really are its, and the names of others that it has a row of."""
        names = [
            (name, filename)
            for name, some in members.items()
            for filename in {*some, *(package.filename for package in self._files.get(name, ()))}
        ]
        keys = [self._layout.package(*each) for each in names]
        packages = self._cache.packages(keys, self._wire.run((b"HGETALL", key) for key in keys))
        found: dict[str, tuple[dict[str, Package], set[str]]] = {name: ({}, set()) for name in members}
        for (name, filename), package, is_found in zip(names, packages, self._layout.are_found(names), strict=True):
            if package is not None and package.name == name:
                right, others = found[name]
                if is_found:
                    right[filename] = package
                else:
                    others.add(filename)
        return found


def _is_same(known: Digest | None, digest: Digest | None, files: Mapping[str, Package]) -> bool:
    """Whether a digest is right; of several files that came at the same time, any may be the latest."""
    if known is None or digest is None:
        return known is digest
    latest = files.get(known.latest)
    return (
        latest is not None
        and latest.last_modified == digest.last_modified
        and known == replace(digest, latest=known.latest)
    )
