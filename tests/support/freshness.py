"""What was written and what was read by many at once, and whether each read could have shown what it showed.

A file is written by one writer at a time, so its states follow one another. A read that was asked for after a write
was acknowledged must show that write or a later one; and never one that had not begun when the answer came. A write
that failed may happen at any moment after it began, or never.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Write:
    """One change of one file: to a digest, or to None, which is a delete."""

    digest: str | None
    begun: float
    acknowledged: float | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """One answer about a project: its files with their digests.

    With ``only`` the question was about this file alone. ``what`` is for people.
    """

    project: str
    files: dict[str, str]
    asked: float
    answered: float
    what: str
    only: str | None = None


@dataclass(frozen=True, slots=True)
class ListRead:
    """One answer with the names of all projects."""

    projects: set[str]
    asked: float
    answered: float
    what: str


def _begun(write: Write) -> float:
    return write.begun


@dataclass
class History:
    """All writes, by project and file, and all reads."""

    writes: dict[str, dict[str, list[Write]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    reads: list[Read] = field(default_factory=list)
    lists: list[ListRead] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def writing(self, project: str, filename: str, digest: str | None) -> Iterator[Write]:
        """A write: acknowledged at the end of the block, or, on an exception, of unknown outcome."""
        with self._lock:
            write = Write(digest, time.monotonic())
            self.writes[project][filename].append(write)
        yield write
        write.acknowledged = time.monotonic()

    def last(self, project: str, filename: str) -> str | None:
        """The state that the last write of a file led to."""
        with self._lock:
            done = self.writes[project][filename]
            return done[-1].digest if done else None

    def states(self, project: str, filename: str, asked: float, answered: float) -> set[str | None]:
        """What a read in this time may show of a file."""
        writes = self.writes.get(project, {}).get(filename, [])
        allowed: set[str | None] = set()
        for number in range(bisect_left(writes, answered, key=_begun) - 1, -1, -1):
            write = writes[number]
            allowed.add(write.digest)
            if write.acknowledged is not None and write.acknowledged < asked:
                return allowed
        return allowed | {None}

    def violations(self) -> list[str]:
        """Every read that shows what it must not, in words."""
        return [*self._wrong_reads(), *self._wrong_lists()]

    def _wrong_reads(self) -> Iterator[str]:
        for read in self.reads:
            known = self.writes.get(read.project, {})
            for filename in known.keys() | read.files.keys() if read.only is None else [read.only]:
                shown = read.files.get(filename)
                allowed = self.states(read.project, filename, read.asked, read.answered)
                if shown not in allowed:
                    writes = [f"{write.digest} {write.begun}-{write.acknowledged}" for write in known.get(filename, ())]
                    times = f"{read.asked}-{read.answered}"
                    yield f"{read.what} at {times}: {filename} {shown}, not {allowed} after {writes[-5:]}"

    def _wrong_lists(self) -> Iterator[str]:
        for read in self.lists:
            for project, files in self.writes.items():
                states = [self.states(project, filename, read.asked, read.answered) for filename in files]
                must = any(None not in each for each in states)
                may = any(each != {None} for each in states)
                if (project in read.projects and not may) or (project not in read.projects and must):
                    yield f"{read.what} at {read.asked:.4f}-{read.answered:.4f}: {project} {project in read.projects}"
            for project in read.projects - self.writes.keys():
                yield f"{read.what}: {project} was never written"
