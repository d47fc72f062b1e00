"""Credentials, the memory of verified ones, and the slowing of failures."""

from __future__ import annotations

import base64

import pytest

from pypicloud.access.base import IAccessBackend
from pypicloud.auth import (
    FREE_FAILURES,
    FREE_FAILURES_OF_ADDRESS,
    Authenticator,
    FailedLogins,
    VerifiedCredentials,
    parse_basic,
)
from pypicloud.errors import TooManyAttempts
from pypicloud.models import ANONYMOUS, Caller


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class CountingAccess(IAccessBackend):
    """An access backend of one user, which counts how often a password is really verified."""

    def __init__(self) -> None:
        super().__init__()
        self.password = "secret"
        self.verified = 0
        self.group = "one"
        self.rights: str | None = None

    def stored_hash(self, username: str) -> str | None:
        return f"hash of {self.password}" if username == "alice" else None

    def verify_user(self, username: str, password: str) -> bool:
        self.verified += 1
        return username == "alice" and password == self.password

    def caller(self, username: str | None) -> Caller:
        return Caller(username, frozenset({"system.Everyone", f"user:{username}", f"group:{self.group}"}))

    def revision(self) -> str | None:
        return self.rights


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic("alice", "se:cret"), ("alice", "se:cret")),
        ("basic " + base64.b64encode("zoë:pä".encode()).decode(), ("zoë", "pä")),
        (basic("", "token"), ("", "token")),
        (basic("token", ""), ("token", "")),
        (None, None),
        ("", None),
        ("Bearer abc", None),
        ("Basic", None),
        ("Basic !!!", None),
        ("Basic " + base64.b64encode(b"no colon").decode(), None),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(), None),
        ("Basic \u00e9", None),
        (basic("alice", "x" * 16384), None),
    ],
)
def test_only_sound_basic_credentials_count(header: str | None, expected: tuple[str, str] | None) -> None:
    """Whatever is not Basic, base64, UTF-8 with a colon leaves the caller anonymous (compat.md 5.1)."""
    assert parse_basic(header) == expected


def test_a_verified_login_is_not_hashed_again() -> None:
    """The second request of a caller costs no password hashing."""
    authenticator, access = Authenticator(), CountingAccess()
    for _ in range(3):
        assert authenticator.caller(basic("alice", "secret"), access, "1.2.3.4").user == "alice"
    assert access.verified == 1
    remembered = authenticator.remembered(basic("alice", "secret"), access)
    assert remembered is not None
    assert remembered.user == "alice"


def test_a_changed_password_misses_at_once() -> None:
    """The memory is keyed on the stored hash, too: the old password is worth nothing after a change."""
    authenticator, access = Authenticator(), CountingAccess()
    authenticator.caller(basic("alice", "secret"), access, "1.2.3.4")
    access.password = "new"
    assert authenticator.remembered(basic("alice", "secret"), access) is None
    assert authenticator.caller(basic("alice", "secret"), access, "1.2.3.4") is ANONYMOUS


def test_wrong_passwords_are_anonymous_and_never_remembered() -> None:
    """A failure is worked out every time."""
    authenticator, access = Authenticator(), CountingAccess()
    for turn in range(3):
        assert authenticator.caller(basic("alice", "wrong"), access, "1.2.3.4") is ANONYMOUS
        assert access.verified == turn + 1


def test_logins_of_different_split_are_different() -> None:
    """User ``a`` with ``bc`` is not user ``ab`` with ``c``."""
    verified = VerifiedCredentials()
    verified.remember("a", "bc", "h")
    assert verified.caller("a", "bc", "h", CountingAccess()) is not None
    assert verified.caller("ab", "c", "h", CountingAccess()) is None


def test_the_memory_forgets_the_oldest_logins() -> None:
    """It holds no more than its limit."""
    verified = VerifiedCredentials(limit=2)
    for name in "abc":
        verified.remember(name, "p", "h")
    known = [verified.caller(name, "p", "h", CountingAccess()) is not None for name in "abc"]
    assert known == [False, True, True]


@pytest.mark.parametrize("rights", [None, "1"])
def test_a_remembered_login_has_the_rights_of_now(rights: str | None) -> None:
    """What a user belongs to is kept while no right changes, and asked every time of who cannot tell."""
    verified, access = VerifiedCredentials(), CountingAccess()
    access.rights = rights
    verified.remember("alice", "secret", "h")
    assert "group:one" in getattr(verified.caller("alice", "secret", "h", access), "principals", ())
    access.group = "two"
    if rights is not None:
        assert "group:one" in getattr(verified.caller("alice", "secret", "h", access), "principals", ())
        access.rights = "2"
    assert "group:two" in getattr(verified.caller("alice", "secret", "h", access), "principals", ())


def test_failures_are_slowed_per_user_and_address() -> None:
    """After the free ones each failure doubles the wait; another address is not touched; success forgives."""
    now = 1000.0
    failures = FailedLogins(clock=lambda: now)
    for _ in range(FREE_FAILURES):
        failures.check("alice", "1.2.3.4")
        failures.note("alice", "1.2.3.4")
    with pytest.raises(TooManyAttempts, match="try again in 2 seconds") as caught:
        failures.check("alice", "1.2.3.4")
    assert caught.value.retry_after == 2
    failures.check("alice", "5.6.7.8")
    now += 1.5
    failures.check("alice", "1.2.3.4")
    failures.note("alice", "1.2.3.4")
    now += 1.5
    with pytest.raises(TooManyAttempts):
        failures.check("alice", "1.2.3.4")
    failures.forgive("alice", "1.2.3.4")
    failures.check("alice", "1.2.3.4")


def test_an_address_that_tries_many_users_is_slowed() -> None:
    """Guessing one password for many names does not get around the slowing."""
    failures = FailedLogins(clock=lambda: 0.0)
    for number in range(FREE_FAILURES_OF_ADDRESS):
        failures.note(f"user{number}", "1.2.3.4")
    with pytest.raises(TooManyAttempts):
        failures.check("another", "1.2.3.4")


def test_a_forgotten_job_only_ever_waits() -> None:
    """However many failures there were, the next attempt waits a minute, and is then looked at."""
    now = [0.0]
    failures = FailedLogins(clock=lambda: now[0])
    for _ in range(2000):
        now[0] += 61
        failures.check("alice", "192.0.2.1")
        failures.note("alice", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        failures.check("alice", "192.0.2.1")


def test_an_hour_without_a_failure_forgives() -> None:
    """The count starts again, so that a user who slips now and then is never locked out."""
    now = 0.0
    failures = FailedLogins(clock=lambda: now)
    for _ in range(FREE_FAILURES - 1):
        failures.note("alice", "1.2.3.4")
    now += FailedLogins.FORGIVEN_AFTER + 1
    failures.note("alice", "1.2.3.4")
    failures.note("alice", "1.2.3.4")
    failures.check("alice", "1.2.3.4")


def test_the_count_of_failures_is_bounded() -> None:
    """An attacker cannot fill the memory with invented names."""
    failures = FailedLogins(limit=10)
    for number in range(100):
        failures.note(f"user{number}", "1.2.3.4")
    assert len(failures._failures) == 10
