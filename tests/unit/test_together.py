"""Work in one go for many threads: each gets its own answer, none is too old, and nobody waits for ever."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pypicloud.cache.saver import Saver
from pypicloud.crew import Crew, Patience
from pypicloud.errors import BackendUnavailable, InvalidUpload
from pypicloud.models import Package
from pypicloud.revisions import asked_together
from pypicloud.testing.memory_cache import MemoryCache
from pypicloud.together import Together


class Work:
    """Answers with the number of the go and the thing, when it is told to."""

    def __init__(self) -> None:
        self.goes: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.going = threading.Semaphore(0)
        self.error: BaseException | None = None

    def __call__(self, things: Sequence[str]) -> list[str]:
        """One go."""
        self.goes.append(list(things))
        number = len(self.goes)
        self.begun.release()
        assert self.going.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        return [f"{number}{thing}" for thing in things]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once something is so."""
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_what_comes_meanwhile_is_done_in_one_go() -> None:
    """What is wanted while one thread is at work is done next, together, and each thread gets its own answer."""
    work = Work()
    together = Together(work)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(together, "a")
        assert work.begun.acquire(timeout=30)
        later = [pool.submit(together, each) for each in "abcd"]
        # There is no sign from outside that all of them wait.
        wait_until(lambda: len(together._waiting) == 4)
        assert work.goes == [["a"]]
        work.going.release(2)
        assert first.result(30) == "1a"
        # Not even the same thing gets the answer of a go that had begun before it was wanted.
        assert [each.result(30) for each in later] == ["2a", "2b", "2c", "2d"]
    assert [sorted(go) for go in work.goes] == [["a"], ["a", "b", "c", "d"]]


def test_an_error_is_for_all_in_the_go() -> None:
    """What the work raises is raised in each thread that it was for, each with the same traceback; then it goes on."""
    work = Work()
    together = Together(work)
    with ThreadPoolExecutor(8) as pool:
        work.error = BackendUnavailable("away")
        first = pool.submit(together, "a")
        assert work.begun.acquire(timeout=30)
        later = [pool.submit(together, each) for each in "bcd"]
        wait_until(lambda: len(together._waiting) == 3)
        work.going.release(2)
        found = [each.exception(30) for each in (first, *later)]
        assert found == [work.error] * 4
        assert len(traceback.format_exception(work.error)) < 12
        work.error = None
        work.going.release()
        assert pool.submit(together, "e").result(30) == "3e"


def test_a_thread_that_is_ended_at_work() -> None:
    """If whoever does the work is ended, only that thread ends; the others are told to try again, and it goes on."""
    work = Work()
    together = Together(work)
    with ThreadPoolExecutor(8) as pool:
        work.error = SystemExit(3)
        first = pool.submit(together, "a")
        assert work.begun.acquire(timeout=30)
        later = [pool.submit(together, each) for each in "bc"]
        wait_until(lambda: len(together._waiting) == 2)
        work.going.release(2)
        assert first.exception(30) is work.error
        found = [each.exception(30) for each in later]
        assert sorted(map(type, found), key=str) == sorted([SystemExit, BackendUnavailable], key=str)
        work.error = None
        work.going.release()
        assert pool.submit(together, "e").result(30) == "3e"


def test_a_thread_that_is_ended_while_it_waits() -> None:
    """A thread that is interrupted while it waits gets no turn, and holds nobody up."""
    work = Work()
    together = Together(work)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(together, "a")
        assert work.begun.acquire(timeout=30)

        waiting = threading.get_ident()

        def interrupt() -> None:
            wait_until(lambda: len(together._waiting) == 1)
            signal.pthread_kill(waiting, signal.SIGINT)

        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            together("b")
        work.going.release(2)
        assert first.result(30) == "1a"
        assert pool.submit(together, "c").result(30) == "2c"
    assert work.goes == [["a"], ["c"]]


def test_many_threads() -> None:
    """Threads that want something again and again get what they asked for, in fewer goes than there are questions."""
    goes: list[int] = []

    def double(numbers: Sequence[int]) -> list[int]:
        goes.append(len(numbers))
        time.sleep(0.0005)
        return [2 * number for number in numbers]

    together = Together(double)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(together, range(800))) == [2 * number for number in range(800)]
    assert sum(goes) == 800
    assert len(goes) < 800


def test_revisions_in_threads() -> None:
    """A revision is asked for once, however many threads want it at the same time."""
    asked: list[set[str | None]] = []
    going = threading.Event()

    def ask(names: set[str | None]) -> dict[str | None, str | None]:
        asked.append(set(names))
        assert going.wait(30)
        return {name: f"of {name}" for name in names}

    revision = asked_together(ask)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(revision, name) for name in ("a", "b", None, "b", None)]
        going.set()
        assert [each.result(30) for each in found] == ["of a", "of b", "of None", "of b", "of None"]
    assert all(asked)


def no_tick() -> None:
    """Nobody wants to know."""


class SlowCache(MemoryCache):
    """A cache that takes its time for each write, and can be out of order."""

    writes: int = 0
    is_down: bool = False

    def save_all(self, packages: object) -> None:
        """Save them."""
        assert isinstance(packages, list)
        self.writes += 1
        time.sleep(0.02)
        if self.is_down:
            raise BackendUnavailable("away")
        super().save_all(packages)


def test_saving_together() -> None:
    """What comes in during one write goes into the next, and whoever comes back has been saved."""
    cache = SlowCache()
    saver = Saver(cache)
    missed: list[str] = []

    def work(number: int) -> None:
        package = Package("acme", f"{number}", f"acme-{number}.tar.gz")
        saver.save(package)
        if cache.fetch(package.filename) is None:
            missed.append(package.filename)

    Crew(range(64), lambda: work, 16).run(Patience(), no_tick)
    assert missed == []
    assert len(cache.all("acme")) == 64
    assert cache.writes < 64


class ChoosyCache(SlowCache):
    """A cache that cannot keep everything, and writes nothing at all of what holds such a thing."""

    def check_facts(self, package: Package) -> None:
        """Refuse a package."""
        if package.name == "bad":
            raise InvalidUpload("too long")

    def save_all(self, packages: object) -> None:
        """Save them."""
        assert isinstance(packages, list)
        for package in packages:
            self.check_facts(package)
        super().save_all(packages)


def test_saving_what_cannot_be_kept() -> None:
    """A package that the cache cannot keep does not fail those that are saved at the same moment."""
    cache = ChoosyCache()
    saver = Saver(cache)
    refused: list[str] = []

    def work(number: int) -> None:
        name = "acme" if number % 8 else "bad"
        try:
            saver.save(Package(name, f"{number}", f"{name}-{number}.tar.gz"))
        except InvalidUpload:
            refused.append(name)

    Crew(range(16), lambda: work, 16).run(Patience(), no_tick)
    assert refused == ["bad", "bad"]
    assert cache.distinct() == ["acme"]
    assert len(cache.all("acme")) == 14


def test_saving_that_fails() -> None:
    """What the cache raises is raised to all whose packages were in that write, and the next write goes on."""
    cache = SlowCache()
    saver = Saver(cache)
    cache.is_down = True
    with pytest.raises(BackendUnavailable):
        saver.save(Package("acme", "1", "acme-1.tar.gz"))
    cache.is_down = False
    saver.save(Package("acme", "2", "acme-2.tar.gz"))
    assert [package.version for package in cache.all("acme")] == ["2"]
