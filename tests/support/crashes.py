"""Processes that store files and die: run as a script, which forks, so that the test's own process need not.

``python -m support.crashes WHAT DIRECTORY`` prints what it found, or fails with an assertion.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from pypicloud.errors import FileExists
from pypicloud.models import Package
from pypicloud.storage.files import FileStorage

KILLED: Final = 9

#: Every call with which the storage changes the disk.
CALLS: Final = ("open", "write", "fsync", "utime", "chmod", "mkdir", "link", "rename", "replace", "unlink", "rmdir")


def wheel(content: bytes, version: str = "1.0") -> Package:
    """A package whose summary and digest are of its bytes."""
    digest = hashlib.sha256(content).hexdigest()
    return Package("foo", version, f"foo-{version}-py3-none-any.whl", summary=digest, hash_sha256=digest)


def publish(storage: FileStorage, content: bytes, version: str = "1.0", *, replace: bool = False) -> None:
    """Store bytes with a companion of the same bytes."""
    storage.publish(wheel(content, version), io.BytesIO(content), {"metadata": content}, replace=replace)


def digests(directory: str) -> dict[str, str]:
    """The digest of each version that is listed, after a look at everything that should belong together."""
    storage = FileStorage(directory=directory)
    found = {}
    for package in storage.list():
        with storage.open(package) as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
        assert package.data["hash_sha256"] == package.summary == digest, package
        companion = storage.open_companion(package, "metadata")
        if companion is None:
            assert "core_metadata" not in package.data
        else:
            with companion:
                assert hashlib.sha256(companion.read()).hexdigest() == package.data["core_metadata"] == digest
        found[package.version] = digest
    assert storage.unreadable_count == 0
    return found


def race(directory: str) -> None:
    """Upload other bytes under one name from twenty processes at once; print the digests of those that won."""
    start = time.time() + 0.3
    children = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            content = bytes([number]) * (200_000 + number)
            time.sleep(start - time.time())
            try:
                publish(FileStorage(directory=directory), content)
            except FileExists:
                os._exit(1)
            print(hashlib.sha256(content).hexdigest(), flush=True)  # noqa: T201 - the answer
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0] + [1] * 19, codes


def _change(storage: FileStorage, what: str, seen: Package) -> None:
    if what == "publish":
        publish(storage, b"new")
    elif what == "replace":
        publish(storage, b"new", replace=True)
    elif what == "delete":
        storage.delete(seen)
    elif what == "update":
        storage.update_metadata(seen)
    else:
        storage.upload_companion(seen, "metadata", b"old")


def _die_at(step: int) -> None:
    """Let this process die, without any clearing up, just before its ``step``-th call that changes the disk."""
    left = step

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(KILLED)
            return call(*args, **kwargs)

        return counted

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def everywhere(directory: str) -> None:
    """Die at every single step of every change, and look what is left; print how often."""
    # Only the order of the steps matters to a process that dies, and waiting for the disk takes long.
    os.fsync = lambda fd: None
    storage = FileStorage(directory=directory)
    deaths = 0
    for what, before, after in (
        ("publish", None, b"new"),
        ("replace", b"old", b"new"),
        ("replace", None, b"new"),
        ("delete", b"old", None),
        ("update", b"old", b"old"),
        ("companion", b"old", b"old"),
    ):
        allowed = [{"1.0": hashlib.sha256(each).hexdigest()} if each else {} for each in (before, after)]
        finished, step = False, 0
        while not finished:
            storage.delete(wheel(b"old"))
            if before:
                publish(storage, before)
            seen = storage.stored(wheel(b"old")) or wheel(b"old")
            child = os.fork()
            if child == 0:
                _die_at(step)
                _change(storage, what, seen)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in {0, KILLED}, (what, step)
            finished = code == 0
            assert digests(directory) in allowed, (what, step)
            # Whatever is left, the next upload is not misled by it.
            publish(storage, b"next", replace=True)
            assert digests(directory) == {"1.0": hashlib.sha256(b"next").hexdigest()}, (what, step)
            step += 1
        deaths += step - 1
    storage.delete(wheel(b"old"))
    assert [path for path in Path(directory).iterdir() if not path.name.startswith(".upload-")] == []
    print(deaths)  # noqa: T201 - the answer


def _work(storage: FileStorage, tell: int) -> NoReturn:
    """Change three files without end, telling before and after each change."""
    turn = 0
    while True:
        turn += 1
        version, content = str(turn % 3), os.urandom(1) * random.choice([1, 70_000, 300_000])
        digest = "-" if turn % 5 == 4 else hashlib.sha256(content).hexdigest()
        os.write(tell, f"begin {version} {digest}\n".encode())
        try:
            if digest == "-":
                storage.delete(wheel(content, version))
            else:
                publish(storage, content, version, replace=turn % 2 == 0)
        except FileExists:
            os.write(tell, b"refused\n")
        else:
            os.write(tell, b"done\n")


def kill(directory: str) -> None:
    """Kill a busy process at thirty random moments, and look each time that what it told is so."""
    storage = FileStorage(directory=directory)
    state: dict[str, str] = {}
    for _ in range(30):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _work(storage, writer)
        os.close(writer)
        time.sleep(random.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pending = ("", "-")
        with os.fdopen(reader) as lines:
            for word, *rest in map(str.split, lines):
                if word == "begin":
                    pending = (rest[0], rest[1])
                    continue
                if word == "done":
                    state[pending[0]] = pending[1]
                pending = ("", "-")
        found = digests(directory)
        for version in ("0", "1", "2"):
            # The one change that was under way may have happened, or not.
            allowed = {state.get(version, "-")} | ({pending[1]} if version == pending[0] else set())
            assert found.get(version, "-") in allowed, (version, found, state, pending)
        state = found
    print("sound")  # noqa: T201 - the answer


if __name__ == "__main__":
    {"race": race, "everywhere": everywhere, "kill": kill}[sys.argv[1]](sys.argv[2])
