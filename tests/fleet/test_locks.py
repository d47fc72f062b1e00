"""Locks between processes: one holds, the others wait, and who dies holds nothing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.caches import KINDS, CacheWorld
from support.fleet import TESTS
from support.live import PATIENCE, Installation, clean_environment, end, write_config
from support.witness import LEASE

#: The caches whose locks end with the process that holds them; those of the others end with a lease.
AT_ONCE: Final = {"sqlite", "postgres", "mariadb"}


class Holder:
    """A process that wants the lock of a key; ``has_it`` is set once it has."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.has_it = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "held\n":
                self.has_it.set()

    def give_back(self) -> None:
        """Let it end in peace."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0

    def kill(self) -> None:
        """Let it die."""
        self.process.kill()
        self.process.wait(PATIENCE)


@contextlib.contextmanager
def holder(installation: Installation, config: Path, key: str) -> Iterator[Holder]:
    """A process that takes the lock of a key as soon as it can."""
    process = subprocess.Popen(
        [installation.python, "-m", "support.witness", str(config), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
        env=clean_environment(PYTHONPATH=str(TESTS)),
        start_new_session=True,
    )
    with process:
        try:
            yield Holder(process)
        finally:
            with contextlib.suppress(OSError):
                end(process)


@pytest.mark.parametrize("cache_world", KINDS, indirect=True)
def test_two_processes(cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """Who wants a lock that another process holds gets it when that gives it back or is killed, and never before.

    It may be held for longer than a lease.
    """
    config = write_config(tmp_path, **cache_world.changes)
    with contextlib.ExitStack() as stack:
        first, other = (stack.enter_context(holder(installation, config, key)) for key in ("foo", "bar"))
        assert first.has_it.wait(PATIENCE)
        # Somebody else's key is nobody's concern.
        assert other.has_it.wait(PATIENCE)
        second = stack.enter_context(holder(installation, config, "foo"))
        assert not second.has_it.wait(LEASE + 2)
        first.give_back()
        assert second.has_it.wait(PATIENCE)
        third = stack.enter_context(holder(installation, config, "foo"))
        assert not third.has_it.wait(2)
        second.kill()
        begun = time.monotonic()
        assert third.has_it.wait(PATIENCE)
        assert time.monotonic() - begun < (LEASE / 2 if cache_world.name in AT_ONCE else LEASE + 5)
        third.give_back()
