"""Faults: the service of a cache is killed, paused, restarted and cut off while everybody is at work.

No acknowledged upload is lost, no answer is wrong or tells what is inside, and no server has to be restarted.
"""

from __future__ import annotations

import dataclasses
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from support.caches import CACHES, KINDS, CacheWorld, own_world
from support.fleet import Client, Fleet, is_healthy, wait_for_health
from support.live import Installation, Server
from support.services.proxy import Direction, Proxy
from support.services.redis_server import RedisCluster
from support.services.service import Process, Service
from support.trial import UPLOADERS, Trial
from support.witness import BATCH

#: The caches whose service can be taken away from them.
SERVED: Final = [name for name in KINDS if name != "sqlite"]

#: How long a server may take to be well again after its cache is, in seconds: a lease that nobody gave back has to
#: end, and all that was lost is read from the storage.
RECOVERY: Final = 30.0

#: How long a server may take to say whether it is well, in seconds.
ANSWER: Final = 8.0


#: Where a client is sent for a project that is not stored.
UPSTREAM: Final = {"pypi__fallback": "redirect", "pypi__fallback_base_url": "https://index.example"}


@contextmanager
def trial(installation: Installation, world: CacheWorld, directory: Path) -> Iterator[Trial]:
    """Two servers with everybody at work on them."""
    fleet = Fleet(installation, world, directory, pypi__allow_delete="true", **UPSTREAM)
    stored = fleet.fill(20, 2)
    with fleet.serving(2) as servers:
        tried = Trial(fleet, servers, stored)
        with tried.at_work():
            tried.wait_for("upload 200")
            tried.wait_for("delete 200", 3)
            tried.wait_for("rebuild 200", 1)
            yield tried
            wait_for_health(servers, within=RECOVERY)
            tried.wait_for("upload 200")
            tried.wait_for("page 200")
            tried.wait_for("rebuild 200", 1)
        tried.check()


def service_of(world: CacheWorld) -> Service:
    """The service that is to be disturbed."""
    assert world.service is not None
    return world.service


def wait_until_unwell(servers: list[Server]) -> None:
    """Wait until each server says that it is not well, in time."""
    for server in servers:
        deadline = time.monotonic() + ANSWER
        while is_healthy(server, ANSWER):
            assert time.monotonic() < deadline, "still well"
            time.sleep(0.05)


@pytest.mark.parametrize("own_cache_world", SERVED, indirect=True)
def test_killed(own_cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """The service is killed and started again; what it lost by that comes back from the storage by itself."""
    service = service_of(own_cache_world)
    with trial(installation, own_cache_world, tmp_path) as tried:
        service.kill()
        wait_until_unwell(tried.servers)
        tried.wait_for("upload 503", 2)
        tried.wait_for("page 503", 2)
        service.start()


@pytest.mark.parametrize("own_cache_world", SERVED, indirect=True)
def test_restarted(own_cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """The service is restarted as for an upgrade, twice."""
    with trial(installation, own_cache_world, tmp_path) as tried:
        for _ in range(2):
            service_of(own_cache_world).restart()
            wait_for_health(tried.servers, within=RECOVERY)
            tried.wait_for("upload 200", 5)


@pytest.mark.parametrize("own_cache_world", SERVED, indirect=True)
def test_paused(own_cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """The service answers nothing for some seconds; the servers say so in time, and go on when it does."""
    service = service_of(own_cache_world)
    with trial(installation, own_cache_world, tmp_path) as tried:
        begun = time.monotonic()
        service.pause()
        try:
            wait_until_unwell(tried.servers)
            time.sleep(max(0.0, begun + 5 - time.monotonic()))
        finally:
            service.resume()


@pytest.mark.parametrize("own_cache_world", SERVED, indirect=True)
def test_cut_off(own_cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """Connections break again and again, in the middle of questions and of answers."""
    with breaking(own_cache_world) as (world, cut), trial(installation, world, tmp_path) as tried:
        for _ in range(30):
            cut()
            time.sleep(random.uniform(0, 0.15))
        tried.wait_for("upload 200")


@contextmanager
def breaking(world: CacheWorld) -> Iterator[tuple[CacheWorld, Callable[[], None]]]:
    """The same cache over a network, and what breaks all connections there: at once, or after some more bytes."""
    service = service_of(world)
    if isinstance(service, RedisCluster):
        # A node tells clients its own address, so they would go past any proxy.
        yield world, partial(disconnect, service)
        return
    assert isinstance(service, Process)
    with Proxy(service.port) as proxy:

        def cut() -> None:
            direction: Direction = random.choice(["requests", "answers"])
            if random.random() < 0.5:
                proxy.cut()
            else:
                proxy.cut_after(random.randrange(2000), direction)

        ports = {key: str(proxy.port) for key in world.settings.keys() & {"db.port"}}
        urls = {key: proxy.through(world.settings[key]) for key in world.settings.keys() & {"db.url"}}
        yield dataclasses.replace(world, settings={**world.settings, **urls, **ports}), cut


def disconnect(cluster: RedisCluster) -> None:
    """Break every connection to a node of a cluster."""
    with random.choice(cluster.nodes).connect() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def test_sqlite_is_busy(installation: Installation, tmp_path: Path) -> None:
    """While another program writes to the SQLite file for some seconds, uploads wait and pages are shown."""
    with (
        own_world("sqlite", tmp_path) as world,
        trial(installation, world, tmp_path) as tried,
        closing(sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        begun = tried.counts["upload 200"]
        tried.wait_for("page 200")
        time.sleep(3)
        # Each may have had one under way that was all but done.
        assert tried.counts["upload 200"] - begun <= UPLOADERS
        other.execute("COMMIT")
    assert not any(word.endswith(" 503") for word in tried.counts)


@pytest.mark.parametrize("own_cache_world", [name for name in SERVED if not CACHES[name].is_lasting], indirect=True)
def test_all_is_lost_while_it_is_rebuilt(
    own_cache_world: CacheWorld, installation: Installation, tmp_path: Path
) -> None:
    """A rebuild that goes on over the loss of the whole cache does not take what it has read before for known.

    Until all is known again, pages are 503, neither 404 nor a redirect.
    """
    service = service_of(own_cache_world)
    fleet = Fleet(installation, own_cache_world, tmp_path, **UPSTREAM)
    stored = fleet.fill(40, 3)
    with fleet.serving(1) as (server,), closing(Client(server)) as client:
        fleet.witness.hold(2 * BATCH)
        with ThreadPoolExecutor(1) as pool:
            rebuild = pool.submit(server.ask, "/admin/rebuild", user="root")
            fleet.witness.wait_until_held(2)
            service.kill()
            service.start()
            statuses = {client.ask(f"/simple/{name}/").status for name in stored}
            # Somebody has noticed, and begun to fill the cache again; the rebuild knows nothing of it.
            fleet.witness.wait_until_held(3)
            fleet.witness.hold(2 * BATCH, first=3)
            until = time.monotonic() + 2
            while time.monotonic() < until:
                statuses |= {client.ask(f"/simple/{name}/").status for name in stored}
            assert statuses == {503}
            fleet.witness.release()
            assert rebuild.result().status in {200, 503}
        deadline = time.monotonic() + RECOVERY
        for name, files in stored.items():
            while (status := client.ask(f"/simple/{name}/").status) == 503:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert status == 200
            assert client.files(name) == files
        assert client.projects() == stored.keys()
