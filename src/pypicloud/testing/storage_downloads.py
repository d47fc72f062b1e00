"""What every storage must do with a download: whole, in parts, not again, or by a redirect elsewhere."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
from pyramid.request import Request

from pypicloud.models import Package
from pypicloud.testing.storage_fixtures import CONTENT, MakeStorage, StorageFixtures, make_package


class PlainRequest(Request):  # type: ignore[misc]  # Pyramid is untyped
    """A request with what backends use of the server's own."""

    def app_url(self, *paths: str) -> str:
        """The absolute URL of a path under the mount point (compat.md 8.4)."""
        return "/".join((self.application_url, *paths))


def get(path: str = "/", method: str = "GET", **headers: str) -> PlainRequest:
    """A request; the words of a header's name are joined by ``_``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request: PlainRequest = PlainRequest.blank(path, method=method, headers=named)
    return request


@dataclass(frozen=True)
class Answer:
    """A response as the client sees it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class DownloadContract(StorageFixtures):
    """What clients see of a storage: the part of :class:`pypicloud.testing.storage.StorageContract` on downloads."""

    def answer(self, make_storage: MakeStorage, request: PlainRequest, package: Package) -> Answer:
        """What the client sees of a download, after the server is done with it."""
        status, headers, chunks = request.call_application(make_storage(request).download_response(package))
        try:
            body = b"".join(chunks)
        finally:
            getattr(chunks, "close", bool)()
        return Answer(int(status.split()[0]), dict(headers), body)

    def fetch(self, url: str) -> bytes:
        """What a client gets at the place it was redirected to."""
        with urllib.request.urlopen(url) as response:  # noqa: S310 - the backend under test made the URL
            content: bytes = response.read()
        return content

    def is_lesser(self, response: Answer, content: bytes = CONTENT) -> bool:
        """Whether the backend's own way of answering downloads is declared, which is then checked."""
        if "redirects" in self.limits:
            assert response.status == 302
            assert response.headers["Cache-Control"] == "no-store"
            assert self.fetch(response.headers["Location"]) == content
            return True
        if "plain_downloads" in self.limits:
            assert (response.status, response.body) == (200, content)
            return True
        return False

    @pytest.fixture
    def stored(self, make_storage: MakeStorage) -> Package:
        """A package that is stored."""
        package = make_package()
        make_storage(None).publish(package, io.BytesIO(CONTENT))
        return package

    @pytest.mark.parametrize("header", [{}, {"Range": "bytes=10-19"}], ids=["whole", "range"])
    def test_outdated_size(self, make_storage: MakeStorage, stored: Package, header: dict[str, str]) -> None:
        """A file that another server has replaced by a longer one is sent whole, although the facts say less."""
        if "plain_downloads" in self.limits:
            return
        stored.data["size"] = 100
        request = get(**header)
        response = make_storage(request).stream_response(stored)
        answer = request.get_response(response)
        assert answer.body == (CONTENT if answer.status_int == 200 else CONTENT[10:20])
        assert answer.content_length == len(answer.body)

    def test_download(self, make_storage: MakeStorage, stored: Package) -> None:
        """A download gives the bytes, or leads to them."""
        response = self.answer(make_storage, get(), stored)
        if self.is_lesser(response):
            return
        assert (response.status, response.body) == (200, CONTENT)
        assert response.headers["Content-Length"] == str(len(CONTENT))
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Cache-Control"] == "max-age=365000000, immutable"
        assert response.headers["ETag"] == f'"{stored.data["hash_sha256"]}"'
        modified = parsedate_to_datetime(response.headers["Last-Modified"])
        assert abs(modified - stored.last_modified) < timedelta(seconds=60)

    def test_head(self, make_storage: MakeStorage, stored: Package) -> None:
        """HEAD gives the headers of GET and no bytes."""
        whole, head = (self.answer(make_storage, get(method=method), stored) for method in ("GET", "HEAD"))
        assert head.status == whole.status
        assert head.body == b""
        if not self.is_lesser(whole):
            assert head.headers == whole.headers

    @pytest.mark.parametrize(
        ("header", "start", "stop"),
        [
            ("bytes=0-0", 0, 1),
            ("bytes=100-199", 100, 200),
            ("bytes=70000-", 70000, len(CONTENT)),
            (f"bytes=0-{len(CONTENT) + 5}", 0, len(CONTENT)),
            ("bytes=-1", len(CONTENT) - 1, len(CONTENT)),
            ("bytes=-16384", len(CONTENT) - 16384, len(CONTENT)),
            (f"bytes=-{len(CONTENT) + 5}", 0, len(CONTENT)),
            ("Bytes = 5 - 9", 5, 10),
        ],
    )
    def test_range(self, make_storage: MakeStorage, stored: Package, header: str, start: int, stop: int) -> None:
        """A range of bytes is answered with exactly these bytes (RFC 9110, 14)."""
        response = self.answer(make_storage, get(Range=header), stored)
        if self.is_lesser(response):
            return
        assert (response.status, response.body) == (206, CONTENT[start:stop])
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
        assert response.headers["Content-Length"] == str(stop - start)
        assert response.headers["ETag"] == f'"{stored.data["hash_sha256"]}"'

    @pytest.mark.parametrize("header", [f"bytes={len(CONTENT)}-", "bytes=999999999-1000000000", "bytes=-0"])
    def test_range_outside(self, make_storage: MakeStorage, stored: Package, header: str) -> None:
        """A range without a single byte of the file is refused, and the size is told."""
        response = self.answer(make_storage, get(Range=header), stored)
        if self.is_lesser(response):
            return
        assert (response.status, response.body) == (416, b"")
        assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"

    @pytest.mark.parametrize(
        "header",
        [
            "bytes=-",
            "bytes=",
            "bytes",
            "nonsense",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=0-1,5-6",
            "lines=1-2",
            "bytes=1-" + "9" * 99,
        ],
    )
    def test_range_not_understood(self, make_storage: MakeStorage, stored: Package, header: str) -> None:
        """A range that is none, or several at once, is as if it had not been asked for."""
        response = self.answer(make_storage, get(Range=header), stored)
        if self.is_lesser(response):
            return
        assert (response.status, response.body) == (200, CONTENT)

    def test_range_of_head(self, make_storage: MakeStorage, stored: Package) -> None:
        """HEAD knows no ranges (RFC 9110, 14.2)."""
        response = self.answer(make_storage, get(method="HEAD", Range="bytes=0-9"), stored)
        assert (response.status, response.body) == (302 if "redirects" in self.limits else 200, b"")

    def test_range_if_same(self, make_storage: MakeStorage, stored: Package) -> None:
        """A broken download is resumed only if the file is still the same (``If-Range``)."""
        whole = self.answer(make_storage, get(), stored)
        if self.is_lesser(whole):
            return
        cases = {
            whole.headers["ETag"]: 206,
            whole.headers["Last-Modified"]: 206,
            '"0123"': 200,
            "Thu, 01 Jan 1970 00:00:00 GMT": 200,
            "no date at all GMT": 200,
        }
        for validator, status in cases.items():
            response = self.answer(make_storage, get(Range="bytes=9-", If_Range=validator), stored)
            assert (response.status, response.body) == (status, CONTENT[9:] if status == 206 else CONTENT)

    def test_not_modified(self, make_storage: MakeStorage, stored: Package) -> None:
        """Who has the file already is told so, and gets no bytes (``If-None-Match``, ``If-Modified-Since``)."""
        whole = self.answer(make_storage, get(), stored)
        if self.is_lesser(whole):
            return
        later = datetime.now(UTC) + timedelta(days=1)
        cases: list[tuple[Mapping[str, str], int]] = [
            ({"If_None_Match": whole.headers["ETag"]}, 304),
            ({"If_None_Match": '"0123"'}, 200),
            ({"If_None_Match": '"0123"', "If_Modified_Since": whole.headers["Last-Modified"]}, 200),
            ({"If_Modified_Since": whole.headers["Last-Modified"]}, 304),
            ({"If_Modified_Since": later.strftime("%a, %d %b %Y %H:%M:%S GMT")}, 304),
            ({"If_Modified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
            ({"If_None_Match": whole.headers["ETag"], "Range": "bytes=0-9"}, 304),
        ]
        for headers, status in cases:
            response = self.answer(make_storage, get(**headers), stored)
            assert (response.status, response.body) == (status, CONTENT if status == 200 else b""), headers

    def test_download_of_nothing(self, make_storage: MakeStorage) -> None:
        """A file without a byte downloads as such."""
        package = make_package(content=b"")
        make_storage(None).publish(package, io.BytesIO(b""))
        response = self.answer(make_storage, get(), package)
        if self.is_lesser(response, b""):
            return
        assert (response.status, response.body) == (200, b"")
        assert self.answer(make_storage, get(Range="bytes=-5"), package).status == 416

    def test_download_of_old_row(self, make_storage: MakeStorage, stored: Package) -> None:
        """A package that a 1.3.12 server put into the cache, without size and digest, downloads just as well."""
        old = Package(stored.name, stored.version, stored.filename, stored.last_modified, path=stored.data.get("path"))
        response = self.answer(make_storage, get(), old)
        if self.is_lesser(response):
            return
        assert (response.status, response.body) == (200, CONTENT)
        part = self.answer(make_storage, get(Range="bytes=7-9"), old)
        assert (part.status, part.body) == (206, CONTENT[7:10])

    def test_download_of_missing(self, make_storage: MakeStorage) -> None:
        """A file that is gone is not found (compat.md 2.1, 2.5)."""
        package = make_package()
        if "redirects" in self.limits:
            assert self.answer(make_storage, get(), package).status == 302
            return
        for request in (get(), get(Range="bytes=0-5"), get(method="HEAD")):
            with pytest.raises(self.missing):
                make_storage(request).download_response(package)

    def test_url(self, make_storage: MakeStorage, stored: Package) -> None:
        """The link carries the digest, so that clients check what they get (compat.md 2.4)."""
        storage = make_storage(get("/"))
        url = storage.get_url(stored)
        assert url.endswith(f"#sha256={stored.data['hash_sha256']}")
        if storage.has_own_urls:
            assert self.fetch(url.partition("#")[0]) == CONTENT
        else:
            assert url.startswith(f"http://localhost/api/package/{stored.name}/{stored.filename}#")
