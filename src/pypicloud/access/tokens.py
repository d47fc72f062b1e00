"""Signup tokens: ``<user name>:<unix seconds>:<signature>`` (compat.md 4.8)."""

from __future__ import annotations

import hashlib
import hmac
import time


def _signature(key: str, username: str, issued: str) -> str:
    return hmac.new(key.encode(), f"{username}:{issued}".encode(), hashlib.sha256).hexdigest()


def issue(key: str, username: str, now: float | None = None) -> str:
    """A token that lets somebody register under this name, without waiting for an admin's approval.

    Raises ValueError for an empty name and for one with a colon, which no Basic credentials can carry.
    """
    if not username or ":" in username:
        raise ValueError(f"the user name {username!r} is empty or has a colon; choose another")
    issued = str(int(time.time() if now is None else now))
    return f"{username}:{issued}:{_signature(key, username, issued)}"


def check(key: str, token: str, lifetime: int, now: float | None = None) -> str | None:
    """The user name of a token that was signed with this key at most ``lifetime`` seconds ago, else None."""
    username, _, rest = token.partition(":")
    issued, _, signature = rest.partition(":")
    try:
        expected = _signature(key, username, issued)
        # Compared as bytes: compare_digest refuses text that is not ASCII, and a client may send any.
        is_ours = hmac.compare_digest(expected.encode(), signature.encode())
    except UnicodeEncodeError:
        return None
    if not is_ours or int(issued) + lifetime < (time.time() if now is None else now):
        return None
    return username
