"""Clients that upload until their server is killed, and know afterwards what was acknowledged."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from typing import Final

from support.builds import build_wheel, wheel_name
from support.live import Server
from support.world import sha256

#: The project that all files are of, and the sizes that they have.
NAME: Final = "crash"
SIZES: Final = (100, 100, 100, 300_000, 2_500_000)


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
