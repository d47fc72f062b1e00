"""A bucket in memory, of which only what is asked about one object can be had."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from pypicloud.dateutil import UTC
from pypicloud.errors import BackendUnavailable
from pypicloud.settings import EnvironSettings
from pypicloud.storage.buckets import BucketStorage, StoredObject
from pypicloud.storage.object_facts import Notation


class MemoryBucket(BucketStorage):
    """A storage whose objects are put and taken by the test, as another server would."""

    notation: ClassVar[Notation] = Notation("-", is_ascii=True, limit=2048)

    def __init__(self, request: Any = None, *, objects: dict[str, StoredObject], **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.objects = objects
        self.asked: list[str] = []
        self.is_down = False
        self.hook: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """A bucket of its own, with nothing in it."""
        return {**super().configure(settings), "objects": {}}

    def put(self, key: str, time: str = "2026-01-02", **metadata: str) -> None:
        """Make an object."""
        at = datetime.fromisoformat(time).replace(tzinfo=UTC)
        self.objects[key] = StoredObject(key, 3, at, _dashed(metadata), time)

    def _head(self, key: str) -> StoredObject | None:
        with self._lock:
            self.asked.append(key)
        if self.is_down:
            raise BackendUnavailable("the bucket does not answer")
        found = self.objects.get(key)
        self.hook(key)
        return found

    def _objects(self) -> Iterable[StoredObject]:  # type: ignore[override]  # any iterable will do here
        return [self.objects[key] for key in sorted(self.objects)]

    def _remove(self, key: str) -> None:
        self.objects.pop(key, None)

    def _keys(self, prefix: str) -> Iterable[str]:
        return [key for key in self.objects if key.startswith(prefix)]


def _dashed(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in metadata.items()}
