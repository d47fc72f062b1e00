"""Work that many threads want at the same time, done in one go by one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar, cast

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
        self._is_at_work = False
        #: How many there were around at the end of the last go.
        self._expected = 0

    def __call__(self, thing: T) -> R:
        """The answer to what is wanted. Raises what the work does, in every thread that it was for."""
        mine = _Wanted[T, R](thing)
        with self._guard:
            self._waiting.append(mine)
            is_first, self._is_at_work = not self._is_at_work, True
        if not is_first:
            mine.signal.acquire()
        if not mine.is_done:
            self._go(mine)
        if mine.error is not None:
            raise mine.error
        return cast("R", mine.answer)

    def _go(self, mine: _Wanted[T, R]) -> None:
        for _ in range(_TURNS):
            if len(self._waiting) >= self._expected:
                break
            time.sleep(0)
        with self._guard:
            wanted, self._waiting = self._waiting, []
        try:
            for each, answer in zip(wanted, self._work([each.thing for each in wanted]), strict=True):
                each.answer = answer
        except BaseException as error:  # noqa: BLE001 - each of those who wait has to know
            for each in wanted:
                each.error = error
        for each in wanted:
            each.is_done = True
            if each is not mine:
                each.signal.release()
        with self._guard:
            self._expected = len(wanted) + len(self._waiting)
            self._is_at_work = bool(self._waiting)
            following = self._waiting[:1]
        for each in following:
            each.signal.release()


class _Wanted(Generic[T, R]):
    """What a thread wants, and the answer. The signal says that it is there, or that it is this thread's turn."""

    __slots__ = ("answer", "error", "is_done", "signal", "thing")

    def __init__(self, thing: T) -> None:
        self.thing = thing
        self.answer: R | None = None
        self.error: BaseException | None = None
        self.is_done = False
        self.signal = threading.Lock()
        self.signal.acquire()
