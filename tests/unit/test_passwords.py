"""Passwords are hashed and checked in the six formats of 1.3.12, whatever is sent and whatever is stored."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pypicloud.access import DEFAULT_ROUNDS, SCHEMES, get_pwd_context, passwords

#: Hashes of the password ``pw`` that 1.3.12 made (compat.md 4.3), and older forms of bcrypt and argon2.
VECTORS = {
    "sha512_crypt": "$6$rounds=20500$YX0A79.IwZPg2/Do$UTAfrq0JL5YLpCYRm2RUEUdaCnaSNoeyzl4yYM89MnIYQuTPUN9naFAc0DFO/Kq5"
    "Erj2ZugKtH82QGQ9I4JCl1",
    "sha256_crypt": "$5$rounds=16000$tGL3JdNJlYBKj4EM$Pk36IdI6DIuO8edmc5Sa2/16j4CbwDT7weSzB6sPx.7",
    "pbkdf2_sha512": "$pbkdf2-sha512$10500$Pae0NqZ0rjXGWAuBMIYQYg$e8TZ6EjkCf7arVkNwV/4k53H1nR9ZNa8BTaynoO/IBeS462mFdr"
    "SWvmIaat9fITCx7LG70kT6ILnwxLauCSnPA",
    "pbkdf2_sha256": "$pbkdf2-sha256$13000$BkAIIUQIwVgLYax1rhVCyA$wjgHM8hCiWX7.d4uYhRHurxmii1IEojBR7rlU9AXAec",
    "bcrypt": "$2b$07$wekgWyQSs6KJoHIsJo/GUeoIYurvAnoYBJfogSBBeiu/6Byf0M2Kq",
    "argon2": "$argon2id$v=19$m=65536,t=1,p=4$8H5v7R0DoJSScg7h/B9D6A$TmnzGdlC/KCEV/PBn8DPWScpBmEu/21wC5Cu+A6vGgg",
}


@pytest.fixture(autouse=True)
def _nothing_checked_yet() -> None:
    """Forget the hash that was checked last."""
    passwords._recent.clear()


class Recorder:
    """A password context of a plug-in's own, which counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dummies = 0

    def verify(self, secret: bytes, stored: str) -> bool:
        """Whether what is stored is the made-up hash of the password."""
        self.asked.append(stored)
        if not stored.startswith("hash of "):
            raise ValueError("no hash of mine")
        return stored == f"hash of {secret.decode()}"

    def dummy_verify(self) -> bool:
        """Take as long as verify does."""
        self.dummies += 1
        return False


@pytest.mark.parametrize("scheme", SCHEMES)
def test_hashes_of_the_original(scheme: str) -> None:
    """A hash that 1.3.12 made verifies its password and no other, whatever scheme is configured."""
    for context in (None, get_pwd_context("pbkdf2_sha256")):
        assert passwords.verify("pw", VECTORS[scheme], context=context) is True
        assert passwords.verify("pw2", VECTORS[scheme], context=context) is False
        assert passwords.verify("", VECTORS[scheme], context=context) is False


@pytest.mark.parametrize("form", ["$2a$", "$2y$"])
def test_older_forms_of_bcrypt(form: str) -> None:
    """Hashes with the older marks of bcrypt verify, too."""
    assert passwords.verify("pw", VECTORS["bcrypt"].replace("$2b$", form)) is True


@pytest.mark.parametrize("scheme", SCHEMES)
def test_new_hashes_have_the_form_of_the_original(scheme: str) -> None:
    """A new hash has the rounds of 1.3.12 written in the same way, and verifies."""
    stored = passwords.hash("pässword", scheme)
    start = VECTORS[scheme][: VECTORS[scheme].index("$", 4)]
    assert stored.startswith(start)
    assert len(stored) == len(VECTORS[scheme])
    assert passwords.is_hash(stored)
    assert passwords.verify("pässword", stored) is True
    assert passwords.verify("password", stored) is False
    assert passwords.hash("pässword", scheme) != stored


@pytest.mark.parametrize(
    ("scheme", "rounds", "start"),
    [
        ("sha512_crypt", 1, "$6$rounds=1000$"),
        ("sha256_crypt", 999, "$5$rounds=1000$"),
        ("sha512_crypt", 5000, "$6$"),
        ("sha256_crypt", 1234, "$5$rounds=1234$"),
        ("pbkdf2_sha512", -5, "$pbkdf2-sha512$1$"),
        ("pbkdf2_sha256", 7, "$pbkdf2-sha256$7$"),
        ("bcrypt", 1, "$2b$04$"),
        ("argon2", 2, "$argon2id$v=19$m=65536,t=2,p=4$"),
        ("pbkdf2", None, "$pbkdf2-sha512$10500$"),
        ("sha", None, "$6$rounds=20500$"),
        (None, None, "$6$rounds=20500$"),
    ],
)
def test_rounds_and_aliases(scheme: str | None, rounds: int | None, start: str) -> None:
    """Rounds below the scheme's minimum are raised to it, without a warning; aliases are known."""
    stored = passwords.hash("pw", scheme, rounds)
    assert stored.startswith(start)
    assert passwords.verify("pw", stored)


@pytest.mark.parametrize(
    ("scheme", "rounds"), [("md5_crypt", None), ("SHA512_CRYPT", None), ("bcrypt", 32), ("argon2", 2**32)]
)
def test_unusable_schemes_and_rounds(scheme: str, rounds: int | None) -> None:
    """Another scheme, and more rounds than a scheme can express, are refused before anything is hashed."""
    with pytest.raises(ValueError, match=r"must"):
        get_pwd_context(scheme, rounds)


def test_every_scheme_has_rounds() -> None:
    """Each scheme has default rounds, and they are within what the scheme allows."""
    assert set(DEFAULT_ROUNDS) == set(SCHEMES) == set(passwords.ROUNDS_ALLOWED)
    for scheme, (lowest, highest) in passwords.ROUNDS_ALLOWED.items():
        assert lowest <= DEFAULT_ROUNDS[scheme] <= highest


def test_long_passwords_with_bcrypt() -> None:
    """With bcrypt 72 bytes count, as before: what follows is ignored in making and in checking a hash."""
    long = "é" * 36
    stored = passwords.hash(long + "tail", "bcrypt", 4)
    assert passwords.verify(long + "tail", stored) is True
    assert passwords.verify(long + "other tail", stored) is True
    assert passwords.verify(long, stored) is True
    assert passwords.verify("é" * 35, stored) is False
    assert get_pwd_context("bcrypt", 4).verify(long + "tail", stored) is True


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("password", ["\x00", "pw\x00", "\ud800", "x" * 5000, "pw" * 100])
def test_passwords_that_cannot_be(scheme: str, password: str, caplog: pytest.LogCaptureFixture) -> None:
    """Null bytes, broken text and endless passwords are wrong passwords, and no oddity of what is stored."""
    assert passwords.verify(password, VECTORS[scheme], user="bob") is False
    assert caplog.messages == []


@pytest.mark.parametrize(
    "stored",
    [
        "in plain text",
        "pw",
        "$1$salt$hash",
        "$6$",
        "$6$rounds=20500$YX0A79.IwZPg2/Do$short",
        "$2b$99$x",
        "$argon2id$",
        "{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=",
        "é",
        " " + VECTORS["bcrypt"],
    ],
)
def test_what_is_no_hash_matches_nothing(stored: str, caplog: pytest.LogCaptureFixture) -> None:
    """A stored text that is no hash matches no password, itself included; the log names the user, never the text."""
    for password in ("pw", stored, ""):
        caplog.clear()
        assert passwords.verify(password, stored, user="bob") is False
        assert len(caplog.messages) == 1
        assert "'bob'" in caplog.text
        assert stored not in caplog.text.replace("passwords.py", "")


@pytest.mark.parametrize("stored", [None, "", passwords.MATCHES_NOTHING])
def test_nobody_matches_nothing(stored: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Without a stored hash no password is right, and nothing is logged."""
    for password in ("pw", "", passwords.MATCHES_NOTHING, "\x00", "x" * 5000):
        assert passwords.verify(password, stored, user="nobody") is False
    assert caplog.messages == []


def test_unknown_users_take_as_long() -> None:
    """The password of an unknown user is checked, too: against the last known hash, at first against a dummy."""
    context = Recorder()
    assert passwords.verify("pw", None, context=context) is False
    assert (context.asked, context.dummies) == ([], 1)
    assert passwords.verify("pw", "hash of pw", context=context) is True
    assert passwords.verify("pw", None, context=context) is False
    assert (context.asked, context.dummies) == (["hash of pw", "hash of pw"], 1)


def test_long_passwords_of_unknown_users() -> None:
    """A password that is too long for any hash is refused for an unknown user, too."""
    assert passwords.verify("pw", VECTORS["pbkdf2_sha256"]) is True
    assert passwords.verify("x" * 5000, None) is False


def test_unusable_hashes_take_as_long() -> None:
    """A user whose stored password is no hash is not told by the time of the answer, nor remembered as typical."""
    context = Recorder()
    assert passwords.verify("pw", "hash of pw", context=context) is True
    assert passwords.verify("pw", "plain", context=context) is False
    assert passwords.verify("pw", None, context=context) is False
    assert context.asked == ["hash of pw", "plain", "hash of pw", "hash of pw"]


def test_context_is_a_passlib_context() -> None:
    """What get_pwd_context gives has the other methods of a passlib context, and no private ones."""
    context: Any = get_pwd_context("pbkdf2_sha256", 10)
    assert context.identify(VECTORS["bcrypt"]) == "bcrypt"
    assert context.default_scheme() == "pbkdf2_sha256"
    assert context.verify("pw", context.hash("pw")) is True
    assert context.verify(b"pw", context.hash(b"pw")) is True
    with pytest.raises(ValueError, match="hash"):
        context.verify("pw", "in plain text")
    with pytest.raises(AttributeError):
        _ = context._no_such_thing


def test_nothing_is_imported_before_the_first_password() -> None:
    """Starting with a configured backend imports no hashing library."""
    program = (
        "import sys\n"
        "from pypicloud.access import ConfigAccessBackend\n"
        "from pypicloud.settings import EnvironSettings\n"
        "access = ConfigAccessBackend(None, **ConfigAccessBackend.configure(EnvironSettings({}, {})))\n"
        "access.permits(access.caller('bob'), 'p', 'read')\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'passlib', 'bcrypt', 'argon2', 'pyramid', 'webob'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
