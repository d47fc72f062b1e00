"""Passwords made into hashes and checked against them: the only module that touches the hashing libraries.

They are imported at the first password, not at the start: a server that nobody logs in to does not pay for them.
"""

from __future__ import annotations

import collections
import functools
import logging
import sys
from typing import Any, Final

LOG: Final = logging.getLogger(__name__)

#: The formats that are made and checked (compat.md 4.3).
SCHEMES: Final = ("sha512_crypt", "sha256_crypt", "pbkdf2_sha512", "pbkdf2_sha256", "bcrypt", "argon2")

#: The rounds of each scheme unless ``auth.rounds`` says otherwise. For bcrypt the cost, for argon2 the passes.
DEFAULT_ROUNDS: Final = {
    "sha512_crypt": 20500,
    "sha256_crypt": 16000,
    "pbkdf2_sha512": 10500,
    "pbkdf2_sha256": 13000,
    "bcrypt": 7,
    "argon2": 1,
}

#: The fewest and the most rounds that each format can express.
ROUNDS_ALLOWED: Final = {
    "sha512_crypt": (1000, 999_999_999),
    "sha256_crypt": (1000, 999_999_999),
    "pbkdf2_sha512": (1, 2**32 - 1),
    "pbkdf2_sha256": (1, 2**32 - 1),
    "bcrypt": (4, 31),
    "argon2": (1, 2**32 - 1),
}

_BITS: Final = "512" if sys.maxsize > 2**32 else "256"
DEFAULT_SCHEME: Final = f"sha{_BITS}_crypt"
SCHEME_ALIASES: Final = {"sha": f"sha{_BITS}_crypt", "pbkdf2": f"pbkdf2_sha{_BITS}"}

#: What is stored as the hash of a user who has no password: nothing matches it.
MATCHES_NOTHING: Final = "!"

_BCRYPT: Final = ("$2a$", "$2b$", "$2y$")
_ARGON2: Final = ("$argon2id$", "$argon2i$", "$argon2d$")
_FORMS: Final = ("$6$", "$5$", "$pbkdf2-sha512$", "$pbkdf2-sha256$", *_BCRYPT, *_ARGON2)

#: bcrypt looks at no more bytes than these; the library refuses what it used to cut off.
_BCRYPT_BYTES: Final = 72

#: The last hash that was checked. The password of an unknown user is checked against it, so that the time of
#: the answer does not tell which names exist.
_recent: Final[collections.deque[str]] = collections.deque(maxlen=1)


class PasswordContext:
    """What hashes and verifies passwords: a passlib ``CryptContext`` that is made at its first use.

    Every other attribute of a ``CryptContext`` is passed through. Raises ValueError for a scheme that is
    not one of ``SCHEMES`` (or an alias), and for more rounds than the scheme can express; too few rounds
    are raised to the scheme's minimum.
    """

    def __init__(self, scheme: str | None = None, rounds: int | None = None) -> None:
        self.scheme = SCHEME_ALIASES.get(scheme, scheme) if scheme else DEFAULT_SCHEME
        if self.scheme not in SCHEMES:
            raise ValueError(f"{scheme!r} is not a password scheme; it must be one of {', '.join(SCHEMES)}")
        lowest, highest = ROUNDS_ALLOWED[self.scheme]
        self.rounds = max(rounds or DEFAULT_ROUNDS[self.scheme], lowest)
        if self.rounds > highest:
            raise ValueError(f"must not be more than {highest} for {self.scheme}")

    @functools.cached_property
    def _context(self) -> Any:
        from passlib.context import CryptContext

        rounds = {**DEFAULT_ROUNDS, self.scheme: self.rounds}
        options = {f"{scheme}__default_rounds": number for scheme, number in rounds.items()}
        return CryptContext(schemes=SCHEMES, default=self.scheme, **options)

    def hash(self, secret: str | bytes) -> str:
        """The hash of a password, with a new salt. Raises ValueError if it cannot be one: too long, a null byte."""
        data = _encoded(secret) if isinstance(secret, str) else secret
        if self.scheme == "bcrypt":
            data = data[:_BCRYPT_BYTES]
        return str(self._context.hash(data))

    def verify(self, secret: str | bytes, hash: str) -> bool:  # noqa: A002 - as passlib names it
        """Whether the hash is of this password. Raises ValueError if the hash is in no known format."""
        data = _encoded(secret) if isinstance(secret, str) else secret
        if hash.startswith(_BCRYPT):
            data = data[:_BCRYPT_BYTES]
        return bool(self._context.verify(data, hash))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._context, name)


def _encoded(password: str) -> bytes:
    """The bytes of a password. Raises ValueError for broken text and for null bytes.

    Half of the schemes refuse null bytes, and to the others ``pw`` and ``pw`` with a null byte are the same.
    """
    if "\x00" in password:
        raise ValueError("a password cannot have null bytes")
    return password.encode()


def get_pwd_context(preferred_hash: str | None = None, rounds: int | None = None) -> PasswordContext:
    """Create a passlib context for hashing passwords, all six formats included."""
    return PasswordContext(preferred_hash, rounds)


@functools.cache
def default_context() -> PasswordContext:
    """The context of a backend that was given none."""
    return PasswordContext()


def is_hash(text: str) -> bool:
    """Whether a text has the form of a hash that can be checked."""
    return text.startswith(_FORMS)


def hash(password: str, scheme: str | None = None, rounds: int | None = None) -> str:  # noqa: A001 - read as passwords.hash
    """The hash of a password, with a new salt. Raises ValueError as :class:`PasswordContext` does."""
    return PasswordContext(scheme, rounds).hash(password)


def verify(password: str, stored: str | None, *, user: str | None = None, context: Any = None) -> bool:
    """Whether the stored hash is of this password; never raises.

    ``stored`` is None for a user who does not exist: that takes as long as a wrong password. A stored text
    that is not a hash matches nothing, and is logged with the ``user`` it belongs to.
    """
    from passlib.exc import PasswordSizeError

    context = default_context() if context is None else context
    try:
        secret = _encoded(password)
    except ValueError:
        return False
    if not stored or stored == MATCHES_NOTHING:
        _take_as_long(secret, context)
        return False
    try:
        matches = bool(context.verify(secret, stored))
    except PasswordSizeError:
        return False
    except (TypeError, ValueError):
        LOG.warning("What is stored as the password of user %r is not a hash that can be checked; login refused", user)
        _take_as_long(secret, context)
        return False
    _recent.append(stored)
    return matches


def _take_as_long(secret: bytes, context: Any) -> None:
    """Spend the time that checking a password takes."""
    try:
        context.verify(secret, _recent[-1])
    except IndexError:
        context.dummy_verify()
    except ValueError:
        # The password itself cannot be checked (it is too long), which is as quick for a user who exists.
        return
