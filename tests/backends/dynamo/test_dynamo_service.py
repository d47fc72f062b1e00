"""DynamoDB as a service: its index lags, it is busy, its connections break, and it disappears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.cache import dynamo
from pypicloud.cache.dynamo import DynamoCache
from pypicloud.cache.dynamo import client as dynamo_client
from pypicloud.cache.dynamo import tables as dynamo_tables
from pypicloud.cache.dynamo.items import RECENT
from pypicloud.cache.fill import FILL, filled
from pypicloud.errors import BackendUnavailable
from pypicloud.testing.cache import facts, package, put
from support.dynamo import intercepted, refused, requests, said, started
from support.live import free_port
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pypicloud.cache.steps import Step
    from support.services.aws import MiniStack


# The index lags


def freeze_index(cache: DynamoCache, monkeypatch: pytest.MonkeyPatch, queries: int = 1000) -> Callable[[], int]:
    """The index answers as it is now for so many queries to come; what is returned tells how many were made."""
    query, asked = cache.dynamo.query, []
    frozen = {name: list(query(cache.tables.packages, dynamo_tables.INDEX, "name", name)) for name in ("foo", "bar")}

    def lagging(table: str, index: str, key: str, value: str) -> Iterator[Any]:
        asked.append(value)
        return iter(frozen[value]) if len(asked) <= queries else query(table, index, key, value)

    monkeypatch.setattr(cache.dynamo, "query", lagging)
    return lambda: len(asked)


CHANGES: dict[str, Callable[[DynamoCache], object]] = {
    "first": lambda cache: cache.save(package("bar")),
    "new": lambda cache: cache.save(package("foo", "3.0")),
    "again": lambda cache: cache.save(package("foo", "2.0", summary="again")),
    "gone": lambda cache: cache.clear(package("foo", "2.0")),
    "all gone": lambda cache: cache.clear_many([package("foo", "1.0"), package("foo", "2.0")]),
    "moved": lambda cache: cache.save(package("bar", "2.0", filename="foo-2.0.tar.gz")),
    "some": lambda cache: cache.save_all([package("foo", f"3.{number}") for number in range(RECENT)]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_lagging_index_shows_nothing_old(cache: DynamoCache, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the index is as it was before a change, every page is as it is after it, without waiting."""
    monkeypatch.setattr(dynamo, "LAGS", (60.0,))
    cache.save_all([package("foo", "1.0"), package("foo", "2.0")])
    freeze_index(cache, monkeypatch)
    CHANGES[change](cache)
    for name in ("foo", "bar"):
        expected = {found.filename: facts(found) for found in cache.everything() if found.name == name}
        assert {found.filename: facts(found) for found in cache.all(name)} == expected


def test_an_index_that_lags_far_behind_is_waited_for(cache: DynamoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """When more is new than is known without the index, it is asked until it knows."""
    monkeypatch.setattr(dynamo, "LAGS", (0.0,) * 9)
    asked = freeze_index(cache, monkeypatch, 4)
    cache.save_all([package("foo", f"{number}.0") for number in range(RECENT + 1)])
    assert len(cache.all("foo")) == RECENT + 1
    assert asked() == 5


def test_an_index_that_never_catches_up(cache: DynamoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end the table itself is looked through, and nothing is changed."""
    monkeypatch.setattr(dynamo, "LAGS", (0.0,) * 3)
    asked = freeze_index(cache, monkeypatch)
    cache.save_all([package("foo", f"{number}.0") for number in range(RECENT + 1)])
    before = cache.revision("foo")
    assert len(cache.all("foo")) == RECENT + 1
    assert (asked(), cache.revision("foo")) == (3, before)


def test_a_project_that_never_stands_still(cache: DynamoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project whose files cannot be told for all the changes is an error that asks to come back later."""
    monkeypatch.setattr(dynamo, "LAGS", (0.0,))
    cache.save_all([package("foo", "1.0"), package("foo", "2.0")])
    clear = cache.dynamo.delete
    clear(cache.tables.packages, {"filename": {"S": "foo-1.0.tar.gz"}})
    monkeypatch.setattr(cache.changes, "renew", lambda _: [False])
    with pytest.raises(BackendUnavailable, match="the files of foo are being changed all the time"):
        cache.all("foo")


# Round trips


def test_round_trips(cache: DynamoCache) -> None:
    """What a page needs is one request, and two for the files; the note about filling comes along."""
    put(cache, package())
    cache.reload_if_needed()
    names = [None, "foo", "Foo", *(f"p{number}" for number in range(20))]
    asked: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: cache.revision("foo"), ["BatchGetItem"]),
        (lambda: cache.revisions(names), ["BatchGetItem"]),
        (lambda: cache.fetch("foo-1.0.tar.gz"), ["BatchGetItem"]),
        (lambda: cache.all("foo"), ["Query", "BatchGetItem"]),
        (lambda: cache.save(package(version="2.0")), ["BatchGetItem", "BatchGetItem", "TransactWriteItems"]),
        (cache.check_health, ["BatchGetItem"]),
    ]
    for ask, expected in asked:
        with requests(cache) as made:
            ask()
        assert made == expected


def test_many_files_are_few_round_trips(cache: DynamoCache) -> None:
    """A rebuild takes no round trip for each file."""
    put(cache, *(package(f"p{number % 100}", f"{number}.0") for number in range(300)))
    with requests(cache) as made:
        cache.rebuild()
    assert made.count("TransactWriteItems") <= 6
    assert len(made) < 30


def test_answers_of_many_pages(cache: DynamoCache) -> None:
    """What is more than one answer of DynamoDB holds, a megabyte, is there all the same."""
    many = [package(version=f"{number}.0", summary="x" * 15_000) for number in range(150)]
    cache.save_all(many)
    with requests(cache) as made:
        assert len(cache.all("foo")) == len(list(cache.everything())) == 150
    assert (made.count("Query"), made.count("Scan")) == (3, 3)


def test_what_takes_a_while_is_read_from_one_filling(cache: DynamoCache) -> None:
    """A list that was read while the cache was lost and filled again is not given out."""
    put(cache, package())
    cache.reload_if_needed()

    def fill_again(name: str, _: Any) -> None:
        if name == "Scan":
            cache.write_note(FILL, filled())

    with intercepted(cache, fill_again), pytest.raises(BackendUnavailable, match="being filled"):
        cache.distinct()
    assert cache.distinct() == ["foo"]


# DynamoDB is busy, or the network is bad


BUSY = ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "InternalServerError"]


@pytest.mark.parametrize("code", BUSY)
@pytest.mark.usefixtures("quick_retries")
def test_a_busy_service_is_asked_again(cache: DynamoCache, code: str) -> None:
    """While DynamoDB says that it has too much to do, requests are repeated."""
    seen: dict[str, int] = {}

    def answer(name: str, _: Any) -> Any:
        seen[name] = seen.get(name, 0) + 1
        return refused(code) if seen[name] <= 4 else None

    with intercepted(cache, answer):
        cache.save(package())
        assert cache.all("foo") == [package()]
        assert cache.distinct() == ["foo"]
    assert min(seen.values()) > 4


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_cancelled_transaction_is_tried_again(cache: DynamoCache, code: str) -> None:
    """A transaction that others are in the way of, or for which there is no capacity, is made a moment later."""
    cancelled: list[str] = []

    def answer(name: str, body: Any) -> Any:
        if name != "TransactWriteItems" or len(cancelled) == 3:
            return None
        cancelled.append(code)
        reasons = [{"Code": "None"} for _ in body["TransactItems"][1:]]
        return refused("TransactionCanceledException", CancellationReasons=[*reasons, {"Code": code}])

    with intercepted(cache, answer):
        cache.save_all([package(), package("bar")])
    assert cache.distinct() == ["bar", "foo"]
    assert len(cancelled) == 3


def test_a_transaction_that_others_are_always_in_the_way_of(
    cache: DynamoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some time a transaction that cannot be made is an error that asks to come back later."""
    monkeypatch.setattr(dynamo_client, "PATIENCE", 0.05)

    def answer(name: str, body: Any) -> Any:
        reasons = [{"Code": "TransactionConflict"} for _ in body.get("TransactItems", ())]
        return refused("TransactionCanceledException", CancellationReasons=reasons) if reasons else None

    with intercepted(cache, answer), pytest.raises(BackendUnavailable, match="too busy to write"):
        cache.save(package())


def test_a_transaction_that_is_never_possible(cache: DynamoCache) -> None:
    """A transaction that DynamoDB will never make is an error at once."""

    def answer(name: str, _: Any) -> Any:
        reasons = [{"Code": "ItemCollectionSizeLimitExceeded"}]
        return refused("TransactionCanceledException", CancellationReasons=reasons) if "Transact" in name else None

    with intercepted(cache, answer), pytest.raises(BackendUnavailable, match="ItemCollectionSizeLimitExceeded"):
        cache.save(package())


def test_of_changes_together_those_are_made_that_can_be(server: Callable[..., DynamoCache]) -> None:
    """When one of the projects in a transaction was changed by somebody else, the others are changed at once."""
    cache, commit = server(), server().commit
    made: list[dict[str, bool]] = []

    def change_and_commit(steps: Sequence[Step]) -> list[bool]:
        if not made:
            server().save(package("foo", "0.5"))
        made.append({step.name: is_made for step, is_made in zip(steps, commit(steps), strict=True)})
        return list(made[-1].values())

    cache.commit = change_and_commit  # type: ignore[method-assign]  # it is watched
    cache.save_all([package(), package("bar"), package("zed")])
    assert made == [{"foo": False, "bar": True, "zed": True}, {"foo": True}]
    assert [found.version for found in cache.all("foo")] == ["1.0", "0.5"]


def test_a_refusal_for_another_reason(cache: DynamoCache) -> None:
    """What nobody has thought of is an error without DynamoDB's own words, which are for the log."""
    with (
        intercepted(cache, lambda *_: refused("ValidationException", "the secret")),
        pytest.raises(BackendUnavailable, match=r"^DynamoDB refuses to answer$"),
    ):
        cache.fetch("foo")


def test_keys_that_are_not_processed_are_asked_for_again(cache: DynamoCache) -> None:
    """What DynamoDB leaves out of a large answer is fetched with the next request."""
    many = [package(version=f"{number}.0") for number in range(150)]
    cache.save_all(many)
    left_out: list[str] = []

    def answer(name: str, body: Any) -> Any:
        if name != "BatchGetItem" or len(left_out) == 3:
            return None
        left_out.append(name)
        return said(200, Responses={}, UnprocessedKeys=body["RequestItems"])

    with intercepted(cache, answer):
        assert len(cache.fetch_many(each.filename for each in many)) == 150
    assert len(left_out) == 3


@pytest.mark.usefixtures("quick_retries")
def test_a_service_that_stays_busy(cache: DynamoCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time a busy DynamoDB is an error that asks to come back later."""
    monkeypatch.setattr(dynamo_client, "PATIENCE", 0.05)
    asked: list[Callable[[], object]] = [lambda: cache.fetch("x"), lambda: cache.all("x"), cache.distinct]
    for ask in asked:
        with intercepted(cache, lambda *_: refused("ThrottlingException")), pytest.raises(BackendUnavailable) as caught:
            ask()
        assert "too busy" in caught.value.message

    def answer(name: str, body: Any) -> Any:
        match name:
            case "BatchGetItem":
                return said(200, Responses={}, UnprocessedKeys=body["RequestItems"])
            case _:
                return None

    with intercepted(cache, answer), pytest.raises(BackendUnavailable, match="too busy"):
        cache.fetch("x")


def test_a_broken_connection_is_not_noticed(ministack: MiniStack, settings: dict[str, str]) -> None:
    """A connection that breaks in the middle of a request or of its answer does no harm, and nothing is done twice."""
    with Proxy(ministack.port) as proxy, started(settings, db__port=str(proxy.port)) as server:
        cache = server()
        cache.save(package())
        for count in range(0, 60, 20):
            proxy.cut_after(count, "requests")
            cache.save(package(version=f"{count}.5"))
            proxy.cut_after(count, "answers")
            assert cache.fetch(f"foo-{count}.5.tar.gz") is not None
        assert len(cache.all("foo")) == 4


def test_a_change_whose_answer_got_lost_counts_as_made(ministack: MiniStack, settings: dict[str, str]) -> None:
    """A transaction that was made, and only its answer got lost, is neither made again nor taken for refused."""
    with Proxy(ministack.port) as proxy, started(settings, db__port=str(proxy.port)) as server:
        cache, answers = server(), []
        commit = cache.commit

        def cut_and_commit(steps: Sequence[Any]) -> list[bool]:
            proxy.cut_after(0, "answers")
            answers.append(commit(steps))
            return answers[-1]

        cache.commit = cut_and_commit  # type: ignore[method-assign]  # it is watched
        cache.save(package())
        assert answers == [[True]]
        assert cache.all("foo") == [package()]


@pytest.mark.usefixtures("quick_retries")
def test_a_service_that_is_gone(ministack: MiniStack, settings: dict[str, str]) -> None:
    """Who cannot be reached any more is an error, and works again when it is back."""
    with Proxy(ministack.port) as proxy, started(settings, db__port=str(proxy.port)) as server:
        cache = server()
        cache.save(package())
        proxy.target = free_port()
        proxy.cut()
        asked: list[Callable[[], object]] = [lambda: cache.fetch("foo-1.0.tar.gz"), lambda: cache.save(package())]
        for ask in asked:
            with pytest.raises(BackendUnavailable, match="DynamoDB does not answer"):
                ask()
        assert cache.check_health() == (False, "DynamoDB does not answer")
        proxy.target = ministack.port
        assert cache.check_health() == (True, "")
        assert cache.distinct() == ["foo"]


@pytest.mark.usefixtures("quick_retries")
def test_a_service_that_hangs(ministack: MiniStack, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not answer is waited for only so long."""
    monkeypatch.setattr(dynamo_client, "READ_TIMEOUT", 0.2)
    with Proxy(ministack.port) as proxy, started(settings, db__port=str(proxy.port)) as server:
        proxy.hang()
        with pytest.raises(BackendUnavailable, match="DynamoDB does not answer"):
            server().fetch("foo-1.0.tar.gz")
        proxy.resume()
