"""The first filling of a cache, and the one after it has lost everything.

All servers of a cache share a note that says whether it holds all that is stored. While it does not, who
relies on it says so (503) rather than that there is no such project.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

LOG: Final = logging.getLogger(__name__)

#: The key of the note, and of the lock that is held while a cache is filled.
FILL: Final = "fill"

#: The beginning of the note while a cache is being filled.
FILLING: Final = "filling"

_FILLED: Final = "filled "

#: How many seconds pass before a filling that failed is begun again.
PAUSE: Final = 5.0

#: In how many seconds clients may ask again while a cache is being filled.
RETRY: Final = 10


def filling() -> str:
    """The note of a cache that is being filled; no two are the same, so that who fills it sees whether it is lost."""
    return f"{FILLING} {secrets.token_hex(8)}"


def filled() -> str:
    """The note of a cache that has just been filled; no two are the same."""
    return _FILLED + secrets.token_hex(8)


def is_filled(note: str | None) -> bool:
    """Whether a note says that the cache holds all that is stored."""
    return note is not None and note.startswith(_FILLED)


class Watch:
    """What the instances of one configured cache share: whether they rely on the note, and a thread that fills it."""

    def __init__(self) -> None:
        self.is_on = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._not_before = 0.0

    def start(self, job: Callable[[], object]) -> None:
        """Run the job that fills the cache in the background, unless it is running or has failed just now."""
        with self._lock:
            is_busy = self._thread is not None and self._thread.is_alive()
            if is_busy or time.monotonic() < self._not_before:
                return
            LOG.warning("The cache does not hold all that is stored; it is being filled from the storage")
            self._thread = threading.Thread(target=self._run, args=(job,), name="fill", daemon=True)
            self._thread.start()

    def _run(self, job: Callable[[], object]) -> None:
        if not succeeds(job):
            self._not_before = time.monotonic() + PAUSE

    def after_fork(self) -> None:
        """Forget the thread, which runs in the parent only."""
        self._lock = threading.Lock()
        self._thread = None


def succeeds(job: Callable[[], object]) -> bool:
    """Do a job that nobody waits for, and log how it failed."""
    try:
        job()
    except Exception:
        # A backend may be anybody's, and raise anything.
        LOG.exception("The cache could not be made to agree with the storage")
        return False
    return True
