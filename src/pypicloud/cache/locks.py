"""Locks by key among the threads of a process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Lock:
    __slots__ = ("__weakref__", "depth", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.depth = 0


#: The locks that somebody holds or waits for; one that nobody does disappears by itself.
_LOCKS: Final[WeakValueDictionary[str, _Lock]] = WeakValueDictionary()
_GUARD: Final = threading.Lock()


@contextmanager
def held(key: str) -> Iterator[bool]:
    """Keeps the other threads out; says whether this one has come in just now, or held the lock already."""
    with _GUARD:
        found = _LOCKS.setdefault(key, _Lock())
    with found.lock:
        found.depth += 1
        try:
            yield found.depth == 1
        finally:
            found.depth -= 1
