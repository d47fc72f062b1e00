"""How far a command is: a live line on a terminal, a plain one now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from pypicloud.crew import Tally

T = TypeVar("T")

#: How many seconds pass between two lines of progress where there is no terminal.
INTERVAL: Final = 5.0

#: The last so many seconds say how fast the work goes.
WINDOW: Final = 30.0

#: How many bytes take about as long as one more file.
FILE: Final = 256 << 10


def report(filename: str, reason: str) -> None:
    """Say what is the matter with a file; a live line makes room for it."""
    print(f"{filename}: {reason}", file=sys.stderr, flush=True)


@contextmanager
def listing() -> Iterator[Callable[[int], None]]:
    """What is told the number of files seen so far; how many there will be is not known before all are listed."""
    if not sys.stderr.isatty():
        yield _now_and_then(lambda count: f"{count} files so far")
        return
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with _bar(SpinnerColumn(), TextColumn("{task.completed:,.0f} files"), TimeElapsedColumn()) as bar:
        task = bar.add_task("listing", total=None)
        yield lambda count: bar.update(task, completed=count)


@contextmanager
def working() -> Iterator[Callable[[Tally], None]]:
    """What is told how far work on files is: it says how many, how fast, and how long the rest will take."""
    speed = Speed()
    if not sys.stderr.isatty():
        yield _now_and_then(speed.words)
        return
    from rich.progress import BarColumn, TextColumn

    with _bar(BarColumn(bar_width=None), TextColumn("{task.description}")) as bar:
        task = bar.add_task("", total=None)

        def tell(tally: Tally) -> None:
            total = _cost(tally.files_listed, tally.bytes_listed) if tally.is_all_listed else None
            done = _cost(tally.files_done, tally.bytes_done)
            bar.update(task, description=speed.words(tally), completed=done, total=total)

        yield tell


class Speed:
    """How fast work on files goes, by the last few seconds of it."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)])

    def words(self, tally: Tally) -> str:
        """How far the work is, how fast it goes, and when it will be done."""
        from rich.filesize import decimal

        now = time.monotonic()
        self._seen.append((now, tally.files_done, tally.bytes_done))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:  # noqa: PLR2004 - two make a difference
            self._seen.popleft()
        then, files, size = self._seen[0]
        seconds = max(now - then, 0.001)
        files, size = tally.files_done - files, tally.bytes_done - size
        words = [
            f"{tally.files_done:,} of {tally.files_listed:,}{'' if tally.is_all_listed else ' or more'} files",
            f"{decimal(tally.bytes_done)} of {decimal(tally.bytes_listed)}",
            f"{files / seconds:,.0f} files/s",
            f"{decimal(int(size / seconds))}/s",
        ]
        if tally.is_all_listed and files:
            rest = _cost(tally.files_listed - tally.files_done, tally.bytes_listed - tally.bytes_done)
            words.append(f"{timedelta(seconds=int(rest * seconds / _cost(files, size)))} left")
        return ", ".join(words)


def _cost(files: int, size: int) -> int:
    """How much work files are, in bytes."""
    return files * FILE + size


@contextmanager
def _bar(*columns: ProgressColumn) -> Iterator[Progress]:
    from rich.console import Console  # Only a terminal needs it.
    from rich.progress import Progress

    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar


def _now_and_then(words: Callable[[T], str]) -> Callable[[T], None]:
    last = time.monotonic()

    def tell(what: T) -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            print(words(what), file=sys.stderr, flush=True)

    return tell
