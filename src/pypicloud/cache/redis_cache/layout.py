"""Where in Redis things are, and how a project is changed there: on one server, and in a cluster.

On one server the keys are those of 1.3.12 (compat.md 3.3) and, beside them, ``pypicloud:revision:<name>`` and
``pypicloud:revision`` (of the list of projects), ``pypicloud:note:<key>`` and ``pypicloud:lock:<key>``.

In a cluster all keys of a project share a slot, so that it can be changed at once: they have its name in
braces, as in ``pypicloud:set:{<name>}``, and that of a file is ``pypicloud:package:{<name>}:<filename>``. So
``pypicloud:file:<filename>`` tells the project of a file: it is written before there is such a file, and goes
after it. The list of projects stays ``pypicloud:set``. Whether the cache was filled is noted 64 times over the
slots, and a copy on the same node is asked with whatever is read, as a single node can lose its keys. What a
crash leaves behind between two slots, a rebuild puts right.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pypicloud.cache import leases as cache_leases
from pypicloud.cache.fill import FILL
from pypicloud.cache.leases import Leases
from pypicloud.cache.redis_cache.rows import encoded, row_of, summary_row, text_of
from pypicloud.cache.redis_cache.scripts import (
    CLAIM,
    DELETE_IF,
    FILES,
    LIST,
    SET_IF_NONE,
    STEP,
    STEP_ALONE,
    Command,
    run,
)
from pypicloud.cache.steps import Step

if TYPE_CHECKING:
    from pypicloud.cache.redis_cache.wire import ClusterWire, Wire

PREFIX: Final = b"pypicloud:"
PACKAGE: Final = PREFIX + b"package:"
MEMBERS: Final = PREFIX + b"set:"
INDEX: Final = PREFIX + b"file:"

#: How many copies there are of a note whose loss must be noticed, in a cluster.
COPIES: Final = 64

#: How many slots a cluster has.
SLOTS: Final = 16384

#: What answers commands, as :meth:`pypicloud.cache.redis_cache.wire.Wire.run` does.
Ask: TypeAlias = "Callable[[list[Command]], list[Any]]"


def leases(layout: Layout) -> Leases:
    """The leases behind the locks."""

    def claim(key: str, token: str) -> Callable[[], bool]:
        return lambda: renew(key, token)

    def renew(key: str, token: str) -> bool:
        milliseconds = int(cache_leases.LEASE * 1000)
        answers = layout.wire.run([run(CLAIM, [layout.lock(key)], token.encode(), milliseconds)])
        return bool(answers[0])

    def release(key: str, token: str) -> None:
        layout.wire.run([run(DELETE_IF, [layout.lock(key)], token.encode())])

    return Leases(claim, renew, release)


class Layout:
    """On one server."""

    #: The set of all projects' names, and its revision.
    projects: bytes = PREFIX + b"set"
    projects_revision: bytes = PREFIX + b"revision"

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def tag(self, name: str) -> bytes:
        """How a project's name is spelled in keys."""
        return encoded(name)

    def members(self, name: str) -> bytes:
        """The set of a project's file names."""
        return MEMBERS + self.tag(name)

    def name_of(self, members: bytes) -> bytes:
        """The project whose set of file names has this key."""
        return members.removeprefix(MEMBERS)

    def summary(self, name: str) -> bytes:
        """The hash of a project's summary."""
        return PREFIX + b"summary:" + self.tag(name)

    def revision(self, name: str | None) -> bytes:
        """The revision of a project, or of the list of them."""
        return self.projects_revision if name is None else PREFIX + b"revision:" + self.tag(name)

    def files(self, name: str) -> bytes:
        """What the keys of a project's files begin with."""
        return PACKAGE

    def package(self, name: str, filename: str) -> bytes:
        """The hash of a file."""
        return self.files(name) + encoded(filename)

    def files_of(self, name: str) -> Command:
        """The command that answers with the names and rows of all files of a project."""
        return run(FILES, [self.members(name)], self.files(name))

    def key_of(self, filename: str) -> bytes:
        """The hash of a file, whatever project it belongs to."""
        return PACKAGE + encoded(filename)

    def lock(self, key: str) -> bytes:
        """The lease of a lock."""
        return PREFIX + b"lock:" + encoded(key)

    def notes(self, key: str) -> list[bytes]:
        """The places of a note, all with the same text."""
        return [PREFIX + b"note:" + encoded(key)]

    def fill_notes(self, keys: Collection[bytes]) -> Iterable[bytes]:
        """The places of the note about filling that are lost when what these keys hold is lost."""
        return self.notes(FILL)

    def find(self, filenames: Iterable[str], ask: Ask) -> dict[bytes, list[bytes]]:
        """The rows of those files that exist, by key."""
        keys = [PACKAGE + encoded(filename) for filename in dict.fromkeys(filenames)]
        rows = ask([(b"HGETALL", key) for key in keys])
        return {key: row for key, row in zip(keys, rows, strict=True) if row}

    def change(self, steps: Sequence[Step], joined: Mapping[str, Collection[str]] | None = None) -> list[bool]:
        """Make each step; whether it was. ``joined`` are files, by project, that exist but are no members yet."""
        more = joined or {}
        commands = (self._step(STEP, step, (step.dropped, step.moved), more.get(step.name, ())) for step in steps)
        return [answer >= 0 for answer in self.wire.run(commands)]

    def relist(self, names: Iterable[str]) -> None:
        """Let the list of projects have those of these that have files, and no other of them."""
        left = list(names)
        exists = self._exist(left)
        while left:
            listed = zip(left, exists, strict=True)
            self.wire.run([self._listed(name, is_there=is_there) for name, is_there in listed])
            # Files may have come or gone while the list was told.
            now = self._exist(left)
            changed = [place for place, is_there in enumerate(exists) if now[place] != is_there]
            left, exists = [left[place] for place in changed], [now[place] for place in changed]

    def _exist(self, names: Iterable[str]) -> list[bool]:
        return [count > 0 for count in self.wire.run((b"EXISTS", self.members(name)) for name in names)]

    def are_found(self, names: Sequence[tuple[str, str]]) -> list[bool]:
        """Of each row, by project and file name: whether it is the one that looking for the file finds."""
        return [True] * len(names)

    def repair_index(self, files: Mapping[str, Collection[str]]) -> None:
        """Let the files of these projects be found, and nothing else."""

    def older_package(self, name: str, filename: str) -> bytes:
        """The hash of a file as 1.3.12 wrote it."""
        return PACKAGE + encoded(filename)

    def older_rows(self) -> Iterator[list[bytes]]:
        """The keys of files that 1.3.12 wrote and this layout does not read, some at a time."""
        return iter(())

    def forget_older(self) -> None:
        """Delete what 1.3.12 wrote beside those."""

    def _step(
        self, script: bytes, step: Step, left: tuple[Collection[str], Collection[str]], joined: Collection[str]
    ) -> Command:
        """The command that makes a step. Of the files that left, the rows of the first go, too."""
        dropped, moved = left
        name, saved, summary = step.name, step.saved, summary_row(step.after)
        keys = [self.revision(name), self.members(name), self.summary(name)]
        keys += (self.package(name, package.filename) for package in saved)
        keys += (self.package(name, filename) for filename in dropped)
        arguments: list[bytes | int] = [encoded(step.before.revision or ""), encoded(step.after.revision or "")]
        arguments += (encoded(name), len(saved), len(dropped), len(moved), len(summary), *summary)
        for package in saved:
            row = row_of(package)
            arguments += (encoded(package.filename), len(row), *row)
        arguments += map(encoded, (*dropped, *moved, *joined))
        if script == STEP:
            keys += (self.projects, self.projects_revision)
        return run(script, keys, *arguments)

    def _listed(self, name: str, *, is_there: bool = True) -> Command:
        """The command that puts a project into the list, or takes it out."""
        word = b"SADD" if is_there else b"SREM"
        token = secrets.token_hex(16).encode()
        return run(LIST, [self.projects, self.projects_revision], word, encoded(name), token)


class ClusterLayout(Layout):
    """In a cluster."""

    projects_revision = PREFIX + b"revision:{" + Layout.projects + b"}"

    def __init__(self, wire: ClusterWire, slot: Callable[[bytes], int]) -> None:
        super().__init__(wire)
        self._is_near = wire.is_near
        self._one_on_each = wire.one_on_each
        self._slot = slot
        self._fill_notes = _spread(slot)

    def tag(self, name: str) -> bytes:
        """The name in braces; one that would end them too early, or is none, is spelled differently."""
        return b"{" + (encoded(name).replace(b"%", b"%25").replace(b"}", b"%7d") or b"%") + b"}"

    def name_of(self, members: bytes) -> bytes:
        """The project whose set of file names has this key."""
        name = super().name_of(members)[1:-1]
        return b"" if name == b"%" else name.replace(b"%7d", b"}").replace(b"%25", b"%")

    def files(self, name: str) -> bytes:
        """What the keys of a project's files begin with."""
        return PACKAGE + self.tag(name) + b":"

    def index(self, filename: str) -> bytes:
        """What tells the project of a file."""
        return INDEX + encoded(filename)

    def key_of(self, filename: str) -> bytes:
        """The hash of a file; in no project if there is no such file."""
        return self.package(self._owners([filename]).get(filename, ""), filename)

    def notes(self, key: str) -> list[bytes]:
        """The places of a note, all with the same text."""
        return self._fill_notes if key == FILL else super().notes(key)

    def fill_notes(self, keys: Collection[bytes]) -> Iterable[bytes]:
        """A place on each node that these keys are on."""
        return [self._near(key) for key in self._one_on_each(keys)] if len(keys) < COPIES else self._fill_notes

    def find(self, filenames: Iterable[str], ask: Ask) -> dict[bytes, list[bytes]]:
        """The rows of those files that exist, by key."""
        left = list(dict.fromkeys(filenames))
        found: dict[bytes, list[bytes]] = {}
        # One that moves to another project in between is looked for once more.
        for _ in range(2):
            owners = self._owners(left, ask)
            keys = {filename: self.package(owner, filename) for filename, owner in owners.items()}
            rows = ask([(b"HGETALL", key) for key in keys.values()])
            found.update((key, row) for key, row in zip(keys.values(), rows, strict=True) if row)
            left = [filename for filename, key in keys.items() if key not in found]
        return found

    def change(self, steps: Sequence[Step], joined: Mapping[str, Collection[str]] | None = None) -> list[bool]:
        """Make each step, and tell the index and the list of it; whether it was made."""
        made: dict[str, bool] = {}
        failed: set[str] = set()
        # A file leaves its old project only after it has arrived in the new one.
        for some in ([step for step in steps if not step.moved], [step for step in steps if step.moved]):
            possible = [step for step in some if failed.isdisjoint(step.moved)]
            made.update(zip((step.name for step in possible), self._change(possible, joined or {}), strict=True))
            failed.update(package.filename for step in some if not made.get(step.name) for package in step.saved)
        return [made.get(step.name, False) for step in steps]

    def _change(self, steps: Sequence[Step], joined: Mapping[str, Collection[str]]) -> list[bool]:
        saved = [(step.name, package.filename) for step in steps for package in step.saved]
        coming = [step.name for step in steps if step.comes]
        is_known = self.wire.run(
            [
                *(run(SET_IF_NONE, [self.index(filename)], encoded(name)) for name, filename in saved),
                *(self._listed(name) for name in coming),
            ]
        )
        answers = self.wire.run(
            self._step(STEP_ALONE, step, ((*step.dropped, *step.moved), ()), joined.get(step.name, ()))
            for step in steps
        )
        made = {step.name: answer for step, answer in zip(steps, answers, strict=True) if answer >= 0}
        # Some belonged to another project until now, or were cleared away by a rebuild that saw no file yet.
        self.wire.run(
            (b"SET", self.index(filename), encoded(name), *((b"NX",) if known else ()))
            for (name, filename), known in zip(saved, is_known, strict=False)
            if name in made
        )
        self._unindex(
            [(step.name, name) for step in steps if step.name in made for name in (*step.dropped, *step.moved)]
        )
        self.relist({*(name for name in coming if name not in made), *(name for name in made if made[name])})
        return [step.name in made for step in steps]

    def _unindex(self, names: Sequence[tuple[str, str]]) -> None:
        """Forget the projects of files that are gone, by project and file name."""
        self.wire.run(run(DELETE_IF, [self.index(filename)], encoded(name)) for name, filename in names)
        # One may have come back just before.
        exists = self.wire.run((b"EXISTS", self.package(*each)) for each in names)
        back = [each for each, is_there in zip(names, exists, strict=True) if is_there]
        self.wire.run(run(SET_IF_NONE, [self.index(filename)], encoded(name)) for name, filename in back)

    def are_found(self, names: Sequence[tuple[str, str]]) -> list[bool]:
        """Of each row, by project and file name: whether it is the one that looking for the file finds."""
        owners = self._owners([filename for _, filename in names])
        return [owners.get(filename, name) == name for name, filename in names]

    def repair_index(self, files: Mapping[str, Collection[str]]) -> None:
        """Let the files of these projects be found, and nothing else."""
        known: dict[str, list[str]] = {}
        for name, filenames in files.items():
            for filename in filenames:
                known.setdefault(filename, []).append(name)
        owners = self._owners(list(known))
        wrong = {filename: some[0] for filename, some in known.items() if owners.get(filename) not in some}
        self.wire.run((b"SET", self.index(filename), encoded(name)) for filename, name in wrong.items())
        for keys in self.wire.scan(INDEX + b"*"):
            unknown = [filename for key in keys if (filename := text_of(key.removeprefix(INDEX))) not in known]
            names = [(name, filename) for filename, name in self._owners(unknown).items()]
            # What has come meanwhile must be found all the while.
            exists = self.wire.run((b"EXISTS", self.package(*each)) for each in names)
            self._unindex([each for each, is_there in zip(names, exists, strict=True) if not is_there])

    def older_rows(self) -> Iterator[list[bytes]]:
        """The keys of files that 1.3.12 wrote and this layout does not read, some at a time: they have no braces."""
        return self._without_braces(PACKAGE)

    def forget_older(self) -> None:
        """Delete what 1.3.12 wrote beside those."""
        for kind in (MEMBERS, PREFIX + b"summary:"):
            for keys in self._without_braces(kind):
                self.wire.run((b"DEL", key) for key in keys)

    def _without_braces(self, kind: bytes) -> Iterator[list[bytes]]:
        for keys in self.wire.scan(kind + b"*"):
            yield [key for key in keys if not key.startswith(kind + b"{")]

    def _owners(self, filenames: Sequence[str], ask: Ask | None = None) -> dict[str, str]:
        """The projects of those files that are in the index."""
        names = (ask or self.wire.run)([(b"GET", self.index(filename)) for filename in filenames])
        return {filename: text_of(name) for filename, name in zip(filenames, names, strict=True) if name}

    def _near(self, key: bytes) -> bytes:
        """A place of the note on the same node; the first to be tried has nearly the same slot."""
        first = self._slot(key) * COPIES // SLOTS
        notes = self._fill_notes[first:] + self._fill_notes[:first]
        return next((note for note in notes if self._is_near(key, note)), notes[0])


def _spread(slot: Callable[[bytes], int]) -> list[bytes]:
    """The places of the note about filling, evenly over the slots."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < COPIES:
        note = PREFIX + b"note:{%d}:" % number + encoded(FILL)
        found.setdefault(slot(note) * COPIES // SLOTS, note)
        number += 1
    return [found[place] for place in sorted(found)]
