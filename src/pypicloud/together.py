"""Work that many threads want at the same time, done in one go by one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Generic, TypeVar, cast

from pypicloud.errors import BackendUnavailable

T = TypeVar("T")
R = TypeVar("R")

#: How often other threads are given way before the next go, so that those who have just been answered ask again.
_TURNS: Final = 3


class Together(Generic[T, R]):
    """Does what threads want: what comes in while one of them is at work is done next, all of it in one go.

    ``work`` gets all that is wanted and gives an answer to each, in the same order. Only one thread is at work at a
    time, and nobody gets an answer out of a go that had begun before they asked.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]]) -> None:
        self._work = work
        self._guard = threading.Lock()
        self._waiting: list[_Wanted[T, R]] = []
        #: Whose turn it is, from the moment on at which others are to wait.
        self._leader: _Wanted[T, R] | None = None
        #: How many there were around at the end of the last go.
        self._expected = 0

    def __call__(self, thing: T) -> R:
        """The answer to what is wanted. Raises what the work does, in every thread that it was for."""
        mine = _Wanted[T, R](thing)
        with self._guard:
            self._waiting.append(mine)
            if self._leader is None:
                self._leader = mine
                mine.signal.release()
        try:
            mine.signal.acquire()
            if not mine.is_done:
                self._go()
        except BaseException:
            # A thread may be interrupted anywhere; what it wanted is not to be anybody's turn.
            with self._guard, suppress(ValueError):
                self._waiting.remove(mine)
            raise
        finally:
            if self._leader is mine:
                self._pass_on()
        if mine.error is not None:
            # All threads raise the same object, and each would show the ways of those before.
            raise mine.error.with_traceback(mine.traceback)
        return cast("R", mine.answer)

    def _go(self) -> None:
        wanted: list[_Wanted[T, R]] = []
        try:
            self._give_way()
            with self._guard:
                wanted, self._waiting = self._waiting, []
            for each, answer in zip(wanted, self._work([each.thing for each in wanted]), strict=True):
                each.answer = answer
        except Exception as error:  # noqa: BLE001 - each of those who wait has to know
            _fail(wanted, error)
        except BaseException:
            _fail(wanted, BackendUnavailable("what was asked for was interrupted; please try again", 1))
            raise
        finally:
            for each in wanted:
                each.is_done = True
                if each is not self._leader:
                    each.signal.release()
            self._expected = len(wanted) + len(self._waiting)

    def _give_way(self) -> None:
        for _ in range(_TURNS):
            if len(self._waiting) >= self._expected:
                break
            time.sleep(0)

    def _pass_on(self) -> None:
        with self._guard:
            self._leader = self._waiting[0] if self._waiting else None
            if self._leader is not None:
                self._leader.signal.release()


class _Wanted(Generic[T, R]):
    """What a thread wants, and the answer. The signal says that it is there, or that it is this thread's turn."""

    __slots__ = ("answer", "error", "is_done", "signal", "thing", "traceback")

    def __init__(self, thing: T) -> None:
        self.thing = thing
        self.answer: R | None = None
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None
        self.is_done = False
        self.signal = threading.Lock()
        self.signal.acquire()


def _fail(wanted: Iterable[_Wanted[T, R]], error: Exception) -> None:
    for each in wanted:
        each.error, each.traceback = error, error.__traceback__
