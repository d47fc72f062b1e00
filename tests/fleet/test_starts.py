"""Servers that start on an empty cache: together, one after the other, and after one that was killed at it."""

from __future__ import annotations

import contextlib
import http.client
import time
from pathlib import Path
from typing import Final

import pytest

from support.caches import KINDS, CacheWorld
from support.fleet import Client, Fleet
from support.live import Installation, Server
from support.witness import BATCH

#: How many projects are stored, and how many files of each.
PROJECTS: Final = 40
FILES: Final = 3

#: Where the listing is held up: a part of what is found has been written by then, and the rest has not.
MIDDLE: Final = 2 * BATCH


@pytest.fixture
def fleet(cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> Fleet:
    """Servers on an empty cache, and a storage that is not empty."""
    return Fleet(installation, cache_world, tmp_path)


def check(server: Server, stored: dict[str, dict[str, str]]) -> None:
    """See that a server knows everything that is stored."""
    with contextlib.closing(Client(server)) as client:
        assert client.projects() == stored.keys()
        for name in list(stored)[::7]:
            assert client.files(name) == stored[name]


def is_silent(server: Server) -> bool:
    """Whether a server answers nothing at all yet."""
    try:
        with contextlib.closing(Client(server, patience=0.3)) as client:
            client.ask("/simple/")
    except (OSError, http.client.HTTPException):
        return True
    return False


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_four_at_once(fleet: Fleet) -> None:
    """Four servers that start at once on an empty cache all know everything, and the storage was listed once."""
    stored = fleet.fill(PROJECTS, FILES)
    with fleet.serving(4) as servers:
        for server in servers:
            check(server, stored)
    assert fleet.witness.count == 1


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_who_comes_while_the_cache_is_filled_waits(fleet: Fleet) -> None:
    """A server that starts while another one fills the cache answers when that is done, and then everything."""
    stored = fleet.fill(PROJECTS, FILES)
    fleet.witness.hold(MIDDLE)
    with fleet.started(1) as (first,):
        fleet.witness.wait_until_held(1)
        with fleet.started(1) as (second,):
            until = time.monotonic() + 2
            while time.monotonic() < until:
                assert is_silent(first)
                assert is_silent(second)
            fleet.witness.release()
            for server in (first, second):
                server.wait()
                check(server, stored)
    assert fleet.witness.count == 1


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_killed_while_filling(fleet: Fleet) -> None:
    """After kill -9 in the middle of the first filling, the next start fills the cache again, and knows everything."""
    stored = fleet.fill(PROJECTS, FILES)
    fleet.witness.hold(MIDDLE)
    with fleet.started(1) as (first,):
        fleet.witness.wait_until_held(1)
        first.kill()
    fleet.witness.release()
    with fleet.serving(1) as (second,):
        check(second, stored)
    assert fleet.witness.count == 2
