"""A bucket in memory that tells what it was asked, and in which others are at work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pypicloud.dateutil import UTC
from pypicloud.storage.buckets import StoredObject
from support.memory_bucket import MemoryBucket, Service


class WatchedBucket(MemoryBucket):
    """A storage whose objects are put and taken by the test, as another server would."""

    def __init__(self, request: Any = None, *, service: Service | None = None, **kwargs: Any) -> None:
        super().__init__(request, service=service or Service(), **kwargs)
        self.asked: list[str] = []
        self.hook: Callable[[str], None] = lambda _: None

    def put(self, key: str, time: str = "2026-01-02", **metadata: str) -> None:
        """Make an object."""
        dashed = {name.replace("_", "-"): value for name, value in metadata.items()}
        at = datetime.fromisoformat(time).replace(tzinfo=UTC)
        self.service.objects[key] = StoredObject(key, 3, at, dashed, time), b"abc"

    def _head(self, key: str) -> StoredObject | None:
        self.asked.append(key)
        found = super()._head(key)
        self.hook(key)
        return found
