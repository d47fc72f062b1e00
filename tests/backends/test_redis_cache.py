"""The cache in Redis, on one server: the contract, the keys of 1.3.12, damage, loss and faults."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from pypicloud.cache import leases
from pypicloud.cache.changes import Change
from pypicloud.cache.choose import summaries
from pypicloud.cache.fill import is_filled
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.cache.redis_cache import RedisCache, summary_from_package
from pypicloud.cache.redis_cache import repair as redis_repair
from pypicloud.cache.redis_cache import wire as redis_wire
from pypicloud.errors import BackendUnavailable
from pypicloud.testing.cache import NOW, CacheContract, Witness, everything, facts, package, put, stored
from support.redis_keys import clear_like_1_3_12, dump, rows, save_like_1_3_12
from support.services.proxy import Proxy
from support.services.redis_server import RedisServer

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache
    from pypicloud.cache.steps import Step
    from pypicloud.testing.memory_storage import MemoryStorage

MEMORY = "pypicloud.testing.memory_storage.MemoryStorage"
REVISION = re.compile(r"[0-9a-f]{32}")


class OnOneServer(CacheContract):
    cache_class = RedisCache

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        kwargs["layout"].wire.close()

    @pytest.fixture
    def witness(self, client: Redis) -> Witness:
        return lambda: rows(client)


class TestRedis(OnOneServer):
    @pytest.fixture
    def settings(self, redis: RedisServer) -> dict[str, str]:
        return {"db.url": redis.database()}

    @pytest.fixture
    def client(self, settings: dict[str, str]) -> Iterator[Redis]:
        with Redis.from_url(settings["db.url"]) as client:
            yield client

    # Keys

    def test_the_keys_are_those_of_1_3_12(self, cache: ICache, client: Redis) -> None:
        """Every key and value is as 1.3.12 wrote it, and has beside it what this version needs."""
        cache.save_all(
            [
                package("Foo_Bar", summary="Good", hash_md5="cd", size=12, yanked=True, requires_python=">=3"),
                package("foo-bar", "0.9", last_modified=NOW + timedelta(days=1)),
            ]
        )
        found = dump(client)
        revisions = {key: found.pop(key) for key in ("pypicloud:revision:foo-bar", "pypicloud:revision")}
        assert all(map(REVISION.fullmatch, revisions.values()))
        assert found == {
            "pypicloud:set": {"foo-bar"},
            "pypicloud:set:foo-bar": {"Foo_Bar-1.0.tar.gz", "foo-bar-0.9.tar.gz"},
            "pypicloud:summary:foo-bar": {
                "name": "foo-bar",
                "summary": "Good",
                "last_modified": "1777950121.123456",
                "version": "1.0",
                "filename": "Foo_Bar-1.0.tar.gz",
                "latest": "1777950121.123456 foo-bar-0.9.tar.gz",
                "files": "2",
            },
            "pypicloud:package:Foo_Bar-1.0.tar.gz": {
                "name": "foo-bar",
                "version": "1.0",
                "filename": "Foo_Bar-1.0.tar.gz",
                "last_modified": "1777863721.123456",
                "summary": "Good",
                "hash_md5": '"cd"',
                "size": "12",
                "yanked": "true",
                "requires_python": '">=3"',
            },
            "pypicloud:package:foo-bar-0.9.tar.gz": {
                "name": "foo-bar",
                "version": "0.9",
                "filename": "foo-bar-0.9.tar.gz",
                "last_modified": "1777950121.123456",
                "summary": "",
            },
        }

    def test_of_a_project_that_is_gone_its_revision_stays(self, cache: ICache, client: Redis) -> None:
        """When the last file goes, everything of the project goes but its revision."""
        cache.save(package())
        cache.clear(package())
        assert dump(client).keys() == {"pypicloud:revision", "pypicloud:revision:foo"}

    def test_other_keys_are_let_alone(self, cache: ICache, client: Redis) -> None:
        """What another program keeps in the same Redis stays, and does not disturb."""
        others: dict[str | bytes, str] = {"pypicloud": "a", "pypi:set": "b", b"\xff\xfe": "c", "foo": "d"}
        for key, value in others.items():
            client.set(key, value)
        cache.save(package())
        cache.rebuild(allow_empty=True)
        cache.clear_all()
        assert [client.get(key) for key in others] == [b"a", b"b", b"c", b"d"]
        assert cache.is_empty()

    def test_data_with_the_name_of_a_fixed_field(self, cache: ICache, client: Redis) -> None:
        """An entry of the data may be called as a fixed field is; it is kept beside it."""
        saved = package(summary="Good")
        saved.data.update({"name": "other", "summary": ["x"], ":name": 1, ":": 2, "last_modified": "never"})
        cache.save(saved)
        assert everything(cache) == {saved.filename: facts(saved)}
        row = dump(client)[f"pypicloud:package:{saved.filename}"]
        assert (row["name"], row[":name"], row["::name"], row["::"]) == ("foo", '"other"', "1", "2")

    def test_the_documented_names(self, cache: RedisCache, client: Redis) -> None:
        """The methods that name keys name those that are there, and the constructor takes a client."""
        own = RedisCache(None, client)
        own.save(package("foo", summary="Good"), pipe=None, save_summary=True)
        keys = {own.redis_set, own.redis_key("foo-1.0.tar.gz"), own.redis_filename_set("foo")}
        assert {*keys, own.redis_summary_key("foo")} <= dump(client).keys()
        assert all(key.startswith(RedisCache.redis_prefix) for key in keys)
        found = dump(client)[own.redis_summary_key("foo")]
        assert summary_from_package(package("foo", summary="Good")).items() <= found.items()
        assert cache.distinct() == ["foo"]

    # What 1.3.12 left, and what it does meanwhile

    def test_a_cache_of_1_3_12_is_taken_over(
        self, start: Callable[..., Callable[..., ICache]], client: Redis, storage: Callable[[Any], MemoryStorage]
    ) -> None:
        """What 1.3.12 has saved is there at the first start, without a look at the storage, and watched after that."""
        files = [
            package("foo", "2.0", summary="New", uploader="me", requires_python=">=3"),
            package("foo", "1.0", summary="Old", last_modified=NOW + timedelta(days=1)),
            package("bar", summary="\u00dcbel"),
        ]
        save_like_1_3_12(client, files)
        cache = start()()
        cache.reload_if_needed()
        assert everything(cache) == {each.filename: facts(each) for each in files}
        assert cache.summary() == [
            {"name": "bar", "summary": "\u00dcbel", "last_modified": NOW},
            {"name": "foo", "summary": "New", "last_modified": NOW + timedelta(days=1)},
        ]
        assert is_filled(cache.note("fill"))

    def test_a_rebuild_brings_a_cache_of_1_3_12_up_to_date(self, cache: ICache, client: Redis) -> None:
        """After a rebuild everything is as this version writes it, and a second one changes nothing at all."""
        files = [package("foo", "2.0", summary="New"), package("foo", "1.0", summary="Old"), package("bar")]
        put(cache, *files)
        save_like_1_3_12(client, cache.storage.list())
        assert cache.rebuild() == Rebuilt(unchanged=3)
        found = {key: value for key, value in dump(client).items() if "note" not in key}
        assert found["pypicloud:summary:foo"]["summary"] == "New"
        assert {"pypicloud:revision:foo", "pypicloud:revision:bar"} <= found.keys()
        cache.rebuild()
        assert {key: value for key, value in dump(client).items() if "note" not in key} == found

    def test_1_3_12_saves_beside_us(self, cache: ICache, client: Redis) -> None:
        """A file that 1.3.12 saves or forgets counts in what we say of the project from then on."""
        cache.save_all([package("foo", "1.0", summary="One"), package("foo", "2.0", summary="Two")])
        save_like_1_3_12(client, [package("foo", "0.1", summary="Zero", last_modified=NOW - timedelta(days=9))])
        assert cache.summary() == [{"name": "foo", "summary": "Two", "last_modified": NOW}]
        clear_like_1_3_12(client, package("foo", "2.0"))
        assert cache.summary() == [{"name": "foo", "summary": "One", "last_modified": NOW}]
        cache.save(package("foo", "0.2"))
        assert cache.summary() == [{"name": "foo", "summary": "One", "last_modified": NOW}]

    # Damage

    @pytest.mark.parametrize(
        "damage",
        [
            lambda client: client.hset("pypicloud:package:foo-1.0.tar.gz", "hash_sha256", "{not json"),
            lambda client: client.hset("pypicloud:package:foo-1.0.tar.gz", "hash_sha256", b"\xff\xfe"),
            lambda client: client.hset("pypicloud:package:foo-1.0.tar.gz", "version", b"\xff\xfe"),
            lambda client: client.hset("pypicloud:package:foo-1.0.tar.gz", "last_modified", "yesterday"),
            lambda client: client.hset("pypicloud:package:foo-1.0.tar.gz", "last_modified", "1e300"),
            lambda client: client.hset("pypicloud:package:foo-1.0.tar.gz", "filename", "bar-1.0.tar.gz"),
            *(
                lambda client, field=field: client.hdel("pypicloud:package:foo-1.0.tar.gz", field)
                for field in ("name", "version", "filename", "last_modified")
            ),
            lambda client: client.delete("pypicloud:package:foo-1.0.tar.gz"),
            *(
                lambda client, key=key: (client.delete(f"pypicloud:{key}"), client.rpush(f"pypicloud:{key}", "x"))
                for key in (
                    "package:foo-1.0.tar.gz",
                    "set:foo",
                    "set",
                    "summary:foo",
                    "revision:foo",
                    "revision",
                )
            ),
            *(
                lambda client, key=key: client.delete(f"pypicloud:{key}")
                for key in ("set:foo", "set", "summary:foo", "revision:foo", "revision")
            ),
            lambda client: client.sadd("pypicloud:set", "ghost", b"\xff\xfe"),
            lambda client: client.sadd("pypicloud:set:foo", "ghost-1.0.zip", "bar-1.0.tar.gz"),
            lambda client: client.sadd("pypicloud:set:ghost", "foo-1.0.tar.gz"),
            lambda client: client.hset("pypicloud:summary:foo", "summary", "wrong"),
            lambda client: client.hset("pypicloud:summary:foo", "filename", "gone-1.0.zip"),
            lambda client: client.hset("pypicloud:package:extra-1.0.zip", "name", "extra"),
            lambda client: client.set("pypicloud:package:extra-1.0.zip", "text"),
        ],
    )
    def test_damage_is_healed(
        self, cache: ICache, client: Redis, damage: Callable[[Redis], object], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever is broken: nothing raises, what is whole is still shown, and a rebuild leaves nothing of it."""
        later = NOW + timedelta(hours=1)
        files = [package(summary="Good", hash_sha256="ab", last_modified=later), package(version="2.0"), package("bar")]
        put(cache, *files)
        cache.rebuild()
        whole = dump(client)
        damage(client)
        for ask in (cache.all, cache.fetch, cache.revision):
            ask("foo")
        assert cache.fetch("foo-2.0.tar.gz") == files[1]
        cache.search({}, "or")
        cache.summary()
        cache.distinct()
        cache.is_empty()
        cache.rebuild()
        assert everything(cache) == stored(cache)
        assert cache.summary() == summaries(files)
        healed = dump(client)
        assert _constant(healed) == _constant(whole)

    def test_a_save_goes_over_damage(self, cache: ICache, client: Redis) -> None:
        """A project whose keys hold something else can be changed all the same."""
        for key in ("package:foo-1.0.tar.gz", "set:foo", "set", "summary:foo", "revision:foo", "revision"):
            client.rpush(f"pypicloud:{key}", "x")
        cache.save(package())
        assert cache.distinct() == ["foo"]
        assert cache.all("foo") == [package()]
        cache.clear(package())
        assert cache.distinct() == []

    @pytest.mark.parametrize("refusals", [1, 4, 99])
    def test_damage_is_healed_while_others_write(
        self, cache: RedisCache, client: Redis, monkeypatch: pytest.MonkeyPatch, refusals: int
    ) -> None:
        """A project that others change while it is healed is looked at again, and let alone if they do not stop."""
        put(cache, package())
        cache.rebuild()
        client.delete("pypicloud:set:foo")
        change, left = cache.layout.change, [True] * refusals

        def refuse(steps: Sequence[Step], joined: Any = None) -> list[bool]:
            return [False] * len(steps) if left and left.pop() else change(steps, joined)

        monkeypatch.setattr(cache.layout, "change", refuse)
        monkeypatch.setattr(redis_repair, "PAUSE", 0)
        cache.rebuild()
        assert cache.all("foo") == ([] if refusals == 99 else [package()])

    def test_what_is_broken_is_told(self, cache: ICache, client: Redis, caplog: pytest.LogCaptureFixture) -> None:
        """A row of no use is named in the log, with what is wrong with it."""
        cache.save(package())
        client.hdel("pypicloud:package:foo-1.0.tar.gz", "version")
        assert cache.all("foo") == []
        assert "pypicloud:package:foo-1.0.tar.gz" in caplog.text
        assert "no field b'version'" in caplog.text

    # Loss

    def test_everything_is_lost(self, server: Callable[..., ICache], client: Redis) -> None:
        """When Redis loses everything nobody is told that there is nothing, and soon all is there again."""
        cache = server()
        put(cache, *(package(f"p{number}") for number in range(20)))
        cache.reload_if_needed()
        before = cache.revisions([None, "p1", "nothing"])
        client.flushdb()
        assert_says_nothing(cache, client.flushdb)
        wait_until_filled(cache)
        assert everything(cache) == stored(cache)
        after = cache.revisions([None, "p1", "nothing"])
        assert all(before[name] != after[name] for name in before)

    def test_only_the_note_is_lost(self, cache: ICache, client: Redis) -> None:
        """When Redis has dropped the note about filling, it may have dropped more, and all is looked through."""
        put(cache, package(), package("bar"))
        cache.reload_if_needed()
        client.delete("pypicloud:note:fill", "pypicloud:package:foo-1.0.tar.gz")
        with pytest.raises(BackendUnavailable, match="filled"):
            cache.all("foo")
        wait_until_filled(cache)
        assert everything(cache) == stored(cache)

    def test_a_rebuild_by_1_3_12_is_noticed(self, cache: ICache, client: Redis) -> None:
        """When 1.3.12 clears all keys and fills them anew, what it knew nothing of is made again."""
        put(cache, package())
        cache.reload_if_needed()
        before = cache.revision("foo")
        client.delete(*client.keys("pypicloud:*"))
        save_like_1_3_12(client, [package()])
        with pytest.raises(BackendUnavailable):
            cache.revision("foo")
        wait_until_filled(cache)
        assert cache.revision("foo") != before
        assert everything(cache) == {"foo-1.0.tar.gz": facts(package())}

    # Round trips

    def test_round_trips(
        self, redis: RedisServer, settings: dict[str, str], start: Callable[..., Callable[..., ICache]]
    ) -> None:
        """What a page needs is one round trip each, also while the note about filling is watched."""
        with Proxy(redis.port) as proxy:
            cache = start(**{"db.url": proxy.through(settings["db.url"])})()
            put(cache, package(), package("bar"))
            cache.reload_if_needed()
            for ask in (
                lambda: cache.revisions([None, "foo", "bar"]),
                lambda: cache.revision("foo"),
                lambda: cache.all("foo"),
                lambda: cache.fetch("foo-1.0.tar.gz"),
                cache.distinct,
            ):
                before = proxy.round_trips
                ask()
                assert proxy.round_trips - before == 1
            before = proxy.round_trips
            cache.summary()
            assert proxy.round_trips - before == 3
            before = proxy.round_trips
            cache.save(package(version="2.0"))
            assert proxy.round_trips - before <= 4

    def test_many_files_are_few_round_trips(
        self, redis: RedisServer, settings: dict[str, str], start: Callable[..., Callable[..., ICache]]
    ) -> None:
        """A rebuild takes no round trip for each file."""
        with Proxy(redis.port) as proxy:
            cache = start(**{"db.url": proxy.through(settings["db.url"])})()
            put(cache, *(package(f"p{number % 300}", f"{number}.0") for number in range(900)))
            before = proxy.round_trips
            cache.rebuild()
            assert proxy.round_trips - before < 60

    # Faults

    def test_a_broken_connection_is_not_noticed(
        self, redis: RedisServer, settings: dict[str, str], start: Callable[..., Callable[..., ICache]]
    ) -> None:
        """A connection that breaks between two requests, or in the middle of one, does no harm."""
        with Proxy(redis.port) as proxy:
            cache = start(**{"db.url": proxy.through(settings["db.url"])})()
            cache.save(package())
            proxy.cut()
            assert cache.distinct() == ["foo"]
            for count in range(0, 2000, 61):
                proxy.cut_after(count, "requests")
                cache.save(package(version=f"{count}.0"))
                proxy.cut_after(count, "answers")
                cache.save(package("bar", version=f"{count}.0"))
                assert cache.fetch(f"foo-{count}.0.tar.gz") is not None
            assert len(cache.all("foo")) == len(cache.all("bar")) + 1 == 34

    def test_an_answer_that_is_lost(
        self, redis: RedisServer, settings: dict[str, str], start: Callable[..., Callable[..., ICache]]
    ) -> None:
        """A change whose answer got lost was made once, and counts as made."""
        with Proxy(redis.port) as proxy:
            cache = start(**{"db.url": proxy.through(settings["db.url"])})()
            steps: list[Sequence[bool]] = []
            commit = cache.commit  # type: ignore[attr-defined]  # of caches that change a project at a time

            def cut_and_commit(some: Any) -> list[bool]:
                proxy.cut_after(0, "answers")
                steps.append(commit(some))
                return list(steps[-1])

            cache.commit = cut_and_commit  # type: ignore[attr-defined]  # same
            changes = [Change("foo-1.0.tar.gz", None, package())]
            assert cache.exchange(changes) == {"foo-1.0.tar.gz"}
            assert steps == [[True]]
            assert cache.all("foo") == [package()]

    def test_scripts_may_be_forgotten(self, cache: ICache, client: Redis) -> None:
        """Scripts that Redis has dropped are sent again."""
        for number in range(3):
            client.script_flush()
            cache.save_all([package(version=f"{number}.{each}") for each in range(3)])
            client.script_flush()
            assert len(cache.all("foo")) == 3 * number + 3

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_a_forked_worker_opens_its_own_connections(self, server: Callable[..., ICache]) -> None:
        """After a fork the child neither uses nor closes the connections of its parent."""
        cache = server()
        cache.save(package())
        child = os.fork()
        if child == 0:
            RedisCache.postfork(**server.keywords)  # type: ignore[attr-defined]  # a partial, as the app makes it
            with cache.lock("foo"):
                cache.save(package(version="2.0"))
            os._exit(0 if len(cache.all("foo")) == 2 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        cache.save(package(version="3.0"))
        assert len(cache.all("foo")) == 3

    def test_without_the_fast_library(self, cache: ICache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where hiredis is missing commands are packed by the library itself."""
        monkeypatch.setattr(redis_wire, "HIREDIS_AVAILABLE", False)
        saved = package(summary="\ud83d", size=3)
        cache.save(saved)
        assert everything(cache) == {saved.filename: facts(saved)}

    # Locks

    def test_a_killed_holder_loses_its_lock(self, cache: ICache, settings: dict[str, str]) -> None:
        """A lock keeps another process out, and is free some time after its holder was killed."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, settings["db.url"]], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with ThreadPoolExecutor(1) as pool:
                taken = pool.submit(lambda: cache.lock("foo").__enter__())
                # Several times the lease of the holder, which renews it.
                time.sleep(1.5)
                assert not taken.done()
                holder.send_signal(signal.SIGKILL)
                holder.wait()
                taken.result(30)

    def test_a_lock_that_vanishes_is_taken_again(
        self, cache: ICache, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lock survives that somebody deletes it, and is given back all the same."""
        monkeypatch.setattr(leases, "LEASE", 0.2)
        with cache.lock("foo"):
            client.flushdb()
            deadline = time.monotonic() + 30
            while not client.exists("pypicloud:lock:foo"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert not client.exists("pypicloud:lock:foo")

    def test_locks_end_by_themselves(self, cache: ICache, client: Redis) -> None:
        """A lock has an end, for the case that nobody gives it back, and is one key of random text."""
        with cache.lock("foo"), cache.lock("bar/\u00e9"):
            assert 0 < client.pttl("pypicloud:lock:foo") <= leases.LEASE * 1000
            found = dump(client, "pypicloud:lock:*")
            assert len(set(found.values())) == len(found) == 2
        assert dump(client) == {}


#: Holds a lock of a cache, with a lease of a quarter of a second, until it is killed.
HOLDER = """
import sys
from pypicloud.cache import leases
from pypicloud.cache.redis_cache import RedisCache
from pypicloud.settings import EnvironSettings

leases.LEASE = 0.25
storage = "pypicloud.testing.memory_storage.MemoryStorage"
settings = EnvironSettings({"pypi.storage": storage, "db.url": sys.argv[1]}, {})
with RedisCache(None, **RedisCache.configure(settings)).lock("foo"):
    print("held", flush=True)
    sys.stdin.read()
"""


class TestRedisWithTLS(OnOneServer):
    @pytest.fixture
    def settings(self, redis_tls: RedisServer) -> dict[str, str]:
        return {"db.url": redis_tls.database()}

    @pytest.fixture
    def client(self, settings: dict[str, str]) -> Iterator[Redis]:
        with Redis.from_url(settings["db.url"]) as client:
            yield client


def assert_says_nothing(cache: ICache, lose: Callable[[], object]) -> None:
    """Every question that a page asks is answered with the error that asks to come back later."""
    for ask in (
        lambda: cache.all("foo"),
        lambda: cache.fetch("foo-1.0.tar.gz"),
        lambda: cache.revision("foo"),
        lambda: cache.revisions([None, "foo"]),
        cache.distinct,
        cache.summary,
        lambda: cache.search({"name": ["foo"]}, "or"),
    ):
        lose()
        with pytest.raises(BackendUnavailable, match="being filled"):
            ask()


def wait_until_filled(cache: ICache) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            cache.distinct()
        except BackendUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def _constant(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is there, without the texts that are random, and revisions of what is not."""
    return {key: value for key, value in found.items() if "revision" not in key and "note" not in key}
