"""Asking for revisions together: few questions, no answer that is older than its request, nobody disturbed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import TypeAlias

from pypicloud.errors import BackendUnavailable
from pypicloud.revisions import Revisions

Names: TypeAlias = "set[str | None]"


class Cache:
    """Answers each question when it is told to; counts the revisions up."""

    def __init__(self) -> None:
        self.questions: list[Names] = []
        self.asked = threading.Semaphore(0)
        self.going = threading.Semaphore(0)

    def revisions(self, names: Names) -> dict[str | None, str | None]:
        """The number of the question, for each name."""
        self.questions.append(names)
        number = str(len(self.questions))
        self.asked.release()
        assert self.going.acquire(timeout=30)
        return dict.fromkeys(names, number)


def want(revisions: Revisions, *names: str | None) -> list[asyncio.Task[str | None]]:
    """Requests for these names."""
    return [asyncio.create_task(revisions.of(name)) for name in names]


async def results(tasks: Iterable[asyncio.Task[str | None]]) -> list[str | None]:
    """What was answered to each."""
    async with asyncio.timeout(30):
        return await asyncio.gather(*tasks)


def test_what_is_wanted_meanwhile_is_asked_together() -> None:
    """While a question is under way new ones wait, and are asked in one, each name once; none gets an older answer."""

    async def run() -> None:
        cache = Cache()
        revisions = Revisions(cache.revisions)
        first = want(revisions, "a")
        await asyncio.to_thread(cache.asked.acquire)
        later = want(revisions, "a", "b", "a", None)
        await asyncio.sleep(0)
        assert cache.questions == [{"a"}]
        for _ in range(2):
            cache.going.release()
        assert await results(first) == ["1"]
        assert await results(later) == ["2"] * 4
        assert cache.questions == [{"a"}, {"a", "b", None}]

    asyncio.run(run())


def test_a_cache_that_fails_has_no_answer() -> None:
    """Who asks a cache that fails goes without, and the next question is asked as ever."""

    async def run() -> None:
        is_failing = iter([True, False])

        def ask(_: Names) -> dict[str | None, str | None]:
            if next(is_failing):
                raise BackendUnavailable("the cache does not answer")
            return {"a": "1"}

        revisions = Revisions(ask)
        assert await results(want(revisions, "a")) == [None]
        assert await results(want(revisions, "a")) == ["1"]

    asyncio.run(run())


def test_who_goes_away_disturbs_nobody() -> None:
    """When one of those who wait together goes, the others get their answers."""

    async def run() -> None:
        cache = Cache()
        revisions = Revisions(cache.revisions)
        waiting = want(revisions, "a", "b")
        await asyncio.to_thread(cache.asked.acquire)
        waiting += want(revisions, "a", "b")
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[2].cancel()
        for _ in range(4):
            cache.going.release()
        assert all(await results([waiting[1], waiting[3]]))

    asyncio.run(run())
