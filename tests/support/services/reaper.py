"""What ends the services of a test process that was itself killed: a small process that outlives it.

Finalizers end services in every ordinary case. They don't run when a test process is killed, or when a worker of
pytest-xdist leaves without ceremony; then the reaper's standard input comes to its end, and it cleans up.
"""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from support.live import PATIENCE

_CODE: Final = """
import os, shutil, signal, sys
sessions, directories = set(), set()
for line in sys.stdin:
    word, _, value = line.rstrip("\\n").partition(" ")
    if word == "session":
        sessions.add(int(value))
    elif word == "forget":
        sessions.discard(int(value))
    else:
        directories.add(value)
for session in sessions:
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        pass
for directory in directories:
    shutil.rmtree(directory, ignore_errors=True)
"""

_lock = threading.Lock()


def add_session(pid: int) -> None:
    """From now on a process group ends with this process."""
    _tell(f"session {pid}")


def forget_session(pid: int) -> None:
    """A process group has ended; its number may be somebody else's from now on."""
    _tell(f"forget {pid}")


def add_directory(path: Path) -> None:
    """A directory goes when this process has ended."""
    _tell(f"directory {path}")


def _tell(line: str) -> None:
    with _lock:
        pipe = _reaper().stdin
        if pipe is None:
            raise AssertionError("the reaper has no standard input")
        pipe.write(f"{line}\n")
        pipe.flush()


@functools.cache
def _reaper() -> subprocess.Popen[str]:
    # In a session of its own, so that an interrupt from the keyboard does not end it, too.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CODE], stdin=subprocess.PIPE, text=True, start_new_session=True, cwd="/"
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.wait(PATIENCE)
