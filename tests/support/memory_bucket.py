"""A bucket in memory: what object stores have in common, on a service that can be interrupted anywhere."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, ClassVar
from urllib.parse import quote

from pypicloud.dateutil import utcnow
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import not_stored
from pypicloud.storage.buckets import BucketStorage, Condition, StoredObject, exists
from pypicloud.storage.object_facts import Notation


class Killed(BaseException):
    """The process ends here; nothing of it can be caught."""


class Part(io.BytesIO):
    """Some bytes of an object that has ``total`` of them; as from a socket, nobody can go back in them."""

    def __init__(self, content: bytes, total: int) -> None:
        super().__init__(content)
        self.total = total

    def seekable(self) -> bool:
        """No."""
        return False


class Service:
    """The objects, with their bytes; the ``stop_before``-th change is never made."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[StoredObject, bytes]] = {}
        self.changing = threading.Lock()
        self.states = itertools.count(1)
        self.changes = 0
        self.stop_before: int | None = None
        self.is_down = False

    def answer(self) -> None:
        """Be there, or not."""
        if self.is_down:
            raise BackendUnavailable("the bucket is not there at the moment")

    def change(self) -> None:
        """Count a change that is about to be made."""
        self.answer()
        self.changes += 1
        if self.stop_before is not None and self.changes >= self.stop_before:
            # Whatever comes after is not done either: the process is gone.
            raise Killed


class MemoryBucket(BucketStorage):
    """Keeps package files in a :class:`Service`."""

    notation: ClassVar[Notation] = Notation("-", is_ascii=True, limit=2048)
    longest_expiry: ClassVar[int | None] = 604800

    def __init__(self, request: Any = None, *, service: Service, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.service = service

    @classmethod
    def _subclass_specific_config(cls, settings: EnvironSettings, common_config: dict[str, Any]) -> dict[str, Any]:
        return {"service": Service()}

    def _objects(self) -> Iterator[StoredObject]:
        self.service.answer()
        return (found for key, (found, _) in sorted(self.service.objects.items()) if key.startswith(self.bucket_prefix))

    def _head(self, key: str) -> StoredObject | None:
        self.service.answer()
        return self.service.objects[key][0] if key in self.service.objects else None

    @contextlib.contextmanager
    def _read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        self.service.answer()
        if key not in self.service.objects:
            raise not_stored(Package("x", "0", key.rpartition("/")[2]))
        content = self.service.objects[key][1]
        with Part(content[start:stop], len(content)) as stream:
            yield stream

    def _write(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], condition: Condition | str
    ) -> None:
        content = stream.read()
        assert len(content) == size
        with self.service.changing:
            self.service.change()
            self._check(key, condition)
            self._put_object(key, content, metadata, utcnow())

    def _check(self, key: str, condition: Condition | str) -> None:
        found = self._head(key)
        state = Condition.ABSENT if found is None else found.state
        if condition not in {Condition.ANYTHING, state}:
            raise exists(key)

    def _put_object(self, key: str, content: bytes, metadata: Mapping[str, str], moment: datetime) -> None:
        state = str(next(self.service.states))
        self.service.objects[key] = (StoredObject(key, len(content), moment, dict(metadata), state), content)

    def _write_metadata(self, found: StoredObject, metadata: Mapping[str, str]) -> None:
        with self.service.changing:
            self.service.change()
            self._check(found.key, found.state)
            content = self.service.objects[found.key][1]
            self.service.objects[found.key] = (
                StoredObject(found.key, found.size, utcnow(), dict(metadata), found.state),
                content,
            )

    def _remove(self, key: str) -> None:
        with self.service.changing:
            self.service.change()
            self.service.objects.pop(key, None)

    def _keys(self, prefix: str) -> Iterable[str]:
        self.service.answer()
        return [key for key in self.service.objects if key.startswith(prefix)]

    def _generate_url(self, package: Package) -> str:
        return f"https://bucket.example/{quote(self.get_path(package))}?signature={next(self.service.states)}"

    def check_health(self) -> tuple[bool, str]:
        """Whether the service is there."""
        return (False, "the bucket is not there") if self.service.is_down else (True, "")
