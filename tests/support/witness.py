"""Plug-ins and programs that run in servers and processes of their own, and tell the tests what goes on there.

There leases are short and a rebuild writes after few files, so that tests need neither wait long nor store much.

``python -m support.witness CONFIG KEY`` holds a lock of the cache that an ini file configures: it prints ``held``
once it has it, and gives it back when its standard input ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from pypicloud.cache import get_cache_impl, leases, rebuild
from pypicloud.database import locks
from pypicloud.ini import load_ini
from pypicloud.models import Package
from pypicloud.settings import TEXT, EnvironSettings, Setting
from pypicloud.storage.files import FileStorage

DIRECTORY: Final = Setting("storage.witness", TEXT, "", "Where the storage tells what it does.")


#: How many seconds a lock outlives a holder that died.
LEASE: Final = 4

#: After how many files a rebuild writes what it found.
BATCH: Final = 50


def hurry() -> None:
    """Let this process wait less and write more often than usual."""
    for module, name, value in ((leases, "LEASE", LEASE), (locks, "LEASE", LEASE), (rebuild, "BATCH", BATCH)):
        setattr(module, name, value)


class WitnessedStorage(FileStorage):
    """A file storage that tells when it is listed, and can be held up in the middle of that."""

    def __init__(self, request: Any = None, *, witness: Witness, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.witness = witness

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """As the file storage, and where to tell."""
        hurry()
        return {**super().configure(settings), "witness": Witness(Path(DIRECTORY.read(settings)))}

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Every stored package."""
        number = self.witness.begin()
        for count, package in enumerate(super().list(factory)):
            self.witness.pass_by(number, count)
            yield package


class Witness:
    """A directory through which a storage and a test talk to each other."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lists = directory / "lists"
        self._hold = directory / "hold"

    def begin(self) -> int:
        """A listing begins; its number, from 1."""
        with self._lists.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return self.count

    def pass_by(self, number: int, count: int) -> None:
        """So many files have been listed; wait here if the test says so."""
        while number >= (held := self._orders())[0] and count >= held[1]:
            (self._directory / f"held-{number}").touch()
            time.sleep(0.01)

    def _orders(self) -> tuple[int, int]:
        try:
            first, count = self._hold.read_text().split()
        except FileNotFoundError:
            return (sys.maxsize, 0)
        return (int(first), int(count))

    @property
    def count(self) -> int:
        """How many listings there were."""
        return len(self._lists.read_text().split()) if self._lists.exists() else 0

    def hold(self, count: int, first: int = 0) -> None:
        """Let listings wait after so many files, from the ``first`` one on; earlier ones go on."""
        new = self._directory / "hold.new"
        new.write_text(f"{first} {count}")
        new.rename(self._hold)

    def wait_until_held(self, number: int, within: float = 60) -> None:
        """Wait until the listing of this number waits."""
        deadline = time.monotonic() + within
        while not (self._directory / f"held-{number}").exists():
            if time.monotonic() > deadline:
                raise AssertionError(f"there was no listing {number} in {within} s")
            time.sleep(0.01)

    def release(self) -> None:
        """Let all of them go on."""
        self._hold.unlink()


def hold_lock(config: str, key: str) -> None:
    """Hold a lock of a cache until the end of standard input."""
    hurry()
    cache = get_cache_impl(load_ini(config))(None)
    with cache.lock(key):
        print("held", flush=True)  # noqa: T201 - the answer
        sys.stdin.read()


if __name__ == "__main__":
    hold_lock(*sys.argv[1:])
