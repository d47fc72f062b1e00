"""The kinds of cache that are measured beside each other, and the servers behind them, on which the tests run, too.

PostgreSQL and MariaDB give every commit to the disk here, as they do when nothing is configured and as SQLite
does; Redis keeps nothing on disk, which is how a cache that can be made again is best run; DynamoDB is an emulator.
"""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks import data
from benchmarks.result import BenchError

from support.services.aws import MiniStack
from support.services.mariadb import MariaDB
from support.services.postgres import Postgres
from support.services.redis_server import RedisCluster, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench


class Runs(Protocol):
    """What keeps a cache."""

    def start(self) -> None:
        """Be there."""

    def stop(self) -> None:
        """Be still, and keep everything."""

    def remove(self) -> None:
        """Leave nothing behind."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one cache keeps what it knows.

    ``settings`` gives those of a cache in which nothing is, the same ones for each place of its kind but for the
    port. ``files`` hold everything once ``settle`` was called and ``runs`` stopped.
    """

    runs: Runs
    settings: Callable[[], dict[str, str]]
    files: tuple[Path, ...]
    settle: Callable[[], None] = lambda: None

    def keep(self, folder: Path) -> None:
        """Copy everything into a folder; this place is not used again."""
        self.settle()
        self.runs.stop()
        for number, path in enumerate(self.files):
            _copy(path, folder / str(number))

    def take(self, folder: Path) -> None:
        """Have what was copied into a folder, in place of everything."""
        self.runs.stop()
        for number, path in enumerate(self.files):
            data.remove(path)
            _copy(folder / str(number), path)
        self.runs.start()


class File:
    """An SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self) -> None:
        """Nothing runs."""

    def stop(self) -> None:
        """What still lies in the write-ahead log must be in the file before the file is copied."""
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def remove(self) -> None:
        """Remove the file, and those beside it."""
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()


class DurablePostgres(Postgres):
    """A server with what PostgreSQL does when nothing is configured."""

    def command(self) -> list[str]:
        """Say so behind what the tests say."""
        settings = ("fsync=on", "full_page_writes=on", "shared_buffers=128MB")
        return [*super().command(), *(word for setting in settings for word in ("-c", setting))]


class DurableMariaDB(MariaDB):
    """A server with what MariaDB does when nothing is configured."""

    def command(self) -> list[str]:
        """Say so behind what the tests say."""
        options = ("flush-log-at-trx-commit=1", "doublewrite=1", "log-file-size=96M", "buffer-pool-size=128M")
        return [*super().command(), *(f"--innodb-{option}" for option in options)]


class OneAccount(MiniStack):
    """An emulator that calls an account as the one before it did, so that what that kept is found."""

    def access_key(self) -> str:
        """The same for all."""
        return "100000000000"

    def stop(self) -> None:
        """Give it the time that it takes to write down very many items."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(180)
        super().stop()


def _sqlite(folder: Path) -> Place:
    path = folder / "cache.sqlite"
    return Place(File(path), lambda: data.sqlite(path), (path,))


def _postgres(_: Path) -> Place:
    server = DurablePostgres()

    def settle() -> None:
        # Else the server would begin to do so by itself, in the middle of a measurement.
        for (name,) in server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test%'"):
            server.execute("VACUUM ANALYZE", str(name))

    return Place(server, lambda: _sql(server.database()), (server.directory / "postgres",), settle)


def _mariadb(_: Path) -> Place:
    server = DurableMariaDB()
    return Place(server, lambda: _sql(server.database()), (server.directory / "mariadb",))


def _mysqlclient(_: Path) -> Place:
    server = DurableMariaDB()
    return Place(server, lambda: _sql(server.database("mysqldb")), ())


def _redis(_: Path) -> Place:
    server = RedisServer()
    settings = {"pypi.db": "redis", "db.url": server.url()}
    return Place(server, lambda: settings, (server.directory / "dump.rdb",), lambda: _save(server))


def _redis_cluster(_: Path) -> Place:
    cluster = RedisCluster()
    settings = {"pypi.db": "redis", "db.url": cluster.url, "db.clustered": "true"}
    files = tuple(node.directory / "dump.rdb" for node in cluster.nodes)
    return Place(cluster, lambda: settings, files, lambda: _save(*cluster.nodes))


def _dynamo(_: Path) -> Place:
    emulator = OneAccount()
    return Place(emulator, lambda: {"pypi.db": "dynamo", **emulator.cache_settings()}, (emulator.directory / "state",))


def _sql(url: str) -> dict[str, str]:
    return {"pypi.db": "sql", "db.url": url}


def _save(*servers: RedisServer) -> None:
    for server in servers:
        with server.connect() as client:
            client.connection_pool.connection_kwargs["socket_timeout"] = 120
            client.save()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)


@dataclass(frozen=True, slots=True)
class Cache:
    """A kind of cache.

    ``code`` are the modules that write it; ``bulk`` is the share of the usual numbers of files that it is given, and
    0 for one that is left out where very many files are what is measured.
    """

    name: str
    title: str
    code: tuple[str, ...]
    place: Callable[[Path], Place]
    bulk: float = 1


_SQL: Final = ("fill.py", "sql/*.py")
_REDIS: Final = ("fill.py", "steps.py", "redis_cache/*.py")
_DYNAMO: Final = ("fill.py", "steps.py", "dynamo/*.py")

SQLITE: Final = Cache("sqlite", "SQLite", _SQL, _sqlite)

#: Those that are measured beside SQLite. The emulator of the last one is too slow for more files.
OTHERS: Final = (
    Cache("postgres", "PostgreSQL", _SQL, _postgres),
    Cache("mariadb", "MariaDB, PyMySQL", _SQL, _mariadb),
    Cache("mysqlclient", "MariaDB, mysqlclient", _SQL, _mysqlclient, bulk=0),
    Cache("redis", "Redis", _REDIS, _redis),
    Cache("redis-cluster", "Redis Cluster", _REDIS, _redis_cluster),
    Cache("dynamo", "DynamoDB, emulated", _DYNAMO, _dynamo, bulk=0.1),
)


def digest_of_code(cache: Cache) -> str:
    """A digest of the code that writes a cache: one that older code wrote is not measured."""
    spec = find_spec("pypicloud.cache")
    if spec is None or spec.origin is None:
        raise BenchError("pypicloud is not installed in this environment")
    digest = hashlib.sha256()
    for pattern in cache.code:
        paths = sorted(Path(spec.origin).parent.glob(pattern))
        if not paths:
            raise BenchError(f"there is no {pattern} any more beside {spec.origin}")
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _placed(bench: Bench, cache: Cache, name: str) -> Iterator[Place]:
    folder = bench.run / f"{name}-{cache.name}"
    folder.mkdir(exist_ok=True)
    place = cache.place(folder)
    try:
        place.runs.start()
        yield place
    except AssertionError as error:
        # In these words the services say that they cannot run here.
        raise BenchError(f"{cache.title}: {error}") from error
    finally:
        place.runs.remove()


@contextmanager
def empty(bench: Bench, cache: Cache, name: str) -> Iterator[dict[str, str]]:
    """The settings of a cache in which nothing is; ``name`` says what for."""
    with _placed(bench, cache, name) as place:
        yield place.settings()


@contextmanager
def filled(bench: Bench, cache: Cache, name: str, projects: int, files: int) -> Iterator[dict[str, str]]:
    """The settings of a cache that knows so many projects with so many files each."""
    with empty(bench, cache, name) as settings:
        _fill(bench, f"{name}-{cache.name}", settings, projects, files)
        yield settings


@contextmanager
def kept(bench: Bench, cache: Cache, name: str, projects: int, files: int) -> Iterator[dict[str, str]]:
    """The same out of a copy that is made once, for caches that take long to fill."""
    stem = f"kept-{cache.name}-{projects}-"
    path = bench.work / f"{stem}{digest_of_code(cache)}"
    for old in bench.work.glob(f"{stem}*"):
        if not old.name.startswith(path.name):
            data.remove(old)

    def make(folder: Path) -> None:
        folder.mkdir()
        with _placed(bench, cache, "keep") as place:
            _fill(bench, path.name, place.settings(), projects, files)
            place.keep(folder)

    folder = data.made_once(path, make)
    with _placed(bench, cache, name) as place:
        # Databases and tables are called as they were when the copy was made; only the port is another one.
        settings = place.settings()
        place.take(folder)
        yield settings


def _fill(bench: Bench, name: str, settings: dict[str, str], projects: int, files: int) -> None:
    config = bench.config(f"fill-{name}", cache=settings)
    bench.program("fill", str(config), str(projects), str(files))
