"""The storage in a directory: the contract, 1.3.12's layout, and what happens when things go wrong."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pypicloud.errors import BackendUnavailable, FileExists, InvalidUpload, NotSupported, PackageNotFound, SettingError
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.files import FileStorage
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import get
from pypicloud.testing.storage_fixtures import CONTENT, make_package
from support.directories import configured, put, tree

WHEEL = "foo-1.0-py3-none-any.whl"

LONG_AGO = datetime(2019, 2, 3, tzinfo=UTC)

#: What 1.3.12 wrote for an upload with every field, and for one with none.
OLD_FACTS = (
    b'{"requires_python": ">=3.6", '
    b'"hash_sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", '
    b'"hash_md5": "b1946ac92492d2347c6235b4d2611184", "uploader": "admin", '
    b'"summary": "\\u00dcn\\u00ef \\"q\\" / \\u00e9"}'
)
OLD_FACTS_OF_PLAIN_FILE = (
    b'{"hash_sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03", '
    b'"hash_md5": "b1946ac92492d2347c6235b4d2611184"}'
)


class TestFileStorage(StorageContract):
    required: ClassVar[tuple[str, ...]] = ("storage.dir",)

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, str]:
        """A directory that is not there yet."""
        return {"pypi.storage": "file", "storage.dir": str(tmp_path / "some" / "packages")}

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        """All files and directories."""
        return tree(Path(kwargs["directory"]))

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        """The directory is away."""
        directory = Path(kwargs["directory"])
        elsewhere = directory.rename(directory.with_suffix(".away"))
        yield
        elsewhere.rename(directory)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The storage directory."""
    return tmp_path / "packages"


@pytest.fixture
def storage(directory: Path) -> FileStorage:
    """The storage, without a request."""
    return configured(directory)


# The layout


def test_bytes_on_disk(storage: FileStorage, directory: Path) -> None:
    """Files and facts lie where and as 1.3.12 wrote them, byte for byte (compat.md 2.1)."""
    hashes: dict[str, Any] = {
        "hash_md5": "b1946ac92492d2347c6235b4d2611184",
        "hash_sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    }
    facts: dict[str, Any] = {
        "uploader": "admin",
        "requires_python": ">=3.6",
        "summary": 'Ünï "q" / é',
        "size": 6,
        "core_metadata": "0",
    }
    storage.publish(Package("Foo_Bar", "1.0", "foo-1.0.tar.gz", **hashes, **facts), io.BytesIO(b"hello\n"))
    storage.publish(Package("plain", "1.0", "plain-1.0.tar.gz", **hashes), io.BytesIO(b"hello\n"))
    assert tree(directory) == {
        "foo-bar/": b"",
        "foo-bar/1.0/": b"",
        "foo-bar/1.0/foo-1.0.tar.gz": b"hello\n",
        "foo-bar/1.0/foo-1.0.tar.gz.meta": OLD_FACTS,
        "plain/": b"",
        "plain/1.0/": b"",
        "plain/1.0/plain-1.0.tar.gz": b"hello\n",
        "plain/1.0/plain-1.0.tar.gz.meta": OLD_FACTS_OF_PLAIN_FILE,
    }


def test_companions_on_disk(storage: FileStorage, directory: Path) -> None:
    """What 1.3.12 knows nothing of ends so that it takes none of it for a package."""
    storage.publish(make_package(filename=WHEEL), io.BytesIO(CONTENT), {"metadata": b"Name: foo", "provenance": b"{}"})
    beside = {path.name for path in (directory / "foo/1.0").iterdir()} - {WHEEL}
    assert beside == {f"{WHEEL}.meta", f"{WHEEL}.metadata.meta", f"{WHEEL}.provenance.meta"}


def test_documented_paths(storage: FileStorage, directory: Path) -> None:
    """The documented path methods name the file and its facts."""
    package = make_package()
    assert storage.get_path(package) == f"{directory}/foo/1.0/foo-1.0.tar.gz"
    assert storage.get_metadata_path(package) == f"{directory}/foo/1.0/foo-1.0.tar.gz.meta"
    assert storage.path_to_meta_path("/a/b") == "/a/b.meta"


def test_time_is_the_files(storage: FileStorage, directory: Path) -> None:
    """The upload time is the file's mtime, to the microsecond."""
    package = make_package()
    storage.publish(package, io.BytesIO(CONTENT))
    modified = (directory / "foo/1.0/foo-1.0.tar.gz").stat().st_mtime_ns
    assert modified == round(package.last_modified.timestamp() * 1_000_000) * 1000
    assert abs(time.time() - modified / 1e9) < 60


@pytest.mark.parametrize("spooled", [False, True], ids=["copied", "spooled"])
@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_mode(storage: FileStorage, directory: Path, mask: int, spooled: bool) -> None:
    """Files are as readable as the server's umask says, however they came in."""
    before = os.umask(mask)
    try:
        stream: Any = io.BytesIO(CONTENT)
        if spooled:
            path = directory / ".upload-00.meta"
            path.write_bytes(CONTENT)
            path.chmod(0o600)
            stream = path.open("rb")
        with stream:
            storage.publish(make_package(), stream, {"metadata": b""})
    finally:
        os.umask(before)
    for file in (directory / "foo/1.0").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_spooled_file_is_linked(storage: FileStorage, directory: Path) -> None:
    """What was spooled in the storage directory is stored without being copied, and stays where it is."""
    spool = directory / ".upload-0123.meta"
    spool.write_bytes(CONTENT)
    with spool.open("rb") as stream:
        storage.publish(make_package(), stream)
    assert (directory / "foo/1.0/foo-1.0.tar.gz").stat().st_ino == spool.stat().st_ino
    spool.unlink()
    assert tree(directory)["foo/1.0/foo-1.0.tar.gz"] == CONTENT


def test_stored_file_is_never_linked(storage: FileStorage, directory: Path) -> None:
    """A file that is stored under one name and uploaded under another is two files."""
    storage.publish(make_package(), io.BytesIO(CONTENT))
    with storage.open(make_package()) as stream:
        storage.publish(make_package(version="2.0"), stream)
    inodes = {path.stat().st_ino for path in directory.rglob("*.tar.gz")}
    assert len(inodes) == 2


def test_stream_read_in_part(storage: FileStorage, directory: Path) -> None:
    """A spooled stream that was read in part already is stored from where it stands."""
    spool = directory / ".upload-0123.meta"
    spool.write_bytes(CONTENT)
    with spool.open("rb") as stream:
        stream.seek(5)
        storage.publish(make_package(), stream)
    assert tree(directory)["foo/1.0/foo-1.0.tar.gz"] == CONTENT[5:]


# Trees that others left behind


def test_unknown_facts_are_carried(storage: FileStorage, directory: Path) -> None:
    """Keys that nobody knows travel with the file and are written back (compat.md 2.1)."""
    put(directory, "foo/1.0/foo-1.0.tar.gz")
    facts = put(directory, "foo/1.0/foo-1.0.tar.gz.meta", b'{"team": {"id": 7}, "summary": "s", "yanked": "bad"}')
    (package,) = storage.list()
    assert package.data == {"size": 1, "team": {"id": 7}, "yanked": "bad"}
    storage.update_metadata(package)
    assert facts.read_bytes() == b'{"summary": "s", "team": {"id": 7}, "yanked": "bad"}'


def test_facts_that_are_none(storage: FileStorage, directory: Path) -> None:
    """Name, version, place, time and size come from the tree and the bytes, whatever the facts say."""
    put(directory, "foo/1.0/foo-1.0.tar.gz")
    lies = {
        "self": 1,
        "name": "bar",
        "version": "2",
        "filename": "x",
        "last_modified": 5,
        "size": 99,
        "core_metadata": "0",
        "path": "/etc/passwd",
        "requires_python": ["3"],
        "summary": 5,
        "uploader": "\udc80é",
    }
    put(directory, "foo/1.0/foo-1.0.tar.gz.meta", json.dumps(lies).encode())
    (package,) = storage.list()
    assert (package.name, package.version, package.filename, package.summary) == ("foo", "1.0", "foo-1.0.tar.gz", None)
    assert package.data == {"size": 1, "uploader": "?é"}


@pytest.mark.parametrize("blob", [b"", b"{", b"\xff\xfe\xff", b"[]", b"null", b"[" * 100_000])
def test_broken_facts(storage: FileStorage, directory: Path, caplog: pytest.LogCaptureFixture, blob: bytes) -> None:
    """Facts that cannot be read are as good as none, and are told of in the log."""
    put(directory, "foo/1.0/foo-1.0.tar.gz")
    put(directory, "foo/1.0/foo-1.0.tar.gz.meta", blob)
    (package,) = storage.list()
    assert package.data == {"size": 1}
    assert "foo-1.0.tar.gz.meta" in caplog.text


def test_odd_files(storage: FileStorage, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What lies in the wrong place is left out; only what could be a package is counted (compat.md 2.1)."""
    caplog.set_level(logging.INFO)
    put(directory, "foo/1.0/foo-1.0.tar.gz")
    left_out = ["README.txt", "foo/notes.txt", "foo/1.0/docs/index.html"]
    for path in left_out:
        put(directory, path)
    lost = ["foo-3.0.tar.gz", "foo/foo-2.0.zip", "foo/1.0/more/Foo-1.0.WHL", "foo/1.0/a/b/foo-1.0.egg"]
    for path in lost:
        put(directory, path)
    for path in (".hidden", ".git/1.0/foo-1.0.zip", "foo/.snapshot/foo-1.0.zip", "foo/1.0/.foo-1.0.zip.1a2b3c4d"):
        put(directory, path)
    put(directory, "foo/1.0/.metadata.1a2b3c4d")
    put(directory, "foo/1.0/gone-1.0.tar.gz.meta", b"{}")
    put(directory, "lost+found/1.0/foo-1.0.zip")
    (directory / "foo/1.0/nowhere-1.0.tar.gz").symlink_to("/nowhere")
    assert [package.filename for package in storage.list()] == ["foo-1.0.tar.gz"]
    assert storage.unreadable_count == len(lost) + 1
    for path in (*left_out, *lost):
        assert path in caplog.text


def test_unservable_names(storage: FileStorage, directory: Path) -> None:
    """Names on the disk that no URL and no database could hold are counted, not listed."""
    put(directory, "foo/1.0/foo-1.0.tar.gz")
    put(directory, "foo/1.0/line\nbreak-1.0.tar.gz")
    put(directory, "foo/1\t0/foo-1.0.tar.gz")
    put(directory, "fo\\o/1.0/foo-1.0.tar.gz")
    os.close(os.open(os.fsencode(directory) + b"/foo/1.0/f\xff-1.0.tar.gz", os.O_CREAT))
    assert [package.filename for package in storage.list()] == ["foo-1.0.tar.gz"]
    assert storage.unreadable_count == 4


def test_impossible_time(storage: FileStorage, directory: Path) -> None:
    """A file whose time no calendar knows does not stop the listing."""
    put(directory, "foo/1.0/foo-1.0.tar.gz")

    def factory(*args: Any, **facts: Any) -> Package:
        raise OverflowError("date value out of range")

    assert list(storage.list(factory)) == []
    assert storage.unreadable_count == 1


@pytest.mark.parametrize("folder", ["Foo_Bar", "foo.bar", "FOO-bar"])
def test_directory_not_normalised(storage: FileStorage, directory: Path, folder: str) -> None:
    """A tree older than 0.4, with directories named as typed, is listed and found again on the disk (compat.md 2.1)."""
    put(directory, f"{folder}/1.0/{WHEEL}", b"old")
    (package,) = storage.list()
    assert package.name == "foo-bar"
    with storage.open(package) as stream:
        assert stream.read() == b"old"
    assert configured(directory, get()).download_response(package).body == b"old"
    with pytest.raises(FileExists):
        configured(directory).publish(package, io.BytesIO(b"new"))
    storage.upload_companion(package, "metadata", b"m")
    storage.publish(package, io.BytesIO(b"new"), {"metadata": b"n"}, replace=True)
    assert sorted(tree(directory)) == [
        f"{folder}/",
        f"{folder}/1.0/",
        f"{folder}/1.0/{WHEEL}",
        f"{folder}/1.0/{WHEEL}.meta",
        f"{folder}/1.0/{WHEEL}.metadata.meta",
    ]
    storage.delete(package)
    assert tree(directory) == {}


def test_companion_of_other_bytes(storage: FileStorage, directory: Path) -> None:
    """A companion that an old server left behind when it replaced the file counts as not there."""
    package = make_package(filename=WHEEL)
    storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"Name: foo"})
    put(directory, f"foo/1.0/{WHEEL}", b"other bytes")
    assert storage.open_companion(package, "metadata") is None
    (listed,) = storage.list()
    assert "core_metadata" not in listed.data
    storage.delete(listed)
    assert tree(directory) == {}


@pytest.mark.parametrize("content", [b"byte", b"more bytes"], ids=["same size", "other size"])
def test_new_facts_of_bytes_put_by_hand(storage: FileStorage, directory: Path, content: bytes) -> None:
    """What is added to a file is refused if the bytes were replaced by hand meanwhile, of which no digest tells."""
    storage.publish(Package("foo", "1.0", WHEEL, LONG_AGO), io.BytesIO(b"four"))
    seen = storage.stored(Package("foo", "1.0", WHEEL))
    assert seen is not None
    put(directory, f"foo/1.0/{WHEEL}", content)
    before = tree(directory)
    seen.data["yanked"] = True
    with pytest.raises(BackendUnavailable, match="was replaced at the same moment"):
        storage.update_metadata(seen)
    with pytest.raises(BackendUnavailable, match="was replaced at the same moment"):
        storage.upload_companion(seen, "metadata", b"old")
    assert tree(directory) == before
    (seen,) = storage.list()
    seen.data["yanked"] = True
    storage.update_metadata(seen)
    assert [package.data["yanked"] for package in storage.list()] == [True]


def test_leftovers_of_a_crash_before_the_file(storage: FileStorage, directory: Path) -> None:
    """Facts and companions of an upload that never was do not stick to the next one."""
    put(directory, f"foo/1.0/{WHEEL}.meta", b'{"summary": "never", "yanked": true}')
    put(directory, f"foo/1.0/{WHEEL}.metadata.meta", b"never")
    put(directory, f"foo/1.0/.{WHEEL}.next.meta", b'{"summary": "never"}')
    package = make_package(filename=WHEEL)
    storage.publish(package, io.BytesIO(CONTENT))
    (listed,) = storage.list()
    assert (listed.data, listed.summary) == (package.data, None)
    assert storage.open_companion(package, "metadata") is None
    assert not list(directory.rglob("*.next.meta"))


@pytest.mark.parametrize("after", [False, True], ids=["before the file", "after the file"])
def test_crash_while_replacing(storage: FileStorage, directory: Path, after: bool) -> None:
    """A server that is killed while it replaces a file leaves old facts with old bytes, or new with new."""
    old, new = make_package(summary="old"), make_package(content=b"new", summary="new")
    storage.publish(old, io.BytesIO(CONTENT))
    path = directory / "foo/1.0/foo-1.0.tar.gz"
    waiting = put(directory, "foo/1.0/.foo-1.0.tar.gz.next.meta", json.dumps(new.get_metadata()).encode())
    os.utime(waiting, ns=(0, 1_000_000_000_000_000_000))
    if after:
        path.write_bytes(b"new")
        os.utime(path, ns=(0, 1_000_000_000_000_000_000))
    expected = new if after else old
    (listed,) = storage.list()
    assert listed.get_metadata() == expected.get_metadata()
    listed.data["yanked"] = True
    storage.update_metadata(listed)
    assert not waiting.exists()
    (listed,) = storage.list()
    assert listed.get_metadata() == expected.get_metadata()
    assert listed.data["yanked"] is True


# Starting


def test_directory_is_made_absolute(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory given relative to where the server starts stays where it was, and is made."""
    monkeypatch.chdir(directory.parent)
    assert FileStorage.configure(EnvironSettings({"storage.dir": "packages/here"}, {})) == {
        "directory": str(directory / "here")
    }
    assert (directory / "here").is_dir()


def test_directory_that_is_a_file(directory: Path) -> None:
    """A file where the directory should be stops the start and is named."""
    directory.write_bytes(b"")
    with pytest.raises(SettingError, match=r"storage\.dir = '.*packages'.*is a file"):
        configured(directory)
    with pytest.raises(SettingError, match=r"storage\.dir"):
        configured(directory / "below")


def test_old_temporary_files(directory: Path) -> None:
    """What a killed server left half uploaded is removed at a start an hour or more later, and nothing else."""
    old = put(directory, ".upload-00.meta")
    os.utime(old, (0, time.time() - 25 * 3600))
    kept = [put(directory, path) for path in (".upload-01.meta", "foo/1.0/.upload-00.meta", "notes.meta")]
    os.utime(kept[1], (0, 0))
    os.utime(kept[2], (0, 0))
    configured(directory)
    assert not old.exists()
    assert all(path.exists() for path in kept)


# Hostile and long names


@pytest.mark.parametrize("end", [".meta", ".metadata", ".provenance", ".META"])
def test_names_of_companions(storage: FileStorage, directory: Path, end: str) -> None:
    """A file that would be taken for facts or a companion is refused."""
    with pytest.raises(InvalidUpload, match="ending"):
        storage.publish(make_package(filename=f"foo-1.0.zip{end}"), io.BytesIO(CONTENT))
    assert tree(directory) == {}


def test_long_names(storage: FileStorage, directory: Path) -> None:
    """A name that is too long for the disk, with what goes beside it, is refused; the longest other one works."""
    longest = 255 - len(".provenance.meta")
    package = make_package(filename="f" * (longest - 4) + ".zip")
    storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"x", "provenance": b"y"})
    storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"x"}, replace=True)
    assert list(storage.list()) == [package]
    storage.delete(package)
    for name, version, filename in (
        ("foo", "1.0", "f" * (longest - 3) + ".zip"),
        ("foo", "1.0", "é" * (longest // 2) + ".zip"),
        ("foo", "1" * 256, "foo.zip"),
        ("f" * 256, "1.0", "foo.zip"),
    ):
        with pytest.raises(InvalidUpload, match="too long"):
            storage.publish(make_package(name, version, filename), io.BytesIO(CONTENT))
    assert tree(directory) == {}


def test_long_old_names(storage: FileStorage, directory: Path) -> None:
    """A file that 1.3.12 stored under a name that leaves no room for companions is served and deleted."""
    put(directory, f"foo/1.0/{'f' * 246}.zip")
    put(directory, f"foo/1.0/{'f' * 246}.zip.meta", OLD_FACTS)
    (package,) = storage.list()
    assert package.summary == 'Ünï "q" / é'
    with storage.open(package) as stream:
        assert stream.read() == b"x"
    assert storage.open_companion(package, "metadata") is None
    storage.delete(package)
    assert tree(directory) == {}


def test_hostile_name_from_the_cache(storage: FileStorage, directory: Path) -> None:
    """A row that points outside, as 1.3.12 let anyone make, reads and deletes nothing there (compat.md 9.1 S2)."""
    outside = put(directory.parent, "outside/secret.zip", b"secret")
    package = Package("foo", "../../outside", "secret.zip")
    package.name = type(package.name)("..")
    for name, version, filename in (("..", "outside", "secret.zip"), ("foo", "../../outside", "secret.zip")):
        package.name, package.version, package.filename = type(package.name)(name), version, filename
        assert storage.local_path(package) is None
        with pytest.raises(PackageNotFound):
            storage.open(package)
        with pytest.raises(PackageNotFound):
            configured(directory, get()).download_response(package)
        with pytest.raises(InvalidUpload):
            storage.upload(package, io.BytesIO(b"x"))
        storage.delete(package)
    assert outside.read_bytes() == b"secret"


def test_unheard_of_companion(storage: FileStorage, directory: Path) -> None:
    """Only companions that have a meaning are kept."""
    with pytest.raises(NotSupported):
        storage.publish(make_package(), io.BytesIO(CONTENT), {"../x": b""})
    assert tree(directory) == {}


# Serving


class _Wrapper:
    """What a server gives as ``wsgi.file_wrapper``."""

    def __init__(self, file: Any, block_size: int) -> None:
        self.file = file
        self.block_size = block_size
        self.close: Callable[[], None] = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_size), b"")


def test_local_body(storage: FileStorage, directory: Path) -> None:
    """The body of a download names the file and the range, so that a server can send it by itself."""
    storage.publish(make_package(), io.BytesIO(CONTENT))
    for headers, start, stop in (({}, 0, len(CONTENT)), ({"Range": "bytes=5-9"}, 5, 10)):
        response = configured(directory, get(**headers)).download_response(make_package())
        body = response.app_iter
        assert (body.path, body.start, body.stop) == (storage.local_path(make_package()), start, stop)
        assert b"".join(body.app_iter_range(1, 4)) == CONTENT[start + 1 : start + 4]
        body.close()


def test_file_wrapper(storage: FileStorage, directory: Path) -> None:
    """A server's own way to send a whole file is used, and a range is not given to it."""
    storage.publish(make_package(), io.BytesIO(CONTENT))
    for headers, wrapped in (({}, True), ({"Range": "bytes=5-9"}, False)):
        request = get(**headers)
        request.environ["wsgi.file_wrapper"] = _Wrapper
        response = configured(directory, request).download_response(make_package())
        assert isinstance(response.app_iter, _Wrapper) is wrapped
        assert response.body == (CONTENT if wrapped else CONTENT[5:10])


def test_store_that_is_gone(storage: FileStorage, directory: Path) -> None:
    """If the whole store is gone, no single file is said to be missing, and nothing is listed as empty."""
    storage.publish(make_package(), io.BytesIO(CONTENT))
    directory.rename(directory.with_suffix(".away"))
    for attempt in (
        lambda: storage.open(make_package()),
        lambda: configured_without_start(directory).download_response(make_package()),
        lambda: list(storage.list()),
        lambda: storage.publish(make_package(), io.BytesIO(CONTENT)),
    ):
        with pytest.raises(BackendUnavailable) as caught:
            attempt()
        assert str(directory) not in caught.value.message
    assert not directory.exists()


def configured_without_start(directory: Path) -> FileStorage:
    """The storage as a running server makes it for a request."""
    return FileStorage(get(), directory=str(directory))
