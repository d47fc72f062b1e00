"""A storage in memory, which keeps the contract as those on disks do, and is there for other tests to stand on."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, BinaryIO, Final

from pypicloud.errors import FileExists
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import (
    COMPANION_FACTS,
    NO_COMPANIONS,
    IStorage,
    check_segments,
    demand_same,
    not_stored,
    replaced_meanwhile,
)

#: Which file is meant: name, version, file name.
Key = tuple[str, str, str]

_CHANGING: Final = threading.Lock()

#: What the bytes themselves tell, and those of the companions.
NOT_TOLD: Final = {"size", "path", *COMPANION_FACTS.values()}


@dataclass(frozen=True)
class StoredFile:
    """A file in memory, with all that belongs to it."""

    content: bytes
    last_modified: datetime
    summary: str | None
    facts: Mapping[str, Any]
    companions: Mapping[str, bytes] = field(default_factory=dict)


class MemoryStorage(IStorage):
    """Keeps package files in memory: in a dictionary that all instances of one configuration share."""

    is_local = True

    def __init__(self, request: Any = None, *, files: dict[Key, StoredFile], **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.files = files

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """An empty storage."""
        return {**super().configure(settings), "files": {}}

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Every stored package."""
        return (_listed(key, stored, factory) for key, stored in list(self.files.items()))

    def stored(self, package: Package, factory: Callable[..., Package] = Package) -> Package | None:
        """What is listed for a file."""
        stored = self.files.get(_key(package))
        return None if stored is None else _listed(_key(package), stored, factory)

    def upload(self, package: Package, datastream: BinaryIO) -> None:
        """Store a file, replacing what is there under its name."""
        self.publish(package, datastream, replace=True)

    def publish(
        self,
        package: Package,
        datastream: BinaryIO,
        companions: Mapping[str, bytes] = NO_COMPANIONS,
        *,
        replace: bool = False,
    ) -> None:
        """Store a file with its companions."""
        check_segments(package)
        stored = StoredFile(
            datastream.read(), package.last_modified, package.summary, _facts(package), dict(companions)
        )
        with _CHANGING:
            if not replace and _key(package) in self.files:
                raise FileExists(f"{package.filename!r} is stored already")
            self.files[_key(package)] = stored

    def delete(self, package: Package) -> None:
        """Remove a file and all that belongs to it."""
        self.files.pop(_key(package), None)

    @contextlib.contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        """The file's bytes as a stream."""
        yield io.BytesIO(self._stored(package).content)

    def upload_companion(self, package: Package, kind: str, data: bytes) -> None:
        """Keep a companion beside a stored file."""
        with _CHANGING:
            stored = self._same(package)
            self.files[_key(package)] = replace(stored, companions={**stored.companions, kind: data})

    def open_companion(self, package: Package, kind: str) -> BinaryIO | None:
        """The companion of this kind as a stream, or None if there is none."""
        stored = self.files.get(_key(package))
        return io.BytesIO(stored.companions[kind]) if stored and kind in stored.companions else None

    def update_metadata(self, package: Package) -> None:
        """Rewrite the facts of a stored file."""
        with _CHANGING:
            stored = self._same(package)
            self.files[_key(package)] = replace(stored, summary=package.summary, facts=_facts(package))

    def _stored(self, package: Package) -> StoredFile:
        try:
            return self.files[_key(package)]
        except KeyError:
            raise not_stored(package) from None

    def _same(self, package: Package) -> StoredFile:
        """The stored file, if it is still the one that was looked at."""
        stored = self._stored(package)
        demand_same(package, {**stored.facts, "size": len(stored.content)})
        if package.last_modified != stored.last_modified:
            raise replaced_meanwhile(package)
        return stored


def _key(package: Package) -> Key:
    return (package.name, package.version, package.filename)


def _listed(key: Key, stored: StoredFile, factory: Callable[..., Package]) -> Package:
    name, version, filename = key
    facts = copy.deepcopy(dict(stored.facts))
    for kind, fact in COMPANION_FACTS.items():
        if kind in stored.companions:
            facts[fact] = hashlib.sha256(stored.companions[kind]).hexdigest()
    size = len(stored.content)
    return factory(name, version, filename, stored.last_modified, summary=stored.summary, size=size, **facts)


def _facts(package: Package) -> dict[str, Any]:
    """What a package says of itself, without what the bytes themselves tell."""
    told = {key: value for key, value in package.data.items() if key not in NOT_TOLD}
    return copy.deepcopy(told)
