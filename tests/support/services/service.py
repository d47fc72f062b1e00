"""A real server under the tests' hands: started, stopped, killed, paused, and started again where it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final, Self

from support.live import PATIENCE, clean_environment, free_port
from support.services import reaper

ROOT: Final = Path(__file__).parents[3]

#: How often a starting server is asked whether it is there, in seconds.
_PAUSE: Final = 0.02


class Service(ABC):
    """What any service can be told to do; as a context manager it runs until the end of the block."""

    @abstractmethod
    def start(self) -> None:
        """Start it; on return it answers."""

    @abstractmethod
    def stop(self) -> None:
        """End it as an init system would."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once (SIGKILL), as a power failure of its processes would; what it had given to the disk stays."""

    @abstractmethod
    def pause(self) -> None:
        """Stop it from doing anything (SIGSTOP): its connections stay open, and nothing is answered."""

    @abstractmethod
    def resume(self) -> None:
        """Let a paused service go on."""

    @abstractmethod
    def remove(self) -> None:
        """End it, and leave nothing behind."""

    def restart(self) -> None:
        """End it if it runs, and start it with the same port and data."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Process(Service):
    """A service that is one process with its children, in a session and a directory of their own."""

    #: What the service is called in messages.
    name: ClassVar[str]
    #: The user whom the server runs as when the tests are run by root, where it refuses root.
    account: ClassVar[str | None] = None
    #: The signal that ends the server soon and cleanly.
    end_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: What :meth:`probe` raises while the server is starting.
    not_yet: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"pypicloud-{self.name.lower().replace(' ', '-')}-"))
        reaper.add_directory(self.directory)
        # Another user has to get in, and mkdtemp lets nobody.
        self.directory.chmod(0o755)
        self.log = self.directory / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the server, which stays in the foreground."""

    @abstractmethod
    def probe(self) -> None:
        """Ask the server something as its users would; raises one of ``not_yet`` while it can't answer."""

    def prepare(self) -> None:
        """Put into the directory what the first start needs."""

    def environment(self) -> dict[str, str]:
        """The environment of the server."""
        return clean_environment(LC_ALL="C")

    @property
    def runs_as(self) -> str | None:
        """The user to change to; None to stay who we are."""
        return self.account if os.geteuid() == 0 else None

    def start(self) -> None:
        if self._process is not None:
            raise AssertionError(f"{self.name} is running already")
        if not self._prepared:
            self.prepare()
            self._prepared = True
        self._process = self._launch()
        try:
            self._wait(self._process)
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.end_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE / 4)
        self._end()

    def kill(self) -> None:
        self._end()

    def pause(self) -> None:
        stopped: set[int] = set()
        while new := [pid for pid in self._tree() if pid not in stopped]:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped.update(new)

    def resume(self) -> None:
        for pid in self._tree():
            _signal(pid, signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self) -> str:
        """The last that the server printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def run(self, *command: str | Path) -> None:
        """Run a command as the server's user. Raises :class:`AssertionError` with what it printed if it fails."""
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=self.environment(),
            user=self.runs_as,
            group=self.runs_as,
            extra_groups=[] if self.runs_as else None,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{command[0]} failed with status {done.returncode}:\n{done.stdout[-4000:]}")

    def own(self, path: Path) -> None:
        """Give a folder and all in it to the server's user."""
        if self.runs_as:
            subprocess.run(["chown", "--recursive", f"{self.runs_as}:{self.runs_as}", path], check=True)

    def fill(self, directory: Path, *command: str | Path) -> None:
        """Run the command that makes a server's data directory, or copy what it made in an earlier run."""
        words = [str(word).replace(str(directory), "") for word in command]
        recipe = f"{words} {Path(command[0]).stat().st_mtime_ns} {os.geteuid()}"
        kept = ROOT / ".make" / "services" / f"{directory.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
        if kept.is_dir():
            subprocess.run(["cp", "--archive", kept, directory], check=True)
            return
        self.own(directory.parent)
        self.run(*command)
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=kept.parent)) / "data"
        subprocess.run(["cp", "--archive", directory, fresh], check=True)
        # Another worker may have been first; what it made is as good.
        with contextlib.suppress(OSError):
            fresh.rename(kept)
        shutil.rmtree(fresh.parent)

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self.environment(),
                start_new_session=True,
                user=self.runs_as,
                group=self.runs_as,
                extra_groups=[] if self.runs_as else None,
            )
        reaper.add_session(process.pid)
        return process

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            if process.poll() is not None:
                raise AssertionError(f"{self.name} ended with status {process.returncode}:\n{self.log_tail()}")
            try:
                self.probe()
            except self.not_yet as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} does not answer ({error}):\n{self.log_tail()}") from error
            else:
                return
            time.sleep(_PAUSE)

    def _end(self) -> None:
        if self._process is None:
            return
        # A process that is stopped starts no new one while the others are looked for, and SIGKILL ends it all the same.
        self.pause()
        tree = self._tree()
        for pid in tree:
            _signal(pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        # PostgreSQL does not start while one of its former processes is still there.
        deadline = time.monotonic() + PATIENCE
        while any(_is_alive(pid) for pid in tree) and time.monotonic() < deadline:
            time.sleep(_PAUSE / 10)
        reaper.forget_session(self._process.pid)
        self._process = None

    def _tree(self) -> list[int]:
        """The process and all that descend from it, parents first.

        The process group won't do: PostgreSQL gives each of its children a session of its own.
        """
        if self._process is None:
            return []
        children = _children()
        tree = [self._process.pid]
        for pid in tree:
            tree.extend(children.get(pid, ()))
        return tree


def find(program: str, package: str, *folders: str) -> str:
    """The path of a server's program. Raises :class:`AssertionError` naming what has to be installed."""
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        raise AssertionError(f"there is no {program} here: run `make debian`, or install Debian's package {package}")
    return found


def _children() -> dict[int, list[int]]:
    """The children of every process of the machine."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (fields := _status(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _is_alive(pid: int) -> bool:
    fields = _status(pid)
    return bool(fields) and fields[0] != "Z"


def _status(pid: int) -> list[str]:
    """The state of a process, its parent, and more that the kernel tells; empty when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    # The name of the program stands in parentheses, and may have spaces and parentheses in it.
    return text.rpartition(")")[2].split()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
