"""Freshness: after a write was acknowledged, no server shows what was before it, on any cache.

``PYPICLOUD_FRESHNESS_SECONDS`` says how long each cache is tried; 60 is what a release is held to.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from support.builds import build_wheel, wheel_name
from support.caches import KINDS, CacheWorld
from support.fleet import HTML, JSON, Client, Fleet, files_of, projects_of
from support.freshness import History, ListRead, Read
from support.live import Answer, Installation, Server

SECONDS: Final = float(os.environ.get("PYPICLOUD_FRESHNESS_SECONDS", "8"))

SERVERS: Final = 3
WRITERS: Final = 3
READERS: Final = 4

#: Every writer has a file of its own in each: so the same project is changed on several servers at once, and
#: comes and goes.
PROJECTS: Final = ("one", "two", "three", "four")


class Traffic:
    """Writers and readers at work on random servers of a fleet, until the time is over or one of them fails.

    Meanwhile the cache is rebuilt again and again, which must not be seen.
    """

    def __init__(self, servers: list[Server], seconds: float) -> None:
        self.history = History()
        self.counts: Counter[str] = Counter()
        self._servers = servers
        self._until = time.monotonic() + seconds
        self._failed = threading.Event()

    def run(self) -> None:
        """Let them all work. Raises what the first of them did."""
        jobs = [self._write] * WRITERS + [self._read] * READERS + [self._rebuild]
        with ThreadPoolExecutor(len(jobs)) as pool:
            for done in [pool.submit(self._guarded, job, number) for number, job in enumerate(jobs)]:
                done.result()

    def _guarded(self, job: Callable[[random.Random, list[Client]], None], number: int) -> None:
        rng = random.Random(number)
        clients = [Client(server) for server in self._servers]
        try:
            job(rng, clients)
        except BaseException:
            self._failed.set()
            raise
        finally:
            for client in clients:
                client.close()

    def _is_on(self) -> bool:
        return time.monotonic() < self._until and not self._failed.is_set()

    def _write(self, rng: random.Random, clients: list[Client]) -> None:
        version = f"1.{threading.get_ident()}"
        while self._is_on():
            project, client = rng.choice(PROJECTS), rng.choice(clients)
            filename = wheel_name(project, version)
            is_there = self.history.last(project, filename) is not None
            if is_there and rng.random() < 0.6:
                with self.history.writing(project, filename, None):
                    answer = client.delete(project, filename)
                    assert answer.status == 200, answer.body
                self.counts["delete"] += 1
            else:
                # All of one size: a download that meets an overwrite is not what is tested here.
                content = build_wheel(project, version, members={"noise.bin": rng.randbytes(64)}, compression=0)
                with self.history.writing(project, filename, hashlib.sha256(content).hexdigest()):
                    answer = client.upload(filename, content)
                    assert answer.status == 200, answer.body
                self.counts["overwrite" if is_there else "upload"] += 1

    def _rebuild(self, rng: random.Random, clients: list[Client]) -> None:
        while self._is_on():
            rng.choice(clients).server.rebuild()
            self.counts["rebuild"] += 1
            time.sleep(0.5)

    def _read(self, rng: random.Random, clients: list[Client]) -> None:
        kept: dict[tuple[str, ...], tuple[str, Answer]] = {}
        while self._is_on():
            client = rng.choice(clients)
            kind = rng.choice(["page", "page", "page", "list", "file"])
            if kind == "file":
                self._download(rng, client)
                continue
            path = "/simple/" if kind == "list" else f"/simple/{rng.choice(PROJECTS)}/"
            headers = {"Accept": rng.choice([JSON, HTML]), "Accept-Encoding": rng.choice(["identity", "gzip"])}
            key = (path, *headers.values())
            if key in kept and rng.random() < 0.7:
                headers["If-None-Match"] = kept[key][0]
            asked = time.monotonic()
            answer = client.ask(path, headers=headers)
            answered = time.monotonic()
            self.counts[f"{kind} {answer.status}"] += 1
            if answer.status == 304:
                answer = kept[key][1]
            elif answer.status == 200:
                answer = _plain(answer)
                kept[key] = (answer.headers["ETag"], answer)
            what = f"{path} {headers} of port {client.server.port}"
            if kind == "list":
                self.history.lists.append(ListRead(projects_of(answer), asked, answered, what))
            else:
                files = {} if answer.status == 404 else files_of(answer)
                self.history.reads.append(Read(path.split("/")[2], files, asked, answered, what))

    def _download(self, rng: random.Random, client: Client) -> None:
        project = rng.choice(PROJECTS)
        some = list(self.history.writes[project])
        if not some:
            return
        filename = rng.choice(some)
        asked = time.monotonic()
        answer = client.download(project, filename)
        answered = time.monotonic()
        self.counts[f"file {answer.status}"] += 1
        assert answer.status in {200, 404}, answer.body
        files = {filename: hashlib.sha256(answer.body).hexdigest()} if answer.status == 200 else {}
        what = f"{filename} of port {client.server.port}"
        self.history.reads.append(Read(project, files, asked, answered, what, only=filename))


def _plain(answer: Answer) -> Answer:
    if answer.headers["Content-Encoding"] == "gzip":
        return Answer(answer.status, answer.reason, answer.headers, gzip.decompress(answer.body))
    return answer


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_no_server_shows_the_past(cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """No page, list, 304 or download asked for after a write was acknowledged shows what was before it."""
    fleet = Fleet(installation, cache_world, tmp_path, pypi__allow_delete="true")
    with fleet.serving(SERVERS) as servers:
        traffic = Traffic(servers, SECONDS)
        traffic.run()
    print(cache_world.name, dict(traffic.counts))  # noqa: T201 - said if the test fails
    assert traffic.history.violations() == []
    assert traffic.counts["rebuild"] >= SECONDS / 4
    for word in ("upload", "overwrite", "delete", "page 200", "page 304", "page 404", "list 200", "list 304"):
        assert traffic.counts[word] >= SECONDS / 2, (word, traffic.counts)
    assert traffic.counts["file 200"] >= SECONDS / 2
