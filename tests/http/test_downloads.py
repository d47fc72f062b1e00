"""Files over HTTP: whole, in part, revalidated, streamed, and their metadata."""

from __future__ import annotations

import datetime as dt
import email.utils
import io
import zipfile
from pathlib import Path

import pytest

from support.builds import build_sdist, build_wheel, metadata, sdist_name, wheel_name
from support.wire import post, refusal, send, stored, upload_form
from support.world import Index, sha256

WHEEL = wheel_name("acme", "1.0")
PATH = f"/api/package/acme/{WHEEL}"
#: What somebody had to log in for is not for caches that others share.
IMMUTABLE = "private, max-age=365000000, immutable"


@pytest.fixture
def closed(tmp_path: Path) -> Index:
    """An index where nobody may overwrite, so that files never change."""
    return Index(tmp_path, pypi__allow_overwrite_groups=None)


@pytest.fixture(params=["plain", "streamed"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Index:
    """Such an index with and without ``pypi.stream_files``."""
    stream = "true" if request.param == "streamed" else "false"
    return Index(tmp_path, pypi__allow_overwrite_groups=None, pypi__stream_files=stream)


def test_a_whole_file(either: Index) -> None:
    """The bytes with length, tag, time, ranges and a type that no browser shows."""
    content = either.upload_wheel()
    answer = send(either, "GET", PATH)
    assert (answer.status_int, answer.body) == (200, content)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["ETag"] == f'"{sha256(content)}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == IMMUTABLE
    assert "Content-Encoding" not in answer.headers
    when = email.utils.parsedate_to_datetime(answer.headers["Last-Modified"])
    assert abs(when - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=2)
    assert send(either, "GET", f"{PATH}/").body == content


def test_head_of_a_file(either: Index) -> None:
    """The same headers and no body."""
    either.upload_wheel()
    got, head = send(either, "GET", PATH), send(either, "HEAD", PATH)
    assert (head.status_int, head.body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Accept-Ranges", "Cache-Control", "Last-Modified"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=10-10", 10, 11),
        ("bytes=100-", 100, None),
        ("bytes=-16", -16, None),
        ("bytes=-999999", 0, None),
        ("bytes=5-999999", 5, None),
        ("BYTES = 0 - 9", 0, 10),
    ],
)
@pytest.mark.parametrize("ending", ["", ".metadata"])
def test_a_part_of_a_file(either: Index, ending: str, value: str, start: int, stop: int | None) -> None:
    """206 with exactly the bytes that were asked for, and which of how many they are."""
    either.upload_wheel(description="long enough " * 20)
    whole = send(either, "GET", PATH + ending).body
    answer = send(either, "GET", PATH + ending, headers={"Range": value})
    assert (answer.status_int, answer.body) == (206, whole[start:stop])
    first = start % len(whole)
    last = first + len(answer.body) - 1
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["ETag"]
    assert answer.headers["Cache-Control"] == IMMUTABLE


def test_a_range_counts_for_get_alone(either: Index) -> None:
    """HEAD describes the whole file (RFC 9110, 14.2)."""
    content = either.upload_wheel()
    answer = send(either, "HEAD", PATH, headers={"Range": "bytes=0-9"})
    assert (answer.status_int, answer.headers["Content-Length"]) == (200, str(len(content)))


def test_if_range(either: Index) -> None:
    """A part is given of what the client has a part of; else the whole file, from the start."""
    content = either.upload_wheel()
    first = send(either, "GET", PATH)
    parts = {first.headers["ETag"]: 206, first.headers["Last-Modified"]: 206, '"other"': 200}
    parts["Thu, 01 Jan 1970 00:00:00 GMT"] = 200
    for value, status in parts.items():
        answer = send(either, "GET", PATH, headers={"Range": "bytes=10-", "If-Range": value})
        assert (answer.status_int, answer.body) == (status, content[10:] if status == 206 else content), value


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("ending", ["", ".metadata"])
def test_if_none_match(either: Index, method: str, ending: str) -> None:
    """304 without a body for the tag, alone, in a list, or weak; else the file."""
    either.upload_wheel()
    tag = send(either, "GET", PATH + ending).headers["ETag"]
    for value in (tag, f'"x", {tag}', f"W/{tag}"):
        answer = send(either, method, PATH + ending, headers={"If-None-Match": value})
        assert (answer.status_int, answer.body) == (304, b""), value
        assert answer.headers["ETag"] == tag
        assert answer.headers["Cache-Control"] == IMMUTABLE
    assert send(either, method, PATH + ending, headers={"If-None-Match": '"x"'}).status_int == 200


def test_if_modified_since(either: Index) -> None:
    """304 for the file's time or later; a tag beats a time."""
    either.upload_wheel()
    when = send(either, "GET", PATH).headers["Last-Modified"]
    assert send(either, "GET", PATH, headers={"If-Modified-Since": when}).status_int == 304
    old = {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}
    assert send(either, "GET", PATH, headers=old).status_int == 200
    both = {"If-Modified-Since": when, "If-None-Match": '"x"'}
    assert send(either, "GET", PATH, headers=both).status_int == 200


@pytest.mark.parametrize("setting", ["false", "true"])
def test_files_that_may_change_are_revalidated(tmp_path: Path, setting: str) -> None:
    """While somebody may overwrite, clients are told to ask again, and get the new bytes."""
    index = Index(tmp_path, pypi__stream_files=setting)
    index.upload_wheel()
    first = send(index, "GET", PATH)
    assert first.headers["Cache-Control"] == "private, max-age=0"
    assert send(index, "GET", f"{PATH}.metadata").headers["Cache-Control"] == "private, max-age=0"
    changed = index.upload_wheel(user="carol", summary="changed")
    again = send(index, "GET", PATH, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_int, again.body) == (200, changed)
    resumed = send(index, "GET", PATH, headers={"If-Range": first.headers["ETag"], "Range": "bytes=10-"})
    assert (resumed.status_int, resumed.body) == (200, changed)


def test_streamed_files_have_a_name_and_an_age(tmp_path: Path) -> None:
    """The file has its name, and shared caches keep what nobody had to log in for (compat.md 2.5)."""
    index = Index(tmp_path, pypi__stream_files="true", pypi__package_max_age="600", pypi__default_read="everyone")
    index.upload_wheel("acme", "1.0+local")
    filename = wheel_name("acme", "1.0+local")
    path = f"/api/package/acme/{filename}"
    answer = send(index, "GET", path, user=None)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{filename}"'
    assert answer.headers["Cache-Control"] == "public, max-age=600"
    part = send(index, "GET", path, user=None, headers={"Range": "bytes=0-3"})
    assert (part.status_int, part.headers["Cache-Control"]) == (206, "public, max-age=600")
    assert send(index, "GET", path).headers["Cache-Control"] == "private, max-age=600"


def test_plain_files_have_no_name(closed: Index) -> None:
    """Without ``pypi.stream_files`` the storage answers as it does."""
    closed.upload_wheel()
    assert "Content-Disposition" not in send(closed, "GET", PATH).headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_row_without_a_file(either: Index, method: str) -> None:
    """404, not an error of the server, for the file and for its metadata."""
    either.upload_wheel()
    (either.directory / "packages" / "acme" / "1.0" / WHEEL).unlink()
    for path in (PATH, f"{PATH}.metadata"):
        answer = send(either, method, path)
        assert answer.status_int == 404
        if method == "GET":
            assert refusal(answer) == (404, "package-not-found", f"the file {WHEEL!r} is not in the storage")


def test_a_store_that_is_gone(closed: Index) -> None:
    """503, as nothing is known about the file."""
    closed.upload_wheel()
    (closed.directory / "packages").rename(closed.directory / "away")
    sentence = "the storage directory cannot be read at the moment"
    assert refusal(send(closed, "GET", PATH)) == (503, "backend-unavailable", sentence)


# Core metadata


def test_metadata_of_a_wheel(closed: Index) -> None:
    """Exactly the bytes of METADATA, with the digest that the page shows."""
    content = closed.upload_wheel(summary="Roads")
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        inside = wheel.read("acme-1.0.dist-info/METADATA")
    answer = send(closed, "GET", f"{PATH}.metadata")
    assert (answer.status_int, answer.body) == (200, inside)
    page = send(closed, "GET", "/simple/acme/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}).json
    assert page["files"][0]["core-metadata"] == {"sha256": sha256(inside)}
    assert answer.headers["ETag"] == f'"{sha256(inside)}"'
    assert (answer.headers["Accept-Ranges"], answer.headers["Cache-Control"]) == ("bytes", IMMUTABLE)
    head = send(closed, "HEAD", f"{PATH}.metadata")
    assert (head.headers["Content-Length"], head.body) == (str(len(inside)), b"")


def test_metadata_without_a_companion(closed: Index) -> None:
    """They are read out of the wheel, as for files from before there were companions."""
    closed.upload_wheel()
    before = send(closed, "GET", f"{PATH}.metadata").body
    [companion] = [name for name in stored(closed) if stored(closed)[name][0] == before]
    (closed.directory / "packages" / companion).unlink()
    assert send(closed, "GET", f"{PATH}.metadata").body == before


def test_files_without_metadata(closed: Index) -> None:
    """404 for a source distribution, an egg, and a wheel from before uploads were looked at."""
    sdist = sdist_name("acme", "1.0")
    post(closed, upload_form(build_sdist("acme", "1.0"), sdist))
    post(closed, upload_form(b"egg", "acme-1.0.egg"))
    for filename in (sdist, "acme-1.0.egg"):
        sentence = f"{filename!r} has no metadata of its own; only wheels have"
        answer = send(closed, "GET", f"/api/package/acme/{filename}.metadata")
        assert refusal(answer) == (404, "package-not-found", sentence)
    folder = closed.directory / "packages" / "acme" / "0.1"
    folder.mkdir()
    (folder / wheel_name("acme", "0.1")).write_bytes(b"never a zip file")
    send(closed, "GET", "/admin/rebuild", user="root")
    answer = send(closed, "GET", f"/api/package/acme/{wheel_name('acme', '0.1')}.metadata")
    sentence = f"{wheel_name('acme', '0.1')!r} has no metadata that can be read"
    assert refusal(answer) == (404, "package-not-found", sentence)


def test_metadata_ask_for_the_same_right(closed: Index) -> None:
    """Who may not read the file may not read its metadata."""
    closed.upload_wheel("secret-plan", "1.0")
    path = f"/api/package/secret-plan/{wheel_name('secret-plan', '1.0')}.metadata"
    assert send(closed, "GET", path, user="bob").status_int == 403
    assert send(closed, "GET", path, user=None).status_int == 401
    assert send(closed, "GET", path, user="alice").body == metadata("secret-plan", "1.0").encode()


def test_a_plus_in_a_file_name(closed: Index) -> None:
    """Local versions are found as uv and as pip ask for them (standards.md 1.10)."""
    content = build_wheel("acme", "1.0+cu121")
    filename = wheel_name("acme", "1.0+cu121")
    post(closed, upload_form(content, filename))
    for spelling in (filename, filename.replace("+", "%2B")):
        assert closed.get(f"/api/package/acme/{spelling}").body == content
