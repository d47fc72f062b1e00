"""What is written into an object's metadata about the package file that it is (compat.md 2.3).

First the fields that 1.3.12 wrote, byte for byte, so that it can still read every object. What it knew
nothing of, and what a field cannot hold as it is, stands as one JSON object in the field ``facts``: the
upload time, the digests of companions, whether the file is yanked, a summary that is not ASCII.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from pypicloud.dateutil import UTC
from pypicloud.errors import InvalidUpload
from pypicloud.models import METADATA_FIELDS, Package
from pypicloud.util import PackageParseError, normalize_metadata_value, parse_filename

LOG = logging.getLogger(__name__)

#: The fields of 1.3.12.
FIELDS: Final = ("name", "version", *METADATA_FIELDS)

#: Where all that 1.3.12 had no field for is kept.
FACTS: Final = "facts"

#: The fact that has the upload time, as ISO 8601; without it the object's own time counts.
UPLOAD_TIME: Final = "upload_time"

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

#: What the object itself tells.
_NOT_FACTS: Final = frozenset({"size", "path", *FIELDS})

#: How much shorter a summary gets at a time until all fits, and what shows that it was longer.
_STEP: Final = 32
_CUT: Final = "..."


@dataclass(frozen=True)
class Notation:
    """How a service takes metadata: what stands between the words of a name, what values may hold, how much fits.

    ``limit`` is in bytes, names and values together.
    """

    separator: str
    is_ascii: bool
    limit: int

    def name(self, field: str) -> str:
        """A field's name as the service takes it."""
        return field.replace("_", self.separator)

    def value(self, text: str) -> str:
        """A field's value as the service takes it; in ASCII it is a header, which begins and ends with no space."""
        if not self.is_ascii:
            return text
        return "".join(filter(str.isprintable, normalize_metadata_value(text))).strip()


def written(package: Package, notation: Notation, before: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """The metadata of the object that holds a package's file; what does not fit is cut off the summary.

    Of the metadata ``before`` stays what others have written: tools that copy buckets, people.

    The package is given the summary that was written, so that it says what the next rebuild will read.
    Raises :class:`InvalidUpload` if there is too much besides.
    """
    ours = {FACTS, *FIELDS, *(field.replace("_", "-") for field in FIELDS)}
    others = {name: value for name, value in before.items() if name.lower() not in ours}
    metadata = {**others, **_metadata(package, notation)}
    while (size := _size(metadata)) > notation.limit:
        if not package.summary:
            raise InvalidUpload(
                f"the facts of {package.filename!r} take {size} bytes, and the storage keeps {notation.limit}; "
                "shorten what the package requires, or the reason why it is yanked"
            )
        package.summary = _shorter(package.summary)
        metadata = {**others, **_metadata(package, notation)}
    return metadata


def read(metadata: Mapping[str, str], key: str, last_modified: datetime, size: int) -> dict[str, Any]:
    """The arguments that make a package of an object: of its metadata, else of what its key ends in.

    Raises :class:`PackageParseError` if neither says which package the object is.
    """
    filename = key.rpartition("/")[2]
    fields = {field: metadata.get(field) or metadata.get(field.replace("_", "-")) for field in FIELDS}
    facts = _facts(metadata, key)
    moment = _moment(facts.pop(UPLOAD_TIME, None)) or last_modified
    found = {field: value for field, value in fields.items() if value} | facts
    if "name" not in found or "version" not in found:
        found["name"], found["version"] = parse_filename(filename, found.get("name"))
    return {**found, "filename": filename, "last_modified": moment, "size": size, "path": key}


def _metadata(package: Package, notation: Notation) -> dict[str, str]:
    told = {"name": package.name, "version": package.version, **package.get_metadata()}
    fields = {field: notation.value(str(value)) for field, value in told.items()}
    facts = {key: value for key, value in package.data.items() if key not in _NOT_FACTS}
    facts |= {field: value for field, value in told.items() if fields[field] != value}
    facts[UPLOAD_TIME] = package.last_modified.astimezone(UTC).isoformat().replace("+00:00", "Z")
    metadata = {notation.name(field): value for field, value in fields.items() if value}
    return {**metadata, FACTS: json.dumps(facts, separators=(",", ":"))}


def _facts(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """What 1.3.12 had no field for."""
    text = metadata.get(FACTS)
    if not text:
        return {}
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        LOG.warning("Ignored the facts of %r, which cannot be read: %s", key, error)
        return {}
    if not isinstance(facts, dict):
        LOG.warning("Ignored the facts of %r, which are no JSON object", key)
        return {}
    return {name: value for name, value in facts.items() if _is_fact(name, value)}


def _is_fact(name: str, value: Any) -> bool:
    if name in FIELDS or name == UPLOAD_TIME:
        return isinstance(value, str) and bool(value)
    return name not in {"self", "filename", "last_modified", *_NOT_FACTS}


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _shorter(summary: str) -> str | None:
    kept = summary.removesuffix(_CUT)[:-_STEP].rstrip()
    return kept + _CUT if kept else None


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())


def package(
    factory: Callable[..., Package], metadata: Mapping[str, str], key: str, last_modified: datetime, size: int
) -> Package:
    """The package that an object is. Raises :class:`PackageParseError`."""
    found = read(metadata, key, last_modified, size)
    try:
        return factory(**found)
    except (TypeError, ValueError) as error:
        raise PackageParseError(f"{key!r} has facts that make no package: {error}") from error
