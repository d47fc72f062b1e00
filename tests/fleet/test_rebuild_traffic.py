"""Rebuilds of a cache that is in use: nothing that is stored is ever missing, and what is broken off is finished."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from support.caches import KINDS, CacheWorld
from support.fleet import JSON, Client, Fleet, files_of, projects_of
from support.live import PATIENCE, Answer, Installation, Server, end
from support.witness import BATCH

#: How many projects are stored, and how many files of each.
PROJECTS: Final = 40
FILES: Final = 3

#: Where the listing is held up: a part of what is found has been written by then, and the rest has not.
MIDDLE: Final = 2 * BATCH


@pytest.fixture
def fleet(cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> Fleet:
    """Servers that share an empty cache and a storage."""
    return Fleet(installation, cache_world, tmp_path)


class Readers:
    """Readers of the pages of projects that are stored all along."""

    def __init__(self, servers: list[Server], stored: dict[str, dict[str, str]]) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._servers = servers
        self._stored = stored
        self._over = threading.Event()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """They read as long as the block lasts."""
        with ThreadPoolExecutor(len(self._servers)) as pool:
            done = [pool.submit(self._read, server) for server in self._servers]
            try:
                yield
            finally:
                self._over.set()
            for each in done:
                each.result()

    def _read(self, server: Server) -> None:
        with contextlib.closing(Client(server)) as client:
            while not self._over.is_set():
                for name, files in self._stored.items():
                    if self._over.is_set():
                        break
                    self._look(client.ask(f"/simple/{name}/", headers={"Accept": JSON}), name, files)
                listed = client.ask("/simple/", headers={"Accept": JSON})
                if listed.status != 200 or not projects_of(listed) >= self._stored.keys():
                    self.wrong.append(f"the list: {listed.status}")
                self.counts["list"] += 1

    def _look(self, answer: Answer, name: str, files: dict[str, str]) -> None:
        self.counts["page"] += 1
        if answer.status != 200:
            self.wrong.append(f"{name}: {answer.status} {answer.body!r}")
        elif not files.items() <= files_of(answer).items():
            self.wrong.append(f"{name}: {files_of(answer)}")


class Tampering:
    """What is done to the storage behind the servers' backs: projects that come and go."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._turn = 0

    def tamper(self) -> dict[str, dict[str, str]]:
        """Take away what came last time, and bring something else, some of it to a project that stays."""
        for name in (f"extra-{self._turn}", "stored-000/99.0"):
            shutil.rmtree(self._fleet.packages / name, ignore_errors=True)
        self._turn += 1
        filename, digest = self._fleet.put(f"extra-{self._turn}", "1.0")
        more, more_digest = self._fleet.put("stored-000", f"{98 + self._turn % 2}.0")
        return {f"extra-{self._turn}": {filename: digest}, "stored-000": {more: more_digest}}


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_pages_while_it_runs(fleet: Fleet) -> None:
    """While one rebuild follows another, what is stored all along is never missing; what came and went is right."""
    stored = fleet.fill(PROJECTS, FILES)
    with fleet.serving(2) as servers:
        readers, tampering = Readers(servers, stored), Tampering(fleet)
        with readers.at_work(), contextlib.closing(Client(servers[0])) as client:
            for turn in range(4):
                added = tampering.tamper()
                if turn % 2:
                    servers[turn // 2].rebuild()
                else:
                    finish(fleet)
                for name, files in added.items():
                    assert files.items() <= client.files(name).items()
                assert client.files(f"extra-{turn}") == {}
        assert readers.wrong == []
        assert readers.counts["page"] > 100
        assert readers.counts["list"] > 2


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_killed_in_the_middle(fleet: Fleet) -> None:
    """A rebuild that is killed harms nothing: what is stored is shown, and the next rebuild does all that is left."""
    stored = fleet.fill(PROJECTS, FILES)
    with fleet.serving(1) as (server,), contextlib.closing(Client(server)) as client:
        for number in range(5):
            shutil.rmtree(fleet.packages / f"stored-{number:03}")
            gone = stored.pop(f"stored-{number:03}")
            assert len(gone) == FILES
        new = {name: dict([fleet.put(name, "1.0")]) for name in (f"new-{number}" for number in range(5))}
        fleet.witness.hold(MIDDLE)
        killed = fleet.run("rebuild")
        fleet.witness.wait_until_held(2)
        killed.kill()
        killed.communicate()
        fleet.witness.release()
        readers = Readers([server], stored)
        with readers.at_work():
            finish(fleet)
        assert readers.wrong == []
        assert readers.counts["page"]
        assert client.projects() == stored.keys() | new.keys()
        for name, files in new.items():
            assert client.files(name) == files


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_in_the_background(fleet: Fleet) -> None:
    """With wait=false a rebuild is begun and the answer comes at once; every server tells how far it is."""
    stored = fleet.fill(PROJECTS, FILES)
    with fleet.serving(2) as servers:
        new = dict([fleet.put("new", "1.0")])
        fleet.witness.hold(MIDDLE)
        for server in servers:
            answer = server.ask("/admin/rebuild?wait=false", "POST", user="root")
            assert answer.status == 202, answer.body
            fleet.witness.wait_until_held(2)
            assert status(server)["state"] == "running"
        fleet.witness.release()
        deadline = time.monotonic() + PATIENCE
        while (told := status(servers[1]))["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert told["state"] == "done", told
        assert told["files"] == PROJECTS * FILES + 1
        assert told["counts"]["added"] == 1
        assert status(servers[0]) == told
        for server in servers:
            with contextlib.closing(Client(server)) as client:
                assert client.files("new") == new
                assert client.projects() == {"new", *stored}
        # The one at the start, and one of the two that were asked for.
        assert fleet.witness.count == 2


def status(server: Server) -> dict[str, Any]:
    """What a server tells of the last rebuild."""
    answer = server.ask("/admin/rebuild/status", user="root")
    assert answer.status == 200, answer.body
    told: dict[str, Any] = json.loads(answer.body)
    return told


def finish(fleet: Fleet) -> None:
    """Run ``pypicloud rebuild`` to its end."""
    process = fleet.run("rebuild")
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        end(process)
    assert process.returncode == 0, output
