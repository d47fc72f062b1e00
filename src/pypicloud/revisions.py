"""Questions about revisions to a cache that is not local: those of many requests are asked together.

:class:`Revisions` is for requests on an event loop, :func:`asked_together` for those in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Final, TypeAlias

from pypicloud.together import Together

LOG: Final = logging.getLogger(__name__)

#: Asks a cache for the revisions of projects, and for None of the list of projects.
Ask: TypeAlias = Callable[[set[str | None]], Mapping[str | None, str | None]]

#: A project's name, or None for the list of projects, and whom its revision is for.
_Wanted: TypeAlias = "tuple[str | None, asyncio.Future[str | None]]"


def asked_together(ask: Ask) -> Callable[[str | None], str | None]:
    """Asks for one revision; what threads ask meanwhile goes into one question. Raises what ``ask`` does."""

    def answers(names: Sequence[str | None]) -> Sequence[str | None]:
        found = ask(set(names))
        return [found[name] for name in names]

    return Together(answers)


class Revisions:
    """Asks a cache that is not local for revisions: one request's alone, or those of many requests together.

    What is wanted in one turn of the loop, or while a question is under way, is asked in one question; there is
    never more than one under way, as one for many names costs much the same as one for one. No answer is older than
    the request it is for: nobody is given the answer to a question that was under way before.

    Those who have just been answered ask again soon. The next question waits for as many as there were, but no longer
    than the last one took: so it comes at most twice as late as it could.
    """

    #: How many seconds the next question waits at most, however long the last one took: the loop goes round meanwhile.
    LONGEST_WAIT = 0.001

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._wanted: list[_Wanted] = []
        self._is_asking = False
        #: How many there were around when the last question was answered, when it was asked, and how long it took.
        self._expected = 0
        self._asked = 0.0
        self._took = 0.0
        self._questions: SimpleQueue[tuple[asyncio.AbstractEventLoop, list[_Wanted]]] = SimpleQueue()
        # A thread of its own, as handing work to a pool's costs a third as much as the question itself.
        Thread(target=self._work, name="revisions", daemon=True).start()

    async def of(self, name: str | None) -> str | None:
        """The revision of a project, or for None of the list of projects; None if there is none to be had."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()
        self._wanted.append((name, answer))
        if not self._is_asking:
            self._is_asking = True
            # Not at once: other requests that have arrived have yet to say what they want.
            loop.call_soon(self._put, loop, self._latest())
        return await answer

    def _put(self, loop: asyncio.AbstractEventLoop, latest: float) -> None:
        if len(self._wanted) < self._expected and time.perf_counter() < latest:
            loop.call_soon(self._put, loop, latest)
        else:
            wanted, self._wanted = self._wanted, []
            self._asked = time.perf_counter()
            self._questions.put((loop, wanted))

    def _latest(self) -> float:
        """When a question that could be asked now is asked at the latest."""
        return time.perf_counter() + min(self._took, self.LONGEST_WAIT)

    def _work(self) -> None:
        while True:
            loop, wanted = self._questions.get()
            try:
                found = self._ask({name for name, _ in wanted})
            except Exception as error:  # noqa: BLE001 - the long way meets the same error, and answers it
                LOG.debug("No revisions: %s", error)
                found = {}
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._receive, loop, wanted, found)

    def _receive(
        self, loop: asyncio.AbstractEventLoop, wanted: list[_Wanted], found: Mapping[str | None, str | None]
    ) -> None:
        self._took = time.perf_counter() - self._asked
        self._expected = len(wanted) + len(self._wanted)
        for name, answer in wanted:
            if not answer.done():
                answer.set_result(found.get(name))
        self._is_asking = bool(self._wanted)
        if self._wanted:
            self._put(loop, self._latest())
