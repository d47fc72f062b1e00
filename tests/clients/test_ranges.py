"""HEAD, ranges and resumed downloads of a wheel from a live server, byte by byte (standards.md 5.2)."""

from __future__ import annotations

import hashlib
import random

import pytest

from support.builds import build_wheel, wheel_name
from support.live import Server

NOISE = random.Random(1).randbytes(200_000)


@pytest.fixture
def wheel(server: Server, project: str) -> tuple[str, bytes]:
    """A published wheel: where it is, and its bytes."""
    filename = wheel_name(project, "1.0")
    content = build_wheel(project, "1.0", members={"noise.bin": NOISE})
    assert server.upload(filename, content).status == 200
    return f"/api/package/{project}/{filename}", content


def test_head(server: Server, wheel: tuple[str, bytes]) -> None:
    """HEAD tells size, digest and that ranges are served, and sends no body."""
    path, content = wheel
    answer = server.ask(path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert answer.headers["Content-Encoding"] is None


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-99", slice(0, 100)),
        ("bytes=1000-150000", slice(1000, 150_001)),
        ("bytes=150000-", slice(150_000, None)),
        ("bytes=-16384", slice(-16384, None)),
        ("bytes=100-99999999", slice(100, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_range(asked: str, part: slice, server: Server, wheel: tuple[str, bytes]) -> None:
    """Each form of a range gets exactly its bytes, and what they are a part of."""
    path, content = wheel
    answer = server.ask(path, headers={"Range": asked})
    start, stop, _ = part.indices(len(content))
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.body == content[part]


def test_range_past_the_end(server: Server, wheel: tuple[str, bytes]) -> None:
    """A range that begins behind the end is 416, with the size."""
    path, content = wheel
    answer = server.ask(path, headers={"Range": f"bytes={len(content)}-"})
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(content)}")


@pytest.mark.parametrize("validator", ["ETag", "Last-Modified"])
def test_resume(validator: str, server: Server, wheel: tuple[str, bytes]) -> None:
    """With the `If-Range` of the same file the rest is sent; with another's the whole file."""
    path, content = wheel
    known = server.ask(path, "HEAD").headers[validator]
    rest = server.ask(path, headers={"Range": "bytes=70000-", "If-Range": known})
    assert (rest.status, content[:70000] + rest.body) == (206, content)
    other = {"ETag": '"0000"', "Last-Modified": "Fri, 20 Nov 2015 07:00:00 GMT"}[validator]
    whole = server.ask(path, headers={"Range": "bytes=70000-", "If-Range": other})
    assert (whole.status, whole.body) == (200, content)


def test_unchanged_file(server: Server, wheel: tuple[str, bytes]) -> None:
    """Who has the file already is told so."""
    path, _ = wheel
    known = server.ask(path, "HEAD").headers["ETag"]
    answer = server.ask(path, headers={"If-None-Match": known})
    assert (answer.status, answer.body) == (304, b"")
