"""What the contract of the caches stands on: caches made as the app makes them, and packages to put in."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import pytest

from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.testing.memory_storage import MemoryStorage

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache

#: Gives, by file name, what the database really holds, read without the cache: a mapping with ``name``,
#: ``version``, ``last_modified`` (with its zone), ``summary`` and ``data``.
Witness: TypeAlias = Callable[[], Mapping[str, Mapping[str, Any]]]

NOW: Final = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def package(name: str = "foo", version: str = "1.0", ending: str = ".tar.gz", **facts: Any) -> Package:
    """A package with a file name that goes with it."""
    facts.setdefault("last_modified", NOW)
    return Package(name, version, facts.pop("filename", f"{name}-{version}{ending}"), **facts)


def request_of(*, overwrite: bool = False, delete: bool = False) -> Any:
    """A request by somebody who may, or may not, overwrite and delete."""
    access = SimpleNamespace(can_overwrite_package=lambda: overwrite, can_delete_package=lambda: delete)
    return SimpleNamespace(access=access, app_url=lambda *path: "http://host/" + "/".join(path))


class Interrupted:
    """A storage in whose listing something happens, once, after so many files."""

    def __init__(self, storage: Any, after: int, event: Callable[[], object], extra: Iterable[Package] = ()) -> None:
        self._storage = storage
        self._after = after
        self._event = event
        self._extra = list(extra)

    def list(self, factory: Callable[..., Package] = Package) -> Iterator[Package]:
        """The other storage's packages, and then the extra ones."""
        for count, stored in enumerate([*self._storage.list(factory), *self._extra]):
            if count == self._after:
                self._event()
            yield stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def facts(of: Package) -> tuple[Any, ...]:
    """Everything a cache must give back."""
    return (of.filename, of.name, of.version, of.last_modified, of.summary, of.data)


def everything(cache: ICache) -> dict[str, tuple[Any, ...]]:
    """What a cache knows, by file name, asked for one project at a time."""
    return {found.filename: facts(found) for name in cache.distinct() for found in cache.all(name)}


def stored(cache: ICache) -> dict[str, tuple[Any, ...]]:
    """What there is in a cache's storage, by file name."""
    return {found.filename: facts(found) for found in cache.storage.list()}


def put(cache: ICache, *packages: Package) -> None:
    """Store files behind the cache's back."""
    for one in packages:
        cache.storage.upload(one, io.BytesIO(one.filename.encode()))


def until(is_done: Callable[[], bool], patience: float = 30) -> None:
    """Wait until something has come true; after so many seconds it counts as never."""
    deadline = time.monotonic() + patience
    while not is_done():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.005)


class CacheFixtures:
    """How a contract makes its caches: as the app does, from settings (compat.md 8.2).

    ``limits`` names what a cache honestly cannot do; the suite then asserts the lesser behaviour:

    - ``revisions``: it keeps none, and says so;
    - ``servers``: each server that starts has a cache of its own.
    """

    cache_class: ClassVar[type[ICache]]
    limits: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        """The settings of a cache with nothing in it, and nobody else's."""
        raise NotImplementedError

    @pytest.fixture
    def witness(self) -> Witness:
        """A look into the database without the cache."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self) -> Callable[[Any], MemoryStorage]:
        """The storage that all servers of a test share."""
        return partial(MemoryStorage, **MemoryStorage.configure(EnvironSettings({})))

    @pytest.fixture
    def start(
        self, settings: dict[str, str], storage: Callable[[Any], MemoryStorage]
    ) -> Iterator[Callable[..., Callable[..., ICache]]]:
        """Starts a server, as the app does; what it answers makes the cache for a request."""
        started = []

        def start(**more: str) -> Callable[..., ICache]:
            configured = EnvironSettings(
                {"pypi.storage": "pypicloud.testing.memory_storage.MemoryStorage", **settings, **more}, {}
            )
            kwargs = {**self.cache_class.configure(configured), "storage": storage}
            started.append(kwargs)
            return partial(self.cache_class, **kwargs)

        yield start
        for kwargs in started:
            self.stop(kwargs)

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        """Closes what ``configure`` opened."""

    @pytest.fixture
    def server(self, start: Callable[..., Callable[..., ICache]]) -> Callable[..., ICache]:
        """A server that has started: makes the cache for a request."""
        return start()

    @pytest.fixture
    def cache(self, server: Callable[..., ICache]) -> ICache:
        """The cache for a request by somebody who may overwrite and delete."""
        return server(request_of(overwrite=True, delete=True))
