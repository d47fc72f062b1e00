"""``pypicloud migrate`` from one object store to another while either is in trouble, and killed in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.live import Installation, clean_environment, end, write_config
from support.moving import contents, fill, put_wheel
from support.services.proxy import Direction, Proxy
from support.storages import NO_INTERNET, StorageWorld, shared_world

#: How many files there are besides those of which each is odd in a way of its own.
FILES: Final = 80

#: How long a run may take, in seconds.
PATIENCE: Final = 120

PAIRS: Final = (("radosgw", "gcs"), ("gcs", "azurite"), ("azurite", "radosgw"))


@dataclass(frozen=True)
class Move:
    """Two buckets, the networks before them, and the command that moves all from the one to the other."""

    old: StorageWorld
    new: StorageWorld
    networks: tuple[Proxy, Proxy]
    command: list[str]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """The command in a process of its own, for as long as the block lasts at most."""
        with subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(**NO_INTERNET),
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                end(process)

    def finish(self) -> None:
        """Run the command once more, and see that everything has arrived."""
        with self.running() as process:
            said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said
        assert contents(self.new.storage()) == contents(self.old.storage())


@pytest.fixture(params=PAIRS, ids="-".join)
def move(request: pytest.FixtureRequest, installation: Installation, tmp_path: Path) -> Iterator[Move]:
    """Files in a bucket, and an empty one on another service."""
    old, new = (shared_world(name, request) for name in request.param)
    storage = old.storage()
    # The new bucket is made, too.
    new.storage()
    fill(storage)
    for number in range(FILES):
        put_wheel(storage, f"{number}.0", "many")
    with ExitStack() as stack:
        networks = stack.enter_context(Proxy(old.service.port)), stack.enter_context(Proxy(new.service.port))
        configs = [
            write_config(tmp_path / name, **world.through(network).changes)
            for name, world, network in zip(("old", "new"), (old, new), networks, strict=True)
        ]
        yield Move(old, new, networks, installation.command("pypicloud", "migrate", *configs))


def arrived(move: Move) -> int:
    """How many objects the new bucket has."""
    return len(move.new.objects())


def wait_until_under_way(move: Move, process: subprocess.Popen[str]) -> None:
    """Wait until something has arrived."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not arrived(move):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_trouble(move: Move) -> None:
    """Connections break, both services want less to do, and one hangs for a while: the run, or the next, does all."""
    with move.running() as process:
        wait_until_under_way(move, process)
        for number in range(12):
            network, world = random.choice(list(zip(move.networks, (move.old, move.new), strict=True)))
            direction: Direction = random.choice(["requests", "answers"])
            if number % 3 == 0:
                network.refuse(5, world.kind.busy)
            elif number % 3 == 1:
                network.cut()
            else:
                network.cut_after(random.randrange(5000), direction)
            time.sleep(random.uniform(0, 0.2))
        move.networks[1].hang()
        time.sleep(2)
        move.networks[1].resume()
        said, _ = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in said
    assert process.returncode in {0, 1}, said
    move.finish()


def test_killed(move: Move) -> None:
    """Runs that are killed leave nothing half behind, and the next does the rest."""
    for _ in range(2):
        with move.running() as process:
            wait_until_under_way(move, process)
            time.sleep(random.uniform(0, 0.3))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert contents(move.new.storage()).items() <= contents(move.old.storage()).items()
    move.finish()
