"""Leases: taken, kept alive, and given back, on a service that is a dictionary."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pypicloud.cache import leases
from pypicloud.cache.leases import Leases
from pypicloud.errors import BackendUnavailable

LEASE = 0.15


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE", LEASE)


class Service:
    """Holders with the time at which their lease ends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders: dict[str, tuple[str, float]] = {}
        self.failures: list[Exception] = []
        self.renewals = 0

    def server(self) -> Leases:
        return Leases(self.claim, self.renew, self.release)

    def claim(self, key: str, token: str) -> Callable[[], bool]:
        return lambda: self.take(key, token)

    def take(self, key: str, token: str) -> bool:
        with self.lock:
            holder, end = self.holders.get(key, ("", 0.0))
            if holder not in {"", token} and time.monotonic() < end:
                return False
            self.holders[key] = (token, time.monotonic() + LEASE)
            return True

    def renew(self, key: str, token: str) -> bool:
        self.renewals += 1
        if self.failures:
            raise self.failures.pop()
        return self.take(key, token)

    def release(self, key: str, token: str) -> None:
        if self.failures:
            raise self.failures.pop()
        with self.lock:
            if self.holders.get(key, ("",))[0] == token:
                del self.holders[key]

    def is_held(self, key: str) -> bool:
        return not self.take(key, "somebody else")


@pytest.fixture
def service() -> Service:
    return Service()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_holders_of_one_key_take_turns(service: Service) -> None:
    """Only one server at a time holds the lease of a key, and each gets it in the end."""
    inside = []

    def work(_: int) -> int:
        with service.server().held("a"):
            inside.append(1)
            count = len(inside)
            time.sleep(0.002)
            inside.pop()
        return count

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(work, range(24))) == {1}


def test_other_keys_are_other_leases(service: Service) -> None:
    """Who holds one key does not keep others from another."""
    with service.server().held("a"), service.server().held("b"):
        assert service.is_held("a")
        assert service.is_held("b")


def test_a_lease_lasts_as_long_as_it_is_held(service: Service) -> None:
    """A lease is renewed while it is held, however long that is, and free afterwards."""
    server = service.server()
    with server.held("a"):
        wait_for(lambda: service.renewals >= 6)
        assert service.is_held("a")
    assert not service.is_held("a")


def test_nothing_is_renewed_that_is_not_held(service: Service) -> None:
    """When nothing is held any more the thread ends, and another begins with the next lease."""
    server = service.server()
    for count in (1, 2):
        with server.held("a"):
            wait_for(lambda count=count: service.renewals >= count)  # type: ignore[misc]  # bound now
        wait_for(lambda: server._thread is None)


def test_a_renewal_that_fails_is_repeated(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """After an error, of whatever kind, the lease is renewed the next time."""
    with service.server().held("a"):
        service.failures = [BackendUnavailable("it is away"), KeyError("a bug")]
        wait_for(lambda: service.renewals >= 3)
        assert service.is_held("a")
    assert caplog.text.count("The lock of a could not be renewed") == 2


def test_a_lease_that_was_lost_is_told(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """When another server has got the lease meanwhile, the log says so, and theirs is not touched."""
    with service.server().held("a"):
        service.holders["a"] = ("another", time.monotonic() + 60)
        wait_for(lambda: "lost to another server" in caplog.text)
    assert service.holders["a"][0] == "another"


def test_a_lease_that_cannot_be_given_back_ends_by_itself(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """What was done under the lease is done, though it could not be given back; others get it when it ends."""
    with caplog.at_level(logging.WARNING), service.server().held("a"):
        service.failures = [BackendUnavailable("it is away")]
    assert "was not given back" in caplog.text
    with service.server().held("a"):
        assert service.is_held("a")


def test_a_renewal_does_not_bring_back_what_was_given_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that is given back while it is being renewed does not stay."""
    renewing, given_back = threading.Event(), threading.Event()
    renew = service.renew

    def slow(key: str, token: str) -> bool:
        renewing.set()
        given_back.wait(30)
        return renew(key, token)

    monkeypatch.setattr(service, "renew", slow)
    server = service.server()
    with server.held("a"):
        renewing.wait(30)
    given_back.set()
    wait_for(lambda: server._thread is None)
    assert service.holders == {}


def test_a_fork_holds_nothing(service: Service) -> None:
    """After a fork the child renews nothing that its parent holds."""
    server = service.server()
    with server.held("a"):
        copy = service.server()
        copy.__dict__.update(server.__dict__)
        copy.after_fork()
        assert copy._held == {}
        assert copy._thread is None
