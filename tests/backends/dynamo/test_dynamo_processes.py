"""The cache in DynamoDB in more than one process: forks, and locks among servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pypicloud.cache import leases
from pypicloud.cache.dynamo import DynamoCache
from pypicloud.testing.cache import package, until
from support.dynamo import STORAGE, Tables, started
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.services.aws import MiniStack


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_worker_opens_its_own_connections(server: Callable[..., DynamoCache]) -> None:
    """After a fork the child uses none of its parent's connections."""
    cache = server()
    cache.save(package())
    child = os.fork()
    if child == 0:
        DynamoCache.postfork(**server.keywords)  # type: ignore[attr-defined]  # a partial, as the app makes it
        with cache.lock("foo"):
            cache.save(package(version="2.0"))
        os._exit(0 if len(cache.all("foo")) == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    cache.save(package(version="3.0"))
    assert len(cache.all("foo")) == 3


#: Holds a lock of a cache, whose lease it renews eight times a second, until it is killed.
HOLDER = """
import json, sys
from pypicloud.cache import leases
from pypicloud.cache.dynamo import DynamoCache
from pypicloud.settings import EnvironSettings

leases.LEASE = 0.375
with DynamoCache(None, **DynamoCache.configure(EnvironSettings(json.loads(sys.argv[1]), {}))).lock("foo"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_loses_its_lock(
    cache: DynamoCache, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock keeps another process out, and is free some time after its holder was killed."""
    monkeypatch.setattr(leases, "LEASE", 2.0)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, json.dumps({**STORAGE, **settings})],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(lambda: cache.lock("foo").__enter__())
            time.sleep(3)
            assert not taken.done()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            taken.result(30)


def test_a_lock_that_vanishes_is_taken_again(
    cache: DynamoCache, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock survives that somebody deletes it, and is given back all the same."""
    monkeypatch.setattr(leases, "LEASE", 0.2)
    with cache.lock("foo"):
        tables.client.delete_item(TableName=tables.packages, Key={"filename": {"S": "/lock/foo"}})
        until(lambda: "/lock/foo" in tables.items(tables.packages))
    assert "/lock/foo" not in tables.items(tables.packages)


def test_a_lock_that_somebody_else_has_got_is_lost(
    cache: DynamoCache, tables: Tables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A holder whose lock was taken away says so in the log, and leaves it to the other."""
    monkeypatch.setattr(leases, "LEASE", 0.2)
    with cache.lock("foo"):
        theirs = {**tables.items(tables.packages)["/lock/foo"], "token": {"S": "theirs"}}
        tables.put(tables.packages, theirs)
        until(lambda: "was lost to another server" in caplog.text)
    assert tables.items(tables.packages)["/lock/foo"] == theirs


def test_a_lock_whose_answer_got_lost_is_ours(ministack: MiniStack, settings: dict[str, str]) -> None:
    """A lock that was taken, and only the answer got lost, is not waited for."""
    with Proxy(ministack.port) as proxy, started(settings, db__port=str(proxy.port)) as server:
        cache = server()
        cache.distinct()
        proxy.cut_after(0, "answers")
        before = time.monotonic()
        with cache.lock("foo"):
            assert time.monotonic() - before < leases.LEASE
