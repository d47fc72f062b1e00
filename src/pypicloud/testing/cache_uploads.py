"""The contract of the caches: what goes into storage and cache together, and out of both."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.errors import InvalidUpload
from pypicloud.models import Package
from pypicloud.testing.cache_fixtures import CacheFixtures, everything, facts, package, put, request_of, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.cache.base import ICache


class UploadContract(CacheFixtures):
    """Upload and delete keep bytes and facts together."""

    def test_upload_keeps_bytes_and_facts(self, cache: ICache) -> None:
        """An upload works out what it is not told, and stores the bytes and then the facts."""
        uploaded = cache.upload("Foo_Bar-1.0.tar.gz", io.BytesIO(b"bytes"), summary="Good", uploader="me")
        assert (uploaded.name, uploaded.version, uploaded.summary) == ("foo-bar", "1.0", "Good")
        assert uploaded.data == {
            "size": 5,
            "hash_sha256": hashlib.sha256(b"bytes").hexdigest(),
            "hash_md5": hashlib.md5(b"bytes", usedforsecurity=False).hexdigest(),
            "uploader": "me",
        }
        found = cache.fetch("Foo_Bar-1.0.tar.gz")
        assert found is not None
        assert facts(found) == facts(uploaded)
        with cache.storage.open(found) as stream:
            assert stream.read() == b"bytes"

    def test_upload_believes_what_it_is_told(self, cache: ICache) -> None:
        """Name, version and digests that are given are not worked out."""
        uploaded = cache.upload(
            "odd.zip", io.BytesIO(b"bytes"), "foo", "3", requires_python=">=3", hash_sha256="aa", hash_md5="bb"
        )
        assert (uploaded.name, uploaded.version) == ("foo", "3")
        assert uploaded.data == {"size": 5, "requires_python": ">=3", "hash_sha256": "aa", "hash_md5": "bb"}

    def test_upload_takes_a_stream_that_is_read_once(self, cache: ICache) -> None:
        """A stream that cannot be rewound is stored whole."""

        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        uploaded = cache.upload("foo-1.0.tar.gz", Pipe(b"bytes"))
        with cache.storage.open(uploaded) as stream:
            assert (stream.read(), uploaded.data["size"]) == (b"bytes", 5)

    def test_upload_without_hashes(self, start: Callable[..., Callable[..., ICache]]) -> None:
        """With hashes switched off none are worked out."""
        cache = start(**{"pypi.calculate_package_hashes": "false"})(request_of())
        assert cache.upload("foo-1.0.tar.gz", io.BytesIO(b"bytes")).data == {"size": 5}

    @pytest.mark.parametrize("request_", [request_of(delete=True), None], ids=["forbidden", "nobody"])
    def test_upload_refuses_to_overwrite(self, server: Callable[..., ICache], request_: Any) -> None:
        """Who may not overwrite gets a ValueError, and the file and its facts stay as they are."""
        server(request_of()).upload("foo-1.0.tar.gz", io.BytesIO(b"old"), summary="old")
        cache = server(request_)
        before = everything(cache)
        with pytest.raises(ValueError, match=r"foo-1\.0\.tar\.gz"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new"))
        assert everything(cache) == before
        with cache.storage.open(package()) as stream:
            assert stream.read() == b"old"

    def test_upload_refuses_to_replace_what_only_storage_knows(self, server: Callable[..., ICache]) -> None:
        """A stored file that the cache has lost is not overwritten either without the right."""
        cache = server(request_of())
        put(cache, package())
        with pytest.raises(ValueError, match="stored already"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new"))
        assert cache.is_empty()

    def test_upload_overwrites_with_the_right(self, cache: ICache) -> None:
        """Who may overwrite replaces bytes and facts."""
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"old"), summary="old")
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new!"))
        found = cache.fetch("foo-1.0.tar.gz")
        assert found is not None
        assert (found.summary, found.data["size"]) == (None, 4)
        with cache.storage.open(found) as stream:
            assert stream.read() == b"new!"

    def test_upload_takes_no_file_from_another_project(self, cache: ICache) -> None:
        """A file name that belongs to one project cannot be overwritten through another."""
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"old"))
        with pytest.raises(ValueError, match="another project"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b"new"), name="bar", version="1.0")
        assert cache.distinct() == ["foo"]

    def test_what_the_cache_cannot_keep_is_not_stored(self, cache: ICache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Facts that a cache refuses are refused before the bytes are stored."""

        def refuse(_: Package) -> None:
            raise InvalidUpload("the summary is too long")

        monkeypatch.setattr(cache, "check_facts", refuse)
        with pytest.raises(InvalidUpload):
            cache.store(package(), io.BytesIO(b"bytes"))
        assert stored(cache) == {}

    def test_delete_takes_file_and_facts(self, cache: ICache) -> None:
        """A deleted package is in neither storage nor cache."""
        cache.delete(cache.upload("foo-1.0.tar.gz", io.BytesIO(b"bytes")))
        assert cache.is_empty()
        assert stored(cache) == {}

    @pytest.mark.parametrize("request_", [request_of(overwrite=True), None], ids=["forbidden", "nobody"])
    def test_delete_needs_the_right(self, server: Callable[..., ICache], request_: Any) -> None:
        """Who may not delete gets a ValueError, and everything stays."""
        cache = server(request_)
        cache.upload("foo-1.0.tar.gz", io.BytesIO(b"bytes"))
        with pytest.raises(ValueError, match="may not be deleted"):
            cache.delete(package())
        assert set(everything(cache)) == set(stored(cache)) == {"foo-1.0.tar.gz"}

    def test_links_come_from_storage(self, cache: ICache) -> None:
        """The link to a package is the one its storage gives."""
        assert cache.get_url(package(hash_sha256="ab")) == "http://host/api/package/foo/foo-1.0.tar.gz#sha256=ab"
