"""Nothing that was acknowledged is lost, and nothing is half there: kills, and uploads that race."""

from __future__ import annotations

import hashlib
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
from support.live import Installation, serving, write_config
from support.uploaders import NAME, Uploaders, page
from support.world import sha256

#: Kills of a server in each of the lanes, which run side by side: 100 in all.
LANES, KILLS = 4, 25


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
