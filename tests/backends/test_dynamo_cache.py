"""The cache in DynamoDB: the contract on MiniStack and on Moto, the items as 1.3.12 has them, and what can go wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.cache.dynamo import DynamoCache
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.errors import BackendUnavailable, InvalidUpload
from pypicloud.testing.cache import NOW, CacheContract, Witness, everything, facts, package, put, until
from pypicloud.testing.cache import stored as in_storage
from support.dynamo import Tables, intercepted, one_loader, requests, value

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache
    from support.services.aws import MiniStack, Moto


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


class DynamoContract(CacheContract):
    cache_class = DynamoCache

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        kwargs["dynamo"].close()

    @pytest.fixture
    def tables(self, settings: dict[str, str]) -> Iterator[Tables]:
        tables = Tables(settings)
        yield tables
        tables.client.close()

    @pytest.fixture
    def witness(self, tables: Tables) -> Witness:
        def look() -> dict[str, dict[str, Any]]:
            found = {}
            for filename, item in tables.items(tables.packages).items():
                if "name" in item:
                    row = {key: value(each) for key, each in item.items()}
                    micros = int(Decimal(row["last_modified"]) * 10**6)
                    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
                    found[filename] = {"summary": None, **row, "last_modified": time}
            return found

        return look

    # The items

    def test_the_items_are_those_of_1_3_12(self, cache: ICache, tables: Tables) -> None:
        """A package's item has every attribute that 1.3.12 gave it, in its type, and no other."""
        cache.save(package("Foo_Bar", summary="Good", hash_md5="cd", requires_python=">=3"))
        cache.save(package(last_modified=NOW.replace(microsecond=0)))
        found = tables.items(tables.packages)
        assert found["Foo_Bar-1.0.tar.gz"] == {
            "filename": {"S": "Foo_Bar-1.0.tar.gz"},
            "name": {"S": "foo-bar"},
            "version": {"S": "1.0"},
            "last_modified": {"N": "1777863721.123456"},
            "summary": {"S": "Good"},
            "data": {"M": {"hash_md5": {"S": "cd"}, "requires_python": {"S": ">=3"}}},
        }
        bare = found["foo-1.0.tar.gz"]
        assert bare.keys() == {"filename", "name", "version", "last_modified", "data"}
        assert Decimal(bare["last_modified"]["N"]) == 1777863721
        assert bare["data"] == {"M": {}}
        summaries = tables.items(tables.summaries)
        assert summaries["foo-bar"]["summary"] == {"S": "Good"}
        assert summaries["foo-bar"]["last_modified"] == {"N": "1777863721.123456"}
        assert "summary" not in summaries["foo"]

    def test_own_items_are_no_packages(self, cache: ICache, tables: Tables) -> None:
        """What this version keeps beside the packages is in no index, too new for 1.3.12 to drop, and no package."""
        cache.reload_if_needed()
        cache.save(package())
        cache.clear(package())
        cache.write_note("colour", "red")
        with cache.lock("foo"):
            own = tables.items(tables.packages)
        assert own.keys() == {"/projects", "/gone/foo", "/note/fill", "/note/rebuild", "/note/colour", "/lock/foo"}
        for key, item in own.items():
            assert "name" not in item
            assert int(item["last_modified"]["N"]) > datetime(2999, 1, 1, tzinfo=UTC).timestamp()
            assert cache.fetch(key) is None
        assert "/lock/foo" not in tables.items(tables.packages)
        assert tables.items(tables.summaries) == {}
        assert cache.is_empty()
        assert list(cache.everything()) == cache.all("/gone/foo") == cache.distinct() == []

    def test_names_that_no_item_can_have(self, cache: ICache) -> None:
        """Nothing is found under a name that DynamoDB could not have as a key."""
        cache.save(package())
        for name in ("", "x" * 3000, "x-\ud83d"):
            assert cache.fetch(name) is None
            assert cache.all(name) == []
            assert cache.revision(name) is not None

    def test_too_large_facts(self, cache: ICache, caplog: pytest.LogCaptureFixture) -> None:
        """Facts that no item can hold are refused by name and size; a rebuild goes past them."""
        large = package(summary="\u00dc" * 200_001)
        with pytest.raises(InvalidUpload, match=r"foo-1\.0\.tar\.gz are 400\d\d\d bytes, and DynamoDB keeps 400000"):
            cache.save(large)
        with pytest.raises(InvalidUpload, match="2048"):
            cache.save(package(filename="x" * 2049))
        put(cache, large, package("bar"))
        assert cache.rebuild() == Rebuilt(added=1)
        assert cache.distinct() == ["bar"]
        assert "foo-1.0.tar.gz" in caplog.text

    # Many files of one project

    def test_a_large_change_is_made_in_parts(self, cache: ICache, tables: Tables) -> None:
        """More files than one transaction can take are saved, moved and cleared, and the project is told of all."""
        many = [package(version=f"{number}.0", summary=f"s{number}") for number in range(250)]
        cache.save_all(many)
        assert {facts(found)[:3] for found in cache.all("foo")} == {facts(each)[:3] for each in many}
        assert cache.summary() == [{"name": "foo", "summary": "s249", "last_modified": NOW}]
        assert tables.items(tables.summaries)["foo"]["count"] == {"N": "250"}
        before = cache.revisions(["foo", "bar", None])
        moved = [package("bar", each.version, filename=each.filename) for each in many[:150]]
        cache.save_all(moved)
        assert (len(cache.all("foo")), len(cache.all("bar"))) == (100, 150)
        assert cache.distinct() == ["bar", "foo"]
        after = cache.revisions(["foo", "bar", None])
        assert all(before[name] != after[name] for name in before)
        cache.clear_many(many)
        assert everything(cache) == {}
        assert cache.is_empty()

    # What 1.3.12 or a stranger does to the tables

    def test_1_3_12_saves_beside_us(self, cache: ICache, tables: Tables) -> None:
        """What an older server saves is seen at once, with another revision; later changes build upon it."""
        cache.save_all([package(), package(version="0.5")])
        before = cache.revision("foo")
        old = package(version="2.0", summary="new", last_modified=datetime(2015, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
        tables.save_like_1_3_12(old)
        assert cache.revision("foo") not in {before, None}
        assert [found.version for found in cache.all("foo")] == ["2.0", "1.0", "0.5"]
        assert facts(cache.all("foo")[0]) == facts(old)
        assert cache.summary() == [{"name": "foo", "summary": "new", "last_modified": NOW}]
        cache.save(package(version="3.0", summary="newest"))
        assert [found.version for found in cache.all("foo")] == ["3.0", "2.0", "1.0", "0.5"]
        assert cache.summary() == [{"name": "foo", "summary": "newest", "last_modified": NOW}]

    def test_what_1_3_12_has_just_saved_has_no_revision(self, cache: ICache, tables: Tables) -> None:
        """While the index may lag behind an older server, pages are not kept."""
        tables.save_like_1_3_12(package(last_modified=datetime.now(UTC)))
        assert cache.revision("foo") is None
        cache.save(package(version="2.0"))
        assert cache.revision("foo") is not None

    def test_1_3_12_clears_beside_us(self, cache: ICache, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
        """What an older server deletes is not shown; that costs one look through the table, once."""
        monkeypatch.setattr("pypicloud.cache.dynamo.LAGS", (0.0, 0.0))
        cache.save_all([package(), package(version="2.0", summary="gone"), package("bar")])
        before = cache.revision("foo")
        tables.clear_like_1_3_12("foo-2.0.tar.gz")
        assert [found.version for found in cache.all("foo")] == ["1.0"]
        assert cache.revision("foo") != before
        with requests(cache) as made:
            assert [found.version for found in cache.all("foo")] == ["1.0"]
        assert "Scan" not in made
        assert cache.summary()[1] == {"name": "foo", "summary": None, "last_modified": NOW}
        tables.clear_like_1_3_12("bar-1.0.tar.gz")
        assert cache.all("bar") == []
        assert cache.distinct() == ["foo"]

    def test_a_rebuild_puts_right_what_is_known_of_projects(self, cache: ICache, tables: Tables) -> None:
        """After a rebuild every project has its facts, and there are none of projects without files."""
        put(cache, package(), package(version="2.0", summary="newest"), package("bar"), package("odd"))
        tables.save_like_1_3_12(package(version="2.0", summary="newest"))
        tables.save_like_1_3_12(package())
        tables.save_like_1_3_12(package("bar"))
        tables.put(tables.summaries, {"name": {"S": "nothing"}, "last_modified": {"N": "1"}})
        tables.put(tables.summaries, {"name": {"S": "bar"}, "count": {"S": "x"}, "revision": {"N": "3"}})
        cache.save(package("odd"))
        for name in ("odd", "bar"):
            tables.client.delete_item(TableName=tables.summaries, Key={"name": {"S": name}})
        before = cache.revision(None)
        cache.rebuild()
        assert cache.distinct() == ["bar", "foo", "odd"]
        assert cache.revision(None) != before
        assert everything(cache) == in_storage(cache)
        found = tables.items(tables.summaries)
        assert {name: item["count"] for name, item in found.items()} == {
            "bar": {"N": "1"},
            "foo": {"N": "2"},
            "odd": {"N": "1"},
        }
        assert found["foo"]["summary"] == {"S": "newest"}
        revisions = cache.revisions(["bar", "foo", "odd", None])
        cache.rebuild()
        assert cache.revisions(["bar", "foo", "odd", None]) == revisions

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": None},
            {"version": None},
            {"last_modified": None},
            {"version": {"N": "1"}},
            {"name": {"S": "Foo_"}},
            {"last_modified": {"S": "yesterday"}},
            {"last_modified": {"N": "1e40"}},
            {"data": {"S": "{}"}},
            {"data": {"M": {"x": {"SS": ["a", "b"]}}}},
            {"data": {"M": {"x": {"B": b"\xff"}}}},
        ],
        ids=str,
    )
    def test_a_broken_item(
        self, cache: ICache, tables: Tables, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any]
    ) -> None:
        """An item that is no package is left out with a word in the log, and healed or dropped by a rebuild."""
        put(cache, package(), package(version="2.0"))
        cache.rebuild()
        item = {**tables.items(tables.packages)["foo-1.0.tar.gz"], **wrong}
        item = {name: each for name, each in item.items() if each is not None}
        tables.put(tables.packages, item)
        tables.put(tables.packages, {**item, "filename": {"S": "stray-1.0.tar.gz"}})
        assert cache.fetch("foo-1.0.tar.gz") is None
        assert [found.filename for found in cache.everything()] == ["foo-2.0.tar.gz"]
        assert "foo-1.0.tar.gz is left out" in caplog.text
        cache.rebuild()
        assert everything(cache) == in_storage(cache)
        assert "stray-1.0.tar.gz" not in tables.items(tables.packages)
        caplog.clear()
        assert len(list(cache.everything())) == 2
        assert caplog.text == ""

    def test_an_item_that_is_mended_meanwhile_stays(
        self, cache: ICache, tables: Tables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broken item that somebody makes whole while a rebuild is about to drop it is not dropped."""
        monkeypatch.setattr("pypicloud.cache.dynamo.LAGS", (0.0,))
        cache.save(package(version="2.0"))
        whole = {**tables.items(tables.packages)["foo-2.0.tar.gz"], "filename": {"S": "foo-1.0.tar.gz"}}
        broken = {name: each for name, each in whole.items() if name != "version"}
        put(cache, package("foo", "2.0"), package("foo", "2.0", filename="foo-1.0.tar.gz"))
        tables.put(tables.packages, broken)

        def mend(name: str, _: Any) -> None:
            if name == "DeleteItem":
                tables.put(tables.packages, whole)

        with intercepted(cache, mend):
            assert cache.rebuild() == Rebuilt(changed=2)

    # Loss

    def test_lost_tables_are_made_and_filled_again(self, cache: ICache, tables: Tables) -> None:
        """When the tables are gone nobody is told that there is nothing, and soon all is there again."""
        put(cache, *(package(f"p{number}") for number in range(5)))
        cache.reload_if_needed()
        before = cache.revisions([None, "p1", "nothing"])
        for ask in (
            lambda: cache.all("p1"),
            lambda: cache.fetch("p1-1.0.tar.gz"),
            lambda: cache.revisions([None, "p1"]),
            cache.distinct,
            cache.summary,
            lambda: cache.search({"name": ["p"]}, "or"),
            lambda: cache.save(package("p1")),
        ):
            tables.lose()
            with pytest.raises(BackendUnavailable, match="being filled"):
                ask()
            until(lambda: answers(cache))
        assert everything(cache) == in_storage(cache)
        after = cache.revisions([None, "p1", "nothing"])
        assert all(before[name] != after[name] for name in before)

    def test_emptied_tables_are_filled_again(self, cache: ICache, tables: Tables) -> None:
        """When somebody has put empty tables in the place of ours, all is read from storage again."""
        put(cache, package(), package("bar"))
        cache.reload_if_needed()
        for table in (tables.packages, tables.summaries):
            key = "filename" if table == tables.packages else "name"
            for each in tables.items(table):
                tables.client.delete_item(TableName=table, Key={key: {"S": each}})
        with pytest.raises(BackendUnavailable, match="being filled"):
            cache.all("foo")
        until(lambda: answers(cache))
        assert everything(cache) == in_storage(cache)

    def test_health_tells_of_the_filling(self, cache: ICache, tables: Tables) -> None:
        """A cache that has lost everything is not well before it is filled again, which the question begins."""
        put(cache, package())
        cache.reload_if_needed()
        with cache.lock("fill"):
            tables.client.delete_item(TableName=tables.packages, Key={"filename": {"S": "/note/fill"}})
            is_healthy, message = cache.check_health()
            assert not is_healthy
            assert "being filled" in message
        until(lambda: cache.check_health()[0])

    def test_health_tells_what_is_wrong(self, cache: ICache, tables: Tables) -> None:
        """A cache whose tables are gone is not well, and says why."""
        tables.lose()
        is_healthy, message = cache.check_health()
        assert not is_healthy
        assert tables.packages in message


def answers(cache: ICache) -> bool:
    """Whether a cache can be read."""
    try:
        cache.distinct()
    except BackendUnavailable:
        return False
    return True


class TestOnMiniStack(DynamoContract):
    @pytest.fixture
    def settings(self, ministack: MiniStack) -> dict[str, str]:
        return ministack.cache_settings()


class TestOnMoto(DynamoContract):
    @pytest.fixture
    def settings(self, moto: Moto) -> dict[str, str]:
        return moto.cache_settings()
