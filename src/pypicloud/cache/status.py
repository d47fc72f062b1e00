"""How far a rebuild is: a note that every server of the cache can read."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec

from pypicloud.dateutil import utcnow
from pypicloud.errors import PypicloudError
from pypicloud.heartbeat import beating

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache
    from pypicloud.cache.rebuild import Rebuilt

LOG: Final = logging.getLogger(__name__)

#: The key of the note.
REBUILD: Final = "rebuild"

#: How many seconds pass before the note is written anew.
INTERVAL: Final = 1.0

#: How many seconds pass between two signs of life while there is nothing new to tell.
BEAT: Final = 30.0

#: After how long without a sign of life a rebuild counts as broken off.
SILENCE: Final = timedelta(minutes=2)


_Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


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
    try:
        status = msgspec.json.decode(text, type=Status)
        updated = None if status.updated is None else msgspec.convert(status.updated, type=_Moment)
    except msgspec.MsgspecError:
        LOG.warning("The note about the last rebuild is of no use, and counts as none: %r", text)
        return Status("never")
    # A time to come is that of a clock which is wrong: nobody may have to wait until then.
    if status.is_running and updated is not None and abs(utcnow() - updated) > SILENCE:
        return dataclasses.replace(status, state="interrupted")
    return status


class Report:
    """Keeps the note of one rebuild up to date."""

    def __init__(self, cache: ICache, progress: Callable[[int], None] | None) -> None:
        self._cache = cache
        self._progress = progress
        self._status = Status("running", started=utcnow().isoformat())
        self._lock = threading.Lock()
        self._next = 0.0
        self._files = 0

    def seen(self, files: int) -> None:
        """So many files have been seen so far."""
        self._files = files
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
        with self._lock:
            self._status = dataclasses.replace(
                self._status, **{"files": self._files, "updated": utcnow().isoformat(), **changes}
            )
            self._cache.write_note(REBUILD, msgspec.json.encode(self._status).decode())

    def beat(self) -> bool:
        """Give a sign of life, however long the storage or the cache takes for something; there will be more."""
        _attempt(self.write)
        return True


def announce(cache: ICache) -> None:
    """Say that a rebuild is about to run, so that whoever asks next knows."""
    Report(cache, None).write()


@contextmanager
def reported(cache: ICache, progress: Callable[[int], None] | None) -> Iterator[Report]:
    """A report on the rebuild in this block; an error is reported and comes through."""
    report = Report(cache, progress)
    report.write()
    try:
        with beating(BEAT, report.beat, "rebuild status"):
            yield report
    except Exception as error:
        message = error.message if isinstance(error, PypicloudError) else f"{type(error).__name__}; the log says more"
        _attempt(lambda: report.write(state="failed", error=message))
        raise


def _attempt(write: Callable[[], None]) -> None:
    """Write a note if the cache takes one: without, the rebuild will look broken off, and nothing else is wrong."""
    try:
        write()
    except PypicloudError as error:
        LOG.info("How far the rebuild is cannot be noted: %s", error)
