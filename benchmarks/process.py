"""Child processes: started on a free port of the loopback, watched, and always ended again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.result import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: How long a child may take to stop by itself before it is killed.
STOP_SECONDS = 15


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


@contextlib.contextmanager
def started(
    command: Sequence[str],
    log: Path,
    is_ready: Callable[[], bool],
    *,
    within: float = 60,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; the block begins when ``is_ready`` says so.

    Raises BenchError with the end of the log if the child dies or is not ready in time.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=env, start_new_session=True
        )
    try:
        deadline = time.monotonic() + within
        while not is_ready():
            if child.poll() is not None:
                raise BenchError(f"{command[0]} ended with {child.returncode}:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"{command[0]} was not ready within {within:.0f} s:\n{_tail(log)}")
            time.sleep(0.002)
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child of ours, and whatever it started and left behind in its own process group."""
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in bytes: all that is resident, and its share of it."""

    rss: int
    pss: int


def memory(pid: int) -> Memory:
    """The memory of a process now."""
    fields = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return Memory(rss=fields["Rss"], pss=fields["Pss"])


def forget_peak(pid: int) -> None:
    """Let :func:`peak` start again from what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most that was resident since the start or :func:`forget_peak`, in bytes."""
    return _fields(Path(f"/proc/{pid}/status"))["VmHWM"]


def _fields(path: Path) -> dict[str, int]:
    """The lines ``Name:  123 kB`` of a file of the kernel's, in bytes."""
    found = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0].rstrip(":")] = int(words[1]) * 1024
    return found


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(word) for word in (task / "children").read_text().split()]
    return children + [deeper for child in children for deeper in descendants(child)]


def worker_of(pid: int) -> int:
    """The process that does a server's work: of those it started the largest, or itself if it started none."""
    return max(descendants(pid) or [pid], key=lambda each: memory(each).rss)
