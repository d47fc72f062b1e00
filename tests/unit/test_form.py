"""The upload form, fed piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pypicloud.errors import BackendUnavailable, BadRequest, TooLarge
from pypicloud.form import Form, FormReader
from support.wire import MULTIPART, form, part

CONTENT = b"\r\n--frontie\r\n--" + bytes(range(256)) * 40 + b"\r"
BODY = form(part("name", "acme"), part("x", "1"), part("content", CONTENT, "a.whl"), part("x", "2"), part("y", ""))


def read(body: bytes, directory: Path, size: int, limit: int = 1 << 20) -> Form:
    """The form of a body that comes in pieces of a size."""
    with FormReader(MULTIPART, str(directory), limit) as reader:
        for start in range(0, len(body), size):
            reader.feed(body[start : start + size])
        return reader.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 1 << 20])
def test_pieces_of_any_size_give_the_same(tmp_path: Path, size: int) -> None:
    """Boundaries and fields that are cut in two are found, and bytes that look like them are not."""
    found = read(BODY, tmp_path, size)
    assert found.fields == {"name": ("acme",), "x": ("1", "2"), "y": ("",)}
    [(name, spooled)] = found.files.items()
    assert (name, spooled.filename, spooled.size) == ("content", "a.whl", len(CONTENT))
    assert spooled.path.read_bytes() == CONTENT
    assert spooled.digests == {"sha256": hashlib.sha256(CONTENT).hexdigest(), "md5": hashlib.md5(CONTENT).hexdigest()}


def test_a_bytearray_can_be_fed(tmp_path: Path) -> None:
    """Event loops hand out their buffers."""
    with FormReader(MULTIPART, str(tmp_path), 1 << 20) as reader:
        reader.feed(bytearray(BODY))
        assert reader.finish().text("name") == "acme"


def test_text_is_the_first_that_says_something(tmp_path: Path) -> None:
    """Absent and empty fields are None."""
    found = read(form(part("x", ""), part("x", "1"), part("y", "")), tmp_path, 10)
    assert (found.text("x"), found.text("y"), found.text("z")) == ("1", None, None)


@pytest.mark.parametrize("first", [True, False])
def test_digests_are_worked_out_on_the_way_or_later(tmp_path: Path, *, first: bool) -> None:
    """A digest announced before the file costs no second reading; one announced after it is right, too."""
    parts = [part("blake2_256_digest", "x"), part("content", CONTENT, "a.whl")]
    spooled = read(form(*(parts if first else reversed(parts))), tmp_path, 100).files["content"]
    assert ("blake2_256" in spooled.digests) == first
    assert spooled.digest("blake2_256") == hashlib.blake2b(CONTENT, digest_size=32).hexdigest()
    assert "blake2_256" in spooled.digests


def test_the_spool_lies_where_it_is_wanted(tmp_path: Path) -> None:
    """Under the name that storages know as temporary, and it goes when it is discarded, also twice."""
    found = read(BODY, tmp_path, 100)
    [path] = tmp_path.iterdir()
    assert path.name.startswith(".upload-")
    assert path.suffix == ".meta"
    found.discard()
    found.discard()
    assert not list(tmp_path.iterdir())


def test_an_exception_of_the_reader_leaves_nothing(tmp_path: Path) -> None:
    """A connection that breaks in the middle does not leave its part of the file."""

    def break_off() -> None:
        with FormReader(MULTIPART, str(tmp_path), 1 << 20) as reader:
            reader.feed(BODY[: len(BODY) // 2])
            assert list(tmp_path.iterdir())
            raise ConnectionError

    with pytest.raises(ConnectionError):
        break_off()
    assert not list(tmp_path.iterdir())


def test_a_form_that_is_never_finished_leaves_nothing(tmp_path: Path) -> None:
    """Every prefix is refused at the end, and what was spooled is gone."""
    for length in range(0, len(BODY) - 4, 997):
        with pytest.raises(BadRequest, match="the form is broken"):
            read(BODY[:length], tmp_path, 500)
        assert not list(tmp_path.iterdir())


def test_trouble_is_told_at_the_end(tmp_path: Path) -> None:
    """The rest of the body is taken and dropped, as a client that is cut off loses the message (standards.md 1.9)."""
    with FormReader(MULTIPART, str(tmp_path), 1 << 20) as reader:
        reader.feed(form(part("content", CONTENT, "a.whl"), part("content", CONTENT, "b.whl")))
        assert not list(tmp_path.iterdir())
        for _ in range(10):
            reader.feed(b"more")
        with pytest.raises(BadRequest, match="two files in the field 'content'"):
            reader.finish()


def test_the_limit(tmp_path: Path) -> None:
    """A body of exactly the limit is taken; one byte more is not, and twice as much is not worth reading on for."""
    read(BODY, tmp_path, 100, limit=len(BODY)).discard()
    with pytest.raises(TooLarge, match=rf"larger than {len(BODY) - 1} bytes \(pypi.max_upload_size\)"):
        read(BODY, tmp_path, 100, limit=len(BODY) - 1)
    reader = FormReader(MULTIPART, str(tmp_path), 100)
    for _ in range(20):
        assert not reader.is_over_limit
        reader.feed(b"x" * 10)
    reader.feed(b"x")
    assert reader.is_over_limit
    assert not list(tmp_path.iterdir())


def test_a_spool_that_cannot_be_made(tmp_path: Path) -> None:
    """The client hears that the storage cannot be written, not where it is."""
    with pytest.raises(BackendUnavailable) as caught:
        read(BODY, tmp_path / "nowhere", 100)
    assert str(tmp_path) not in str(caught.value)


def test_a_form_without_files_needs_no_spool(tmp_path: Path) -> None:
    """Nothing is written before a file part comes."""
    assert read(form(part("name", "acme")), tmp_path / "nowhere", 3).text("name") == "acme"
