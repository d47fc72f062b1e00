"""What every storage must do when things go wrong: uploads that break off or meet, hostile names, no service."""

from __future__ import annotations

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from pypicloud.errors import FileExists, InvalidUpload, PackageNotFound, SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.storage import get_storage_impl
from pypicloud.storage.base import IStorage
from pypicloud.testing.storage_fixtures import CONTENT, Forward, MakeStorage, StorageFixtures, make_package


class TroubleContract(StorageFixtures):
    """Whatever goes wrong, what is stored is whole, and what is not is not to be seen."""

    def test_broken_upload(self, storage: IStorage, make_storage: MakeStorage) -> None:
        """An upload that breaks off leaves nothing behind, and an older file as it was."""
        package = make_package()
        broken = cast("BinaryIO", io.BufferedReader(Forward(CONTENT * 30, breaks=True)))
        with pytest.raises(ConnectionResetError):
            storage.publish(package, broken, {"metadata": b"x"})
        assert list(storage.list()) == []
        assert self.objects(make_storage.keywords) == {}
        storage.publish(package, io.BytesIO(CONTENT))
        broken = cast("BinaryIO", io.BufferedReader(Forward(CONTENT * 30, breaks=True)))
        with pytest.raises(ConnectionResetError):
            storage.publish(make_package(content=b"x"), broken, replace=True)
        assert self.content(storage, package) == CONTENT
        assert self.listed(storage)[package.filename].get_metadata() == package.get_metadata()

    @pytest.mark.parametrize("rewrite", [False, True], ids=["first", "replace"])
    def test_uploads_at_once(self, make_storage: MakeStorage, rewrite: bool) -> None:
        """Of uploads of one name at the same moment one wins, whole: bytes, facts and companion are of one."""
        contents = [bytes([number]) * (30000 + number) for number in range(8)]
        gate = threading.Barrier(len(contents))

        def upload(content: bytes) -> bool:
            package = make_package(content=content, summary=str(content[0]))
            gate.wait()
            try:
                make_storage(None).publish(package, io.BytesIO(content), {"metadata": content[:1]}, replace=rewrite)
            except FileExists:
                return False
            return True

        with ThreadPoolExecutor(len(contents)) as pool:
            won = list(pool.map(upload, contents))
        storage = make_storage(None)
        listed = self.listed(storage)["foo-1.0.tar.gz"]
        content = self.content(storage, listed)
        assert won[contents.index(content)]
        assert sum(won) == (8 if rewrite or "replaces" in self.limits else 1)
        assert listed.summary == str(content[0])
        assert listed.data["hash_sha256"] == hashlib.sha256(content).hexdigest()
        if "no_companions" not in self.limits:
            assert self.companion(storage, listed) == content[:1]

    @pytest.mark.parametrize(
        ("version", "filename"),
        [
            ("../../1.0", "foo-1.0.tar.gz"),
            ("..", "foo-1.0.tar.gz"),
            (".", "foo-1.0.tar.gz"),
            ("", "foo-1.0.tar.gz"),
            ("/tmp", "foo-1.0.tar.gz"),  # noqa: S108 - nothing is ever written there
            ("1.0", "../foo-1.0.tar.gz"),
            ("1.0", "a/foo-1.0.tar.gz"),
            ("1.0", "..\\foo-1.0.tar.gz"),
            ("1.0", "foo-1.0.tar.gz\0.txt"),
            ("1.0", "foo\n-1.0.tar.gz"),
            ("1.0", "foo\udc80-1.0.tar.gz"),
            ("1.0", ".foo-1.0.tar.gz"),
            ("1.0", ""),
        ],
    )
    def test_hostile_names(self, storage: IStorage, make_storage: MakeStorage, version: str, filename: str) -> None:
        """A version or file name that is no plain part of a path is refused, or is just a key."""
        package = make_package("foo", version, filename)
        package.filename = filename
        if "trusts_names" in self.limits:
            storage.publish(package, io.BytesIO(CONTENT))
            assert self.content(storage, package) == CONTENT
            return
        with pytest.raises(InvalidUpload):
            storage.publish(package, io.BytesIO(CONTENT))
        assert self.objects(make_storage.keywords) == {}
        with pytest.raises(PackageNotFound), storage.open(package):
            raise AssertionError
        assert storage.open_companion(package, "metadata") is None
        storage.delete(package)

    def test_health(self, storage: IStorage, make_storage: MakeStorage) -> None:
        """Health is good while the service is there, and bad with a reason while it is not (compat.md 2.6)."""
        assert storage.check_health() == (True, "")
        if "unbreakable" in self.limits:
            return
        with self.outage(make_storage.keywords):
            healthy, reason = make_storage(None).check_health()
        assert not healthy
        assert reason

    def test_required_settings(self, settings: dict[str, str]) -> None:
        """A setting that is missing stops the start and is named."""
        for key in self.required:
            rest = {name: value for name, value in settings.items() if name != key}
            with pytest.raises(SettingError, match=key):
                get_storage_impl(EnvironSettings(rest, {}))

    def test_spool(self, storage: IStorage, tmp_path: Path) -> None:
        """A file spooled where the storage wants it is stored, and is not listed before."""
        spool = Path(storage.spool_directory() or tmp_path) / ".upload-0123456789abcdef.meta"
        spool.write_bytes(CONTENT)
        package = make_package()
        try:
            assert list(storage.list()) == []
            with spool.open("rb") as stream:
                storage.publish(package, stream, {"metadata": b"x"})
            with spool.open("rb") as stream:
                storage.publish(package, stream, replace=True)
        finally:
            spool.unlink(missing_ok=True)
        assert self.content(storage, package) == CONTENT
        assert list(storage.list()) == [package]
