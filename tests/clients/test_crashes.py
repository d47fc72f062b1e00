"""Nothing that was acknowledged is lost, and nothing is half there: kills, and uploads that race."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.builds import build_wheel, wheel_name
from support.live import Installation, Server, serving, write_config
from support.world import sha256

NAME = "crash"

#: Kills of a server in each of the lanes, which run side by side: 100 in all.
LANES, KILLS = 4, 25

SIZES = (100, 100, 100, 300_000, 2_500_000)


def page(server: Server) -> dict[str, str]:
    """The files on the project's page with their digests."""
    answer = server.ask(f"/simple/{NAME}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    if answer.status == 404:
        return {}
    return {file["filename"]: file["hashes"]["sha256"] for file in json.loads(answer.body)["files"]}


class Uploaders:
    """Clients that upload without a pause until the server is gone.

    ``sent`` are the digests of all files that were begun, ``acknowledged`` the names of those whose
    upload was answered with 200, and ``unanswered`` the bytes of those that got no answer; ``interrupted``
    counts them.
    """

    def __init__(self, rng: random.Random) -> None:
        self.sent: dict[str, str] = {}
        self.acknowledged: set[str] = set()
        self.unanswered: dict[str, bytes] = {}
        self.refused: list[bytes] = []
        self.interrupted = 0
        self._rng = rng
        self._count = 0

    def run(self, server: Server, clients: int = 3) -> None:
        """Upload until the server is gone; it is killed at a moment that is not foreseen."""
        threads = [threading.Thread(target=self._upload, args=(server,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(self._rng.uniform(0.0, 0.2))
        os.killpg(server.process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
        server.process.wait()

    def _upload(self, server: Server) -> None:
        while True:
            self._count += 1
            version = f"1.{self._count}.{threading.get_ident()}"
            filename = wheel_name(NAME, version)
            noise = self._rng.randbytes(self._rng.choice(SIZES))
            content = build_wheel(NAME, version, members={"noise.bin": noise}, compression=0)
            self.sent[filename] = sha256(content)
            try:
                answer = server.upload(filename, content)
            except (OSError, http.client.HTTPException):
                self.unanswered[filename] = content
                self.interrupted += 1
                return
            if answer.status != 200:
                self.refused.append(answer.body)
                return
            self.acknowledged.add(filename)

    def repeat(self, server: Server) -> None:
        """Upload once more what was not answered: this works whether it is there or not."""
        while self.unanswered:
            filename, content = self.unanswered.popitem()
            answer = server.upload(filename, content)
            assert answer.status == 200, answer.body
            self.acknowledged.add(filename)


@pytest.mark.parametrize("lane", range(LANES))
def test_kill_9(lane: int, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 at any moment the server starts; acknowledged files are there; what is listed is whole.

    What was cut short can be uploaded again, and what it left behind is cleared away.
    """
    config = write_config(tmp_path, pypi__allow_overwrite_groups=None)
    # What is killed tells nothing about coverage; without measuring it starts faster.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    uploaders = Uploaders(random.Random(lane))
    for _ in range(KILLS):
        with serving(installation, config) as server:
            listed = page(server)
            assert uploaders.acknowledged <= listed.keys()
            assert listed.items() <= uploaders.sent.items()
            uploaders.repeat(server)
            uploaders.run(server)
            assert uploaders.refused == []
    assert uploaders.interrupted >= KILLS
    for leftover in (tmp_path / "packages").glob(".*"):
        # No server takes what is younger than some hours for abandoned: another one may be at it.
        os.utime(leftover, (0, 0))
    with serving(installation, config) as server:
        before = page(server)
        assert uploaders.acknowledged <= before.keys()
        server.rebuild()
        after = page(server)
        assert before.items() <= after.items() <= uploaders.sent.items()
        for filename, digest in after.items():
            assert sha256(server.ask(f"/api/package/{NAME}/{filename}").body) == digest
        uploaders.repeat(server)
        assert page(server) == uploaders.sent
        assert list((tmp_path / "packages").glob(".*")) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_racing_uploads(workers: str, installation: Installation, tmp_path: Path) -> None:
    """Of 20 uploads of one name with different bytes at once, one is stored, and the others are 409."""
    config = write_config(tmp_path, pypi__allow_overwrite_groups=None)
    rivals = 20
    with serving(installation, config, "--workers", workers) as server, ThreadPoolExecutor(rivals) as pool:
        for turn in range(5):
            filename = wheel_name(NAME, f"1.{turn}")
            contents = [
                build_wheel(NAME, f"1.{turn}", members={"noise.bin": random.Random(rival).randbytes(50_000)})
                for rival in range(rivals)
            ]
            start = threading.Barrier(rivals)

            def upload(content: bytes, filename: str = filename, start: threading.Barrier = start) -> int:
                start.wait()
                return server.upload(filename, content).status

            statuses = list(pool.map(upload, contents))
            assert Counter(statuses) == {200: 1, 409: rivals - 1}
            winner = contents[statuses.index(200)]
            assert server.ask(f"/api/package/{NAME}/{filename}").body == winner
            assert page(server)[filename] == hashlib.sha256(winner).hexdigest()
            assert server.ask(f"/api/package/{NAME}/{filename}.metadata").status == 200
        server.rebuild()
        assert page(server)[filename] == hashlib.sha256(winner).hexdigest()


def test_a_worker_that_is_killed_is_replaced(installation: Installation, tmp_path: Path) -> None:
    """When the system kills one process of two, for lack of memory say, the server answers on and has two again."""
    with serving(installation, write_config(tmp_path), "--workers", "2") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        before = set(children.read_text().split())
        os.kill(int(min(before)), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while len(after := set(children.read_text().split()) - {min(before)}) < len(before):
            assert time.monotonic() < deadline, server.log_tail()
            time.sleep(0.1)
        assert after != before
        server.wait()
        assert server.process.poll() is None
