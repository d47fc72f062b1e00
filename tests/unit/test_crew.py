"""Threads that work through many things: how they share them, wait, give up and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pypicloud import crew
from pypicloud.crew import Crew, Pace, Patience, Stopped, Tally
from pypicloud.errors import BackendUnavailable


class Recorder:
    """Workers that note what they were given, and by which of them."""

    def __init__(self, work: Callable[[int], None] = lambda _: None) -> None:
        self.work = work
        self.made = 0
        self.seen: list[int] = []

    def make(self) -> Callable[[int], None]:
        """One more worker."""
        self.made += 1
        return self

    def __call__(self, number: int) -> None:
        self.work(number)
        self.seen.append(number)


def no_tick() -> None:
    """Nobody wants to know."""


def test_all_is_done_once() -> None:
    """Everything that the source gives is done exactly once, and each thread has a worker of its own."""
    recorder = Recorder()
    Crew(range(1000), recorder.make, 4).run(Patience(), no_tick)
    assert sorted(recorder.seen) == list(range(1000))
    assert recorder.made == 4


def test_the_source_is_not_read_ahead_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is ahead of the workers by as much as there is room for."""
    monkeypatch.setattr(crew, "ROOM", 5)
    monkeypatch.setattr(crew, "TICK", 0.0002)
    given: list[int] = []
    ahead: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            given.append(number)
            yield number

    def work(_: int) -> None:
        time.sleep(0.001)
        ahead.append(len(given))

    recorder = Recorder(work)
    Crew(source(), recorder.make, 1).run(Patience(), no_tick)
    assert max(count - done for done, count in enumerate(ahead)) <= 7
    assert len(recorder.seen) == 100


def test_several_at_a_time() -> None:
    """As many things are done at once as there are threads."""
    meeting = threading.Barrier(3, timeout=10)

    def work(_: int) -> None:
        meeting.wait()

    recorder = Recorder(work)
    Crew(range(3), recorder.make, 3).run(Patience(), no_tick)
    assert len(recorder.seen) == 3


def test_what_a_worker_raises() -> None:
    """What a worker raises ends the work, and is raised where the work was started."""

    def fail(number: int) -> None:
        if number == 3:
            raise ZeroDivisionError

    patience = Patience()
    with pytest.raises(ZeroDivisionError):
        Crew(range(10), Recorder(fail).make, 1).run(patience, no_tick)
    assert patience.is_over


def test_what_the_source_raises() -> None:
    """So does what the source raises."""

    def source() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Crew(source(), Recorder().make, 2).run(Patience(), no_tick)


def test_ctrl_c() -> None:
    """Ctrl-C lets each thread finish what it is at, and begin nothing more."""
    begun = threading.Event()

    def work(_: int) -> None:
        begun.set()
        time.sleep(0.05)

    def interrupt() -> None:
        assert begun.wait(10)
        raise KeyboardInterrupt

    recorder = Recorder(work)
    patience = Patience()
    with pytest.raises(KeyboardInterrupt):
        Crew(range(10_000), recorder.make, 2).run(patience, interrupt)
    assert patience.is_over
    assert 1 <= len(recorder.seen) < 100


def test_ticks() -> None:
    """Somebody is told now and then that the work goes on."""
    ticks: list[float] = []
    recorder = Recorder(lambda _: time.sleep(0.01))
    Crew(range(60), recorder.make, 1).run(Patience(), lambda: ticks.append(time.monotonic()))
    assert len(ticks) >= 2


def test_a_service_that_comes_back() -> None:
    """A job whose service is away for a while is tried again, and told how often it has failed."""
    tried: list[int] = []

    def job(failures: int) -> str:
        tried.append(failures)
        if failures < 3:
            raise BackendUnavailable("away")
        return "done"

    assert Patience(first_pause=0).keep_trying(job) == "done"
    assert tried == [0, 1, 2, 3]


def test_a_service_says_when_it_is_back() -> None:
    """The pause is as long as the service says, at least."""
    began = time.monotonic()

    def job(failures: int) -> None:
        if not failures:
            raise BackendUnavailable("away", retry_after=1)

    Patience(first_pause=0).keep_trying(job)
    assert time.monotonic() - began >= 1


def lost(_: int) -> None:
    """What fails for good."""
    raise BackendUnavailable("away")


def test_a_service_that_does_not_come_back() -> None:
    """When a service is away for many things in a row the rest is not even tried."""
    patience = Patience(attempts=2, first_pause=0)
    for _ in range(crew.LOST):
        assert not patience.is_over
        with pytest.raises(BackendUnavailable):
            patience.keep_trying(lost)
    assert patience.is_over
    assert str(patience.ended_by) == "away"
    with pytest.raises(Stopped):
        patience.keep_trying(lambda _: None)


def test_a_service_that_is_away_now_and_then() -> None:
    """One success, and the counting begins anew."""
    patience = Patience(attempts=1, first_pause=0)
    for _ in range(3):
        for _ in range(crew.LOST - 1):
            with pytest.raises(BackendUnavailable):
                patience.keep_trying(lost)
        patience.keep_trying(lambda _: None)
    assert not patience.is_over


def test_who_waits_is_woken() -> None:
    """The end of the work does not wait for a pause to end."""
    patience = Patience(first_pause=60)
    threading.Timer(0.05, patience.stop).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        patience.keep_trying(lost)
    assert time.monotonic() - began < 20


def test_pace() -> None:
    """Begun at a rate, each thing waits for its turn; at none, for nothing."""
    pace = Pace(10)
    pauses = [pace.pause() for _ in range(4)]
    assert pauses == [pytest.approx(number / 10, abs=0.05) for number in range(4)]
    unlimited = Pace(None)
    assert [unlimited.pause() for _ in range(4)] == [0] * 4


def test_tally() -> None:
    """A tally counts files, bytes and what became of them, from many threads."""
    tally = Tally()

    def work() -> None:
        for _ in range(500):
            tally.listed(3)
            tally.done("copied", 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.files_listed, tally.bytes_listed, tally.files_done, tally.bytes_done) == (2000, 6000, 2000, 4000)
    assert tally.outcomes == {"copied": 2000}
