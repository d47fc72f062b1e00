"""An upload form, read once: fields kept, the file spooled, counted and hashed as it arrives.

The parser is fed, so that a WSGI server's blocking stream and an event loop's chunks take the same way.
Clients send the fields in any order, also after the file (standards.md 1.8): nothing can be decided
before the end, and nothing of the body is held in memory but the small fields.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from pypicloud.errors import BadRequest, LoginRequired, TooLarge, not_written

#: Bounds on everything but the file itself: descriptions are long, but not this long.
MAX_TEXT: Final = 16 << 20
MAX_FIELDS: Final = 8192

#: The digests that are kept with a package, and so always worked out (compat.md 1.3).
KEPT_DIGESTS: Final = ("sha256", "md5")

#: The digests that uploaders send, and the name hashlib has for them (standards.md 7.1).
DIGEST_FIELDS: Final = {"sha256_digest": "sha256", "md5_digest": "md5", "blake2_256_digest": "blake2_256"}

_HASHES: Final[dict[str, Callable[[], Any]]] = {
    "sha256": hashlib.sha256,
    "md5": functools.partial(hashlib.md5, usedforsecurity=False),
    "blake2_256": functools.partial(hashlib.blake2b, digest_size=32),
}


@dataclass(frozen=True, slots=True)
class Spooled:
    """The file part of a form: where its bytes are, how many, and the digests worked out so far (hex)."""

    filename: str
    path: Path
    size: int
    digests: dict[str, str]

    def digest(self, algorithm: str) -> str:
        """A digest of the bytes; they are read again if it was not worked out on the way."""
        if algorithm not in self.digests:
            with self.path.open("rb") as file:
                self.digests[algorithm] = hashlib.file_digest(file, _HASHES[algorithm]).hexdigest()
        return self.digests[algorithm]


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds: text fields in the order sent, and the files by field name."""

    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: dict[str, Spooled] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """The first value of a field; None if it is absent or empty (standards.md 1.8)."""
        return next((value for value in self.fields.get(name, ()) if value), None)

    def discard(self) -> None:
        """Remove what was spooled and is still there."""
        for spooled in self.files.values():
            spooled.path.unlink(missing_ok=True)


class _Spool:
    """A file being written to the spool directory."""

    def __init__(self, directory: str | None, filename: str, algorithms: Iterable[str]) -> None:
        self.filename = filename
        self.path = Path(directory or tempfile.gettempdir(), f".upload-{secrets.token_hex(8)}.meta")
        self.size = 0
        self.hashes = {name: _HASHES[name]() for name in algorithms}
        self.file = self.path.open("xb", buffering=0)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        view = memoryview(chunk)
        self.size += len(view)
        for digest in self.hashes.values():
            digest.update(view)
        while view:
            view = view[self.file.write(view) :]

    def finish(self) -> Spooled:
        self.file.close()
        return Spooled(
            self.filename, self.path, self.size, {name: each.hexdigest() for name, each in self.hashes.items()}
        )

    def abandon(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class FormReader:
    """Reads ``multipart/form-data`` chunk by chunk.

    ``limit`` bounds the whole body in bytes. Trouble is noticed at once but raised by :meth:`finish`
    only: a client that is cut off while it sends loses the message (standards.md 1.9), so the rest of
    the body is read and dropped, up to the limit. So is all of a form that is not wanted, because its
    sender may not upload anything.
    """

    def __init__(self, content_type: str, directory: str | None, limit: int, *, is_wanted: bool = True) -> None:
        self._limit = limit
        self._directory = directory
        self._received = 0
        self._trouble: Exception | None = None
        self._form = Form()
        self._spool: _Spool | None = None
        self._segment: MultipartSegment | None = None
        self._text = bytearray()
        self._kept = 0
        self._parser: PushMultipartParser | None = None
        if not is_wanted:
            self._trouble = LoginRequired("to upload you need to log in")
            return
        media, options = parse_options_header(content_type)
        if media != "multipart/form-data":
            sent = repr(media) if media else "of no type"
            self._trouble = BadRequest(f"the body must be multipart/form-data, not {sent}")
            return
        try:
            self._parser = PushMultipartParser(options.get("boundary", ""), max_segment_count=MAX_FIELDS)
        except MultipartError as error:
            self._trouble = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abandon()

    def feed(self, chunk: bytes | bytearray) -> None:
        """Take the next piece of the body, which must not change any more."""
        self._received += len(chunk)
        if self._trouble is not None or self._parser is None:
            return
        if self._received > self._limit:
            self._give_up(TooLarge(f"the body is larger than {self._limit} bytes (pypi.max_upload_size)"))
            return
        try:
            for event in self._parser.parse(chunk):
                self._take(event)
        except (BadRequest, TooLarge, MultipartError, OSError) as error:
            self._give_up(error)

    def _give_up(self, trouble: Exception) -> None:
        self._trouble = trouble
        self.abandon()

    @property
    def is_over_limit(self) -> bool:
        """Whether so much has come that reading on would only help an attacker."""
        return self._received > 2 * self._limit

    def finish(self) -> Form:
        """The form, at the end of the body.

        Raises :class:`BadRequest` for what is no sound form, :class:`TooLarge`, :class:`StorageFull` or
        :class:`BackendUnavailable`; nothing stays spooled then.
        """
        try:
            if self._trouble is None and self._parser is not None:
                self._parser.close()
        except MultipartError as error:
            self._trouble = error
        if self._trouble is not None:
            self.abandon()
            raise _explained(self._trouble) from self._trouble
        return self._form

    def abandon(self) -> None:
        """Remove everything that was spooled."""
        if self._spool is not None:
            self._spool.abandon()
            self._spool = None
        self._form.discard()

    def _take(self, event: MultipartSegment | bytearray | memoryview | None) -> None:
        if isinstance(event, MultipartSegment):
            self._segment = event
            if event.filename is not None:
                sent = {DIGEST_FIELDS[name] for name in self._form.fields if name in DIGEST_FIELDS}
                self._spool = _Spool(self._directory, event.filename, sent.union(KEPT_DIGESTS))
        elif event is not None:
            self._write(event)
        elif self._segment is not None:
            self._end_of(self._segment.name or "")

    def _write(self, chunk: bytearray | memoryview) -> None:
        if self._spool is not None:
            self._spool.write(chunk)
            return
        self._kept += len(chunk)
        if self._kept > MAX_TEXT:
            raise TooLarge(f"the form's fields are larger than {MAX_TEXT} bytes, without the file")
        self._text += chunk

    def _end_of(self, name: str) -> None:
        if self._spool is not None:
            if name in self._form.files:
                raise BadRequest(f"the form has two files in the field {name!r}; send one")
            self._form.files[name] = self._spool.finish()
            self._spool = None
        else:
            try:
                value = self._text.decode()
            except UnicodeDecodeError:
                raise BadRequest(f"the form field {name!r} is not UTF-8 text") from None
            self._form.fields[name] = (*self._form.fields.get(name, ()), value)
            self._text.clear()


def _explained(trouble: Exception) -> Exception:
    if isinstance(trouble, ParserLimitReached):
        return TooLarge(f"the form is too large: {trouble}")
    if isinstance(trouble, MultipartError):
        return BadRequest(f"the form is broken: {trouble.args[0]}; send it as multipart/form-data and whole")
    if isinstance(trouble, OSError):
        return not_written(trouble)
    return trouble
