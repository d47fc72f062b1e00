"""Files to move, and what has to arrive."""

from __future__ import annotations

import functools
import hashlib
import io
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pypicloud.cache.base import ICache
from pypicloud.crew import Patience
from pypicloud.models import Package
from pypicloud.moving import Moving, Plan
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import COMPANION_FACTS, IStorage
from pypicloud.testing.memory_cache import MemoryCache
from pypicloud.testing.memory_storage import MemoryStorage
from pypicloud.testing.storage_fixtures import MakeStorage
from support.builds import build_sdist, build_wheel, metadata, sdist_name, wheel_name

#: When the first file was stored.
MOMENT: Final = datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)


def made(kind: type[IStorage], **settings: str) -> MakeStorage:
    """A storage, configured as the server does it."""
    return functools.partial(kind, **kind.configure(EnvironSettings(settings, {})))


def put(storage: IStorage, package: Package, content: bytes, **companions: bytes) -> Package:
    """Store a file."""
    facts = {COMPANION_FACTS[kind]: hashlib.sha256(data).hexdigest() for kind, data in companions.items()}
    package.data |= {"size": len(content), **facts}
    storage.publish(package, io.BytesIO(content), companions)
    return package


def digests(content: bytes) -> dict[str, str]:
    """The digests that are recorded for a file."""
    return {
        "hash_sha256": hashlib.sha256(content).hexdigest(),
        "hash_md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
    }


def put_wheel(storage: IStorage, version: str, name: str = "acme", *, new: bool = True, **facts: Any) -> Package:
    """Store a wheel; one that is not new has only what 1.3.12 kept."""
    text = metadata(name, version, summary="A project", requires_python=">=3.9")
    content = build_wheel(name, version, core_metadata=text)
    moment = MOMENT + timedelta(days=len(version))
    data: dict[str, Any] = digests(content) | {"uploader": "alice"}
    if new:
        data |= {"requires_python": ">=3.9", "summary": "A project"}
    package = Package(name, version, wheel_name(name, version), moment, **data | facts)
    return put(storage, package, content, **({"metadata": text.encode()} if new else {}))


def put_sdist(storage: IStorage, version: str, name: str = "acme", **facts: Any) -> Package:
    """Store a source distribution."""
    content = build_sdist(name, version, summary="A project", requires_python=">=3.9")
    package = Package(name, version, sdist_name(name, version), MOMENT, **digests(content) | facts)
    return put(storage, package, content)


def fill(storage: IStorage) -> None:
    """Store files with everything that can be known of one, and such as 1.3.12 left behind."""
    put_wheel(storage, "1.0")
    put_wheel(storage, "1.1", yanked="broken on Windows")
    put_wheel(storage, "1.2", new=False)
    put_wheel(storage, "2.0+local.1", summary="Zażółć gęślą jaźń " + "x" * 200)
    put_sdist(storage, "1.0", requires_python=">=3.9")
    put_sdist(storage, "1.0", "other.name", yanked=True)
    put(storage, Package("acme", "weird", "acme-weird.exe", MOMENT), b"no digest is known of this")
    package = Package("acme", "3.0", wheel_name("acme", "3.0"), MOMENT)
    put(storage, package, b"no wheel", metadata=b"its metadata", provenance=b'{"version": 1}')


def contents(storage: IStorage) -> dict[str, tuple[Any, ...]]:
    """All that must be the same wherever a file is: its bytes and companions, its facts, and when it was stored."""
    return {package.filename: _content(storage, package) for package in storage.list()}


def _content(storage: IStorage, package: Package) -> tuple[Any, ...]:
    with storage.open(package) as stream:
        data = stream.read()
    companions = {}
    for kind in COMPANION_FACTS:
        companion = storage.open_companion(package, kind)
        if companion is not None:
            with companion:
                companions[kind] = companion.read()
    facts = {key: value for key, value in package.data.items() if key not in {"path", "hash_sha256", "hash_md5"}}
    digest = package.data.get("hash_sha256")
    assert digest in {None, hashlib.sha256(data).hexdigest()}
    return package.name, package.version, package.last_modified, package.summary, facts, data, companions


class World:
    """An old and a new storage in memory, and the cache of the new one."""

    def __init__(self, old: type[IStorage] = MemoryStorage, new: type[IStorage] = MemoryStorage) -> None:
        self.make_old, self.make_new = made(old), made(new)
        self.old, self.new = self.make_old(None), self.make_new(None)
        self.hashes = True
        self.cache = MemoryCache(storage=self.make_new)
        self.problems: dict[str, str] = {}

    def make_cache(self, request: Any) -> ICache:
        """The cache for one thread."""
        return MemoryCache(request, rows=self.cache.rows, storage=self.make_new, calculate_hashes=self.hashes)

    def move(self, patience: Patience | None = None, **options: Any) -> Moving:
        """Move all."""
        plan = Plan(self.make_old, self.make_new, **{"make_cache": self.make_cache, **options})
        moving = Moving(plan, self.problems.__setitem__, patience or Patience(first_pause=0.01))
        moving.run(lambda _: None)
        return moving

    def outcomes(self, **options: Any) -> dict[str, int]:
        """What became of the files when all were moved."""
        return dict(self.move(**options).tally.outcomes)

    def rows(self) -> dict[str, Any]:
        """What the cache knows."""
        packages = self.cache.everything()
        return {
            each.filename: (each.name, each.version, each.last_modified, each.summary, each.data) for each in packages
        }

    def rebuilt(self) -> str:
        """What a rebuild has to do."""
        return str(self.cache.rebuild())
