"""Rendered and compressed pages, kept by revision; their ETags.

A page that has not changed is not rendered, compressed or hashed again: the memory holds it, in each
format and encoding that was asked for, under the revision it was made from. The memory is bounded by
bytes, forgets what was not asked for longest, and is shared by all threads of a process.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from pypicloud.settings import SIZE, Setting

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAGE_CACHE_SIZE: Final = Setting(
    "pypi.page_cache_size",
    SIZE,
    64 << 20,
    "How many bytes of rendered pages each process keeps in memory; 0 renders every page anew.",
)
SETTINGS: Final = (PAGE_CACHE_SIZE,)

#: The encodings a page is offered in, best first. No client asks for brotli (standards.md 1.12).
ENCODINGS: Final = ("zstd", "gzip")

#: A page may be kept by a client, never by a shared cache, and is revalidated at each use (standards.md 1.4).
CACHE_CONTROL: Final = "private, max-age=0"

#: The longest ``Accept-Encoding`` header that is looked at: what was chosen is remembered by the header.
LONGEST_HEADER: Final = 1024

#: What an entry costs beside its bytes: key, headers, the objects themselves.
_OVERHEAD: Final = 1024


@dataclass(frozen=True, slots=True)
class Representation:
    """A page in one format and one encoding, with its response headers ready to send."""

    body: bytes
    etag: str
    headers: list[tuple[str, str]]

    def is_known_to(self, if_none_match: str | None) -> bool:
        """Whether an ``If-None-Match`` header names this representation (RFC 9110, 13.1.2)."""
        if if_none_match is None:
            return False
        if if_none_match == self.etag:
            return True
        tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
        return any(tag in {"*", self.etag} for tag in tags)


class Page:
    """A rendered page: its bytes in one format, encoded on demand, each encoding once."""

    __slots__ = ("_encoded", "_lock", "content_type")

    def __init__(self, body: bytes, content_type: str) -> None:
        self.content_type = content_type
        self._lock = threading.Lock()
        self._encoded: dict[str | None, Representation] = {None: self._represent(body, body, None)}

    def encoded(self, encoding: str | None) -> Representation:
        """The page in an encoding of ``ENCODINGS``, or as it is."""
        found = self._encoded.get(encoding)
        if found is None:
            with self._lock:
                plain = self._encoded[None].body
                found = self._encoded.setdefault(encoding, self._represent(_compress(plain, encoding), plain, encoding))
        return found

    def ready(self, encoding: str | None) -> Representation | None:
        """The page in an encoding, if it was made before."""
        return self._encoded.get(encoding)

    @property
    def size(self) -> int:
        """The bytes in all encodings that were made."""
        return _OVERHEAD + sum(len(each.body) for each in self._encoded.values())

    def _represent(self, body: bytes, plain: bytes, encoding: str | None) -> Representation:
        """The tag is made from the bytes, so that it is the same on every server and after a restart."""
        digest = hashlib.blake2b(plain, digest_size=16, person=(encoding or "").encode()).hexdigest()
        etag = f'"{digest}"'
        headers = [
            ("content-type", self.content_type),
            ("etag", etag),
            ("cache-control", CACHE_CONTROL),
            ("vary", "Accept, Accept-Encoding"),
        ]
        if encoding is not None:
            headers.append(("content-encoding", encoding))
        return Representation(body, etag, headers)


def _compress(body: bytes, encoding: str | None) -> bytes:
    if encoding == "zstd":
        compressed: bytes = zstd.compress(body, 6)
        return compressed
    return gzip.compress(body, 6, mtime=0)


def choose_encoding(accept_encoding: str | None) -> str | None:
    """The best encoding that an ``Accept-Encoding`` header allows; None means as it is (RFC 9110, 12.5.3)."""
    if accept_encoding is None or len(accept_encoding) > LONGEST_HEADER:
        return None
    return _best_encoding(accept_encoding)


@functools.lru_cache(maxsize=1024)
def _best_encoding(accept_encoding: str) -> str | None:
    qualities: dict[str, float] = {}
    for item in accept_encoding.split(","):
        coding, _, parameter = item.strip().lower().partition(";")
        name, _, value = parameter.strip().partition("=")
        try:
            qualities[coding.strip()] = float(value) if name == "q" else 1.0
        except ValueError:
            qualities[coding.strip()] = 0.0
    best, best_quality = None, 0.0
    for coding in ENCODINGS:
        quality = qualities.get(coding, qualities.get("*", 0.0))
        if quality > best_quality:
            best, best_quality = coding, quality
    return best if best_quality >= qualities.get("identity", 0.0) else None


class Pages:
    """The memory: a page per key, under the revision it was made from."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[str, Page]] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}
        self._total = 0

    def has(self, key: Hashable) -> bool:
        """Whether a page is kept for a key, of whatever revision."""
        return key in self._kept

    def get(self, key: Hashable, revision: str) -> Page | None:
        """The page kept for a key, if it was made from this revision."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != revision:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def put(self, key: Hashable, revision: str, page: Page) -> None:
        """Keep a page, in place of the one of an older revision, and forget others if there is no room."""
        # Compressed forms come later; room for both is counted from the start.
        size = 2 * page.size
        with self._lock:
            self._forget(key)
            if size > self.limit:
                return
            self._kept[key] = (revision, page)
            self._sizes[key] = size
            self._total += size
            while self._total > self.limit:
                self._forget(next(iter(self._kept)))

    def _forget(self, key: Hashable) -> None:
        if self._kept.pop(key, None) is not None:
            self._total -= self._sizes.pop(key)

    @property
    def size(self) -> int:
        """The bytes that count towards the limit."""
        return self._total
