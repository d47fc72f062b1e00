"""Questions about revisions to a cache that is not local: those of many requests are asked together.

:class:`Revisions` is for requests on an event loop, :func:`asked_together` for those in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
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
    """

    #: How many turns of the loop the next question waits for those who have just been answered: they ask again soon.
    TURNS = 3

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._wanted: list[_Wanted] = []
        self._is_asking = False
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
            loop.call_soon(self._put, loop, 0)
        return await answer

    def _put(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if turns:
            loop.call_soon(self._put, loop, turns - 1)
        else:
            wanted, self._wanted = self._wanted, []
            self._questions.put((loop, wanted))

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
        for name, answer in wanted:
            if not answer.done():
                answer.set_result(found.get(name))
        self._is_asking = bool(self._wanted)
        if self._wanted:
            self._put(loop, self.TURNS)
