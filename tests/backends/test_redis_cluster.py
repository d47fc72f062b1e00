"""The cache in a Redis Cluster: the contract, and what is different where things are on several servers."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from redis import RedisCluster as Client
from redis.crc import key_slot

from pypicloud.cache.choose import summaries
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.cache.redis_cache import RedisCache
from pypicloud.cache.redis_cache import layout as redis_layout
from pypicloud.cache.redis_cache.layout import COPIES
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import NOW, CacheContract, Witness, everything, facts, package, put, stored
from support.live import LOOPBACK, free_port
from support.redis_keys import dump, rows, save_like_1_3_12
from support.services.redis_server import RedisCluster, RedisServer

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache
    from pypicloud.testing.memory_storage import MemoryStorage

REVISION = re.compile(r"[0-9a-f]{32}")


class TestCluster(CacheContract):
    cache_class = RedisCache

    @pytest.fixture
    def settings(self, redis_cluster: RedisCluster) -> dict[str, str]:
        return {"db.url": redis_cluster.database(), "db.clustered": "true"}

    @pytest.fixture
    def client(self, settings: dict[str, str]) -> Iterator[Client]:
        with Client.from_url(settings["db.url"]) as client:
            yield client

    def stop(self, kwargs: Mapping[str, Any]) -> None:
        kwargs["layout"].wire.close()

    @pytest.fixture
    def witness(self, client: Client) -> Witness:
        return lambda: rows(client)

    # Keys

    def test_the_keys_of_a_project_are_together(self, cache: ICache, client: Client) -> None:
        """Every key and value is as it is said to be, and all of a project are in one slot."""
        cache.save(package("Foo_Bar", summary="Good", hash_md5="cd"))
        found = dump(client)
        revisions = {
            key: found.pop(key) for key in ("pypicloud:revision:{foo-bar}", "pypicloud:revision:{pypicloud:set}")
        }
        assert all(map(REVISION.fullmatch, revisions.values()))
        assert found == {
            "pypicloud:set": {"foo-bar"},
            "pypicloud:file:Foo_Bar-1.0.tar.gz": "foo-bar",
            "pypicloud:set:{foo-bar}": {"Foo_Bar-1.0.tar.gz"},
            "pypicloud:summary:{foo-bar}": {
                "name": "foo-bar",
                "summary": "Good",
                "last_modified": "1777863721.123456",
                "version": "1.0",
                "filename": "Foo_Bar-1.0.tar.gz",
                "latest": "1777863721.123456 Foo_Bar-1.0.tar.gz",
                "files": "1",
            },
            "pypicloud:package:{foo-bar}:Foo_Bar-1.0.tar.gz": {
                "name": "foo-bar",
                "version": "1.0",
                "filename": "Foo_Bar-1.0.tar.gz",
                "last_modified": "1777863721.123456",
                "summary": "Good",
                "hash_md5": '"cd"',
            },
        }
        assert len({key_slot(key.encode()) for key in [*found, *revisions] if "{foo-bar}" in key}) == 1
        cache.clear(package("Foo_Bar"))
        assert dump(client).keys() == revisions.keys()

    def test_a_repair_does_not_hide_what_it_has_not_seen(self, cache: RedisCache) -> None:
        """A file that comes after a rebuild has read what is known is found all the while."""
        cache.save(package())
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:

            def look() -> int:
                missed = 0
                while not over.is_set():
                    missed += cache.fetch("foo-1.0.tar.gz") is None
                return missed

            missed = pool.submit(look)
            for _ in range(100):
                cache.layout.repair_index({})
            over.set()
            assert missed.result() == 0

    @pytest.mark.parametrize("name", ["}", "{}", "a}b", "{", "%", "%7d", "\u00e9}\ud83d"])
    def test_names_that_look_like_tags(self, cache: RedisCache, client: Client, name: str) -> None:
        """A project of any name keeps its keys together, and is another one than those with a name like it."""
        cache.save_all([package(name, filename="x.zip"), package("%7d", "2", filename="y.zip")])
        cache.repair({})
        found = cache.fetch("x.zip")
        assert found is not None
        assert found.name == name
        assert {each.filename for each in cache.all(name)} >= {"x.zip"}
        assert cache.redis_key("x.zip").startswith(cache.redis_key("x.zip").partition("}")[0])
        cache.clear(package(name, filename="x.zip"))
        assert len(cache.all("%7d")) == 1

    def test_the_documented_names(self, cache: RedisCache, client: Client) -> None:
        """The methods that name keys name those that are there."""
        own = RedisCache(None, client)
        own.save(package("foo"))
        keys = {own.redis_set, own.redis_key("foo-1.0.tar.gz"), own.redis_filename_set("foo")}
        assert {*keys, own.redis_summary_key("foo")} <= dump(client).keys()
        assert cache.distinct() == ["foo"]

    # What 1.3.12 left

    def test_a_cache_of_1_3_12_is_taken_over(
        self, start: Callable[..., Callable[..., ICache]], client: Client, storage: Callable[[Any], MemoryStorage]
    ) -> None:
        """What 1.3.12 has saved is brought to its place at the first start, without a look at the storage."""
        files = [package("foo", "2.0", summary="New", uploader="me"), package("foo", "1.0"), package("bar")]
        save_like_1_3_12(client, files)
        client.hset("pypicloud:package:broken-1.0.zip", "name", "broken")
        cache = start()()
        cache.reload_if_needed()
        assert everything(cache) == {each.filename: facts(each) for each in files}
        assert cache.summary() == summaries(files)
        assert all(cache.fetch(each.filename) == each for each in files)
        without = {key for key in dump(client) if "{" not in key and not key.startswith("pypicloud:file:")}
        assert without == {"pypicloud:set"}

    def test_a_start_that_was_killed_is_gone_on_with(
        self, start: Callable[..., Callable[..., ICache]], client: Client
    ) -> None:
        """When the first start was killed half-way the next one does the rest."""
        files = [package("foo", "2.0"), package("foo", "1.0"), package("bar")]
        start()().save(files[0])
        save_like_1_3_12(client, files[1:])
        cache = start()()
        cache.reload_if_needed()
        assert everything(cache) == {each.filename: facts(each) for each in files}

    # Damage, and what a crash between two slots leaves

    @pytest.mark.parametrize(
        "damage",
        [
            lambda client: client.delete("pypicloud:file:foo-1.0.tar.gz"),
            lambda client: client.set("pypicloud:file:foo-1.0.tar.gz", "nothing"),
            lambda client: client.set("pypicloud:file:foo-1.0.tar.gz", b"\xff"),
            lambda client: client.set("pypicloud:file:lost-1.0.zip", "foo"),
            lambda client: client.delete("pypicloud:set"),
            lambda client: client.sadd("pypicloud:set", "ghost", b"\xff"),
            lambda client: client.srem("pypicloud:set", "foo"),
            lambda client: client.delete("pypicloud:set:{foo}"),
            lambda client: client.sadd("pypicloud:set:{ghost}", "foo-1.0.tar.gz"),
            lambda client: client.delete("pypicloud:summary:{foo}"),
            lambda client: client.delete("pypicloud:package:{foo}:foo-1.0.tar.gz"),
            lambda client: client.hdel("pypicloud:package:{foo}:foo-1.0.tar.gz", "version"),
            lambda client: client.hset("pypicloud:package:{foo}:extra.zip", "name", "foo"),
            lambda client: copy_to_another_project(client, "pypicloud:package:{foo}:foo-1.0.tar.gz"),
            lambda client: copy_to_another_project(client, "pypicloud:package:{foo}:foo-1.0.tar.gz", owner="other"),
            *(
                lambda client, key=key: (client.delete(f"pypicloud:{key}"), client.rpush(f"pypicloud:{key}", "x"))
                for key in ("package:{foo}:foo-1.0.tar.gz", "set:{foo}", "set", "summary:{foo}", "revision:{foo}")
            ),
        ],
    )
    def test_damage_is_healed(self, cache: ICache, client: Client, damage: Callable[[Client], object]) -> None:
        """Whatever is broken: nothing raises, what is whole is still shown, and a rebuild leaves nothing of it."""
        later = NOW.replace(year=2027)
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
        cache.rebuild()
        assert everything(cache) == stored(cache)
        assert cache.summary() == summaries(files)
        assert all(cache.fetch(each.filename) == each for each in files)
        healed = dump(client)
        for found in (whole, healed):
            for key in [key for key in found if "revision" in key or "note" in key]:
                del found[key]
        assert healed == whole

    @pytest.mark.parametrize("count", range(7))
    def test_a_crash_between_two_slots(self, cache: RedisCache, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        """Whoever is killed in the middle of a move or a delete leaves nothing that a rebuild does not put right."""
        put(cache, package("bar", filename="foo-1.0.tar.gz"))
        cache.save_all([package("foo", summary="before"), package("gone")])
        with monkeypatch.context() as patch, contextlib.suppress(ZeroDivisionError):
            patch.setattr(cache.wire, "run", Killed(cache.wire.run, count))
            cache.save(package("bar", filename="foo-1.0.tar.gz"))
            cache.clear(package("gone"))
        assert cache.fetch("foo-1.0.tar.gz") is not None
        cache.rebuild()
        assert everything(cache) == stored(cache)
        assert cache.distinct() == ["bar"]
        assert cache.fetch("gone-1.0.tar.gz") is None
        assert cache.rebuild() == Rebuilt(unchanged=1)

    # Loss

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_node_that_loses_everything(self, redis_cluster: RedisCluster, cache: ICache, number: int) -> None:
        """When one node loses its keys nothing is said to be missing, and soon all is there again."""
        names = [f"p{number}" for number in range(30)]
        put(cache, *map(package, names))
        cache.reload_if_needed()
        before = cache.revisions(names)
        with redis_cluster.nodes[number].connect() as node:
            node.flushall()
        lost = 0
        for name in names:
            try:
                found = cache.all(name)
            except BackendUnavailable:
                lost += 1
            else:
                assert found == [package(name)]
        assert lost > 0
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(BackendUnavailable):
                if len(cache.summary()) == 30:
                    break
            assert time.monotonic() < deadline
        assert everything(cache) == stored(cache)
        assert all(cache.fetch(each.filename) == each for each in map(package, names))
        changed = [name for name, after in cache.revisions(names).items() if before[name] != after]
        assert 0 < len(changed) < 30

    def test_every_node_has_a_note_to_lose(self, cache: RedisCache) -> None:
        """The places of the note about filling are spread over all slots, evenly."""
        places = [key_slot(note) * COPIES // redis_layout.SLOTS for note in cache.layout.notes("fill")]
        assert places == list(range(COPIES))

    def test_a_node_is_asked_for_one_note(self, cache: RedisCache) -> None:
        """With keys of many projects a note is read from each node that they are on, and from none twice."""
        keys = [cache.layout.revision(f"p{number}") for number in range(COPIES - 1)]
        nodes = [cache.db.get_node_from_key(note).name for note in cache.layout.fill_notes(keys)]
        assert sorted(nodes) == sorted({cache.db.get_node_from_key(key).name for key in keys})
        assert len(nodes) == 3

    def test_every_node_is_asked_for_its_health(self, cache: ICache, redis_cluster: RedisCluster) -> None:
        """The cache is healthy while all nodes answer."""
        assert cache.check_health() == (True, "")

    # Slots that move

    def test_a_slot_that_moves(self, cache: ICache, redis_cluster: RedisCluster) -> None:
        """While a project's slot moves to another node, and afterwards, it is read and changed as ever."""
        cache.save_all([package("foo"), package("bar")])
        revision = cache.revision("foo")
        slot = key_slot(b"{foo}")
        nodes = [node.connect() for node in redis_cluster.nodes]
        ids = [ask(node, "CLUSTER", "MYID").decode() for node in nodes]
        source = next(place for place, node in enumerate(nodes) if ask(node, "CLUSTER", "COUNTKEYSINSLOT", slot))
        target = (source + 1) % 3
        ask(nodes[target], "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        ask(nodes[source], "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        try:
            keys = ask(nodes[source], "CLUSTER", "GETKEYSINSLOT", slot, 100)
            ask(nodes[source], "MIGRATE", LOOPBACK, redis_cluster.nodes[target].port, "", 0, 5000, "KEYS", *keys)
            assert cache.all("foo") == [package("foo")]
            assert cache.revision("foo") == revision
            cache.save(package("foo", summary="again"))
        finally:
            for node in (nodes[target], nodes[source], *nodes):
                ask(node, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        assert [found.summary for found in cache.all("foo")] == ["again"]
        cache.save(package("foo", "3.0"))
        assert cache.fetch("foo-3.0.tar.gz") == package("foo", "3.0")
        assert len(cache.all("foo")) == 2
        for node in nodes:
            node.close()


class TestOwnCluster:
    def test_a_node_that_is_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        """Without one of its nodes the cluster is one error, and health says so; when it is back all goes on."""
        with RedisCluster() as cluster:
            cache = configured(cluster.url + "?socket_timeout=2")
            files = [package(f"p{number}") for number in range(12)]
            put(cache, *files)
            cache.reload_if_needed()
            cluster.nodes[1].kill()
            answers = [outcome(cache, each) for each in files]
            assert "the cache does not answer; please try again later" in answers
            assert not cache.check_health()[0]
            cluster.nodes[1].start()
            cluster.wait()
            deadline = time.monotonic() + 30
            while any(outcome(cache, each) for each in files):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert everything(cache) == stored(cache)
            cache.wire.close()

    def test_tls(self) -> None:
        """A cluster is reached over TLS, with a user's name and password."""
        with SecureNode() as node:
            with node.connect() as client:
                ask(client, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                deadline = time.monotonic() + 30
                while b"cluster_state:ok" not in ask(client, "CLUSTER", "INFO"):
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            cache = configured(node.url())
            cache.save(package())
            assert cache.all("foo") == [package()]
            cache.wire.close()


class SecureNode(RedisServer):
    """A cluster of one node that speaks only TLS."""

    def __init__(self) -> None:
        super().__init__(secure=True)
        self.bus_port = free_port()

    def options(self) -> list[str]:
        words = {"enabled": "yes", "config-file": "nodes.conf", "port": str(self.bus_port)}
        cluster = [word for key, value in words.items() for word in (f"--cluster-{key}", value)]
        options = super().options()
        place = options.index("--databases")
        return [*options[:place], *options[place + 2 :], *cluster, "--tls-cluster", "yes"]


def ask(client: Any, *words: str | int | bytes) -> Any:
    """What a node answers to a command that the library has no method for."""
    return client.execute_command(*words)


class Killed:
    """Does so many calls, and from then on none."""

    def __init__(self, call: Callable[..., Any], count: int) -> None:
        self.call = call
        self.count = count

    def __call__(self, commands: Any) -> Any:
        self.count -= 1
        if self.count < 0:
            raise ZeroDivisionError
        return self.call(commands)


def configured(url: str) -> RedisCache:
    storage = "pypicloud.testing.memory_storage.MemoryStorage"
    settings = EnvironSettings({"pypi.storage": storage, "db.url": url, "db.clustered": "true"}, {})
    return RedisCache(None, **RedisCache.configure(settings))


def outcome(cache: ICache, wanted: Package) -> str:
    """What goes wrong when the files of a project are asked for."""
    try:
        assert cache.all(wanted.name) == [wanted]
    except BackendUnavailable as error:
        return error.message
    return ""


def copy_to_another_project(client: Client, key: str, owner: str = "foo") -> None:
    """Leave a file with two projects, as two servers may do that save it at once."""
    row: dict[Any, Any] = {**client.hgetall(key), b"name": "other"}
    client.hset("pypicloud:package:{other}:foo-1.0.tar.gz", mapping=row)
    client.sadd("pypicloud:set:{other}", "foo-1.0.tar.gz")
    client.sadd("pypicloud:set", "other")
    client.set("pypicloud:file:foo-1.0.tar.gz", owner)
