"""Who asks: Basic credentials -> Caller.

Clients send Basic credentials with every request, and a password hash is slow on purpose. So a login
that was verified is remembered, keyed by user, password **and stored hash**: a password that is changed
or removed misses at once. Failures are never remembered, but they are slowed, per user and address.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pypicloud.errors import TooManyAttempts
from pypicloud.models import ANONYMOUS, Caller
from pypicloud.settings import LINE, Setting

if TYPE_CHECKING:
    from pypicloud.access.base import IAccessBackend

REALM: Final = Setting("pypi.realm", LINE, "pypi", "The realm of HTTP Basic authentication, shown by some clients.")
SETTINGS: Final = (REALM,)

#: How many logins a process remembers; one costs about 100 bytes.
REMEMBERED: Final = 65536

#: Wrong passwords a user may type from one address before the next is slowed, and for any user together.
FREE_FAILURES: Final = 10
FREE_FAILURES_OF_ADDRESS: Final = 100
LONGEST_DELAY: Final = 60.0

#: Behind a proxy that is not trusted all clients have one address: together they are slowed, never locked out.
LONGEST_DELAY_OF_ADDRESS: Final = 1.0

#: The longest ``Authorization`` header that is looked at; what is longer holds no password that could be checked.
LONGEST_HEADER: Final = 16384


def parse_basic(header: str | None) -> tuple[str, str] | None:
    """User and password of an ``Authorization`` header.

    None for everything else: another scheme, broken base64, no colon, bytes that are not UTF-8, more than
    ``LONGEST_HEADER`` characters. Such a caller is anonymous (compat.md 5.1).
    """
    if header is None or len(header) > LONGEST_HEADER or header[:6].lower() != "basic ":
        return None
    return _parsed(header)


@functools.lru_cache(maxsize=1024)
def _parsed(header: str) -> tuple[str, str] | None:
    try:
        user, colon, password = base64.b64decode(header[6:].strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def get_basicauth_credentials(request: Any) -> dict[str, str] | None:
    """The ``login`` and ``password`` of a request's Basic credentials."""
    found = parse_basic(request.headers.get("Authorization"))
    return None if found is None else {"login": found[0], "password": found[1]}


class VerifiedCredentials:
    """Logins that were verified, as keyed hashes: neither user nor password can be read out of it."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[str | None, Caller] | None] = OrderedDict()

    def _mark(self, user: str, password: str, stored_hash: str) -> bytes:
        text = f"{len(user)}:{user}{len(password)}:{password}{stored_hash}"
        return hashlib.blake2b(text.encode(errors="surrogatepass"), key=self._key, digest_size=16).digest()

    def caller(self, user: str, password: str, stored_hash: str, access: IAccessBackend) -> Caller | None:
        """Who this is, if exactly this login was verified before, against exactly this stored hash; else None.

        What the user belongs to is asked again whenever a right has changed, or if the backend cannot tell.
        """
        mark = self._mark(user, password, stored_hash)
        try:
            kept = self._known[mark]
        except KeyError:
            return None
        rights = access.revision()
        if rights is not None and kept is not None and kept[0] == rights:
            return kept[1]
        caller = access.caller(user)
        self._known[mark] = (rights, caller)
        return caller

    def remember(self, user: str, password: str, stored_hash: str) -> None:
        """Keep a login that was verified just now."""
        self._known[self._mark(user, password, stored_hash)] = None
        while len(self._known) > self._limit:
            self._known.popitem(last=False)


class FailedLogins:
    """Counts failures and says how long the next attempt must wait; an hour without one forgives all."""

    FORGIVEN_AFTER: Final = 3600.0

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = 16384) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, ...], tuple[int, float]] = OrderedDict()

    def check(self, user: str, address: str) -> None:
        """Raise :class:`TooManyAttempts` while the user, at this address, or the address has to wait."""
        wait = max(
            self._wait((user, address), FREE_FAILURES, LONGEST_DELAY),
            self._wait((address,), FREE_FAILURES_OF_ADDRESS, LONGEST_DELAY_OF_ADDRESS),
        )
        if wait > 0:
            seconds = int(wait) + 1
            raise TooManyAttempts(f"too many failed logins; try again in {seconds} seconds", seconds)

    def _wait(self, key: tuple[str, ...], free: int, longest: float) -> float:
        count, last = self._failures.get(key, (0, 0.0))
        over = count - free
        # A power of a thousand, which a forgotten job reaches in a day, is more than a float holds.
        return 0.0 if over < 0 else last + min(2.0 ** min(over, 10), longest) - self._clock()

    def note(self, user: str, address: str) -> None:
        """Count a failure."""
        now = self._clock()
        with self._lock:
            for key in ((user, address), (address,)):
                count, last = self._failures.pop(key, (0, now))
                self._failures[key] = (1 if now - last > self.FORGIVEN_AFTER else count + 1, now)
            while len(self._failures) > self._limit:
                self._failures.popitem(last=False)

    def forgive(self, user: str, address: str) -> None:
        """Forget the user's failures at an address, after the right password."""
        with self._lock:
            self._failures.pop((user, address), None)


class Authenticator:
    """Turns an ``Authorization`` header into a Caller; one for each process, shared by its threads."""

    def __init__(self) -> None:
        self.verified = VerifiedCredentials()
        self.failures = FailedLogins()

    def remembered(self, header: str | None, access: IAccessBackend) -> Caller | None:
        """The caller, if that takes no password hashing; else None.

        This is all that is asked on the event loop: no header, or a login that was verified before.
        """
        credentials = parse_basic(header)
        if credentials is None:
            return ANONYMOUS
        stored = access.stored_hash(credentials[0])
        return None if stored is None else self.verified.caller(*credentials, stored, access)

    def caller(self, header: str | None, access: IAccessBackend, address: str) -> Caller:
        """The caller. Wrong credentials give the anonymous one, as no credentials do (compat.md 5.1).

        Raises :class:`TooManyAttempts` for who failed too often.
        """
        found = self.remembered(header, access)
        if found is not None:
            return found
        credentials = parse_basic(header)
        if credentials is None:
            return ANONYMOUS
        user, password = credentials
        self.failures.check(user, address)
        stored = access.stored_hash(user)
        if not access.verify_user(user, password):
            self.failures.note(user, address)
            return ANONYMOUS
        self.failures.forgive(user, address)
        if stored is not None:
            self.verified.remember(user, password, stored)
        return access.caller(user)


class PypicloudSecurityPolicy:
    """Pyramid's view of the caller. Rights on projects are the index's business; here is only who is admin."""

    def identity(self, request: Any) -> Caller:
        """The caller, anonymous included."""
        caller: Caller = request.caller
        return caller

    def authenticated_userid(self, request: Any) -> str | None:
        """The user's name; None for the anonymous caller."""
        return self.identity(request).user

    def permits(self, request: Any, context: Any, permission: str) -> bool:
        """Whether the caller may use a view that is declared with a permission (``pypicloud.route``)."""
        caller = self.identity(request)
        if permission == "admin":
            return caller.is_admin
        name = getattr(context, "name", None)
        return name is not None and request.access.permits(caller, name, permission)

    def remember(self, request: Any, userid: str, **kw: Any) -> list[tuple[str, str]]:
        """No headers: Basic credentials come with every request."""
        return []

    def forget(self, request: Any, **kw: Any) -> list[tuple[str, str]]:
        """No headers: there is nothing on the client to forget."""
        return []
