"""The front of ``pypicloud serve``: the short way gives exactly what the long way gives, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import pytest
from paste.deploy.config import PrefixMiddleware
from pyramid.response import Response

from pypicloud import form as form_module
from pypicloud.cache.base import ICache
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.front import Answer, Front, _environ
from pypicloud.models import Package
from pypicloud.pipe import HELD
from pypicloud.storage.body import BLOCK
from pypicloud.testing.cache import MemoryCache
from support.builds import build_wheel, wheel_name
from support.memory_bucket import MemoryBucket
from support.world import Index, basic

JSON = "application/vnd.pypi.simple.v1+json"

#: What makes a wheel that fits into no pipe.
LARGE: Any = {"members": {"acme.bin": bytes(2 * HELD)}, "compression": zipfile.ZIP_STORED}


class Scope:
    """A request as granian gives it."""

    def __init__(self, method: str, target: str, headers: dict[str, str]) -> None:
        self.proto = "http"
        self.http_version = "1.1"
        self.server = "127.0.0.1:8080"
        self.client = "127.0.0.1:50000"
        self.scheme = "http"
        self.method = method
        self.path, _, self.query_string = target.partition("?")
        self.authority = None
        self.headers = {name.lower(): value for name, value in headers.items()}


class Protocol:
    """The other end of a request: hands the body over in pieces, and keeps the answer."""

    def __init__(self, body: bytes = b"", piece: int = 1000) -> None:
        self.body = body
        self.piece = piece
        self.status = 0
        self.headers: dict[str, str] = {}
        self.sent = b""
        self.way = ""
        self.reader: threading.Thread | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), self.piece):
            yield self.body[start : start + self.piece]

    def _keep(self, way: str, status: int, headers: list[tuple[str, str]], sent: bytes = b"") -> None:
        self.way, self.status, self.headers, self.sent = way, status, dict(headers), sent

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._keep("empty", status, headers)

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._keep("bytes", status, headers, body)

    def response_file_range(self, status: int, headers: list[tuple[str, str]], file: str, start: int, end: int) -> None:
        self._keep("file", status, headers, Path(file).read_bytes()[start:end])

    def response_file(self, status: int, headers: list[tuple[str, str]], file: str) -> None:
        self._keep("pipe", status, headers)
        self.reader = threading.Thread(target=self._read, args=(file,))
        self.reader.start()

    def _read(self, file: str) -> None:
        self.sent = Path(file).read_bytes()


class Fleeting(Protocol):
    """A client that reads the beginning of an answer, and goes away."""

    def _read(self, file: str) -> None:
        self.file = file
        with Path(file).open("rb") as stream:
            self.sent = stream.read(10)


class Silent(Protocol):
    """A client that sends the beginning of a body, and then nothing, but stays connected."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in super().__aiter__():
            yield piece
        await asyncio.Event().wait()


def ask(
    front: Front,
    target: str,
    user: str | None = "alice",
    **headers: str,
) -> Protocol:
    """Ask the front as granian does; header names are spelled with ``_``."""
    return send(front, "GET", target, user, b"", **headers)


def send(front: Front, method: str, target: str, user: str | None, body: bytes, **headers: str) -> Protocol:
    """Send any request."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    protocol = Protocol(body)
    scope: Any = Scope(method, target, spelled if user is None else {**basic(user), **spelled})
    asyncio.run(front.__rsgi__(scope, protocol))  # type: ignore[arg-type]
    if protocol.reader is not None:
        protocol.reader.join()
    return protocol


@pytest.fixture
def front(index: Index) -> Front:
    """A front with one project of one file."""
    index.upload_wheel("acme", "1.0")
    return Front(index.wsgi, 2)


@pytest.fixture
def count(front: Front, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many requests took the long way so far."""
    calls = []
    call = front._call

    def counted(environ: Any) -> Answer:
        calls.append(environ)
        return call(environ)

    monkeypatch.setattr(front, "_call", counted)
    return lambda: len(calls)


@pytest.mark.parametrize("target", ["/simple/acme/", "/simple/"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "gzip, zstd"])
def test_the_second_answer_comes_from_memory_and_is_the_same(
    front: Front, count: Callable[[], int], target: str, encoding: str
) -> None:
    """A page that was made is answered without the pool: same status, headers and bytes."""
    first = ask(front, target, Accept=JSON, Accept_Encoding=encoding)
    second = ask(front, target, Accept=JSON, Accept_Encoding=encoding)
    assert count() == 1
    assert second.status == first.status == 200
    assert second.sent == first.sent
    first.headers.pop("content-length", None)
    assert second.headers == first.headers
    third = ask(front, target, Accept=JSON, Accept_Encoding=encoding, If_None_Match=second.headers["etag"])
    assert (third.status, third.sent, count()) == (304, b"", 1)
    other = ask(front, target, Accept=JSON, Accept_Encoding=encoding, If_None_Match='"other"')
    assert (other.status, other.sent) == (200, first.sent)


class DistantCache(MemoryCache):
    """A cache that the loop may not ask; counts the questions about revisions."""

    is_local = False
    questions: ClassVar[list[set[str | None]]] = []

    def revisions(self, names: Collection[str | None]) -> dict[str | None, str | None]:
        self.questions.append({*names})
        return super().revisions(names)


@pytest.fixture
def distant(tmp_path: Path) -> Index:
    """An index whose cache is not local."""
    DistantCache.questions.clear()
    return Index(tmp_path, pypi__db=f"{__name__}.DistantCache", db__url=None)


@pytest.mark.parametrize("target", ["/simple/acme/", "/simple/"])
def test_a_distant_cache_is_asked_for_the_revision_alone(distant: Index, target: str) -> None:
    """With such a cache memory answers, too, for one question about the revision; a new page is seen at once."""
    distant.upload_wheel("acme", "1.0")
    front = Front(distant.wsgi, 2)
    question = {"acme" if "acme" in target else None}
    first = ask(front, target, Accept=JSON)
    assert DistantCache.questions == [question]
    second = ask(front, target, Accept=JSON)
    assert second.sent == first.sent
    assert DistantCache.questions == [question, question]
    distant.upload_wheel("acme" if "acme" in target else "zed", "2.0")
    third = ask(front, target, Accept=JSON)
    assert third.headers["etag"] != second.headers["etag"]
    assert ask(front, target, user="bob", Accept=JSON).sent == third.sent


class PluginCache(MemoryCache):
    """A cache that can be asked for one revision at a time."""

    is_local = False
    asked: ClassVar[list[object]] = []
    revisions = ICache.revisions

    def revision(self, name: str | None) -> str:
        self.asked.append(self.request)
        return super().revision(name)


def test_a_cache_without_bulk_is_asked_by_each_request(tmp_path: Path) -> None:
    """Where one question cannot be for many requests, each asks an instance of its own, and pages are remembered."""
    index = Index(tmp_path, pypi__db=f"{__name__}.PluginCache", db__url=None)
    index.upload_wheel("acme", "1.0")
    front = Front(index.wsgi, 2)
    PluginCache.asked.clear()
    first, second = (ask(front, "/simple/acme/", Accept=JSON) for _ in range(2))
    assert first.sent == second.sent
    one, other = PluginCache.asked
    assert None not in {one, other}
    assert one is not other


@pytest.mark.parametrize("groups", ["overwriters", None])
def test_a_file_that_may_be_replaced_is_sent_as_it_was_opened(tmp_path: Path, groups: str | None) -> None:
    """The server's own sender, which opens a file anew, gets only files that nobody may overwrite."""
    index = Index(tmp_path, pypi__allow_overwrite_groups=groups)
    content = index.upload_wheel("acme", "1.0", **LARGE)
    front = Front(index.wsgi, 2)
    path = f"/api/package/acme/{wheel_name('acme', '1.0')}"
    whole = ask(front, path)
    part = ask(front, path, Range="bytes=10-19")
    assert (whole.way, whole.sent) == ("pipe" if groups else "file", content)
    assert (part.status, part.way, part.sent) == (206, "bytes" if groups else "file", content[10:20])


def test_a_client_that_goes_away_ends_the_download(tmp_path: Path) -> None:
    """A streamed file that nobody reads any more is no error, and leaves nothing behind."""
    index = Index(tmp_path, **{**BUCKET, "pypi__stream_files": "true"})
    index.upload_wheel("acme", "1.0", **LARGE)
    front = Front(index.wsgi, 2)
    protocol = Fleeting()
    scope: Any = Scope("GET", f"/api/package/acme/{wheel_name('acme', '1.0')}", basic("alice"))
    asyncio.run(front.__rsgi__(scope, protocol))  # type: ignore[arg-type]
    assert (protocol.status, len(protocol.sent)) == (200, 10)
    assert not Path(protocol.file).exists()


BUCKET = {"pypi__storage": "support.memory_bucket.MemoryBucket", "storage__dir": None}


class Breaking(MemoryBucket):
    """A bucket from which the connection breaks after so many bytes of a file."""

    after: ClassVar[int]

    @contextlib.contextmanager
    def _read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        with super()._read(key, start, stop) as stream:
            yield cast("BinaryIO", _Broken(stream, self.after))


class _Broken:
    def __init__(self, stream: BinaryIO, after: int) -> None:
        self._stream = stream
        self._left = after

    def read(self, size: int) -> bytes:
        """What comes until the end is near."""
        if size > self._left:
            raise BackendUnavailable("the store does not answer", 7)
        self._left -= size
        return self._stream.read(size)


@pytest.mark.parametrize(
    ("after", "status", "way"), [(0, 503, "bytes"), (BLOCK, 503, "empty"), (3 * BLOCK, 200, "pipe")]
)
def test_a_store_that_breaks_off(
    after: int, status: int, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as nothing of a file has left, its loss is said with a time to come back; later less arrives."""
    monkeypatch.setattr(Breaking, "after", after, raising=False)
    bucket = {"pypi__storage": f"{__name__}.Breaking", "storage__dir": None, "pypi__stream_files": "true"}
    index = Index(tmp_path, **bucket)
    index.upload_wheel("acme", "1.0", members={"acme.bin": bytes(4 * BLOCK)}, compression=zipfile.ZIP_STORED)
    answer = ask(Front(index.wsgi, 2), f"/api/package/acme/{wheel_name('acme', '1.0')}", Accept="application/json")
    assert (answer.status, answer.way) == (status, way)
    if status == 503:
        assert answer.headers["retry-after"] == "7"
    else:
        assert len(answer.sent) == after < int(answer.headers["content-length"])


def test_a_redirect_comes_from_memory_once_it_was_made(tmp_path: Path) -> None:
    """The second redirect to a file takes the loop alone, leads to the same place, and is for the same callers."""
    index = Index(tmp_path, **BUCKET)
    index.upload_wheel("acme", "1.0")
    index.upload_wheel("secret-plan", "1.0")
    front = Front(index.wsgi, 2)
    for project, others in (("acme", 302), ("secret-plan", 403)):
        path = f"/api/package/{project}/{wheel_name(project, '1.0')}"
        first = ask(front, path)
        front._call = _fail  # type: ignore[method-assign]
        second = ask(front, path)
        assert (second.status, second.headers["location"]) == (302, first.headers["location"])
        assert second.headers["cache-control"] == first.headers["cache-control"] == "no-store"
        del front._call
        assert ask(front, path, user="bob").status == others
        assert ask(front, path, user=None).status == 401
        assert ask(front, f"/api/package/other/{wheel_name(project, '1.0')}").status == 404
    index.app.delete(f"/api/package/acme/{wheel_name('acme', '1.0')}", headers=basic("alice"))
    assert ask(front, f"/api/package/acme/{wheel_name('acme', '1.0')}").status == 404


def _fail(environ: Any) -> Answer:
    raise AssertionError(environ)


@pytest.mark.parametrize(
    "changes",
    [
        {"pypi__stream_files": "true"},
        {"pypi__storage": f"{__name__}.OwnAnswers"},
        {"pypi__db": f"{__name__}.AnsweringCache"},
    ],
)
def test_downloads_that_are_no_redirect_of_ours_take_the_long_way(tmp_path: Path, changes: dict[str, str]) -> None:
    """Files that the server sends, and those that a plug-in answers for, are not redirected from memory."""
    index = Index(tmp_path, **{**BUCKET, **changes})
    content = index.upload_wheel("acme", "1.0", **LARGE)
    front = Front(index.wsgi, 2)
    for _ in range(2):
        answer = ask(front, f"/api/package/acme/{wheel_name('acme', '1.0')}")
        assert (answer.status, answer.sent) == (200, content)


class OwnAnswers(MemoryBucket):
    """A plug-in on a bucket that answers downloads in its own way."""

    def download_response(self, package: Package) -> Response:
        """The bytes, although there is a URL for them."""
        self.redirect_url(package)
        return self.stream_response(package)


class AnsweringCache(MemoryCache):
    """A plug-in that answers downloads in its own way, wherever the files are."""

    def download_response(self, package: Package) -> Response:
        """The bytes, although there is a URL for them."""
        self.storage.redirect_url(package)
        return self.storage.stream_response(package)


class OwnURLs(MemoryBucket):
    """A plug-in on a bucket that clients reach by a way of its own."""

    def redirect_url(self, package: Package) -> str:
        """The bucket's URL, through something."""
        return f"https://through.example/?to={super().redirect_url(package)}"


def test_the_url_of_a_plug_in_is_not_passed_over(tmp_path: Path) -> None:
    """Where a plug-in has a say in the URL, memory does not answer with the bucket's own."""
    index = Index(tmp_path, **{**BUCKET, "pypi__storage": f"{__name__}.OwnURLs"})
    index.upload_wheel("acme", "1.0")
    front = Front(index.wsgi, 2)
    for _ in range(2):
        answer = ask(front, f"/api/package/acme/{wheel_name('acme', '1.0')}")
        assert answer.headers["location"].startswith("https://through.example/")


def test_the_memory_does_not_answer_for_who_may_not_read(front: Front, index: Index) -> None:
    """A page that is in memory is 401 for the anonymous, 404 for who may not read it."""
    index.upload_wheel("secret-plan", "1.0")
    for _ in range(2):
        assert ask(front, "/simple/secret-plan/").status == 200
        assert ask(front, "/simple/secret-plan/", user="bob").status == 404
        assert ask(front, "/simple/secret-plan/", user=None).status == 401
        assert ask(front, "/simple/acme/", user="dave").status == 200
        wrong = {"Authorization": basic("alice", "wrong")["Authorization"]}
        assert ask(front, "/simple/secret-plan/", user=None, **wrong).status == 401


def test_a_list_in_memory_is_for_the_same_rights_only(front: Front, index: Index) -> None:
    """Two callers with different rights never share a list."""
    index.upload_wheel("secret-plan", "1.0")
    for _ in range(2):
        assert b"secret-plan" in ask(front, "/simple/", Accept=JSON).sent
        assert b"secret-plan" not in ask(front, "/simple/", user="bob", Accept=JSON).sent


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/simple/acme", {}),
        ("/simple/acmes", {}),
        ("/simple/ACME/", {}),
        ("/simple/acme/?format=text/html", {}),
        ("/simple/acme/x/", {}),
        ("/simple/acme/", {"Accept": "image/png"}),
        ("/simple//", {}),
    ],
)
def test_everything_else_takes_the_long_way(
    front: Front, index: Index, count: Callable[[], int], target: str, headers: dict[str, str]
) -> None:
    """What is not exactly a page in memory is answered by the application, as it answers elsewhere."""
    ask(front, "/simple/acme/")
    answer = ask(front, target, **headers)
    assert count() == 2
    assert answer.status == index.get(target, **headers).status_int


def test_a_change_is_never_hidden_by_the_memory(front: Front, index: Index) -> None:
    """An upload through another server is on the next page."""
    for version in ("1.1", "1.2"):
        before = ask(front, "/simple/acme/", Accept=JSON).sent
        Index(index.directory).upload_wheel("acme", version)
        after = ask(front, "/simple/acme/", Accept=JSON).sent
        assert f"acme-{version}-".encode() not in before
        assert f"acme-{version}-".encode() in after


def form(filename: str, content: bytes) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n\r\n'
    return head.encode() + content + b"\r\n--b--\r\n"


def test_an_upload_is_spooled_and_stored(front: Front, index: Index) -> None:
    """A form comes in pieces, is stored whole, and leaves nothing behind."""
    content = build_wheel("acme", "2.0", members={"big.bin": bytes(3 << 20)}, compression=0)
    body = form(wheel_name("acme", "2.0"), content)
    answer = send(front, "POST", "/simple/", "alice", body, Content_Type="multipart/form-data; boundary=b")
    assert answer.status == 200
    path = f"/api/package/acme/{wheel_name('acme', '2.0')}"
    assert ask(front, path).sent == content
    assert send(front, "HEAD", path, "alice", b"").way == "empty"
    assert not list((index.directory / "packages").glob(".upload-*"))


def test_a_form_that_nobody_asked_for_is_removed(front: Front, index: Index) -> None:
    """A form that is sent where none is read leaves nothing behind."""
    body = form("a.bin", bytes(1 << 20))
    answer = send(front, "POST", "/nothing/here", "alice", body, Content_Type="multipart/form-data; boundary=b")
    assert answer.status == 404
    assert not list((index.directory / "packages").glob(".upload-*"))


def test_bodies_that_are_no_forms_are_held_up_to_a_limit(front: Front) -> None:
    """A large body of another kind is read and dropped, and refused."""
    answer = send(front, "POST", "/pypi", "alice", bytes(1 << 20), Content_Type="text/xml")
    assert answer.status == 413


def test_a_reading_request_may_have_a_body(front: Front) -> None:
    """Programs that send their arguments as JSON do so with GET, too."""
    body = b'{"verbose": true}'
    headers = {"content_type": "application/json", "content_length": str(len(body))}
    got = send(front, "GET", "/api/package/", "alice", body, **headers)
    assert got.status == 200
    assert b"last_modified" in got.sent


def test_a_body_that_stops_coming_is_given_up(front: Front, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens an upload and falls silent is answered, and nothing stays spooled."""
    monkeypatch.setattr("pypicloud.front.BODY_PATIENCE", 0.05)
    protocol = Silent(form("acme-9.0.tar.gz", bytes(3 << 20))[: 2 << 20])
    scope: Any = Scope("POST", "/simple/", {"Content-Type": "multipart/form-data; boundary=b"})
    asyncio.run(front.__rsgi__(scope, protocol))  # type: ignore[arg-type]
    assert protocol.status == 408
    assert not list((index.directory / "packages").glob(".upload-*"))


def test_health_is_told_while_all_threads_wait(front: Front) -> None:
    """However many requests wait for a backend that does not answer, who asks how the server is gets to know."""
    over = threading.Event()
    waiting = [front._pool.submit(over.wait, 30) for _ in range(10)]
    try:
        assert ask(front, "/health", None).status == 200
        assert not any(each.done() for each in waiting)
    finally:
        over.set()


def test_headers_with_underscores_stand_for_no_others() -> None:
    """X_Forwarded_For is not X-Forwarded-For, which only a trusted proxy can set."""
    scope: Any = Scope("GET", "/", {"X_Forwarded_For": "203.0.113.9", "Content_Type": "text/xml", "X-A": "1"})
    environ = _environ(scope)
    assert environ["HTTP_X_A"] == "1"
    assert not {"HTTP_X_FORWARDED_FOR", "CONTENT_TYPE"} & environ.keys()


def test_behind_a_filter_all_goes_the_long_way(index: Index) -> None:
    """A filter of the ini file may change anything, so nothing is answered before it; uploads still work."""
    index.upload_wheel("acme", "1.0")
    front = Front(PrefixMiddleware(index.wsgi, {}, prefix="/mount", scheme="https"), 2)
    for _ in range(2):
        assert ask(front, "/mount/simple/acme/").status == 200
    body = form(wheel_name("acme", "2.0"), build_wheel("acme", "2.0"))
    answer = send(front, "POST", "/mount/simple/", "alice", body, Content_Type="multipart/form-data; boundary=b")
    assert answer.status == 200
    assert b'"url":"https://127.0.0.1:8080/mount/api/package/acme/' in answer.sent


def test_an_application_that_cannot_be_found_stops_the_start() -> None:
    """A wrapper that hides the application is named."""
    with pytest.raises(SettingError, match="filter-with"):
        Front(lambda environ, start: [b""], 2)


@pytest.mark.parametrize(("everyone", "status", "spooled"), [("", 401, 0), ("everyone", 400, 1)])
def test_what_an_anonymous_sender_may_not_upload_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everyone: str, status: int, spooled: int
) -> None:
    """A form of somebody unknown is read to its end, but written to disk only where everyone may upload something."""
    made = []
    spool = form_module._Spool

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return spool(*arguments)

    monkeypatch.setattr(form_module, "_Spool", counted)
    index = Index(tmp_path, pypi__default_write=f"developers {everyone}")
    front = Front(index.wsgi, 2)
    for user in (None, "nobody"):
        body = form("acme-1.0.tar.gz", bytes(1 << 20))
        answer = send(front, "POST", "/simple/", user, body, Content_Type="multipart/form-data; boundary=b")
        assert answer.status == status
        assert len(made) == (spooled if user is None else 2 * spooled)
    index.post(content=b"x", filename="acme-1.0.tar.gz", user=None, status=status)
