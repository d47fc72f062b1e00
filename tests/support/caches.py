"""Every cache as it is configured on its real service: one table, and worlds made from it.

A test that is to hold for several caches is parametrized over names of ``CACHES``, indirectly:
``@pytest.mark.parametrize("cache_world", SHARED, indirect=True)``. The fixture ``cache_world`` then gives an empty
cache that nobody else uses, on the service that all tests of the worker share. A test that stops, kills or pauses
the service asks for ``own_cache_world`` instead.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from support.services.service import Service


@dataclass(frozen=True)
class CacheKind:
    """A cache on a service.

    ``fixture`` is the session fixture that gives the service, and ``service`` the class, as ``module.Class`` below
    ``support.services``, with what it is made with; SQLite has none. ``configure`` gives the settings of an empty
    cache there. ``is_shared`` says whether several servers can share it, ``is_lasting`` whether the service still
    has it after it was killed and started again.
    """

    configure: Callable[[Any, Path], dict[str, str]]
    fixture: str | None = None
    service: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    is_shared: bool = True
    is_lasting: bool = True


@dataclass(frozen=True)
class CacheWorld:
    """An empty cache of one test's own: its settings (``pypi.db``, ``db.*``), and the service it is on."""

    name: str
    kind: CacheKind
    settings: dict[str, str]
    service: Service | None

    @property
    def changes(self) -> dict[str, str | None]:
        """The settings, spelled for :func:`support.world.settings`; its ``db.url`` goes where there is none here."""
        spelled = {key.replace(".", "__"): value for key, value in self.settings.items()}
        return {"db__url": None, **spelled}


def _sql(url: str) -> dict[str, str]:
    return {"pypi.db": "sql", "db.url": url}


def _redis(url: str, **more: str) -> dict[str, str]:
    return {"pypi.db": "redis", "db.url": url, **{key.replace("__", "."): value for key, value in more.items()}}


#: Every cache, by name.
CACHES: Final[dict[str, CacheKind]] = {
    "sqlite": CacheKind(lambda _, directory: _sql(f"sqlite:///{directory / 'cache.sqlite'}")),
    "sqlite-memory": CacheKind(lambda _, directory: _sql("sqlite://"), is_shared=False, is_lasting=False),
    "postgres": CacheKind(lambda service, _: _sql(service.database()), "postgres", "postgres.Postgres"),
    "mariadb": CacheKind(lambda service, _: _sql(service.database()), "mariadb", "mariadb.MariaDB"),
    "redis": CacheKind(
        lambda service, _: _redis(service.database()), "redis", "redis_server.RedisServer", is_lasting=False
    ),
    "redis-tls": CacheKind(
        lambda service, _: _redis(service.database()),
        "redis_tls",
        "redis_server.RedisServer",
        (("secure", True),),
        is_lasting=False,
    ),
    "redis-cluster": CacheKind(
        lambda service, _: _redis(service.database(), db__clustered="true"),
        "redis_cluster",
        "redis_server.RedisCluster",
        is_lasting=False,
    ),
    "dynamo": CacheKind(
        lambda service, _: {"pypi.db": "dynamo", **service.cache_settings()},
        "ministack",
        "aws.MiniStack",
        is_lasting=False,
    ),
    "dynamo-moto": CacheKind(
        lambda service, _: {"pypi.db": "dynamo", **service.cache_settings()}, "moto", "aws.Moto", is_lasting=False
    ),
}

#: The caches that several servers can share.
SHARED: Final = tuple(name for name, kind in CACHES.items() if kind.is_shared)

#: One of each kind of those: a second way to reach the same code, or a second opinion on it, is left out.
KINDS: Final = tuple(name for name in SHARED if name not in {"redis-tls", "dynamo-moto"})


def shared_world(name: str, request: pytest.FixtureRequest, directory: Path) -> CacheWorld:
    """An empty cache on the service that all tests share; ``directory`` is for what lies in files."""
    kind = CACHES[name]
    service = None if kind.fixture is None else request.getfixturevalue(kind.fixture)
    return CacheWorld(name, kind, kind.configure(service, directory), service)


@contextlib.contextmanager
def own_world(name: str, directory: Path) -> Iterator[CacheWorld]:
    """An empty cache on a service of its own, which runs until the end of the block."""
    kind = CACHES[name]
    if kind.service is None:
        yield CacheWorld(name, kind, kind.configure(None, directory), None)
        return
    module, _, class_name = kind.service.partition(".")
    launched = getattr(importlib.import_module(f"support.services.{module}"), class_name)(**dict(kind.options))
    with launched as service:
        yield CacheWorld(name, kind, kind.configure(service, directory), service)
