"""Faults: an object store goes away, is silent, breaks connections and wants less to do while everybody is at work.

No acknowledged upload is lost, nothing half is listed, pages are shown all the while, no answer tells what is inside,
and no server has to be restarted.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, get_args

import pytest

from support.bucket_fleet import BucketFleet, BucketTrial
from support.builds import build_sdist, sdist_name
from support.caches import own_world as own_cache
from support.fleet import Client, is_healthy, wait_for_health
from support.live import Installation, Server
from support.services.proxy import Direction, Proxy
from support.storages import KINDS, StorageWorld, own_world

#: How long a server may take to be well again after its store is, in seconds.
RECOVERY: Final = 30.0

#: How long a server may take to say whether it is well, in seconds.
ANSWER: Final = 8.0


#: More bytes than anything between here and there holds.
LARGE: Final = 6_000_000

#: Where a client is sent for a project that is not stored.
UPSTREAM: Final = {"pypi__fallback": "redirect", "pypi__fallback_base_url": "https://index.example"}


@pytest.fixture(scope="module", params=KINDS)
def disturbed(request: pytest.FixtureRequest) -> Iterator[StorageWorld]:
    """A service of each kind that the tests here may do anything to; they leave it running."""
    with own_world(request.param) as world:
        yield world


@pytest.fixture
def world(disturbed: StorageWorld) -> StorageWorld:
    """A new bucket on it."""
    return disturbed.fresh()


@contextmanager
def trial(installation: Installation, world: StorageWorld, directory: Path) -> Iterator[BucketTrial]:
    """Two servers with everybody at work on them."""
    with own_cache("sqlite", directory) as cache:
        fleet = BucketFleet(installation, cache, world, directory, pypi__allow_delete="true", **UPSTREAM)
        stored = fleet.fill(5, 2)
        with fleet.serving(2) as servers:
            tried = BucketTrial(fleet, servers, stored)
            with tried.at_work():
                for word in ("upload 200", "delete 200", "rebuild 200", "download 200"):
                    tried.wait_for(word, 2)
                yield tried
                wait_for_health(servers, within=RECOVERY)
                for word in ("upload 200", "delete 200", "rebuild 200", "download 200"):
                    tried.wait_for(word, 2)
            tried.check()
    # What is known of files lies in the cache, and that is well.
    assert not tried.counts.keys() & {"page 503", "list 503", "new 503"}


def wait_until_unwell(servers: list[Server]) -> None:
    """Wait until each server says that it is not well, in time."""
    for server in servers:
        deadline = time.monotonic() + ANSWER
        while is_healthy(server, ANSWER):
            assert time.monotonic() < deadline, "still well"
            time.sleep(0.05)


def test_away(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """The service ends, at once where it keeps what it has, and comes back."""
    with trial(installation, world, tmp_path) as tried:
        if world.kind.is_lasting:
            world.service.kill()
        else:
            world.service.stop()
        try:
            wait_until_unwell(tried.servers)
            for word in ("upload 503", "download 503", "rebuild 503"):
                tried.wait_for(word, 1)
        finally:
            world.service.start()


def test_silent(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """The service answers nothing for some seconds; the servers say so in time, and go on when it does."""
    with trial(installation, world, tmp_path) as tried:
        begun = time.monotonic()
        world.service.pause()
        try:
            wait_until_unwell(tried.servers)
            time.sleep(max(0.0, begun + 5 - time.monotonic()))
        finally:
            world.service.resume()


def test_cut_off(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """Connections break again and again, in the middle of questions and of answers."""
    with Proxy(world.service.port) as proxy, trial(installation, world.through(proxy), tmp_path) as tried:
        for _ in range(30):
            direction: Direction = random.choice(["requests", "answers"])
            if random.random() < 0.5:
                proxy.cut()
            else:
                proxy.cut_after(random.randrange(10_000), direction)
            time.sleep(random.uniform(0, 0.15))
        tried.wait_for("upload 200")


def test_busy(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """The service wants less to do: for a moment, which nobody notices, and for longer, which is said."""
    with Proxy(world.service.port) as proxy, trial(installation, world.through(proxy), tmp_path) as tried:
        for _ in range(3):
            proxy.refuse(1, world.kind.busy)
            tried.wait_for("upload 200", 2)
        assert not any(word.endswith(" 503") for word in tried.counts)
        proxy.refuse(10**9, world.kind.busy)
        wait_until_unwell(tried.servers)
        for word in ("upload 503", "download 503"):
            tried.wait_for(word, 1)
        proxy.refuse(0)


def test_cut_downloads(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """A large file that is cut off on its way from the store arrives whole or is seen not to; the next time it does."""
    content = build_sdist("large", "1.0", members={"noise": random.Random(1).randbytes(LARGE)})
    filename = sdist_name("large", "1.0")
    with Proxy(world.service.port) as proxy, own_cache("sqlite", tmp_path) as cache:
        fleet = BucketFleet(installation, cache, world.through(proxy), tmp_path)
        with fleet.serving(1) as (server,), closing(Client(server)) as client:
            assert client.upload(filename, content).status == 200
            for count in (100_000, 400_000, LARGE // 2, LARGE - 10_000):
                proxy.cut_after(count, "answers")
                answer = None
                with suppress(http.client.IncompleteRead, ConnectionError):
                    answer = client.download("large", filename)
                if answer is not None:
                    assert answer.status in {200, 503}
                    assert answer.status == 503 or answer.body == content
                again = client.download("large", filename)
                assert (again.status, again.body == content) == (200, True)
            assert "Application callable raised" not in server.log.read_text()


def test_large_uploads(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """A large file that is cut off on its way to the store is there in the end, or not at all, and then goes in."""
    content = build_sdist("large", "1.0", members={"noise": random.Random(1).randbytes(LARGE)})
    filename = sdist_name("large", "1.0")
    with Proxy(world.service.port) as proxy, own_cache("sqlite", tmp_path) as cache:
        fleet = BucketFleet(installation, cache, world.through(proxy), tmp_path, pypi__allow_delete="true")
        with fleet.serving(1) as (server,), closing(Client(server)) as client:
            for count in (1000, LARGE // 2, LARGE + 1000):
                for direction in get_args(Direction):
                    proxy.cut_after(count if direction == "requests" else count % 1000, direction)
                    answer = client.upload(filename, content)
                    assert answer.status in {200, 503}, answer.body
                    stored = fleet.stored("large")
                    assert stored in ({}, {filename: ("large", hashlib.sha256(content).hexdigest())})
                    if answer.status == 503:
                        assert client.upload(filename, content).status == 200
                    assert client.download("large", filename).body == content
                    assert client.delete("large", filename).status == 200
