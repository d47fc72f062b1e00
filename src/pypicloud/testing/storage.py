"""What every storage backend must do.

The test of a backend is a class with a fixture and a second witness::

    class TestMyStorage(StorageContract):
        required = ("storage.mine",)

        @pytest.fixture
        def settings(self) -> dict[str, str]:
            return {"pypi.storage": "my.module.MyStorage", "storage.mine": ...}

        def objects(self, kwargs):
            return {everything the service holds, without asking the backend}
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

import pytest

from pypicloud.errors import BackendUnavailable, FileExists, NotSupported, PackageNotFound
from pypicloud.models import Package
from pypicloud.storage.base import IStorage
from pypicloud.testing.memory_storage import MemoryStorage
from pypicloud.testing.storage_downloads import DownloadContract
from pypicloud.testing.storage_fixtures import CONTENT, Forward, MakeStorage, make_package
from pypicloud.testing.storage_trouble import TroubleContract

__all__ = ["MemoryStorage", "StorageContract"]


class StorageContract(TroubleContract, DownloadContract):
    """What every storage does.

    ``limits`` declares what a backend honestly cannot do; the lesser behaviour is then asserted:

    =================== =====================================================================
    ``ascii_metadata``  a summary comes back without the characters that are not ASCII
    ``known_facts``     only the facts of compat.md 8.1 come back
    ``no_companions``   ``upload_companion`` raises NotSupported, ``open_companion`` gives None
    ``no_updates``      ``update_metadata`` raises NotSupported
    ``own_errors``      a missing file is an error of the backend's own
    ``own_time``        the service's own time is the upload time
    ``plain_downloads`` a download is the bytes, and nothing more
    ``redirects``       downloads are redirects
    ``replaces``        ``publish`` replaces, whatever it is told
    ``trusts_names``    names are not checked, only kept apart
    ``unbreakable``     there is nothing that could be down
    =================== =====================================================================
    """

    # Storing and reading

    def test_begins_empty(self, storage: IStorage) -> None:
        """A new storage lists nothing."""
        assert list(storage.list()) == []

    @pytest.mark.parametrize(
        "content",
        [b"", b"x", b"\xff\xfe\x00 no text \r\n", bytes(range(256)) * 12289],
        ids=["nothing", "one byte", "no text", "many blocks"],
    )
    def test_bytes(self, storage: IStorage, make_storage: MakeStorage, content: bytes) -> None:
        """The bytes that come back are those that went in, and they alone lie in the service."""
        package = make_package(content=content)
        storage.publish(package, io.BytesIO(content))
        assert self.content(storage, package) == content
        found = [data for name, data in self.objects(make_storage.keywords).items() if name.endswith(package.filename)]
        assert found == [content]

    def test_stream_that_only_reads(self, storage: IStorage) -> None:
        """A stream that cannot seek is stored like any other."""
        package = make_package()
        storage.publish(package, cast("BinaryIO", io.BufferedReader(Forward(CONTENT))))
        assert self.content(storage, package) == CONTENT

    def test_facts(self, storage: IStorage) -> None:
        """What is known about a file comes back from the storage alone."""
        package = make_package(summary="A foo's “summary”: ünï", requires_python=">=3.8,<4", uploader="josé@example")
        storage.publish(package, io.BytesIO(CONTENT))
        listed = self.listed(storage)[package.filename]
        assert (listed.name, listed.version, listed.filename) == ("foo", "1.0", "foo-1.0.tar.gz")
        assert listed.data.get("size") == (None if "known_facts" in self.limits else len(CONTENT))
        expected = package.get_metadata()
        if "ascii_metadata" in self.limits:
            expected |= {"summary": "A foo's summary: uni", "uploader": "jose@example"}
        assert listed.get_metadata() == expected

    def test_no_facts(self, storage: IStorage) -> None:
        """A file of which nothing is known is listed, and nothing is made up."""
        storage.publish(Package("foo", "1.0", "foo-1.0.tar.gz"), io.BytesIO(b"x"))
        assert self.listed(storage)["foo-1.0.tar.gz"].get_metadata() == {}

    @pytest.mark.parametrize("yanked", [True, "It eats files; use 1.0.1"])
    def test_yanked(self, storage: IStorage, yanked: bool | str) -> None:
        """That a file is yanked, and why, is a fact like others (PEP 592)."""
        package = make_package(yanked=yanked)
        storage.publish(package, io.BytesIO(CONTENT))
        assert self.listed(storage)[package.filename].data.get("yanked") == (
            None if "known_facts" in self.limits else yanked
        )

    def test_time(self, storage: IStorage) -> None:
        """The upload time comes back with its zone, and the package says the same as the storage."""
        package = make_package()
        moment = datetime.now(UTC) if "own_time" in self.limits else datetime(2019, 7, 8, 9, 10, 11, 120000, UTC)
        package.last_modified = moment
        storage.publish(package, io.BytesIO(CONTENT))
        listed = self.listed(storage)[package.filename]
        assert listed.last_modified.utcoffset() == timedelta(0)
        assert abs(listed.last_modified - moment) < timedelta(seconds=60 if "own_time" in self.limits else 2)
        if "own_time" not in self.limits:
            assert listed.last_modified == package.last_modified

    @pytest.mark.parametrize(
        ("name", "version", "filename"),
        [
            ("foo-bar", "1.0+local.1", "foo_bar-1.0+local.1-py3-none-any.whl"),
            ("foo", "1!2.0", "foo-1!2.0.zip"),
            ("Foo.Bar_Baz", "2.0rc1", "Foo.Bar_Baz-2.0rc1.tar.gz"),
            ("a2b-3d", "1.0-beta", "a2b-3d-1.0-beta.tar.gz"),
            ("foo", "weird", "foo weird (1) #100%.tar.gz"),
            ("foo", "1.0", "föö-1.0.tar.gz"),
        ],
    )
    def test_names(self, storage: IStorage, name: str, version: str, filename: str) -> None:
        """Names and versions come back as they were given, the project's name normalised."""
        package = make_package(name, version, filename)
        storage.publish(package, io.BytesIO(CONTENT))
        listed = self.listed(storage)[filename]
        assert (listed.name, listed.version) == (package.name, version)
        assert self.content(storage, listed) == CONTENT

    def test_one_file(self, storage: IStorage) -> None:
        """What is stored of one file is what the listing has of it, without its neighbours."""
        package = make_package(summary="s", requires_python=">=3", yanked="broken")
        neighbour = make_package(filename="foo-1.0.tar.gz.zip")
        assert storage.stored(package) is None
        for each in (package, neighbour):
            storage.publish(each, io.BytesIO(CONTENT), {"metadata": each.filename.encode()})
        found = storage.stored(Package("foo", "1.0", package.filename))
        assert found is not None
        listed = self.listed(storage)[package.filename]
        assert (found.data, found.summary) == (listed.data, listed.summary)
        assert found.last_modified == listed.last_modified
        storage.delete(package)
        assert storage.stored(package) is None

    def test_instances(self, make_storage: MakeStorage) -> None:
        """What one request stored the next one sees: they share the configuration."""
        package = make_package()
        make_storage(None).publish(package, io.BytesIO(CONTENT))
        assert self.content(make_storage(None), package) == CONTENT

    def test_listing_of_many(self, storage: IStorage) -> None:
        """More files than fit on one page of a listing are all listed, each once."""
        packages = [make_package(f"p{number % 7}", f"1.{number}", content=b"x") for number in range(self.many)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda package: storage.publish(package, io.BytesIO(b"x")), packages))
        assert sorted(storage.list()) == sorted(packages)

    def test_factory(self, storage: IStorage) -> None:
        """Listing makes packages of the class that is asked for."""

        class Special(Package):
            pass

        storage.publish(make_package(), io.BytesIO(CONTENT))
        assert [type(package) for package in storage.list(Special)] == [Special]

    @pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 76800), (65530, 65550), (76799, 76800), (5, 5)])
    def test_part(self, storage: IStorage, start: int, stop: int) -> None:
        """A part of a file can be read without the rest."""
        package = make_package()
        storage.publish(package, io.BytesIO(CONTENT))
        with storage.open_range(package, start, stop) as stream:
            assert stream.read() == CONTENT[start:stop]

    # Replacing and deleting

    def test_refusal(self, storage: IStorage) -> None:
        """A second file of the same name is refused and changes nothing, or replaces all of the first."""
        package, other = make_package(summary="first"), make_package(content=b"other", summary="second")
        storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"first"})
        if "replaces" in self.limits:
            storage.publish(other, io.BytesIO(b"other"))
            assert self.content(storage, package) == b"other"
            return
        with pytest.raises(FileExists):
            storage.publish(other, io.BytesIO(b"other"), {"metadata": b"second"})
        assert self.content(storage, package) == CONTENT
        assert self.listed(storage)[package.filename].summary == "first"
        assert self.companion(storage, package) == (None if "no_companions" in self.limits else b"first")

    def test_replacing(self, storage: IStorage) -> None:
        """A file that replaces another takes over nothing of it: no byte, no fact, no companion."""
        package = make_package(summary="first", requires_python=">=3", uploader="a", yanked=True)
        storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"first"})
        other = make_package(content=b"other")
        storage.publish(other, io.BytesIO(b"other"), replace=True)
        listed = self.listed(storage)[package.filename]
        assert self.content(storage, listed) == b"other"
        assert listed.get_metadata() == other.get_metadata()
        assert not {"yanked", "core_metadata"} & set(listed.data)
        assert self.companion(storage, package) is None

    def test_upload(self, storage: IStorage) -> None:
        """``upload``, the documented way, replaces what is there (compat.md 8.3)."""
        package = make_package()
        storage.upload(package, io.BytesIO(b"something longer than the rest"))
        storage.upload(package, io.BytesIO(b"x"))
        assert self.content(storage, package) == b"x"

    def test_deleting(self, storage: IStorage) -> None:
        """Deleting a file leaves its neighbours alone, however much alike their names are."""
        packages = [
            make_package("foo", "1.0"),
            make_package("foo", "1.0", "foo-1.0.tar"),
            make_package("foo", "1.0", "foo-1.0.tar.gz.zip"),
            make_package("foo", "1.0", "foo-1.0-py3-none-any.whl"),
            make_package("foo", "1.0.1"),
            make_package("foo-bar", "1.0"),
            make_package("fo", "1.0"),
        ]
        for package in packages:
            storage.publish(package, io.BytesIO(CONTENT), {"metadata": package.filename.encode()})
        storage.delete(packages[0])
        assert sorted(storage.list()) == sorted(packages[1:])
        for package in packages[1:]:
            assert self.listed(storage)[package.filename].get_metadata() == package.get_metadata()
            expected = None if "no_companions" in self.limits else package.filename.encode()
            assert self.companion(storage, package) == expected

    def test_deleting_everything(self, storage: IStorage, make_storage: MakeStorage) -> None:
        """Nothing is left of a deleted file, facts and companions included."""
        package = make_package(summary="gone")
        storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"gone"})
        storage.delete(package)
        assert self.objects(make_storage.keywords) == {}
        assert self.companion(storage, package) is None

    def test_missing(self, storage: IStorage) -> None:
        """A missing file is one error everywhere, and counts as deleted (compat.md 2.1)."""
        package = make_package()
        storage.delete(package)
        with pytest.raises(self.missing), storage.open(package):
            raise AssertionError
        with pytest.raises(self.missing), storage.open_range(package, 0, 1):
            raise AssertionError
        with pytest.raises(NotSupported if "no_updates" in self.limits else PackageNotFound):
            storage.update_metadata(package)
        with pytest.raises(NotSupported if "no_companions" in self.limits else PackageNotFound):
            storage.upload_companion(package, "metadata", b"")
        assert self.companion(storage, package) is None

    # What goes with a file

    def test_companion(self, storage: IStorage) -> None:
        """A companion is stored with its file, its digest listed, and can be replaced."""
        package = make_package(filename="foo-1.0-py3-none-any.whl")
        storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"Name: foo\n"})
        if "no_companions" in self.limits:
            assert self.companion(storage, package) is None
            with pytest.raises(NotSupported):
                storage.upload_companion(package, "metadata", b"")
            return
        assert self.companion(storage, package) == b"Name: foo\n"
        listed = self.listed(storage)
        assert list(listed) == [package.filename]
        assert listed[package.filename].data["core_metadata"] == hashlib.sha256(b"Name: foo\n").hexdigest()
        storage.upload_companion(package, "metadata", b"Name: Foo\n")
        storage.upload_companion(package, "provenance", b"{}")
        assert self.companion(storage, package) == b"Name: Foo\n"
        assert self.companion(storage, package, "provenance") == b"{}"
        assert self.content(storage, package) == CONTENT
        assert self.companion(storage, package, "unheard-of") is None

    def test_new_facts(self, storage: IStorage) -> None:
        """Facts can be changed later, and nothing but the facts changes."""
        package = make_package(summary="before", uploader="me")
        storage.publish(package, io.BytesIO(CONTENT), {"metadata": b"kept"})
        before = self.listed(storage)[package.filename]
        before.data["yanked"] = "broken"
        before.data.pop("uploader")
        if "no_updates" in self.limits:
            with pytest.raises(NotSupported):
                storage.update_metadata(before)
            return
        storage.update_metadata(before)
        after = self.listed(storage)[package.filename]
        assert (after.data, after.summary) == (before.data, before.summary)
        if "own_time" not in self.limits:
            assert after.last_modified == before.last_modified
        assert self.content(storage, package) == CONTENT
        assert self.companion(storage, package) == (None if "no_companions" in self.limits else b"kept")

    def test_new_facts_of_another_file(self, storage: IStorage) -> None:
        """What is added to a file that was replaced since it was looked at is refused, and not beside the new one."""
        storage.publish(make_package(content=b"old", summary="old"), io.BytesIO(b"old"))
        seen = self.listed(storage)["foo-1.0.tar.gz"]
        storage.publish(make_package(content=b"new", summary="new"), io.BytesIO(b"new"), replace=True)
        seen.data["yanked"] = True
        with pytest.raises(NotSupported if "no_updates" in self.limits else BackendUnavailable):
            storage.update_metadata(seen)
        with pytest.raises(NotSupported if "no_companions" in self.limits else BackendUnavailable):
            storage.upload_companion(seen, "metadata", b"old")
        listed = self.listed(storage)["foo-1.0.tar.gz"]
        assert listed.summary == "new"
        assert listed.data["hash_sha256"] == hashlib.sha256(b"new").hexdigest()
        assert not {"yanked", "core_metadata"} & set(listed.data)
        assert self.companion(storage, listed) is None
