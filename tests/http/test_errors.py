"""Errors: one shape, for whom it is; nothing internal; slowed logins; disks that take no more."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pypicloud.auth import FREE_FAILURES
from pypicloud.cache.sql import SQLCache
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package
from pypicloud.testing.cache import MemoryCache
from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.wire import ERROR_KEYS, form, listed, part, post, refusal, send, stored, upload_form
from support.world import Index, basic

WHEEL = wheel_name("acme", "1.0")

#: What clients say they accept, as they were seen on the wire (standards.md 4.2, 7.3).
TWINE = "*/*"
UV = "application/json;q=0.9, text/plain;q=0.8, text/html;q=0.7"
PIP = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (UV, "application/json"),
        (PIP, "application/json"),
        ("application/json", "application/json"),
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        (TWINE, "text/plain"),
        ("", "text/plain"),
        ("image/png", "text/plain"),
    ],
)
def test_each_client_gets_what_it_reads(index: Index, accept: str, content_type: str) -> None:
    """JSON for programs that name it, a page for browsers, plain text for the rest; the id is in each."""
    answer = send(index, "GET", "/pypi/nowhere/json", headers={"Accept": accept})
    assert (answer.status_int, answer.content_type) == (404, content_type)
    sentence = "there is no project 'nowhere' here"
    if content_type == "application/json":
        assert refusal(answer) == (404, "project-not-found", sentence)
    else:
        shown = sentence.replace("'", "&#39;") if content_type == "text/html" else sentence
        assert shown in answer.text
        assert "error id" in answer.text.lower()
    assert answer.status == f"404 {sentence}"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/api/nothing", "/api", "/admin", "/admin/nothing", "/api/package/a/b/c", "/api/package/nowhere/x.whl"]
)
@pytest.mark.parametrize("accept", [BROWSER, TWINE, UV])
def test_programs_paths_answer_json(index: Index, path: str, accept: str) -> None:
    """Below /api/ and /admin/ every error is JSON, whatever the client accepts."""
    answer = send(index, "GET", path, user="root", headers={"Accept": accept})
    assert refusal(answer)[0] == 404


def test_what_uv_and_twine_show(index: Index) -> None:
    """uv shows ``code`` of exactly application/json, twine the reason phrase (standards.md 7.3)."""
    index.upload_wheel()
    body = upload_form(build_wheel(summary="changed"), WHEEL)
    uv = post(index, body, headers={"Accept": UV})
    assert uv.headers["Content-Type"] == "application/json"
    assert uv.json["code"].startswith("409 File already exists: 'acme-1.0-py3-none-any.whl'")
    assert uv.json["title"] == "Conflict"
    twine = post(index, body, headers={"Accept": TWINE})
    assert twine.status.startswith("409 File already exists: 'acme-1.0-py3-none-any.whl'")
    assert len(twine.status) <= 204


def test_a_reason_is_one_line_of_ascii(index: Index) -> None:
    """A sentence that cannot stand in a status line leaves the standard one there."""
    answer = post(index, form(part("content", b"x", "acm\u00e9-1.0.tar.gz")))
    assert answer.status == "400 Bad Request"
    assert "acm\u00e9" in answer.json["message"]


def test_an_unknown_caller_is_asked_to_log_in(tmp_path: Path) -> None:
    """401 has the challenge with the realm, no body and a length of 0, below /api/, too (standards.md 1.7)."""
    index = Index(tmp_path, pypi__realm="my packages")
    for method, path in (
        ("GET", "/simple/acme/"),
        ("GET", "/api/package/acme/"),
        ("GET", "/admin/rebuild"),
        ("DELETE", "/api/package/a/b"),
    ):
        for headers in ({}, basic("alice", "wrong")):
            answer = send(index, method, path, user=None, headers={**headers, "Accept": UV})
            assert (answer.status_int, answer.body) == (401, b"")
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="my packages"'
            assert answer.headers["Content-Length"] == "0"


def test_html_errors_are_locked_down(index: Index) -> None:
    """What a client sent is escaped, and the page may load and run nothing."""
    answer = send(index, "GET", "/pypi/<script>alert(1)</script>/json", headers={"Accept": BROWSER})
    assert "<script>" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# What goes wrong inside


def breaks(error: Exception) -> Callable[..., Any]:
    """A method that raises."""

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    return broken


@pytest.mark.parametrize("accept", [BROWSER, TWINE, PIP])
@pytest.mark.parametrize("path", ["/simple/", "/api/package/", "/admin/rebuild"])
def test_nothing_internal_leaks(
    index: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str, accept: str
) -> None:
    """500 with an id and one sentence; the log has the cause with its trace under the id."""
    for method in ("distinct", "rebuild", "revision"):
        monkeypatch.setattr(SQLCache, method, breaks(RuntimeError("SELECT secret FROM /etc/passwd")))
    with caplog.at_level(logging.ERROR):
        answer = send(index, "GET", path, user="root", headers={"Accept": accept})
    assert answer.status_int == 500
    for word in ("SELECT", "secret", "passwd", "RuntimeError", "Traceback", str(index.directory)):
        assert word not in answer.text + answer.status
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError
    reference = record.getMessage().partition(" ")[0]
    assert reference in answer.text
    if answer.content_type == "application/json":
        sentence = "something went wrong on the server; its log says what, under the id of this answer"
        assert refusal(answer) == (500, "internal", sentence)
        assert answer.json["id"] == reference


def test_a_backend_that_does_not_answer(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with the backend's own sentence; other requests go on."""
    monkeypatch.setattr(SQLCache, "distinct", breaks(BackendUnavailable("the database does not answer")))
    answer = send(index, "GET", "/api/package/")
    assert refusal(answer) == (503, "backend-unavailable", "the database does not answer")
    assert send(index, "GET", "/api/package/acme/").status_int == 200


def test_credentials_that_cannot_be_checked(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """An access backend that fails answers in the one shape, on the health check, too (compat.md 5.1)."""
    kind = type(index.wsgi.registry.pypicloud.access_factory(None))
    monkeypatch.setattr(kind, "verify_user", breaks(RuntimeError("ldap://secret")))
    for path in ("/api/package/acme/", "/admin/rebuild"):
        status, key, message = refusal(send(index, "GET", path))
        assert (status, key) == (500, "internal")
        assert "ldap" not in message
    assert send(index, "GET", "/health").status_int == 200


@pytest.mark.parametrize(("setting", "shown"), [("true", True), ("false", False), (None, False)])
def test_the_stack_trace_is_shown_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, *, shown: bool
) -> None:
    """``pyramid.debug`` adds it to JSON errors, and nothing else does."""
    index = Index(tmp_path, pyramid__debug=setting)
    monkeypatch.setattr(SQLCache, "distinct", breaks(RuntimeError("details")))
    answer = send(index, "GET", "/api/package/").json
    assert set(answer) == ERROR_KEYS | ({"stacktrace"} if shown else set())
    assert ("details" in str(answer)) == shown


def test_a_refusal_is_logged_without_a_trace(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    """What clients do wrong is no error of the server; the id leads to it all the same."""
    with caplog.at_level(logging.INFO):
        answer = send(index, "GET", "/api/nothing")
    [record] = [record for record in caplog.records if answer.json["id"] in record.getMessage()]
    assert (record.levelno, record.exc_info) == (logging.INFO, None)


# Logins


def test_failed_logins_are_slowed(index: Index) -> None:
    """429 with Retry-After after too many; who is remembered passes, and so does everybody else."""
    assert send(index, "GET", "/api/package/acme/", user="alice").status_int == 200
    wrong = basic("alice", "wrong")
    for _ in range(FREE_FAILURES):
        assert send(index, "GET", "/api/package/acme/", user=None, headers=wrong).status_int == 401
    answer = send(index, "GET", "/api/package/acme/", user=None, headers=wrong)
    status, key, message = refusal(answer)
    assert (status, key) == (429, "too-many-attempts")
    seconds = int(answer.headers["Retry-After"])
    assert 1 <= seconds <= 61
    assert message == f"too many failed logins; try again in {seconds} seconds"
    assert send(index, "GET", "/api/package/acme/", user="alice").status_int == 200
    assert send(index, "GET", "/api/package/acme/", user="bob").status_int == 200
    elsewhere = send(index, "GET", "/api/package/acme/", user=None, headers=wrong, REMOTE_ADDR="192.0.2.7")
    assert elsewhere.status_int == 401


def test_a_right_login_waits_its_turn_too(index: Index) -> None:
    """Else guessing would not be slowed: a login that is not remembered gets 429 as well."""
    for _ in range(FREE_FAILURES):
        send(index, "GET", "/simple/", user=None, headers=basic("dave", "wrong"))
    assert send(index, "GET", "/simple/acme/", user="dave").status_int == 429
    assert send(index, "GET", "/simple/acme/", user="dave", REMOTE_ADDR="192.0.2.7").status_int == 404


# Disks


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """The operating system lets nobody write a file larger than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_larger_than_the_disk_takes(index: Index) -> None:
    """507 when the operating system says so, nothing is kept or listed, and the next upload works."""
    content = build_wheel(members={"noise": os.urandom(400_000)})
    with files_at_most(200_000):
        answer = post(index, upload_form(content, WHEEL))
    sentence = "there is no room left to store the file; ask the administrator of this index"
    assert refusal(answer) == (507, "storage-full", sentence)
    assert (stored(index), listed(index)) == ({}, [])
    assert post(index, upload_form(content, WHEEL)).status_int == 200
    assert listed(index) == [WHEEL]


@contextmanager
def nobody_may_write(folder: Path) -> Iterator[None]:
    """A directory that this process cannot write: for root by doing without its power for a while."""
    was_root = os.geteuid() == 0
    folder.chmod(0o555)
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, reading goes on, nothing new is kept or listed, and uploads work when it is writable again."""
    index = Index(tmp_path, db__url="sqlite://", db__poolclass="sqlalchemy.pool.StaticPool")
    content = index.upload_wheel()
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    before = stored(index)
    with nobody_may_write(tmp_path / "packages"):
        answers = [
            post(index, upload_form(build_wheel("acme", "2.0"), wheel_name("acme", "2.0"))),
            post(index, upload_form(build_sdist("new", "1.0"), sdist_name("new", "1.0"))),
        ]
        assert send(index, "GET", f"/api/package/acme/{WHEEL}").body == content
        assert send(index, "GET", "/health").status_int == 200
    sentence = "the storage cannot be written at the moment; ask the administrator of this index"
    assert {refusal(answer) for answer in answers} == {(503, "backend-unavailable", sentence)}
    assert (stored(index), listed(index)) == (before, [WHEEL])
    index.upload_wheel("acme", "2.0")


#: The calls by which a file gets into the storage; each may be the one that fails.
CALLS = ("open", "write", "link", "replace", "utime", "makedirs")


class FailingCall:
    """A function of ``os`` that fails when it is called for the n-th time in the storage directory."""

    def __init__(self, name: str, count: int, number: int, folder: str) -> None:
        self.name = name
        self.left = count
        self.number = number
        self.folder = folder
        self.real: Callable[..., Any] = getattr(os, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.name != "open" or (str(args[0]).startswith(self.folder) and args[1] & os.O_CREAT):
            self.left -= 1
            if self.left == 0:
                raise OSError(self.number, os.strerror(self.number), self.folder)
        return self.real(*args, **options)


def fail_in_turn(
    index: Index, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> Iterator[tuple[int, str, str]]:
    """The refusals of one upload while the first, the second, the third... of these calls fails, until none does."""
    packages = str(index.directory / "packages")
    for count in range(1, 15):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, FailingCall(call, count, number, packages))
            answer = post(index, upload_form(build_wheel(), WHEEL))
        if answer.status_int == 200:
            return
        assert packages not in answer.text
        yield refusal(answer)
    pytest.fail(f"the upload never got beyond {call}")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("number", "status", "key"),
    [(errno.ENOSPC, 507, "storage-full"), (errno.EROFS, 503, "backend-unavailable")],
)
def test_whichever_call_fails_nothing_is_left(
    index: Index, monkeypatch: pytest.MonkeyPatch, call: str, number: int, status: int, key: str
) -> None:
    """507 or 503, no file, no row; and the upload works as soon as nothing fails any more."""
    failures = 0
    for refused in fail_in_turn(index, monkeypatch, call, number):
        assert refused[:2] == (status, key)
        assert (stored(index), listed(index)) == ({}, [])
        failures += 1
    assert failures > 0
    assert listed(index) == [WHEEL]


def test_a_disk_that_does_not_flush(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 and nothing listed; a file that was in its place by then is whole, and the same bytes adopt it."""
    failures = 0
    for refused in fail_in_turn(index, monkeypatch, "fsync", errno.EIO):
        assert refused[:2] == (503, "backend-unavailable")
        assert listed(index) == []
        assert all(Path(path).name.startswith(WHEEL) for path in stored(index))
        failures += 1
    assert failures > 0
    assert listed(index) == [WHEEL]
    assert send(index, "GET", f"/api/package/acme/{WHEEL}").body == build_wheel()


class LostCache(MemoryCache):
    """A cache that has lost everything."""

    def all(self, name: str) -> list[Package]:
        raise self.refill()


def test_a_cache_that_is_being_filled_says_when_to_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """503 with Retry-After, not 404 and not the upstream; the log has a line for it, and no traceback."""
    index = Index(tmp_path, pypi__db=f"{__name__}.LostCache", db__url=None, pypi__fallback="redirect")
    answer = send(index, "GET", "/simple/acme/", headers={"Accept": PIP})
    assert refusal(answer)[:2] == (503, "backend-unavailable")
    assert "being filled" in answer.json["message"]
    assert answer.headers["Retry-After"] == "10"
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.exc_info is None
