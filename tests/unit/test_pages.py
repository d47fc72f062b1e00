"""The memory of rendered pages."""

from __future__ import annotations

import gzip
import sys
import threading

import pytest

from pypicloud.pages import Page, Pages, choose_encoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BODY = b"a page with some text " * 100


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("gzip;q=0", None),
        ("*", "zstd"),
        ("*;q=0", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("gzip;q=junk", None),
        ("GZIP", "gzip"),
    ],
)
def test_the_encoding_follows_the_header(header: str | None, expected: str | None) -> None:
    """The best encoding that the client allows is chosen, zstd first."""
    assert choose_encoding(header) == expected


def test_each_encoding_gives_the_bytes_back_under_its_own_tag() -> None:
    """Bodies are equal after decoding; ETags differ per encoding and are strong."""
    page = Page(BODY, "text/html")
    plain, zipped, zstandard = (page.encoded(encoding) for encoding in (None, "gzip", "zstd"))
    assert gzip.decompress(zipped.body) == zstd.decompress(zstandard.body) == plain.body == BODY
    assert len({plain.etag, zipped.etag, zstandard.etag}) == 3
    assert all(each.etag.startswith('"') for each in (plain, zipped, zstandard))
    assert ("content-encoding", "zstd") in zstandard.headers
    assert page.encoded("gzip") is zipped


def test_a_tag_is_the_same_on_every_server() -> None:
    """Two pages of the same bytes have the same tag; other bytes have another."""
    assert Page(BODY, "text/html").encoded("gzip").etag == Page(BODY, "text/html").encoded("gzip").etag
    assert Page(BODY, "text/html").encoded(None).etag != Page(BODY + b"!", "text/html").encoded(None).etag


@pytest.mark.parametrize(
    ("template", "expected"),
    [("{}", True), ("W/{}", True), ('"x", {}', True), ("*", True), ('"x"', False), ("", False)],
)
def test_if_none_match_is_compared_weakly(template: str, expected: bool) -> None:
    """Lists, weak tags and the star count (RFC 9110, 13.1.2)."""
    page = Page(BODY, "text/html").encoded(None)
    assert page.is_known_to(template.format(page.etag)) is expected
    assert page.is_known_to(None) is False


def test_a_page_is_kept_under_its_revision_only() -> None:
    """Another revision misses, and replaces what was kept."""
    pages = Pages(1 << 20)
    old, new = Page(BODY, "text/html"), Page(BODY, "text/html")
    pages.put("key", "1", old)
    assert pages.get("key", "1") is old
    assert pages.get("key", "2") is None
    pages.put("key", "2", new)
    assert pages.get("key", "1") is None
    assert pages.get("key", "2") is new


def test_the_memory_is_bounded_and_forgets_what_was_not_asked_for() -> None:
    """The oldest use goes first, and the sum of bytes stays below the limit."""
    size = 2 * Page(BODY, "text/html").size
    pages = Pages(3 * size)
    for key in "abc":
        pages.put(key, "1", Page(BODY, "text/html"))
    assert pages.get("a", "1") is not None
    pages.put("d", "1", Page(BODY, "text/html"))
    assert pages.get("b", "1") is None
    assert pages.get("a", "1") is not None
    assert pages.size <= 3 * size


def test_a_page_larger_than_the_memory_is_not_kept() -> None:
    """With a limit of 0 every page is rendered anew."""
    pages = Pages(0)
    pages.put("a", "1", Page(BODY, "text/html"))
    assert pages.get("a", "1") is None
    assert pages.size == 0


def test_threads_may_share_the_memory() -> None:
    """Many threads at once leave the sums right."""
    pages = Pages(100_000)

    def work(number: int) -> None:
        for turn in range(200):
            key = (number * turn) % 37
            pages.put(key, str(turn), Page(BODY, "text/html"))
            pages.get(key, str(turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < pages.size <= 100_000
    assert pages.size == sum(pages._sizes.values())


def test_a_header_that_is_too_long_is_not_looked_at() -> None:
    """What was chosen is remembered by the header, so no client can fill the memory with its headers."""
    assert choose_encoding("gzip" + " " * 5000) is None
