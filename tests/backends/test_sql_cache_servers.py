"""The SQL cache on PostgreSQL and MariaDB: the contract, and what is peculiar to a database server."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from pypicloud.cache import SQLCache
from pypicloud.cache.changes import Change
from pypicloud.cache.fill import FILL, FILLING, is_filled
from pypicloud.errors import BackendUnavailable, InvalidUpload
from pypicloud.testing.cache import CacheContract, Witness, everything, facts, package, put, request_of, stored
from pypicloud.testing.cache_fixtures import until
from support.databases import look
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pypicloud.cache.base import ICache
    from support.services.mariadb import MariaDB
    from support.services.postgres import Postgres

TABLES = ("packages", "package_revisions", "package_notes")


@pytest.fixture(scope="module")
def on_postgres(postgres: Postgres) -> str:
    """The address of a database on PostgreSQL; each test begins by dropping the tables."""
    return postgres.database()


@pytest.fixture(scope="module")
def on_mariadb(mariadb: MariaDB) -> str:
    """The same on MariaDB."""
    return mariadb.database()


class OnServer(CacheContract):
    """The contract on a database server."""

    cache_class = SQLCache

    @pytest.fixture
    def url(self) -> str:
        """The address of the database."""
        raise NotImplementedError

    @pytest.fixture
    def settings(self, url: str) -> dict[str, str]:
        for table in TABLES:
            look(url, f"DROP TABLE IF EXISTS {table}")
        return {"db.url": url}

    @pytest.fixture
    def witness(self, settings: dict[str, str]) -> Witness:
        def rows() -> dict[str, dict[str, Any]]:
            query = "SELECT filename, name, version, last_modified, summary, data FROM packages"
            return {
                filename: {
                    "name": name,
                    "version": version,
                    "last_modified": time.replace(tzinfo=UTC),
                    "summary": summary,
                    "data": json.loads(data),
                }
                for filename, name, version, time, summary, data in look(settings["db.url"], query)
            }

        return rows

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        kwargs["database"].close()

    # Round trips

    def test_a_page_that_has_not_changed_is_one_round_trip(
        self, start: Callable[..., Callable[..., ICache]], url: str
    ) -> None:
        """One revision, or many, cost one round trip; a page that is not kept and a download one more each."""
        with Proxy(make_url(url).port or 0) as proxy:
            cache = start(**{"db.url": proxy.through(url)})(request_of())
            cache.reload_if_needed()
            cache.save_all([package("foo"), package("bar")])
            questions: list[Callable[[], object]] = [
                lambda: cache.revision("foo"),
                lambda: cache.revision("nobody"),
                lambda: cache.revisions(["foo", "bar", "nobody", None]),
                lambda: cache.all("foo"),
                lambda: cache.fetch("foo-1.0.tar.gz"),
                lambda: cache.all("nobody"),
                lambda: cache.fetch("nobody-1.0.tar.gz"),
                cache.check_health,
            ]
            for ask in questions:
                for _ in range(8):
                    ask()
                before = proxy.round_trips
                ask()
                assert proxy.round_trips == before + 1

    # Texts

    def test_what_is_alike_is_not_the_same(self, cache: ICache) -> None:
        """Case, accents and spaces at the end make other file names and other projects."""
        names = ["Foo-1.zip", "foo-1.zip", "f\u00f6o-1.zip", "foo-1.zip ", "fo\u00df-1.zip", "foss-1.zip"]
        for name in names:
            assert cache.fetch(name) is None
            cache.save(package(filename=name, summary=name))
        assert [str(found.summary) for name in names if (found := cache.fetch(name))] == names
        cache.save_all([package("b\u00e4r"), package("bar", filename="other.zip")])
        assert [found.filename for found in cache.all("bar")] == ["other.zip"]
        assert cache.distinct() == ["bar", "b\u00e4r", "foo"]
        cache.clear(package(filename="foo-1.zip"))
        assert len(cache.all("foo")) == len(names) - 1

    @pytest.mark.parametrize(
        ("summary", "piece", "is_found"),
        [
            ("\u0130stanbul", "i", True),
            ("\u212alvin", "k", True),
            ("ISTANBUL", "i", True),
            ("STRASSE", "stra\u00dfe", False),
            ("STRA\u1e9eE", "stra\u00dfe", True),
            ("\u00c4rger", "arger", False),
            ("\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3", True),
            ("a\\b", "\\", True),
            ("ab", "\\", False),
            ("a'b\"c", "'B\"", True),
            ("abc", "a\0", False),
            ("abc", "\ud83d", False),
        ],
    )
    def test_every_database_finds_the_same(self, cache: ICache, summary: str, piece: str, is_found: bool) -> None:
        """What a search finds is what Python calls the same letters, whatever the database calls so."""
        cache.save(package(summary=summary))
        assert bool(cache.search({"summary": [piece]}, "or")) == (piece.lower() in summary.lower()) == is_found

    @pytest.mark.parametrize("odd", ["a\0b", "\ud83d"])
    def test_texts_that_no_database_takes_are_not_there(self, cache: ICache, odd: str) -> None:
        """Asking for a name that cannot be stored is no error: there is no such thing."""
        assert cache.fetch(odd) is None
        assert cache.fetch_many([odd]) == {}
        assert cache.all(odd) == []
        assert cache.revision(odd) == "0"
        assert cache.revisions([odd, None])[odd] == "0"
        cache.clear(package(filename=odd))

    @pytest.mark.parametrize(
        ("odd", "reason"),
        [
            ({"filename": "a" * 256}, "filename 'aaa.* more than the 255 letters"),
            ({"version": "1" * 1001}, "version '111.* more than the 1000 letters"),
            ({"name": "a" * 256, "filename": "a.zip"}, "name 'aaa.* more than the 255 letters"),
            ({"filename": "a\0b.zip"}, "filename 'a.*no database takes"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, cache: ICache, odd: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Facts that the database cannot hold are refused with the reason, and left out of a rebuild."""
        wrong = package(**odd)
        with pytest.raises(InvalidUpload, match=reason):
            cache.save_all([package("right"), wrong])
        assert cache.is_empty()
        with caplog.at_level(logging.WARNING):
            assert cache.exchange([Change(wrong.filename, None, wrong)]) == set()
        assert "A file is left out of the cache" in caplog.text

    def test_long_facts_fit(self, cache: ICache) -> None:
        """A summary and facts of a megabyte, and letters of any plane, come back."""
        long = package(summary="\U0001f40d" * 250_000, notes="x" * 1_000_000)
        cache.save(long)
        found = cache.fetch(long.filename)
        assert found is not None
        assert facts(found) == facts(long)

    # Many servers

    def test_a_project_moves_while_others_write(self, start: Callable[..., Callable[..., ICache]]) -> None:
        """Servers that move files between projects, and drop them, lose none and leave no project behind."""
        caches = [start()() for _ in range(4)]
        files = [f"file-{number}.zip" for number in range(6)]

        def work(which: int) -> None:
            for number in range(12):
                owner = f"p{(which + number) % 3}"
                caches[which].save_all([package(owner, filename=name) for name in files])
                caches[which].clear_many([package(filename=name) for name in files[:3]])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        caches[0].save_all([package("end", filename=name) for name in files])
        assert caches[1].distinct() == ["end"]
        assert len(caches[2].all("end")) == len(files)

    # Tables that are gone

    @pytest.mark.parametrize("gone", [TABLES, ["packages"], ["package_notes"], ["package_revisions"]])
    def test_dropped_tables_are_made_and_filled_again(self, cache: ICache, url: str, gone: list[str]) -> None:
        """When tables are dropped nobody is told that there is nothing; soon everything is back."""
        put(cache, package("foo"), package("bar"))
        cache.reload_if_needed()
        look(url, f"DROP TABLE {', '.join(gone)}")
        questions: list[Callable[[], Any]] = [
            lambda: cache.revision("foo") and cache.all("foo"),
            cache.distinct,
            lambda: cache.fetch("foo-1.0.tar.gz"),
            lambda: cache.search({"name": ["foo"]}, "or"),
            cache.summary,
        ]
        answers = [_answer(ask) for ask in questions]
        assert all("being filled" in answer if isinstance(answer, str) else answer for answer in answers)
        until(lambda: cache.check_health()[0])
        assert everything(cache) == stored(cache)

    @pytest.mark.parametrize("gone", [TABLES, ["packages"], ["package_notes"], ["package_revisions"]])
    def test_what_was_lost_has_another_revision(self, cache: ICache, url: str, gone: list[str]) -> None:
        """A page kept from before a loss is not taken for that of today, which may lack what is stored no more."""
        put(cache, package("foo"), package("bar"))
        cache.reload_if_needed()
        before = cache.revisions([None, "foo", "bar", "nothing"])
        cache.storage.delete(package("bar"))
        look(url, f"DROP TABLE {', '.join(gone)}")
        for ask in (lambda: cache.fetch("foo-1.0.tar.gz"), cache.distinct, lambda: cache.revision(None)):
            _answer(ask)
        until(lambda: cache.check_health()[0])
        after = cache.revisions([None, "foo", "bar", "nothing"])
        assert not before.items() & after.items()
        assert after == {name: cache.revision(name) for name in after}

    def test_a_cache_that_is_being_filled_says_so(self, cache: ICache, server: Callable[..., ICache]) -> None:
        """While the note says that the cache is being filled, no page is answered from half of it."""
        put(cache, package("foo"), package("bar"))
        cache.reload_if_needed()
        filling, go_on = threading.Event(), threading.Event()
        other = server()

        def wait() -> None:
            with other.lock(FILL):
                filling.set()
                go_on.wait()

        thread = threading.Thread(target=wait)
        thread.start()
        filling.wait()
        cache.clear(package("bar"))
        cache.write_note(FILL, FILLING)
        questions: list[Callable[[], object]] = [
            lambda: cache.revision("foo"),
            lambda: cache.revisions(["foo"]),
            lambda: cache.all("bar"),
            lambda: cache.all("foo"),
            lambda: cache.fetch("bar-1.0.tar.gz"),
            lambda: cache.fetch("foo-1.0.tar.gz"),
            cache.distinct,
            cache.summary,
            lambda: cache.search({}, "or"),
        ]
        for ask in questions:
            with pytest.raises(BackendUnavailable, match="being filled"):
                ask()
        assert not cache.check_health()[0]
        go_on.set()
        thread.join()
        until(lambda: is_filled(cache.note(FILL)))
        assert everything(cache) == stored(cache)


class TestPsycopg(OnServer):
    """PostgreSQL through psycopg 3."""

    @pytest.fixture
    def url(self, on_postgres: str) -> str:
        return on_postgres


class TestPsycopg2(OnServer):
    """PostgreSQL through the driver that older installations have."""

    @pytest.fixture
    def url(self, on_postgres: str) -> str:
        return on_postgres.replace("+psycopg:", "+psycopg2:")


class OnMariaDB(OnServer):
    """The contract on MariaDB, and what is peculiar to that."""

    # A table of 1.3.12

    def test_a_table_of_1_3_12_is_used_and_a_rebuild_changes_it(
        self, start: Callable[..., Callable[..., ICache]], settings: dict[str, str], url: str
    ) -> None:
        """A table in which Foo is foo, without parts of a second, is used as it is; a rebuild makes it exact."""
        _make_old_table(url)
        cache = start()(request_of())
        put(cache, package("Foo", filename="Foo-1.0.zip"), package("bar"))
        cache.reload_if_needed()
        assert [found.last_modified for found in cache.all("foo")] == [datetime(2022, 3, 4, 5, 6, 7, tzinfo=UTC)]
        assert cache.fetch("foo-1.0.zip") is None
        assert cache.fetch("Foo-1.0.zip") is not None
        assert cache.all("f\u00f6o") == []
        cache.rebuild()
        assert everything(cache) == stored(cache)
        assert cache.rebuild().changed == 0
        cache.save(package("foo", filename="foo-1.0.zip"))
        assert len(cache.all("foo")) == 2

    def test_a_table_that_may_not_be_changed_stays(
        self,
        start: Callable[..., Callable[..., ICache]],
        settings: dict[str, str],
        url: str,
        mariadb: MariaDB,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Without the right to change the table a rebuild does what it can, and says so."""
        _make_old_table(url)
        start()
        database = make_url(url).database
        for grant in (
            "DROP USER IF EXISTS humble@'127.0.0.1'",
            "CREATE USER humble@'127.0.0.1' IDENTIFIED BY 'pw'",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO humble@'127.0.0.1'",
        ):
            mariadb.execute(grant)
        cache = start(**{"db.url": url.replace("app:app-password", "humble:pw")})(request_of())
        put(cache, package("new"))
        assert cache.rebuild().added == 1
        assert "stays as an earlier version made it" in caplog.text

    def test_odd_times_break_no_listing(self, cache: ICache, url: str) -> None:
        """A time of zeros, which MySQL can hold, counts as old."""
        cache.save(package())
        look(url, "SET SESSION sql_mode = ''")
        look(url, "UPDATE packages SET last_modified = CAST(0 AS DATETIME)")
        assert [found.last_modified.year for found in cache.all("foo")] == [1970]


class TestPyMySQL(OnMariaDB):
    """MariaDB through PyMySQL."""

    @pytest.fixture
    def url(self, on_mariadb: str) -> str:
        return on_mariadb


class TestMysqlclient(OnMariaDB):
    """MariaDB through the driver that is written in C."""

    @pytest.fixture
    def url(self, on_mariadb: str) -> str:
        return on_mariadb.replace("+pymysql:", "+mysqldb:")


def _answer(ask: Callable[[], Any]) -> Any:
    """The answer to a question, or the message of the error."""
    try:
        return ask()
    except BackendUnavailable as error:
        return error.message


def _make_old_table(url: str) -> None:
    """The table as a server of version 1.3.12 creates it in MySQL, with a row of its own (compat.md 3.2)."""
    look(
        url,
        "CREATE TABLE packages (filename VARCHAR(255) NOT NULL, name VARCHAR(255) NOT NULL, "
        "version VARCHAR(1000) NOT NULL, last_modified DATETIME NOT NULL, summary TEXT, data TEXT NOT NULL, "
        "PRIMARY KEY (filename), INDEX ix_packages_name (name), INDEX ix_packages_last_modified (last_modified)) "
        "DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_general_ci",
    )
    values = ("Foo-1.0.zip", "foo", "1.0", "2022-03-04 05:06:07", "Good", "{}")
    look(url, "INSERT INTO packages VALUES (%s, %s, %s, %s, %s, %s)", *values)
