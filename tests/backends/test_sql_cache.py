"""The SQL cache on SQLite: the contract, the file as 1.3.12 knows it, settings, starts."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from pypicloud.cache import SQLCache, get_cache_impl, sql
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import NOW, CacheContract, Witness, everything, facts, package, put, request_of, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pypicloud.cache.base import ICache

#: The table as a server of version 1.3.12 creates it in an SQLite file (compat.md 3.2).
SCHEMA = """
CREATE TABLE packages (
    filename VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL, version VARCHAR(1000) NOT NULL,
    last_modified DATETIME NOT NULL, summary TEXT, data TEXT NOT NULL, PRIMARY KEY (filename)
);
CREATE INDEX ix_packages_name ON packages (name);
CREATE INDEX ix_packages_last_modified ON packages (last_modified);
"""
INSERT = "INSERT INTO packages VALUES (?, ?, ?, ?, ?, ?)"


def look(path: Path, query: str, *values: Any) -> list[Any]:
    """Rows out of a database file, past the cache."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(query, values).fetchall()
        connection.commit()
    return rows


class OnSQLite(CacheContract):
    cache_class = SQLCache

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        kwargs["database"].close()


class TestSQLiteFile(OnSQLite):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "db.sqlite"

    @pytest.fixture
    def settings(self, path: Path) -> dict[str, str]:
        return {"db.url": f"sqlite:///{path}"}

    @pytest.fixture
    def witness(self, path: Path) -> Witness:
        def rows() -> dict[str, dict[str, Any]]:
            return {
                filename: {
                    "name": name,
                    "version": version,
                    "last_modified": datetime.strptime(time, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC),
                    "summary": summary,
                    "data": json.loads(data),
                }
                for filename, name, version, time, summary, data in look(path, "SELECT * FROM packages")
            }

        return rows

    def test_a_local_file_is_local(self, cache: ICache) -> None:
        """The event loop may ask a cache in a local file."""
        assert cache.is_local

    def test_the_table_is_that_of_1_3_12(self, cache: ICache, path: Path) -> None:
        """Columns and indexes are those that 1.3.12 creates, under the same names."""
        columns = look(path, "SELECT name, type, \"notnull\", pk FROM pragma_table_info('packages')")
        assert columns == [
            ("filename", "VARCHAR(255)", 1, 1),
            ("name", "VARCHAR(255)", 1, 0),
            ("version", "VARCHAR(1000)", 1, 0),
            ("last_modified", "DATETIME", 1, 0),
            ("summary", "TEXT", 0, 0),
            ("data", "TEXT", 1, 0),
        ]
        indexes = look(path, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name")
        assert indexes == [("ix_packages_last_modified",), ("ix_packages_name",)]

    def test_rows_are_written_as_1_3_12_writes_them(self, cache: ICache, path: Path) -> None:
        """Times are UTC without a zone and with six digits; data is JSON in ASCII; no summary is NULL."""
        cache.save(package("foo", last_modified=datetime(2026, 1, 2, tzinfo=UTC), uploader="J\u00f6rg"))
        assert look(path, "SELECT * FROM packages") == [
            ("foo-1.0.tar.gz", "foo", "1.0", "2026-01-02 00:00:00.000000", None, '{"uploader": "J\\u00f6rg"}')
        ]

    def test_a_file_of_1_3_12_is_used_as_it_is(self, start: Callable[..., Callable[..., ICache]], path: Path) -> None:
        """The cache file of a 1.3.12 server keeps its rows, and needs no rebuild; the revisions come beside it."""
        row = ("foo-1.0.tar.gz", "foo", "1.0", "2022-03-04 05:06:07.089000", "Good", '{"uploader": "me", "path": "x"}')
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(SCHEMA)
            connection.execute(INSERT, row)
            connection.commit()
        schema = look(path, "SELECT sql FROM sqlite_master WHERE tbl_name = 'packages' ORDER BY name")
        cache = start()(request_of())
        cache.reload_if_needed()
        (found,) = cache.all("foo")
        time = datetime(2022, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)
        assert facts(found) == facts(Package("foo", "1.0", row[0], time, "Good", uploader="me", path="x"))
        assert [cache.revision(name) for name in ("foo", None)] == [cache.note("fill")] * 2
        cache.save(package("bar"))
        assert cache.revision("foo") == cache.note("fill")
        assert cache.note("fill") not in {cache.revision("bar"), cache.revision(None)}
        assert look(path, "SELECT * FROM packages WHERE name = 'foo'") == [row]
        assert look(path, "SELECT sql FROM sqlite_master WHERE tbl_name = 'packages' ORDER BY name") == schema

    def test_clear_all_renews_what_never_had_a_revision(
        self, start: Callable[..., Callable[..., ICache]], path: Path
    ) -> None:
        """A project of 1.3.12, which has no revision yet, gets one when everything is cleared."""
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(SCHEMA)
            connection.execute(INSERT, ("foo-1.zip", "foo", "1", "2022-03-04 05:06:07.000000", None, "{}"))
            connection.commit()
        cache = start()()
        cache.clear_all()
        assert "0" not in {cache.revision("foo"), cache.revision(None)}

    @pytest.mark.parametrize("data", ["", "no JSON", "[1]", "null", '"text"', '{"a": '])
    def test_odd_data_breaks_no_listing(self, cache: ICache, path: Path, data: str) -> None:
        """A row whose data is no JSON object is listed without them, and the log says so."""
        cache.save(package(version="2.0"))
        look(path, INSERT, "foo-1.0.tar.gz", "foo", "1.0", "2022-03-04 05:06:07.000000", "Odd", data)
        assert [(found.version, found.data) for found in cache.all("foo")] == [("2.0", {}), ("1.0", {})]
        assert len(list(cache.everything())) == 2
        assert cache.fetch("foo-1.0.tar.gz") is not None

    def test_data_may_have_any_key(self, cache: ICache, path: Path) -> None:
        """Facts called like an attribute of a package stay facts; empty ones are none."""
        odd = {"name": "other", "version": "9", "filename": "f", "last_modified": "t", "self": 1}
        data = json.dumps({**odd, "uploader": "", "requires_python": None})
        look(path, INSERT, "foo-1.0.tar.gz", "foo", "1.0", "2022-03-04 05:06:07.000000", "Odd", data)
        (found,) = cache.all("foo")
        assert (found.name, found.version, found.data) == ("foo", "1.0", odd)

    def test_readers_do_not_wait_for_a_writer(self, cache: ICache, path: Path) -> None:
        """While another process writes, what is committed can be read at once."""
        cache.save(package(summary="committed"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            other.execute("UPDATE packages SET summary = 'not yet'")
            assert [found.summary for found in cache.all("foo")] == ["committed"]
            assert cache.summary()[0]["summary"] == "committed"
            other.execute("ROLLBACK")

    def test_writers_wait_for_their_turn(self, cache: ICache, path: Path) -> None:
        """A save waits until another process has written."""
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.2, other.execute, ["COMMIT"])
            timer.start()
            cache.save(package())
            timer.join()
        assert cache.distinct() == ["foo"]

    def test_a_database_that_fails_is_one_error(
        self, start: Callable[..., Callable[..., ICache]], settings: dict[str, str], path: Path
    ) -> None:
        """What cannot be read or written raises BackendUnavailable without details, and health says no."""
        cache = start(**{"db.url": settings["db.url"] + "?timeout=0"})(request_of())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
                cache.save(package())
        look(path, "ALTER TABLE packages RENAME COLUMN name TO title")
        look(path, "ALTER TABLE package_revisions RENAME COLUMN revision TO version")
        for ask in (cache.distinct, lambda: cache.fetch("foo-1.0.tar.gz"), lambda: cache.all("foo")):
            with pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
                ask()
        assert cache.check_health() == (False, "the database does not answer")

    def test_a_broken_time_breaks_no_listing(self, cache: ICache, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A row whose time is none counts as old, is listed all the same, and a rebuild heals it."""
        put(cache, package(), package(version="2.0"))
        cache.rebuild()
        look(path, "UPDATE packages SET last_modified = 'yesterday' WHERE version = '1.0'")
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        assert [found.last_modified for found in cache.all("foo")] == [NOW, epoch]
        assert cache.fetch_many(["foo-1.0.tar.gz"])["foo-1.0.tar.gz"].last_modified == epoch
        assert "holds a time that is none: 'yesterday'" in caplog.text
        look(path, "UPDATE packages SET last_modified = 'tomorrow'")
        assert cache.summary()[0]["last_modified"] == epoch
        assert cache.rebuild().changed == 2
        assert everything(cache) == stored(cache)

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_a_forked_worker_opens_its_own_connections(self, server: Callable[..., ICache]) -> None:
        """After a fork the child neither uses nor closes the connections of its parent."""
        cache = server()
        cache.save(package())
        cache.fetch("foo-1.0.tar.gz")
        kwargs = server.keywords  # type: ignore[attr-defined]  # a partial, as the app makes it
        reader = kwargs["database"]._reader
        connection = reader._connection
        child = os.fork()
        if child == 0:
            SQLCache.postfork(**kwargs)
            cache.save(package(version="2.0"))
            works = len(cache.all("foo")) == 2 and cache.fetch("foo-2.0.tar.gz") is not None
            is_own = reader._connection is not connection and reader._inherited is connection
            os._exit(0 if works and is_own else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert len(cache.all("foo")) == 2
        cache.save(package(version="3.0"))
        assert len(cache.all("foo")) == 3

    def test_the_documented_row_class(self, cache: ICache, settings: dict[str, str]) -> None:
        """SQLPackage reads and writes the same rows in a session of one's own."""
        cache.save(package(summary="Good", uploader="me"))
        engine = create_engine(settings["db.url"])
        with Session(engine) as session:
            (found,) = session.query(sql.SQLPackage).all()
            assert isinstance(found, Package)
            assert facts(found) == facts(package(summary="Good", uploader="me"))
            session.add(sql.SQLPackage("Bar_x", "2", "bar.zip", NOW, "Fine", hash_md5="ab"))
            session.commit()
        engine.dispose()
        assert facts(cache.all("bar-x")[0]) == facts(Package("bar-x", "2", "bar.zip", NOW, "Fine", hash_md5="ab"))
        assert sql.SQLPackage is sql.SQLPackage


class TestSQLiteInMemory(OnSQLite):
    limits = frozenset({"servers"})

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"db.url": "sqlite://"}

    @pytest.fixture
    def witness(self, server: Callable[..., ICache]) -> Witness:
        cache = server()
        assert isinstance(cache, SQLCache)

        def rows() -> dict[str, dict[str, Any]]:
            with cache.database.engine.connect() as connection:
                found = connection.execute(text("SELECT * FROM packages")).mappings().all()
            return {
                row["filename"]: {
                    **row,
                    "last_modified": datetime.fromisoformat(row["last_modified"]).replace(tzinfo=UTC),
                    "data": json.loads(row["data"]),
                }
                for row in found
            }

        return rows

    def test_memory_survives_a_fork(self, server: Callable[..., ICache]) -> None:
        """What is in memory is not dropped when the workers fork."""
        cache = server()
        cache.save(package())
        SQLCache.postfork(**server.keywords)  # type: ignore[attr-defined]  # a partial, as the app makes it
        assert cache.distinct() == ["foo"]


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Callable[..., SQLCache]]:
    """Makes a cache from settings and environment, by the short name."""
    made = []

    def configure(env: Mapping[str, str] | None = None, **settings: str) -> SQLCache:
        keys = {f"db.{key}": value for key, value in settings.items()}
        storage = "pypicloud.testing.storage.MemoryStorage"
        cache = get_cache_impl(EnvironSettings({"pypi.storage": storage, **keys}, env or {}))(None)
        assert isinstance(cache, SQLCache)
        made.append(cache)
        return cache

    yield configure
    for cache in made:
        cache.database.close()


class TestSettings:
    def test_the_url_is_required(self, configure: Callable[..., SQLCache]) -> None:
        """Without db.url the start stops and names it."""
        with pytest.raises(SettingError, match=r"^db\.url: is required"):
            configure()

    @pytest.mark.parametrize(
        "url", ["nonsense", "sqlite", "", "sqlite:", "nosuchdatabase://x", "sqlite:///x?timeout=soon"]
    )
    def test_a_url_of_no_use_is_named(self, configure: Callable[..., SQLCache], url: str) -> None:
        """Something that is no database URL stops the start."""
        with pytest.raises(SettingError, match=r"^db\.url"):
            configure(url=url)

    def test_a_missing_directory_is_named(self, configure: Callable[..., SQLCache], tmp_path: Path) -> None:
        """When the directory of the SQLite file is not there the error says which."""
        with pytest.raises(SettingError, match=rf"^db\.url.*the directory {tmp_path}/no does not exist"):
            configure(url=f"sqlite:///{tmp_path}/no/db.sqlite")

    def test_a_file_that_is_no_database_is_named(self, configure: Callable[..., SQLCache], tmp_path: Path) -> None:
        """A file of something else stops the start."""
        (tmp_path / "db.sqlite").write_text("A letter to my aunt, too long to be a header of a database." * 20)
        with pytest.raises(SettingError, match=r"^db\.url.*file is not a database"):
            configure(url=f"sqlite:///{tmp_path}/db.sqlite")

    def test_passwords_stay_out_of_errors(self, configure: Callable[..., SQLCache], tmp_path: Path) -> None:
        """The error about a database that cannot be reached shows the URL without the password."""
        with pytest.raises(SettingError, match=r"^db\.url = 'sqlite://me:\*\*\*@") as caught:
            configure(url=f"sqlite://me:tops3cret@host/{tmp_path}/db.sqlite?password=tops3cret")
        assert "tops3cret" not in str(caught.value)

    @pytest.mark.parametrize("name", ["a%41.db", "a%2Fb.db", "a%%.db", "a b.db", "\u00e9.db"])
    def test_a_file_keeps_its_name(self, configure: Callable[..., SQLCache], tmp_path: Path, name: str) -> None:
        """A percent sign in the path means a percent sign, as it did for 1.3.12."""
        configure(url=f"sqlite:///{tmp_path}/{name}")
        assert (tmp_path / name).exists()

    def test_the_environment_gives_engine_options(self, configure: Callable[..., SQLCache], tmp_path: Path) -> None:
        """Every PPC_DB_ variable is taken in, and read as the type the engine wants (compat.md 1.2)."""
        cache = configure({"PPC_DB_POOL_SIZE": "3", "PPC_DB_URL": f"sqlite:///{tmp_path}/db.sqlite"}, url="sqlite://")
        assert cache.database.engine.pool.size() == 3  # type: ignore[attr-defined]  # of the default pool
        assert (tmp_path / "db.sqlite").exists()

    @pytest.mark.parametrize(("query", "milliseconds"), [("", 30_000), ("?timeout=7", 7_000)])
    def test_how_long_a_writer_waits(
        self, configure: Callable[..., SQLCache], tmp_path: Path, query: str, milliseconds: int
    ) -> None:
        """A writer waits half a minute for its turn, or as long as the URL says."""
        cache = configure(url=f"sqlite:///{tmp_path}/db.sqlite{query}")
        with cache.database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == milliseconds

    def test_unknown_options_warn(
        self, configure: Callable[..., SQLCache], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A key that the engine does not know is named in a warning, and ignored."""
        configure(url=f"sqlite:///{tmp_path}/db.sqlite", region_name="us-east-1", echo="false", graceful_reload="true")
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
            "db.region_name is no option of this database's engine; it is ignored"
        ]

    def test_an_option_of_no_use_is_named(self, configure: Callable[..., SQLCache], tmp_path: Path) -> None:
        """An option whose value cannot be converted stops the start."""
        with pytest.raises(SettingError, match=r"^db\.pool_size = 'many'"):
            configure(url=f"sqlite:///{tmp_path}/db.sqlite", pool_size="many")

    def test_the_pool_class_can_be_chosen(self, configure: Callable[..., SQLCache], tmp_path: Path) -> None:
        """db.poolclass takes the dotted path of a pool."""
        cache = configure(url=f"sqlite:///{tmp_path}/db.sqlite", poolclass="sqlalchemy.pool.NullPool")
        assert isinstance(cache.database.engine.pool, NullPool)
        cache.save(package())
        assert cache.distinct() == ["foo"]

    @pytest.mark.parametrize("path", ["NullPool", "sqlalchemy.pool.NoPool", "no.such.module", "json.dumps", "os.path"])
    def test_a_pool_class_of_no_use_is_named(self, configure: Callable[..., SQLCache], path: str) -> None:
        """Something that is no pool class stops the start."""
        with pytest.raises(SettingError, match=r"^db\.poolclass = "):
            configure(url="sqlite://", poolclass=path)

    def test_sql_is_the_default(self, configure: Callable[..., SQLCache]) -> None:
        """Without pypi.db the cache is in SQL."""
        assert type(configure(url="sqlite://")) is SQLCache


#: Starts a server on the database and the directory given, when its standard input ends, and uploads files.
SERVER = """
import io
import sys
from pypicloud.cache.sql import SQLCache
from pypicloud.settings import EnvironSettings

sys.stdin.read()
settings = EnvironSettings({"db.url": sys.argv[1], "storage.dir": sys.argv[2]})
cache = SQLCache(None, **SQLCache.configure(settings))
cache.reload_if_needed()
for number in range(20):
    cache.upload(f"{sys.argv[3]}-{number}.zip", io.BytesIO(b"bytes"))
print("sqlalchemy.orm" in sys.modules)
"""


class TestStart:
    def test_processes_start_at_once(self, tmp_path: Path) -> None:
        """Processes that start at the same moment on no database at all come up, share it, and load no ORM."""
        command = [sys.executable, "-c", SERVER, f"sqlite:///{tmp_path}/db.sqlite", str(tmp_path / "files")]
        pipe = subprocess.PIPE
        with ExitStack() as stack:
            servers = [
                stack.enter_context(subprocess.Popen([*command, name], stdin=pipe, stdout=pipe, stderr=pipe))
                for name in ("a", "b", "c")
            ]
            for server in servers:
                assert server.stdin is not None
                server.stdin.close()
                server.stdin = None
            assert [server.communicate() for server in servers] == [(b"False\n", b"")] * 3
        assert look(tmp_path / "db.sqlite", "SELECT count(*), count(DISTINCT name) FROM packages") == [(60, 3)]

    def test_a_rebuild_reads_page_by_page(
        self, configure: Callable[..., SQLCache], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A table of more than one page of rows is read to its end."""
        monkeypatch.setattr(sql, "PAGE", 7)
        cache = configure(url="sqlite://")
        put(cache, *(package(version=f"{number}.0") for number in range(21)))
        assert cache.rebuild().added == 21
        assert len(list(cache.everything())) == 21
        assert everything(cache) == stored(cache)
        assert cache.rebuild().unchanged == 21
