"""Databases: which driver an address means, work that is done again, locks, forks, and what a start says."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text

from pypicloud.cache.sql import POOLCLASS, URL
from pypicloud.cache.sql.tables import METADATA
from pypicloud.database import Database, address, failures, locks
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.settings import EnvironSettings
from support.databases import end_sessions, look
from support.services.mariadb import MariaDB
from support.services.postgres import Postgres
from support.services.proxy import Proxy

Open = Callable[..., Database]

SERVERS = ("psycopg", "psycopg2", "pymysql", "mysqldb")

MYSQL = ("pymysql", "mysqldb")


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens databases by address, as the app does, with other options beside it."""
    made = []

    def opened(url: str, **options: str) -> Database:
        settings = {"db.url": url, **{f"db.{name}": value for name, value in options.items()}}
        database = Database.configure(EnvironSettings(settings, {}), URL, POOLCLASS, METADATA)
        made.append(database)
        return database

    yield opened
    for database in made:
        database.close()


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> str:
    """The address of a new database on a server, by driver."""
    if request.param in MYSQL:
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        return mariadb.database(request.param)
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.database().replace("+psycopg:", f"+{request.param}:")


def one(database: Database) -> int:
    """The number one, from the database."""
    return database.read(lambda connection: int(connection.execute(text("SELECT 1")).scalar_one()))


def insert(connection: Connection, name: str, revision: str = "r") -> None:
    """Put a row into a table."""
    values = {"name": name, "revision": revision}
    connection.execute(text("INSERT INTO package_revisions (name, revision) VALUES (:name, :revision)"), values)


def change(connection: Connection, name: str, revision: str) -> None:
    """Change a row."""
    values = {"name": name, "revision": revision}
    connection.execute(text("UPDATE package_revisions SET revision = :revision WHERE name = :name"), values)


def names(database: Database) -> list[str]:
    """The first column of a table."""
    query = text("SELECT name FROM package_revisions ORDER BY name")
    return database.read(lambda connection: list(connection.scalars(query)))


class TestAddress:
    @staticmethod
    def read(url: str) -> Any:
        return address.read(EnvironSettings({"db.url": url}, {}), URL)

    @pytest.mark.parametrize(
        ("url", "installed", "driver"),
        [
            ("postgresql://host/db", {"psycopg", "psycopg2"}, "postgresql+psycopg"),
            ("postgresql://host/db", {"psycopg2"}, "postgresql+psycopg2"),
            ("postgres://host/db", {"psycopg"}, "postgresql+psycopg"),
            ("postgresql+psycopg2://host/db", {"psycopg"}, "postgresql+psycopg2"),
            ("mysql://host/db", {"MySQLdb", "pymysql"}, "mysql+mysqldb"),
            ("mysql://host/db", {"pymysql"}, "mysql+pymysql"),
            ("mariadb://host/db", {"pymysql"}, "mariadb+pymysql"),
            ("mysql+pymysql://host/db", {"MySQLdb"}, "mysql+pymysql"),
        ],
    )
    def test_an_address_means_the_driver_that_is_installed(
        self, monkeypatch: pytest.MonkeyPatch, url: str, installed: set[str], driver: str
    ) -> None:
        """An address without a driver takes the first that is installed; one that names a driver keeps it."""
        monkeypatch.setattr(address, "find_spec", lambda name: name if name in installed else None)
        assert self.read(url).drivername == driver

    @pytest.mark.parametrize(
        ("url", "extra"),
        [("postgresql://host/db", "postgres"), ("mysql://host/db", "mysql"), ("mariadb://host/db", "mysql")],
    )
    def test_no_driver_at_all(self, monkeypatch: pytest.MonkeyPatch, url: str, extra: str) -> None:
        """Without any driver the error says what to install."""
        monkeypatch.setattr(address, "find_spec", lambda name: None)
        with pytest.raises(SettingError, match=rf"^db\.url.*pip install 'pypicloud\[{extra}\]'"):
            self.read(url)

    def test_a_named_driver_that_is_missing(self, monkeypatch: pytest.MonkeyPatch, opened: Open) -> None:
        """An address that names a driver which is not installed is told its package, and keeps the password."""
        monkeypatch.setitem(sys.modules, "MySQLdb", None)
        with pytest.raises(SettingError, match=r"^db\.url.*the Python package 'MySQLdb', which is not") as caught:
            opened("mysql+mysqldb://me:tops3cret@host/name")
        assert "tops3cret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("query", "warns"), [("", 0), ("?charset=utf8mb4", 0), ("?charset=utf8", 0), ("?charset=latin1", 1)]
    )
    def test_mysql_is_spoken_to_in_every_letter(self, caplog: pytest.LogCaptureFixture, query: str, warns: int) -> None:
        """MySQL's connections use utf8mb4, whatever the address says; what would lose letters is warned of."""
        assert self.read(f"mysql+pymysql://host/db{query}").query["charset"] == "utf8mb4"
        assert len(caplog.records) == warns

    @pytest.mark.parametrize("url", ["oracle://host/db", "mssql+pyodbc://host/db"])
    def test_other_databases_are_refused(self, url: str) -> None:
        """A database that the cache does not know is refused with those it knows."""
        with pytest.raises(SettingError, match=r"^db\.url.*sqlite:, postgresql: or mysql:"):
            self.read(url)

    def test_the_address_overrides_what_the_driver_is_told(self) -> None:
        """How long to wait for a server is said by the address, if it says it."""
        given = address.connect_options(make_url("postgresql+psycopg://host/db?connect_timeout=77&keepalives=0"))
        assert "connect_timeout" not in given
        assert given["keepalives_idle"] == 15
        assert address.connect_options(make_url("mysql+pymysql://host/db"))["connect_timeout"] == 5
        assert address.connect_options(make_url("postgresql+pg8000://host/db")) == {}

    def test_a_password_with_an_at_sign(self) -> None:
        """No part of a password is shown that was not quoted as it has to be, and the cause is said."""
        with pytest.raises(SettingError, match="%40") as caught:
            self.read("postgresql://app:tops3@cret@host/db")
        assert "cret" not in str(caught.value)
        assert "cret" not in address.shown(self.read("postgresql://app:tops3@h/cret@host/db"))


class TestStart:
    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("app-password", "tops3cret", "(?i)password|denied"),
            ("127.0.0.1", "nowhere.invalid", "nowhere.invalid"),
            ("/test_", "/test_tops3cret_", "(?i)does not exist|unknown database|denied"),
        ],
    )
    def test_what_is_wrong_is_said_without_secrets(
        self, opened: Open, url: str, old: str, new: str, reason: str
    ) -> None:
        """A wrong password, host or database stops the start with the server's own words, at once."""
        with pytest.raises(SettingError, match=reason) as caught:
            opened(url.replace(old, new))
        assert str(caught.value).startswith("db.url = ")
        assert "this database cannot be used: " in str(caught.value)
        for secret in ("app-password", "tops3cret" if old == "app-password" else "SELECT"):
            assert secret not in str(caught.value)

    def test_a_port_where_nobody_is(self, opened: Open, url: str) -> None:
        """A server that is away stops the start within a moment."""
        began = time.monotonic()
        with pytest.raises(SettingError, match=r"(?i)refused|can't connect"):
            opened(str(make_url(url).set(port=1).render_as_string(hide_password=False)))
        assert time.monotonic() - began < 5

    def test_an_option_that_the_driver_does_not_know(self, opened: Open, url: str) -> None:
        """What the driver is to be told and does not understand stops the start, which names it."""
        with pytest.raises(SettingError, match=r"^db\.url = .*this database cannot be used: .*no_such_option"):
            opened(f"{url}{'&' if '?' in url else '?'}no_such_option=1")

    def test_a_server_that_says_nothing(self, opened: Open, url: str) -> None:
        """A server that accepts a connection and never says a word stops the start within a few seconds."""
        with Proxy(make_url(url).port or 0) as proxy:
            proxy.hang()
            began = time.monotonic()
            with pytest.raises(SettingError, match=r"(?i)this database cannot be used: .*(time|lost)"):
                opened(f"{proxy.through(url)}{'&' if '?' in url else '?'}connect_timeout=2")
            assert time.monotonic() - began < 8

    @pytest.mark.parametrize("url", MYSQL, indirect=True)
    def test_a_server_that_was_quick_to_greet_may_take_its_time(
        self, opened: Open, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A query may take longer than a server has to accept a connection, but no longer than the address says."""
        monkeypatch.setattr(failures, "PATIENCE", -1.0)
        database = opened(f"{url}&connect_timeout=1&read_timeout=2")
        assert database.rows("SELECT SLEEP(1.3)")[0][0] == 0
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
            database.read(lambda connection: connection.exec_driver_sql("SELECT SLEEP(9)"))
        assert 1.5 < time.monotonic() - began < 6

    def test_a_table_that_somebody_else_made(self, opened: Open, url: str) -> None:
        """A table without one of our columns stops the start, which names table and column and says what to do."""
        look(url, "CREATE TABLE packages (filename VARCHAR(9) PRIMARY KEY, name TEXT, version TEXT)")
        message = r"packages has no column last_modified; .*Name another database, or rename or drop the table"
        with pytest.raises(SettingError, match=message):
            opened(url)

    def test_a_column_that_wants_a_value(self, opened: Open, url: str) -> None:
        """A table with a column more is used unless that must be given a value."""
        opened(url)
        look(url, "ALTER TABLE packages ADD COLUMN harmless INTEGER")
        look(url, "ALTER TABLE packages ADD COLUMN also_harmless INTEGER NOT NULL DEFAULT 7")
        opened(url)
        look(url, "ALTER TABLE packages ADD COLUMN demanding INTEGER NOT NULL")
        with pytest.raises(SettingError, match="packages wants a value for the column demanding"):
            opened(url)

    def test_servers_that_create_the_tables_at_once(self, opened: Open, url: str) -> None:
        """Servers that start at the same moment on an empty database all come up."""
        together = threading.Barrier(4)

        def start(_: int) -> int:
            together.wait()
            return one(opened(url))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(start, range(4))) == [1] * 4


class TestOptions:
    def test_engine_options_are_taken(self, opened: Open, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Options of the pool are taken, and an unknown one is warned of."""
        database = opened(url, pool_size="3", max_overflow="0", pool_pre_ping="true", region_name="x")
        assert database.engine.pool.size() == 3  # type: ignore[attr-defined]  # of the default pool
        assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
            "db.region_name is no option of this database's engine; it is ignored"
        ]
        assert one(database) == 1

    def test_connect_args_belong_into_the_address(self, opened: Open, url: str) -> None:
        """What the driver is to be told cannot be an option of its own, and the error says where it goes."""
        with pytest.raises(SettingError, match=r"^db\.connect_args.*\?name=value"):
            opened(url, connect_args="{}")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, "READ COMMITTED"),
            ("serializable", "SERIALIZABLE"),
            ("REPEATABLE_READ", "REPEATABLE READ"),
            ("AUTOCOMMIT", "READ COMMITTED"),
        ],
    )
    def test_the_isolation_level_is_that_of_transactions(
        self, opened: Open, url: str, given: str | None, expected: str
    ) -> None:
        """db.isolation_level is the level of what writes; what only reads needs none."""
        database = opened(url, **({} if given is None else {"isolation_level": given}))
        is_postgresql = database.engine.dialect.name == "postgresql"
        query = text("SHOW transaction_isolation" if is_postgresql else "SELECT @@tx_isolation")
        found = database.write(lambda connection: connection.execute(query).scalar_one())
        assert str(found).upper().replace("-", " ") == expected

    def test_an_isolation_level_of_no_use_is_named(self, opened: Open, url: str) -> None:
        """A level that is none stops the start."""
        with pytest.raises(SettingError, match=r"^db\.isolation_level = 'high'.*SERIALIZABLE"):
            opened(url, isolation_level="high")

    def test_no_pool(self, opened: Open, url: str) -> None:
        """Without a pool everything works, locks too."""
        database = opened(url, poolclass="sqlalchemy.pool.NullPool")
        with database.lock("key"):
            database.write(partial(insert, name="a"))
        assert names(database) == ["a"]


class TestReading:
    def test_a_query_is_one_round_trip(self, opened: Open, url: str) -> None:
        """A query costs one round trip, asked the long way or the short way, and no more."""
        with Proxy(make_url(url).port or 0) as proxy:
            database = opened(proxy.through(url))
            query = "SELECT name FROM package_revisions WHERE name = ?"
            for ask in (partial(one, database), partial(database.rows, query, "a")):
                for _ in range(10):
                    # The first few times more is said: the connection is made, the statement prepared.
                    ask()
                before = proxy.round_trips
                for _ in range(10):
                    ask()
                assert proxy.round_trips == before + 10

    def test_a_lost_connection_is_replaced(self, opened: Open, url: str) -> None:
        """When the server has ended all sessions the next query answers, asked the long way or the short way."""
        database = opened(url)
        held = [database.engine.connect() for _ in range(3)]
        for connection in held:
            connection.close()
        for ask in (partial(one, database), lambda: database.rows("SELECT 1")[0][0]):
            end_sessions(url)
            assert ask() == 1

    def test_a_connection_that_breaks_in_the_middle(self, opened: Open, url: str) -> None:
        """When the connection breaks in the middle of an answer it is asked for again."""
        with Proxy(make_url(url).port or 0) as proxy:
            database = opened(proxy.through(url))
            for ask in (partial(one, database), lambda: database.rows("SELECT 1")[0][0]):
                ask()
                proxy.cut_after(3, "answers")
                assert ask() == 1

    def test_a_silent_server_is_waited_for_once(self, opened: Open, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What has taken long in vain is not tried once more, which would take as long again."""
        with Proxy(make_url(url).port or 0) as proxy:
            database = opened(proxy.through(url))
            assert database.rows("SELECT 1")[0][0] == 1
            monkeypatch.setattr("pypicloud.database.PATIENCE", -1.0)
            connections = proxy.connections
            proxy.cut_after(3, "answers")
            with pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
                database.rows("SELECT 1")
            assert proxy.connections == connections

    def test_a_server_that_is_away(self, opened: Open, url: str) -> None:
        """When the server stays away the error says no more than that, and it works again when it is back."""
        with Proxy(make_url(url).port or 0) as proxy:
            database = opened(proxy.through(url))
            there, proxy.target = proxy.target, 1
            proxy.cut()
            for ask in (partial(one, database), lambda: database.rows("SELECT 1")[0][0]):
                with pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
                    ask()
            proxy.target = there
            assert one(database) == 1

    @pytest.mark.parametrize("url", ["psycopg"], indirect=True)
    def test_statements_are_prepared_on_a_connection_of_our_own(
        self, opened: Open, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is asked often is prepared, but not behind a pooler, which is known by the session's number."""
        raw = opened(url).engine.raw_connection()
        assert raw.driver_connection is not None
        assert raw.driver_connection.prepare_threshold == 5
        raw.close()
        monkeypatch.setattr(psycopg.ConnectionInfo, "backend_pid", 1)
        raw = opened(url).engine.raw_connection()
        assert raw.driver_connection is not None
        assert raw.driver_connection.prepare_threshold is None
        raw.close()

    @pytest.mark.parametrize("url", ["psycopg"], indirect=True)
    def test_prepared_statements_may_be_lost(self, opened: Open, url: str) -> None:
        """A prepared statement that the server has forgotten, or whose table has changed, is prepared anew."""
        database = opened(url)
        query = "SELECT * FROM package_notes WHERE name = ?"
        for spoil in ("DEALLOCATE ALL", "ALTER TABLE package_notes ADD COLUMN more INTEGER"):
            for _ in range(9):
                database.rows(query, "a")
            with database.engine.connect() as connection:
                connection.exec_driver_sql(spoil)
            assert database.rows(query, "a") == []


class TestWriting:
    def test_all_or_nothing(self, opened: Open, url: str) -> None:
        """When the work fails nothing of it is kept, its error comes through, and it is not tried again."""
        database = opened(url)
        tries = []

        def work(connection: Connection) -> None:
            tries.append(1)
            insert(connection, "a")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            database.write(work)
        assert (names(database), len(tries)) == ([], 1)

    def test_a_deadlock_is_tried_again(self, opened: Open, url: str) -> None:
        """Of two transactions that wait for each other one is done again, and both are kept."""
        database = opened(url)
        for name in ("a", "b"):
            database.write(partial(insert, name=name))
        both = threading.Barrier(2)
        tries: list[str] = []

        def work(connection: Connection, first: str, second: str) -> None:
            is_first_try = first not in tries
            tries.append(first)
            change(connection, first, f"{first}{second}")
            if is_first_try:
                both.wait()
            change(connection, second, f"{first}{second}")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda order: database.write(partial(work, first=order[0], second=order[1])), ["ab", "ba"]))
        assert len(tries) >= 3
        assert len({row[0] for row in look(url, "SELECT revision FROM package_revisions")}) == 1

    def test_a_row_that_somebody_else_has_inserted(self, opened: Open, url: str) -> None:
        """Work that meets a row which was not there when it looked is done again."""
        database = opened(url)
        tries: list[int] = []

        def work(connection: Connection) -> None:
            found = list(connection.scalars(text("SELECT name FROM package_revisions")))
            if not tries:
                look(url, "INSERT INTO package_revisions (name, revision) VALUES ('a', 'other')")
            tries.append(1)
            if not found:
                insert(connection, "a")

        database.write(work)
        assert len(tries) == 2

    def test_a_connection_that_is_lost_in_the_middle(self, opened: Open, url: str) -> None:
        """A transaction whose session ends is done again, and kept once."""
        database = opened(url)
        tries: list[int] = []

        def work(connection: Connection) -> None:
            insert(connection, "a")
            if not tries:
                tries.append(1)
                end_sessions(url)
            insert(connection, "b")

        database.write(work)
        assert names(database) == ["a", "b"]

    def test_it_gives_up(self, opened: Open, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Work that never succeeds ends with an error without details; the connection is fit for the next."""
        monkeypatch.setattr(failures, "PAUSE", 0)
        database = opened(url, pool_size="1", max_overflow="0")
        database.write(partial(insert, name="a"))
        with pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
            database.write(partial(insert, name="a"))
        database.write(partial(insert, name="b"))
        assert names(database) == ["a", "b"]

    def test_a_pool_that_is_exhausted(self, opened: Open, url: str) -> None:
        """Whoever gets no connection in time gets the one error."""
        database = opened(url, pool_size="1", max_overflow="0", pool_timeout="0")
        for ask in (partial(one, database), partial(database.rows, "SELECT ?", "1")):
            with database.engine.connect(), pytest.raises(BackendUnavailable, match=r"^the database does not answer$"):
                ask()
        assert one(database) == 1


class TestLocks:
    def test_a_lock_keeps_other_servers_out(self, opened: Open, url: str) -> None:
        """Of several servers one at a time holds a key; other keys are free."""
        databases = [opened(url) for _ in range(3)]
        inside, most, guard = 0, 0, threading.Lock()

        def work(database: Database) -> None:
            nonlocal inside, most
            for _ in range(5):
                with database.lock("key"):
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0.002)
                    with guard:
                        inside -= 1

        with databases[0].lock("another"), ThreadPoolExecutor(3) as pool:
            list(pool.map(work, databases))
        assert (inside, most) == (0, 1)

    def test_locks_take_nothing_from_the_pool(self, opened: Open, url: str) -> None:
        """However many locks are held and waited for, there is a connection for queries."""
        database = opened(url, pool_size="1", max_overflow="0", pool_timeout="2")
        go_on = threading.Event()

        def hold(number: int) -> None:
            with database.lock(f"key {number % 8}"):
                go_on.wait()

        with ThreadPoolExecutor(12) as pool:
            done = [pool.submit(hold, number) for number in range(12)]
            time.sleep(0.1)
            assert one(database) == 1
            go_on.set()
            for future in done:
                future.result()

    @pytest.mark.parametrize("url", ["psycopg", "pymysql"], indirect=True)
    def test_a_lock_lives_as_long_as_its_block(self, opened: Open, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lock is kept alive longer than its lease, and a server that is silent for that long loses it."""
        monkeypatch.setattr(locks, "LEASE", 1)
        database, other = opened(url), opened(url)
        with database.lock("key"):
            taken = threading.Event()
            thread = threading.Thread(target=_take, args=(other, taken))
            thread.start()
            assert not taken.wait(1.3)
        assert taken.wait(5)
        thread.join()
        monkeypatch.setattr(locks, "RENEWALS", 0.1)
        with database.lock("key"):
            _take(other, threading.Event())

    def test_a_lock_that_is_lost_in_the_middle(self, opened: Open, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """When the session of a lock ends, what is done under it goes on, and others can have it."""
        database, other = opened(url), opened(url)
        with database.lock("key"):
            end_sessions(url)
            _take(other, threading.Event())
        assert "was lost before its end" in caplog.text
        with database.lock("key"):
            assert one(database) == 1

    def test_a_holder_that_is_killed_frees_its_lock(self, opened: Open, url: str) -> None:
        """The lock of a process that is killed can be had at once."""
        with _Holder(url) as holder:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            _take(opened(url), threading.Event())

    def test_a_waiter_outlives_the_server(self, opened: Open, url: str) -> None:
        """Who waits for a lock when all sessions end goes on waiting, and gets it."""
        database, other = opened(url), opened(url)
        taken = threading.Event()
        thread = threading.Thread(target=_take, args=(other, taken))
        with database.lock("key"):
            thread.start()
            time.sleep(0.1)
            end_sessions(url)
        thread.join(10)
        assert taken.is_set()


class TestFileLocks:
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/db.sqlite"

    def test_a_lock_keeps_other_processes_out(self, opened: Open, url: str) -> None:
        """While another process holds a key it cannot be had; other keys can; a holder that is killed frees it."""
        database = opened(url)
        with _Holder(url) as holder:
            with database.lock("another"):
                taken = threading.Event()
                thread = threading.Thread(target=_take, args=(database, taken))
                thread.start()
                assert not taken.wait(0.1)
            holder.send_signal(signal.SIGKILL)
            assert taken.wait(10)
            thread.join()

    def test_one_lock_does_not_end_another(self, opened: Open, url: str) -> None:
        """A key stays locked when another key of the same process, or another opening of the file, is let go."""
        database = opened(url)
        with database.lock("key"):
            second = opened(url)
            with second.lock("another"):
                pass
            second.close()
            command = [*_command(url)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiter:
                with pytest.raises(subprocess.TimeoutExpired):
                    waiter.wait(0.7)
                waiter.kill()

    def test_a_directory_that_cannot_be_written(self, opened: Open, url: str, tmp_path: Path) -> None:
        """Where no lock file can be made the error says so."""
        database = opened(url)
        (tmp_path / "db.sqlite.lock").mkdir()
        with pytest.raises(BackendUnavailable, match="the lock file beside the database cannot be opened"):
            database.lock("key").__enter__()


def _take(database: Database, taken: threading.Event) -> None:
    with database.lock("key"):
        taken.set()


#: Holds the lock of the key ``key`` until the end of its input.
HOLDER = """
import sys
from pypicloud.cache.sql import POOLCLASS, URL
from pypicloud.database import Database
from pypicloud.settings import EnvironSettings

database = Database.prepare(EnvironSettings({"db.url": sys.argv[1]}, {}), URL, POOLCLASS)
with database.lock("key"):
    print("held", flush=True)
    sys.stdin.read()
"""


def _command(url: str) -> list[str]:
    return [sys.executable, "-c", HOLDER, url]


class _Holder:
    """A process that holds a lock."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(_command(url), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> subprocess.Popen[bytes]:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_parent_and_child_go_on(opened: Open, url: str) -> None:
    """After a fork both processes query, write and lock over connections of their own."""
    database = opened(url)
    with database.lock("key"):
        one(database)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            database.after_fork()
            with database.lock("key"):
                database.write(partial(insert, name="child"))
            status = 0 if one(database) == 1 else 2
        finally:
            os._exit(status)
    for _ in range(20):
        assert one(database) == 1
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with database.lock("key"):
        database.write(partial(insert, name="parent"))
    assert names(database) == ["child", "parent"]
