"""One run: where it works, how long it measures, and how two sides are measured in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import data, peers
from benchmarks.data import World
from benchmarks.result import BenchError, Result, Samples

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of one run."""

    work: Path
    peers_home: Path
    command: tuple[str, ...]
    rounds: int
    seconds: float
    is_quick: bool = False
    caches: tuple[str, ...] = ()

    @property
    def world(self) -> World:
        """What is measured on."""
        return World(self.work)

    @property
    def run(self) -> Path:
        """What belongs to this run alone: configurations, cache files, logs."""
        return self.work / "run"

    def config(
        self, name: str, storage: Path | Mapping[str, str] | None = None, cache: Mapping[str, str] | None = None
    ) -> Path:
        """An ini file for a storage folder, or the storage of these settings, or one without files.

        The cache is an SQLite file unless one is given.
        """
        path = self.run / f"{name}.ini"
        kept = storage if isinstance(storage, Mapping) else data.folder(storage or self._no_files())
        data.write_config(path, kept, cache or data.sqlite(self.run / f"{name}.sqlite"))
        return path

    def server(
        self, name: str, storage: Path | Mapping[str, str] | None = None, cache: Mapping[str, str] | None = None
    ) -> AbstractContextManager[peers.Server]:
        """One of our servers, on what :meth:`config` takes."""
        return peers.pypicloud(self.config(name, storage, cache), self.command)

    def _no_files(self) -> Path:
        folder = self.run / "nothing"
        folder.mkdir(exist_ok=True)
        return folder

    def pages_server(self) -> AbstractContextManager[peers.Server]:
        """Our server on the small world: the projects of 20, of 2,000 and of one large file."""
        return self.server("pages", self.world.pages_tree())

    def program(self, module: str, *arguments: str) -> Any:
        """Run one of our own programs to its end; the JSON it printed, or None."""
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise BenchError(f"{module} failed:\n{tail}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def in_turn(self, *sides: Callable[[], float], rounds: int | None = None) -> list[Samples]:
        """Measure the sides in turn, once each to warm up and then round by round, each in the other order.

        Whatever else the machine does at a moment thus falls on all sides alike.
        """
        for side in sides:
            side()
        found: list[list[float]] = [[] for _ in sides]
        for number in range(rounds or self.rounds):
            order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
            for index in order:
                found[index].append(sides[index]())
        return [Samples.of(values) for values in found]


#: A row of the table, or a few that come out of one measurement.
Row = Callable[[Bench], tuple[Result, ...]]
