"""A PostgreSQL that is suspended: nobody waits for it for ever, and all is well as soon as it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from pypicloud.cache.sql import POOLCLASS, URL
from pypicloud.cache.sql.tables import METADATA, PACKAGES
from pypicloud.database import Database, failures, locks
from pypicloud.database.patience import PunctualConnection
from pypicloud.errors import BackendUnavailable
from pypicloud.settings import EnvironSettings
from support.databases import look
from support.services.postgres import Postgres
from support.world import Index

#: How long, in seconds, the server may be silent here, and how soon after that all has to be over.
BOUND = 0.5
SOON = 2.0


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a silent server after a moment, and try nothing once more that has taken that long."""
    monkeypatch.setattr(PunctualConnection, "patience", BOUND)
    for module in ("pypicloud.database", failures.__name__):
        monkeypatch.setattr(f"{module}.PATIENCE", BOUND / 2)


@pytest.fixture
def url(postgres: Postgres) -> str:
    """The address of a new database; a server may take two seconds to accept a connection."""
    return f"{postgres.database()}?connect_timeout=2"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A database with its tables."""
    made = Database.configure(EnvironSettings({"db.url": url}, {}), URL, POOLCLASS, METADATA)
    yield made
    made.close()


@contextmanager
def suspended(service: Postgres) -> Iterator[None]:
    """The server is there, and does nothing."""
    service.pause()
    try:
        yield
    finally:
        service.resume()


def ask(database: Database) -> int:
    """The number one by the short way."""
    return int(database.rows("SELECT 1")[0][0])


def read(database: Database) -> int:
    """The number one by the long way."""
    return database.read(lambda connection: int(connection.execute(text("SELECT 1")).scalar_one()))


def write(database: Database) -> int:
    """A row that is written."""

    def work(connection: Connection) -> int:
        return len(connection.execute(text("UPDATE package_notes SET text = 'b' RETURNING name")).all())

    return database.write(work)


def lock(database: Database) -> int:
    """A lock that is taken and given back."""
    with database.lock("key"):
        return 1


WAYS: tuple[Callable[[Database], int], ...] = (ask, read, write, lock)


def outcome(work: Callable[[], int]) -> tuple[str, float]:
    """What somebody was told, and after how many seconds."""
    begun = time.monotonic()
    told = ""
    try:
        work()
    except BackendUnavailable as error:
        told = error.message
    return told, time.monotonic() - begun


def test_everybody_is_told_in_time(database: Database, postgres: Postgres) -> None:
    """Each of many threads, whatever it wants, hears in time that the database does not answer; later all works."""
    work = [partial(way, database) for way in WAYS * 2]
    with ThreadPoolExecutor(len(work)) as pool:
        answers = list(pool.map(outcome, work))
        assert {told for told, _ in answers} == {""}
        with suspended(postgres):
            answers = list(pool.map(outcome, work))
        assert {told for told, _ in answers} == {"the database does not answer"}
        assert max(seconds for _, seconds in answers) < BOUND + 2 + SOON
        answers = list(pool.map(outcome, work))
    assert {told for told, _ in answers} == {""}
    assert max(seconds for _, seconds in answers) < SOON


@pytest.mark.parametrize("way", [ask, read])
def test_one_wait_is_enough_for_all(
    database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, way: Callable[[Database], int]
) -> None:
    """Once somebody has found out, the other connections of the pool are not waited on any more."""
    connections = [database.engine.connect() for _ in range(3)]
    for connection in connections:
        connection.close()
    with suspended(postgres):
        assert outcome(partial(way, database))[0]
        monkeypatch.setattr(PunctualConnection, "patience", 9.0)
        told, seconds = outcome(partial(way, database))
        assert told
        assert seconds < 2 + SOON
    assert way(database) == 1


def test_a_late_answer_is_nobodys(database: Database, postgres: Postgres) -> None:
    """What the server answers at last, after it was given up, is not taken for the answer to something else."""
    query = "SELECT name FROM package_notes WHERE name = ? UNION SELECT ?"
    with suspended(postgres), suppress(BackendUnavailable):
        database.rows(query, "late", "late")
    for number in range(20):
        assert [row[0] for row in database.rows(query, str(number), str(number))] == [str(number)]


def test_a_request_is_answered(postgres: Postgres, url: str, tmp_path: Path) -> None:
    """A page, a download and an upload are 503 while the server is suspended, and as ever when it goes on."""
    index = Index(tmp_path, db__url=url)
    index.upload_wheel("acme", "1.0")
    with suspended(postgres):
        begun = time.monotonic()
        assert index.get("/simple/acme/").status_int == 503
        assert index.get("/api/package/").status_int == 503
        index.upload_wheel("acme", "1.1", status=503)
        assert time.monotonic() - begun < 3 * (BOUND + 2) + SOON
    begun = time.monotonic()
    assert index.get("/simple/acme/").status_int == 200
    index.upload_wheel("acme", "1.1")
    assert time.monotonic() - begun < SOON


def test_a_lock_is_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a lock gets it, however much longer than a server may be silent that takes."""
    monkeypatch.setattr(locks, "TURN", BOUND / 2)
    taken = threading.Event()

    def hold() -> float:
        with database.lock("key"):
            taken.set()
            time.sleep(3 * BOUND)
            return time.monotonic()

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        taken.wait()
        with database.lock("key"):
            got = time.monotonic()
    assert 0 <= got - holder.result() < SOON


def test_a_table_is_written_anew(database: Database, url: str) -> None:
    """Bringing a table up to date may take longer than the server may be silent, and what follows may not."""
    look(url, "ALTER TABLE packages ALTER COLUMN summary TYPE VARCHAR(99)")
    with ThreadPoolExecutor(1) as pool, database.engine.connect() as other:
        other.exec_driver_sql("BEGIN; LOCK TABLE packages IN ACCESS SHARE MODE")
        upgrade = pool.submit(database.upgrade, PACKAGES)
        time.sleep(3 * BOUND)
        assert not upgrade.done()
        other.exec_driver_sql("COMMIT")
        upgrade.result()
    query = "SELECT data_type FROM information_schema.columns WHERE table_name = 'packages' AND column_name = 'summary'"
    assert look(url, query) == [("text",)]
    assert outcome(lambda: len(database.rows("SELECT pg_sleep(30)")))[0]
