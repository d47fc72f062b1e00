"""How far a rebuild is: a note that every server of the cache can read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pypicloud.dateutil import utcnow
from pypicloud.errors import PypicloudError

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache
    from pypicloud.cache.rebuild import Rebuilt

#: The key of the note.
REBUILD: Final = "rebuild"

#: How many seconds pass between two looks at how far it is.
INTERVAL: Final = 1.0

#: After how long without a sign of life a rebuild counts as broken off.
SILENCE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Status:
    """The last rebuild: ``state`` is ``running``, ``done``, ``failed``, ``interrupted`` or ``never``.

    Times are ISO 8601 in UTC; ``files`` is how many have been seen; the counts are there when it is done.
    """

    state: str
    started: str | None = None
    updated: str | None = None
    files: int = 0
    counts: dict[str, int] | None = None
    error: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is under way."""
        return self.state == "running"


def read(cache: ICache) -> Status:
    """How far the last rebuild is, on whichever server it runs."""
    text = cache.note(REBUILD)
    if text is None:
        return Status("never")
    status = msgspec.json.decode(text, type=Status)
    if status.is_running and status.updated is not None:
        silence = utcnow() - msgspec.convert(status.updated, type=datetime)
        if silence > SILENCE:
            return dataclasses.replace(status, state="interrupted")
    return status


class Report:
    """Keeps the note of one rebuild up to date."""

    def __init__(self, cache: ICache, progress: Callable[[int], None] | None) -> None:
        self._cache = cache
        self._progress = progress
        self._status = Status("running", started=utcnow().isoformat())
        self._next = 0.0
        self.files = 0

    def seen(self, files: int) -> None:
        """So many files have been seen so far."""
        self.files = files
        if self._progress is not None:
            self._progress(files)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self.write()

    def done(self, rebuilt: Rebuilt) -> None:
        """The rebuild has come to its end."""
        self.write(state="done", counts=dataclasses.asdict(rebuilt))

    def write(self, **changes: Any) -> None:
        """Write the note."""
        self._status = dataclasses.replace(
            self._status, **{"files": self.files, "updated": utcnow().isoformat(), **changes}
        )
        self._cache.write_note(REBUILD, msgspec.json.encode(self._status).decode())


def announce(cache: ICache) -> None:
    """Say that a rebuild is about to run, so that whoever asks next knows."""
    Report(cache, None).write()


@contextmanager
def reported(cache: ICache, progress: Callable[[int], None] | None) -> Iterator[Report]:
    """A report on the rebuild in this block; an error is reported and comes through."""
    report = Report(cache, progress)
    report.write()
    try:
        yield report
    except Exception as error:
        message = error.message if isinstance(error, PypicloudError) else f"{type(error).__name__}; the log says more"
        _write_failure(report, message)
        raise


def _write_failure(report: Report, message: str) -> None:
    try:
        report.write(state="failed", error=message)
    except PypicloudError:
        # The cache that failed cannot take the note either; it will look broken off.
        return
