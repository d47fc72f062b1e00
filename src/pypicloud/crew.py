"""A few threads that work through many things, with patience for services that are away for a while."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from pypicloud.errors import BackendUnavailable

T = TypeVar("T")

#: How many things wait for a thread at most; the source of them is ahead by so many.
ROOM: Final = 100_000

#: How many seconds pass between two looks at how far the work is.
TICK: Final = 0.2

#: How many seconds the threads have to finish what they are at, when all is to end.
PARTING: Final = 30.0

#: How often something is tried while its service is away, and how many seconds pass before the second time. Each
#: further pause is twice as long.
ATTEMPTS: Final = 6
FIRST_PAUSE: Final = 0.5

#: The longest pause, in seconds, whatever the service says.
LONGEST_PAUSE: Final = 30.0

#: How many things in a row may fail because a service is away, before the rest is not even tried.
LOST: Final = 20


class Stopped(Exception):
    """The work is to end now."""


class Patience:
    """Tries again while a service is away; ends everything when it seems not to come back.

    All threads of a crew share one.
    """

    def __init__(self, attempts: int = ATTEMPTS, first_pause: float = FIRST_PAUSE) -> None:
        self._attempts = attempts
        self._first_pause = first_pause
        self._stop = threading.Event()
        self._lost_in_a_row = 0
        self.ended_by: BackendUnavailable | None = None

    def stop(self) -> None:
        """End the work: whoever waits, or tries the next thing, gets :class:`Stopped`."""
        self._stop.set()

    @property
    def is_over(self) -> bool:
        """Whether the work is to end."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Let time pass. Raises :class:`Stopped` as soon as the work is to end."""
        if self._stop.wait(seconds):
            raise Stopped

    def keep_trying(self, job: Callable[[int], T]) -> T:
        """What a job answers, which is told how often it has failed already.

        Raises what the job does; :class:`BackendUnavailable` only when it has been tried often enough.
        """
        failures = 0
        while not self.is_over:
            try:
                answer = job(failures)
            except BackendUnavailable as error:
                failures += 1
                if failures >= self._attempts:
                    self._count_lost(error)
                    raise
                pause = max(self._first_pause * 2 ** (failures - 1), error.retry_after or 0)
                self.wait(min(pause, LONGEST_PAUSE))
            else:
                self._lost_in_a_row = 0
                return answer
        raise Stopped

    def _count_lost(self, error: BackendUnavailable) -> None:
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST:
            self.ended_by = error
            self.stop()


class Pace:
    """Lets so many things begin in a second; any number, for None. Safe for threads."""

    def __init__(self, rate: float | None) -> None:
        self._interval = 0.0 if rate is None else 1 / rate
        self._next = time.monotonic()
        self._guard = threading.Lock()

    def pause(self) -> float:
        """How many seconds to wait before the next thing begins."""
        with self._guard:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + self._interval
            return start - now


class Tally:
    """How far the work is: files and bytes that are listed so far, and those that are done. Safe for threads."""

    def __init__(self) -> None:
        self.files_listed = self.bytes_listed = self.files_done = self.bytes_done = 0
        self.is_all_listed = False
        self.outcomes: Counter[str] = Counter()
        self._guard = threading.Lock()

    def listed(self, size: int) -> None:
        """One more file there is."""
        with self._guard:
            self.files_listed += 1
            self.bytes_listed += size

    def done(self, outcome: str, size: int) -> None:
        """One file less to do."""
        with self._guard:
            self.files_done += 1
            self.bytes_done += size
            self.outcomes[outcome] += 1


class Crew(Generic[T]):
    """Some threads, each with a worker of its own, that share what a source gives.

    The source is read in a thread, too, as far ahead as there is room. What a worker or the source raises
    ends the work, and is raised by :meth:`run`, except for :class:`Stopped`.
    """

    def __init__(self, source: Iterable[T], make_worker: Callable[[], Callable[[T], None]], count: int) -> None:
        self._source = source
        self._make_worker = make_worker
        self._count = count
        self._waiting: queue.Queue[T] = queue.Queue(ROOM)
        self._is_fed = threading.Event()
        self._errors: list[BaseException] = []

    def run(self, patience: Patience, tick: Callable[[], None]) -> None:
        """Work until all is done, and call ``tick`` now and then meanwhile.

        Ctrl-C, or ``patience.stop()``, lets each thread finish the one thing it is at.
        """
        self._patience = patience
        jobs = [self._feed, *[self._work] * self._count]
        # Daemons, so that a second Ctrl-C ends the process, whatever they are at.
        threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            is_done = False
            while not is_done:
                self._join(threads, TICK)
                is_done = not any(thread.is_alive() for thread in threads)
                tick()
        except BaseException:
            patience.stop()
            self._join(threads, PARTING)
            raise
        if self._errors:
            raise self._errors[0]

    @staticmethod
    def _join(threads: list[threading.Thread], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody can do something about it
            self._errors.append(error)
            self._patience.stop()

    def _feed(self) -> None:
        for thing in self._source:
            while True:
                try:
                    self._waiting.put(thing, timeout=TICK)
                    break
                except queue.Full:
                    self._patience.wait(0)
            self._patience.wait(0)
        self._is_fed.set()

    def _work(self) -> None:
        worker = self._make_worker()
        while not self._patience.is_over:
            # Asked before the queue is: what is put there later is seen in the next round.
            is_fed = self._is_fed.is_set()
            try:
                thing = self._waiting.get(timeout=0 if is_fed else TICK / 4)
            except queue.Empty:
                if is_fed:
                    return
                continue
            worker(thing)
