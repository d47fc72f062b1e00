"""Facts as Redis keeps them: hashes of text, as 1.3.12 wrote them (compat.md 3.3).

The hash of a file has the fixed fields as plain text, and every entry of ``data`` as a field of its own, in
JSON. An entry with the name of a fixed field, or one that begins with a colon, has a colon put before it.

The hash of a project's summary has, beside the three fields of 1.3.12, what makes it a :class:`Digest`:
``version`` and ``filename`` of the newest version, ``latest`` (``last_modified`` and the name of the file that it is
of), and the number of ``files``. 1.3.12 changes the first three only, or the files only, so a digest that
does not match them any more is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from pypicloud.cache.steps import Digest, Project
from pypicloud.models import Package

_FIXED: Final = frozenset({b"name", b"version", b"filename", b"last_modified", b"summary"})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: From how many seconds on a float does not tell two microseconds apart.
_FAR: Final = float(1 << 32)


def encoded(text: str) -> bytes:
    """A text as Redis keeps it: also what is no valid Unicode comes back as it was."""
    return text.encode("utf-8", "surrogatepass")


def decoded(text: bytes) -> str:
    """The text. Raises ValueError for bytes that are none."""
    return text.decode("utf-8", "surrogatepass")


def text_of(text: bytes) -> str:
    """The text, with replacement characters for bytes that are none."""
    return next(texts_of([text]), "") or text.decode(errors="replace")


def texts_of(members: Iterable[bytes] | None) -> Iterator[str]:
    """The members of a set that are texts."""
    for member in members or ():
        try:
            yield decoded(member)
        except ValueError:
            continue


def row_of(package: Package) -> list[bytes]:
    """The fields and values of a file's hash, one after the other."""
    row = [
        b"name",
        encoded(package.name),
        b"version",
        encoded(package.version),
        b"filename",
        encoded(package.filename),
        b"last_modified",
        _time_text(package.last_modified),
        b"summary",
        encoded(package.summary or ""),
    ]
    for key, value in package.data.items():
        field = encoded(key)
        row.append(b":" + field if field in _FIXED or field.startswith(b":") else field)
        row.append(json.dumps(value).encode())
    return row


def package_of(row: Sequence[bytes], make: Callable[..., Package]) -> Package:
    """The package of a file's hash. Raises ValueError when that is no package."""
    fields = dict(zip(row[::2], row[1::2], strict=True))
    try:
        package = make(
            decoded(fields.pop(b"name")),
            decoded(fields.pop(b"version")),
            decoded(fields.pop(b"filename")),
            _time(fields.pop(b"last_modified")),
            decoded(fields.pop(b"summary", b"")),
        )
    except KeyError as error:
        raise ValueError(f"there is no field {error}") from error
    # Not through keywords: the data may have any key, "name" and "version" too.
    for field, text in fields.items():
        value = _value(text)
        if value:
            package.data[decoded(field.removeprefix(b":"))] = value
    return package


def summary_row(project: Project) -> list[bytes]:
    """The fields and values of a project's summary; none if there is nothing to tell."""
    digest = project.digest
    if digest is None:
        return []
    time = _time_text(digest.last_modified)
    return [
        b"name",
        encoded(project.name),
        b"summary",
        encoded(digest.summary or ""),
        b"last_modified",
        time,
        b"version",
        encoded(digest.version),
        b"filename",
        encoded(digest.filename),
        b"latest",
        time + b" " + encoded(digest.latest),
    ]


def digest_of_summary(row: Sequence[bytes], count: int) -> Digest | None:
    """The digest in the summary of a project of so many files; None if somebody else has changed either."""
    fields: Mapping[bytes, bytes] = dict(zip(row[::2], row[1::2], strict=True))
    try:
        time, _, latest = fields[b"latest"].partition(b" ")
        if time != fields[b"last_modified"] or fields[b"files"] != b"%d" % count:
            return None
        return Digest(
            decoded(fields[b"summary"]) or None,
            _time(time),
            decoded(fields[b"version"]),
            decoded(fields[b"filename"]),
            decoded(latest),
        )
    except (KeyError, ValueError):
        return None


def _value(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        # Stricter than what has written it: lone surrogates and NaN are fine there.
        return json.loads(text)


def _time_text(time: datetime) -> bytes:
    seconds = time.timestamp()
    if abs(seconds) < _FAR:
        return repr(seconds).encode()
    return str(Decimal((time - _EPOCH) // timedelta(microseconds=1)) / 1_000_000).encode()


def _time(text: bytes) -> datetime:
    try:
        seconds = float(text)
        if abs(seconds) < _FAR:
            return datetime.fromtimestamp(seconds, UTC)
        return _EPOCH + timedelta(microseconds=int(Decimal(text.decode()) * 1_000_000))
    except (ArithmeticError, OverflowError, OSError) as error:
        raise ValueError(f"{text!r} is no time") from error
