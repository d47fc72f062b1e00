"""The storage in a directory when disks are full or cannot be written, writers are many, and processes die."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pypicloud.errors import BackendUnavailable, FileExists, StorageFull
from pypicloud.storage import disk
from pypicloud.storage.files import FileStorage
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.directories import configured, put, tree

WHEEL = "foo-1.0-py3-none-any.whl"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The storage directory."""
    return tmp_path / "packages"


@pytest.fixture
def storage(directory: Path) -> FileStorage:
    """The storage, without a request."""
    return configured(directory)


@pytest.mark.parametrize("replace", [False, True], ids=["new", "replacing"])
def test_a_server_that_starts_meanwhile(
    storage: FileStorage, directory: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    """A file with an upload time of long ago, as of another storage, is not cleared away while it waits its turn."""
    if replace:
        storage.publish(make_package(filename=WHEEL), io.BytesIO(b"old"))
    locked = disk.locked

    def late(path: str, **options: bool) -> Any:
        configured(directory)
        return locked(path, **options)

    monkeypatch.setattr(disk, "locked", late)
    package = make_package(filename=WHEEL)
    package.last_modified = datetime(2019, 2, 3, tzinfo=UTC)
    storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"m"}, replace=replace)
    monkeypatch.undo()
    (listed,) = storage.list()
    assert (listed.data["size"], listed.last_modified) == (len(CONTENT), package.last_modified)
    assert listed.data["core_metadata"] == hashlib.sha256(b"m").hexdigest()


# Disks that are full or cannot be written


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("replace", [False, True], ids=["new", "replacing"])
def test_full_disk(
    storage: FileStorage, directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, replace: bool
) -> None:
    """A disk that runs full in the middle of the bytes is said to be full; nothing of the upload stays."""
    if replace:
        storage.publish(make_package(), io.BytesIO(CONTENT), {"metadata": b"m"})
    before = tree(directory)
    write, left = os.write, 100_000

    def full(file: int, data: Any) -> int:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise OSError(number, os.strerror(number))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFull, match="no room"):
        storage.publish(make_package(), io.BytesIO(CONTENT * 2), {"metadata": b"n"}, replace=replace)
    monkeypatch.undo()
    assert tree(directory) == before


@pytest.mark.parametrize("call", ["link", "replace", "mkdir", "fsync", "utime"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_full_disk_at_the_end(
    storage: FileStorage, directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """A disk that fails when everything is to be put into place keeps nothing of the upload either."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageFull if number == errno.ENOSPC else BackendUnavailable):
        storage.publish(make_package(), io.BytesIO(CONTENT), {"metadata": b"n"})
    monkeypatch.undo()
    assert tree(directory) == {}


def test_file_size_limit(directory: Path) -> None:
    """The operating system's own limit on file sizes is a full storage, too."""
    script = """
import io, resource, sys
from pypicloud.errors import StorageFull
from pypicloud.models import Package
from pypicloud.storage.files import FileStorage
storage = FileStorage(directory=sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    storage.publish(Package("foo", "1.0", "foo-1.0.zip"), io.BytesIO(bytes(100_000)))
except StorageFull:
    print("full")
"""
    directory.mkdir()
    command = [sys.executable, "-c", script, str(directory)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "full\n"
    assert tree(directory) == {}


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A storage directory with one package, which this process may read but not write."""
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / "packages"
        Path(parent).chmod(0o755)
        configured(directory).publish(make_package(), io.BytesIO(CONTENT), {"metadata": b"m"})
        folders = [directory, directory / "foo", directory / "foo/1.0"]
        for folder in folders:
            folder.chmod(0o555)
        # The superuser may write everywhere, and so is somebody else for a while.
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield directory
        finally:
            os.seteuid(user)
            for folder in folders:
                folder.chmod(0o755)


def test_read_only_directory(read_only: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that cannot be written starts with a warning and serves; changes are refused as unavailable."""
    storage = configured(read_only, get())
    assert "cannot be written" in caplog.text
    healthy, reason = storage.check_health()
    assert healthy
    assert "cannot be written" in reason
    (package,) = storage.list()
    assert storage.download_response(package).body == CONTENT
    companion = storage.open_companion(package, "metadata")
    assert companion is not None
    with companion:
        assert companion.read() == b"m"
    before = tree(read_only)
    changes: tuple[Callable[[], Any], ...] = (
        lambda: storage.publish(make_package(version="2.0"), io.BytesIO(CONTENT)),
        lambda: storage.publish(make_package(), io.BytesIO(CONTENT), replace=True),
        lambda: storage.upload_companion(package, "metadata", b""),
        lambda: storage.update_metadata(package),
        lambda: storage.delete(package),
    )
    for change in changes:
        with pytest.raises(BackendUnavailable) as caught:
            change()
        assert str(read_only) not in caught.value.message
    assert tree(read_only) == before


def test_unreadable_parts(read_only: Path) -> None:
    """A directory and a file that may not be read are counted and left out; the rest is listed."""
    os.seteuid(os.getuid())
    read_only.chmod(0o755)
    secret = put(read_only, "secret/1.0/secret-1.0.zip").parent.parent
    secret.chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    storage = configured(read_only)
    assert [package.filename for package in storage.list()] == ["foo-1.0.tar.gz"]
    assert storage.unreadable_count == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_no_hard_links(storage: FileStorage, directory: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """On a file system without hard links files are stored, and refused, all the same."""

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    spool = put(directory, ".upload-00.meta", CONTENT)
    with spool.open("rb") as stream:
        storage.publish(make_package(), stream)
    spool.unlink()
    assert tree(directory)["foo/1.0/foo-1.0.tar.gz"] == CONTENT
    with pytest.raises(FileExists):
        storage.publish(make_package(), io.BytesIO(b"x"))
    with pytest.raises(FileExistsError):
        disk.link(str(directory / "foo/1.0/foo-1.0.tar.gz.meta"), str(directory / "foo/1.0/foo-1.0.tar.gz"))


def test_no_locks(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot lock directories, as some on a network, is used without locks."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("fcntl.flock", fail)
    storage.publish(make_package(), io.BytesIO(CONTENT))
    assert list(storage.list()) == [make_package()]
    with pytest.raises(FileExists):
        storage.publish(make_package(), io.BytesIO(CONTENT))
    storage.delete(make_package())


def test_writer_without_locks(storage: FileStorage, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an old server puts into place at the very last moment is not replaced."""
    link = os.link

    def late(source: str, path: str) -> None:
        put(directory, "foo/1.0/foo-1.0.tar.gz", b"theirs")
        link(source, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileExists):
        storage.publish(make_package(), io.BytesIO(CONTENT))
    assert tree(directory)["foo/1.0/foo-1.0.tar.gz"] == b"theirs"


# Many at once, and killed


def run_crashes(what: str, directory: Path) -> str:
    """What the script says that forks, and kills what it forked."""
    command = [sys.executable, "-m", "support.crashes", what, str(directory)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.stderr == ""
    return done.stdout.strip()


def test_twenty_processes(storage: FileStorage, directory: Path) -> None:
    """Of twenty processes that upload other bytes under one name exactly one wins, with all that is its own."""
    winner = run_crashes("race", directory)
    (package,) = storage.list()
    with storage.open(package) as stream:
        assert hashlib.sha256(stream.read()).hexdigest() == winner
    assert {package.data["hash_sha256"], package.data["core_metadata"], package.summary} == {winner}
    beside = {f"foo/1.0/{WHEEL}", f"foo/1.0/{WHEEL}.meta", f"foo/1.0/{WHEEL}.metadata.meta"}
    assert set(tree(directory)) == {"foo/", "foo/1.0/", *beside}


def test_uploads_deletes_and_listings_at_once(directory: Path) -> None:
    """While files of one project come, are replaced and go, every listing shows only whole ones."""
    configured(directory)
    end = time.monotonic() + 1.0
    trouble: list[Exception] = []

    def run(step: Callable[[FileStorage, int], None]) -> None:
        storage, turn = FileStorage(directory=str(directory)), 0
        try:
            while time.monotonic() < end:
                step(storage, turn)
                turn += 1
        except Exception as error:  # noqa: BLE001 - it is the claim of the test that there is none
            trouble.append(error)

    def upload(storage: FileStorage, turn: int) -> None:
        content = bytes([turn % 251]) * (1 + turn % 997)
        package = make_package(filename=WHEEL, content=content)
        storage.publish(package, io.BytesIO(content), {"metadata": content}, replace=True)

    def delete(storage: FileStorage, _: int) -> None:
        storage.delete(make_package(filename=WHEEL))

    def look(storage: FileStorage, _: int) -> None:
        for package in storage.list():
            digest = package.data["hash_sha256"]
            assert package.data["core_metadata"] == digest

    threads = [threading.Thread(target=run, args=(step,)) for step in (upload, upload, upload, delete, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    FileStorage(directory=str(directory)).delete(make_package(filename=WHEEL))
    assert tree(directory) == {}


def test_death_at_every_step(storage: FileStorage, directory: Path) -> None:
    """Wherever a process dies in a change, the file is there as before or as after, whole and with what is its own."""
    assert int(run_crashes("everywhere", directory)) > 100
    assert list(storage.list()) == []


def test_killed_at_random(storage: FileStorage, directory: Path) -> None:
    """A process that is killed while it changes files has kept everything it was done with, and no half file."""
    assert run_crashes("kill", directory) == "sound"
    assert storage.unreadable_count == 0
