"""The start on Redis, with settings good and bad, and what happens when a Redis of one's own goes away."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pypicloud.cache import RedisCache as Documented
from pypicloud.cache import get_cache_impl
from pypicloud.cache.fill import is_filled
from pypicloud.cache.redis_cache import RedisCache
from pypicloud.cache.redis_cache import start as redis_start
from pypicloud.declared import check
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import package, put, stored
from support.live import free_port
from support.services.redis_server import RedisServer

if TYPE_CHECKING:
    from support.services.redis_server import RedisCluster

SECRET = "tops3cret"
NEEDED = redis_start.NEEDED.split()


@pytest.fixture
def configure() -> Iterator[Callable[..., RedisCache]]:
    """Makes a cache from settings, by the short name."""
    made = []

    def configure(url: str, **settings: str) -> RedisCache:
        cache = get_cache_impl(cache_settings(url, **settings))(None)
        assert isinstance(cache, RedisCache)
        made.append(cache)
        return cache

    yield configure
    for cache in made:
        cache.wire.close()


@pytest.fixture
def own() -> Iterator[RedisServer]:
    """A Redis that a test may stop; it keeps nothing."""
    with RedisServer() as service:
        yield service


def cache_settings(url: str, **settings: str) -> EnvironSettings:
    keys = {f"db.{key}": value for key, value in settings.items()}
    storage = "pypicloud.testing.memory_storage.MemoryStorage"
    return EnvironSettings({"pypi.storage": storage, "pypi.db": "redis", "db.url": url, **keys}, {})


# Settings that are of no use


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        f"me:{SECRET}@host",
        f"http://me:{SECRET}@host",
        f"redis://:{SECRET}@[::1",
        f"redis:/me:{SECRET}@h",
    ],
)
def test_a_url_of_no_use_is_named(configure: Callable[..., RedisCache], url: str) -> None:
    """Something that is no Redis URL stops the start, and its error says how one looks, without the password."""
    with pytest.raises(SettingError, match=r"^db\.url = .*write it like redis://") as caught:
        configure(url)
    assert SECRET not in str(caught.value)
    assert [str(error) for error in check(cache_settings(url))[1]] == [str(caught.value)]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("socket_timeout=soon", "Invalid value for 'socket_timeout'"),
        ("region=eu", "an option of no use there: 'region'"),
        ("ssl_ca_certs=/x", "an option of no use there: 'ssl_ca_certs'"),
    ],
)
def test_an_option_of_no_use_is_named(configure: Callable[..., RedisCache], query: str, reason: str) -> None:
    """An option that the library does not know, or cannot read, stops the start."""
    with pytest.raises(SettingError, match=reason):
        configure(f"redis://localhost/0?{query}")


@pytest.mark.parametrize("clustered", ["false", "true"])
def test_a_redis_that_is_not_there_is_named(configure: Callable[..., RedisCache], clustered: str) -> None:
    """The error about a server that refuses says which, and keeps the password."""
    port = free_port()
    with pytest.raises(SettingError, match=rf"'redis://\*\*\*@127\.0\.0\.1:{port}/0'.*Connection refused") as caught:
        configure(f"redis://me:{SECRET}@127.0.0.1:{port}/0", clustered=clustered)
    assert SECRET not in str(caught.value)


def test_a_socket_that_is_not_there_is_named(configure: Callable[..., RedisCache]) -> None:
    """The same holds for a Unix socket."""
    with pytest.raises(SettingError, match=r"'unix:///no/such'.*No such file"):
        configure("unix:///no/such")


@pytest.mark.parametrize("user", ["app", "nobody"])
def test_a_wrong_password_is_named(configure: Callable[..., RedisCache], redis_tls: RedisServer, user: str) -> None:
    """Who is not let in is told so."""
    url = redis_tls.url().replace("app:app-password", f"{user}:{SECRET}")
    with pytest.raises(SettingError, match="it wants another user or password") as caught:
        configure(url)
    assert SECRET not in str(caught.value)


def test_a_password_that_nobody_wants_is_named(
    configure: Callable[..., RedisCache], redis: RedisServer, redis_cluster: RedisCluster
) -> None:
    """A password for a server without one stops the start, as it most likely is another server."""
    for url, clustered in ((redis.url(), "false"), (redis_cluster.url, "true")):
        with pytest.raises(SettingError, match="it wants another user or password"):
            configure(url.replace("//", f"//:{SECRET}@"), clustered=clustered)


def test_an_unknown_authority_is_named(configure: Callable[..., RedisCache], redis_tls: RedisServer) -> None:
    """A certificate of an authority that nobody has named stops the start."""
    with pytest.raises(SettingError, match="certificate verify failed"):
        configure(redis_tls.url().partition("?")[0])


def test_a_database_that_is_not_there_is_named(configure: Callable[..., RedisCache], redis: RedisServer) -> None:
    """A number of a database that the server does not have stops the start."""
    with pytest.raises(SettingError, match="DB index is out of range"):
        configure(redis.url(10_000))


def test_a_cluster_has_to_be_called_one(configure: Callable[..., RedisCache], redis_cluster: RedisCluster) -> None:
    """Who names a node of a cluster as a server of its own is told what to set."""
    with pytest.raises(SettingError, match=r"it is a node of a cluster; set db\.clustered = true"):
        configure(redis_cluster.url)


def test_a_cluster_that_tells_nothing_has_to_be_called_one(
    configure: Callable[..., RedisCache], redis_cluster: RedisCluster
) -> None:
    """The same holds where the node does not say what it is."""
    node = redis_cluster.nodes[0]
    with node.connect() as client:
        client.execute_command("ACL", "SETUSER", "silent", "reset", "on", ">x", *NEEDED)
    with pytest.raises(SettingError, match=r"it is a node of a cluster; set db\.clustered = true"):
        configure(node.url().replace("//", "//silent:x@"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: url, r"it is no cluster; set db\.clustered = false"),
        (lambda url: url.replace("/0", "/1"), "a cluster has only database 0"),
        (lambda _: "unix:///run/redis.sock", "a cluster cannot be reached over a Unix socket"),
    ],
)
def test_a_server_is_no_cluster(
    configure: Callable[..., RedisCache], redis: RedisServer, change: Callable[[str], str], reason: str
) -> None:
    """Who calls a cluster what is none, or cannot be one, is told so."""
    with pytest.raises(SettingError, match=reason):
        configure(change(redis.url()), clustered="true")


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([*NEEDED, "-evalsha"], "to run the 'evalsha' command"),
        ([*NEEDED, "-scan"], "to run the 'scan' command"),
        ([*NEEDED, "-set"], "can't run this command"),
        ([*NEEDED, "resetkeys", "~other:*"], "to access one of the keys"),
    ],
)
def test_a_missing_permission_is_named(
    configure: Callable[..., RedisCache], redis_tls: RedisServer, rules: list[str], reason: str
) -> None:
    """A user who may not do all that is needed stops the start, and the error says what that is."""
    with redis_tls.connect() as client:
        client.execute_command("ACL", "SETUSER", "weak", "reset", "on", ">x", *rules)
    with pytest.raises(SettingError, match=reason) as caught:
        configure(redis_tls.url().replace("app:app-password", "weak:x"))
    assert redis_start.NEEDED in str(caught.value)


def test_the_named_permissions_are_enough(configure: Callable[..., RedisCache], redis_tls: RedisServer) -> None:
    """A user with exactly the permissions that errors and pages name can do everything."""
    url = redis_tls.database()
    with redis_tls.connect() as client:
        client.execute_command("ACL", "SETUSER", "enough", "reset", "on", ">x", *NEEDED)
    cache = configure(url.replace("app:app-password", "enough:x"))
    put(cache, package(), package("bar"))
    cache.reload_if_needed()
    with cache.lock("foo"):
        cache.save(package("foo", "2.0"))
        cache.clear(package("bar"))
    cache.rebuild()
    assert cache.distinct() == ["bar", "foo"]
    assert [row["name"] for row in cache.summary()] == ["bar", "foo"]
    assert cache.check_health() == (True, "")
    cache.clear_all()
    assert cache.is_empty()


def test_a_replica_is_named(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """A server that cannot be written stops the start."""
    with own.connect() as client:
        client.replicaof("127.0.0.1", free_port())
    with pytest.raises(SettingError, match="it is a replica"):
        configure(own.url())


def test_a_redis_that_drops_keys_is_warned_of(
    configure: Callable[..., RedisCache], own: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that makes room by dropping any key is named in a warning, and one that does not is not."""
    configure(own.url())
    assert "maxmemory" not in caplog.text
    with own.connect() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    configure(own.url())
    assert "maxmemory-policy allkeys-lru" in caplog.text


def test_a_missing_library_is_named() -> None:
    """Without redis-py the error says what to install, and the server without Redis starts."""
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from pypicloud.cache import get_cache_impl\n"
        "from pypicloud.settings import EnvironSettings\n"
        "import pypicloud.declared\n"
        "try: get_cache_impl(EnvironSettings({'pypi.db': 'redis', 'db.url': 'redis://x'}, {}))\n"
        "except Exception as error: print(error)"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    advice = "this cache needs more Python packages: pip install 'pypicloud[redis]'"
    assert printed == f"pypi.db = 'redis' (settings): {advice}\n"


def test_the_library_is_imported_when_it_is_needed() -> None:
    """Who does not use Redis does not load its library."""
    code = (
        "import sys, pypicloud.declared\n"
        "pypicloud.declared.all_settings()\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'redis'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# Settings that work


@pytest.mark.parametrize(
    "query", ["?decode_responses=true&protocol=3&encoding=latin-1", "?retry_on_timeout=yes&max_connections=5"]
)
def test_a_url_for_other_programs_works(configure: Callable[..., RedisCache], redis: RedisServer, query: str) -> None:
    """Options that say how another program reads answers do no harm."""
    cache = configure(redis.database() + query)
    cache.save(package(summary="\u00fc"))
    assert [found.summary for found in cache.all("foo")] == ["\u00fc"]


def test_a_unix_socket_works(configure: Callable[..., RedisCache], redis: RedisServer) -> None:
    """Redis can be reached over a Unix socket, as any other user sees it, too."""
    socket = redis.directory / "socket"

    class WithSocket(RedisServer):
        def options(self) -> list[str]:
            return [*super().options(), "--unixsocket", str(socket)]

    with WithSocket():
        cache = configure(f"unix://{socket}?db=3")
        cache.save(package())
        assert cache.distinct() == ["foo"]


def test_the_documented_paths(redis: RedisServer) -> None:
    """The class is found under each name that 1.3.12 documents."""
    assert Documented is RedisCache
    for path in ("redis", "pypicloud.cache.RedisCache", "pypicloud.cache.redis_cache.RedisCache"):
        settings = cache_settings(redis.url())
        settings["pypi.db"] = path
        cache = get_cache_impl(settings)(None)
        assert isinstance(cache, RedisCache)
        cache.wire.close()


# A Redis that goes away


def test_a_redis_that_is_gone_is_one_error(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """While Redis is away every question is one error without details, and health says no."""
    cache = configure(own.url())
    cache.save(package())
    own.kill()
    for ask in (cache.distinct, lambda: cache.all("foo"), lambda: cache.save(package()), lambda: cache.revision(None)):
        with pytest.raises(BackendUnavailable, match=r"^the cache does not answer; please try again later$"):
            ask()
    assert cache.check_health() == (False, "the cache does not answer; please try again later")


def test_a_redis_that_comes_back_is_filled(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """When Redis was killed and comes back empty, the next request tells of the filling, and then all is there."""
    cache = configure(own.url())
    put(cache, package(), package("bar"))
    cache.reload_if_needed()
    own.kill()
    own.start()
    with pytest.raises(BackendUnavailable, match="being filled"):
        cache.distinct()
    deadline = time.monotonic() + 30
    while not is_filled(cache.note("fill")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert set(cache.distinct()) == {each[1] for each in stored(cache).values()}


def test_a_redis_that_came_back_empty_is_not_well(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """While pages cannot be answered health says no, and the question begins the filling."""
    cache = configure(own.url())
    put(cache, package())
    cache.reload_if_needed()
    with cache.lock("fill"):
        own.connect().flushall()
        is_healthy, message = cache.check_health()
        assert not is_healthy
        assert "being filled" in message
    deadline = time.monotonic() + 30
    while not cache.check_health()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert cache.distinct() == ["foo"]


def test_a_restart_is_not_noticed(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """The next request after a restart works, though all connections were lost."""
    cache = configure(own.url())
    cache.save(package())
    own.restart()
    cache.save(package("bar"))
    assert cache.distinct() == ["bar"]


def test_a_redis_that_hangs_is_one_error(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """A Redis that does not answer is waited for as long as the URL says; afterwards all is well again."""
    cache = configure(own.url() + "?socket_timeout=0.3")
    cache.save(package())
    own.pause()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        cache.all("foo")
    own.resume()
    assert cache.all("foo") == [package()]


def test_a_full_redis_is_one_error(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """A Redis without memory left refuses what is written, and still answers."""
    cache = configure(own.url())
    cache.save(package())
    with own.connect() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(BackendUnavailable, match=r"^the cache is full"):
        cache.save(package("bar"))
    assert cache.distinct() == ["foo"]


def test_a_failover_is_not_noticed(configure: Callable[..., RedisCache], own: RedisServer) -> None:
    """When the server has become a replica nothing can be written, until it, or its name, is a primary's again."""
    cache = configure(own.url())
    cache.save(package())
    with own.connect() as client:
        client.replicaof("127.0.0.1", free_port())
        with pytest.raises(BackendUnavailable):
            cache.save(package("bar"))
        client.replicaof("NO", "ONE")
    cache.save(package("bar"))
    assert cache.distinct() == ["bar", "foo"]


def test_a_right_that_is_taken_away_is_one_error(
    configure: Callable[..., RedisCache], redis_tls: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A user who loses a permission gets an error without details."""
    url = redis_tls.database().replace("app:app-password", "fading:x")
    with redis_tls.connect() as client:
        client.execute_command("ACL", "SETUSER", "fading", "reset", "on", ">x", *NEEDED)
        cache = configure(url)
        client.execute_command("ACL", "SETUSER", "fading", "-smembers")
    with pytest.raises(BackendUnavailable, match=r"^the cache may not be used; ask the administrator of this index$"):
        cache.distinct()
    with caplog.at_level(logging.ERROR):
        assert cache.check_health() == (True, "")


def test_a_password_that_changes_is_one_error(configure: Callable[..., RedisCache], redis_tls: RedisServer) -> None:
    """A user whose password is another one now gets an error without details."""
    with redis_tls.connect() as client:
        client.execute_command("ACL", "SETUSER", "moving", "reset", "on", ">x", *NEEDED)
        cache = configure(redis_tls.database().replace("app:app-password", "moving:x"))
        client.execute_command("ACL", "SETUSER", "moving", "resetpass", ">y")
        client.execute_command("CLIENT", "KILL", "USER", "moving")
    with pytest.raises(BackendUnavailable, match=r"^the cache does not answer; please try again later$"):
        cache.distinct()
