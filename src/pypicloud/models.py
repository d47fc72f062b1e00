"""The values that travel through the server.

``Package`` is the documented class, which backends make and keep. Everything else is frozen: made once,
handed on, never changed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final, NewType

from packaging.version import InvalidVersion, Version
from packaging_legacy.version import LegacyVersion

from pypicloud.dateutil import UTC, utcnow
from pypicloud.util import normalize_name

#: A project's name after normalisation (PEP 503): the only spelling that is looked up.
NormalizedName = NewType("NormalizedName", str)

#: The facts that travel with a stored file, in the order 1.3.12 writes them (compat.md 8.1).
METADATA_FIELDS: Final = ("requires_python", "summary", "hash_sha256", "hash_md5", "uploader")


def normalized(name: str) -> NormalizedName:
    """The normalised form of a name, as a type that proves it."""
    return NormalizedName(normalize_name(name))


@functools.lru_cache(maxsize=65536)
def parse_version(version: str) -> Version | LegacyVersion:
    """A version that can be compared with every other; one that is not PEP 440 sorts below all that are."""
    try:
        return Version(version)
    except InvalidVersion:
        return LegacyVersion(version)


@functools.total_ordering
class Package:
    """One stored file with its facts.

    ``data`` holds the facts that have no attribute of their own. Besides the documented ones
    (``METADATA_FIELDS``) the server keeps ``size`` (bytes), ``core_metadata`` (the sha256 of the
    ``<file>.metadata`` companion, PEP 714) and ``yanked`` (true or the reason, PEP 592).
    Two packages are equal if their file names are; they sort by name, version, file name.
    """

    def __init__(
        self,
        name: str,
        version: str,
        filename: str,
        last_modified: datetime | None = None,
        summary: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.name = normalized(name)
        self.version = version
        self.filename = filename
        if last_modified is None:
            last_modified = utcnow()
        elif last_modified.tzinfo is None:
            last_modified = last_modified.replace(tzinfo=UTC)
        self.last_modified = last_modified
        self.summary = summary or None
        self.data: dict[str, Any] = {key: value for key, value in kwargs.items() if value}

    def get_url(self, request: Any) -> str:
        """The absolute link to the download endpoint (compat.md 2.4)."""
        url: str = request.app_url("api", "package", self.name, self.filename)
        digest = self.data.get("hash_sha256")
        return f"{url}#sha256={digest}" if digest else url

    def get_metadata(self) -> dict[str, Any]:
        """Those of ``METADATA_FIELDS`` that are known."""
        facts = {**self.data, "summary": self.summary}
        return {key: facts[key] for key in METADATA_FIELDS if facts.get(key)}

    @staticmethod
    def read_metadata(blob: Mapping[str, Any]) -> dict[str, Any]:
        """The known facts in a mapping whose keys may be spelled with ``_`` or with ``-`` (compat.md 2.3)."""
        found = {key: blob.get(key) or blob.get(key.replace("_", "-")) for key in METADATA_FIELDS}
        return {key: value for key, value in found.items() if value}

    @property
    def parsed_version(self) -> Version | LegacyVersion:
        """The version as a value that sorts."""
        return parse_version(self.version)

    @property
    def yanked(self) -> str | bool:
        """The reason why the file is yanked, true if it is without one, or false (PEP 592)."""
        yanked = self.data.get("yanked", False)
        return yanked if isinstance(yanked, str) else bool(yanked)

    @property
    def is_prerelease(self) -> bool:
        """Whether the version is anything but numbers with dots between (compat.md 8.3)."""
        return re.fullmatch(r"[0-9]+(\.[0-9]+)*", self.version) is None

    def search_summary(self) -> dict[str, Any]:
        """What XML-RPC ``search`` answers for this package (compat.md 5.7)."""
        return {"name": self.name, "summary": self.summary or "", "version": self.version}

    def _order(self) -> tuple[str, Version | LegacyVersion, str]:
        return (self.name, self.parsed_version, self.filename)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Package) and self.filename == other.filename

    def __lt__(self, other: Package) -> bool:
        return self._order() < other._order()

    def __hash__(self) -> int:
        return hash(self.filename)

    def __repr__(self) -> str:
        return f"<Package({self.filename})>"


@dataclass(frozen=True, slots=True)
class Link:
    """One row on a project page. What is None, empty or false is left out of the page.

    ``url`` is absolute, or the way from the server's root. ``core_metadata`` is the sha256 of the separate
    core metadata, or true where an upstream has some and does not say the digest.
    """

    filename: str
    url: str
    version: str
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    upload_time: datetime | None = None
    requires_python: str | None = None
    core_metadata: str | bool | None = None
    yanked: str | bool = False
    summary: str | None = None
    uploader: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """A project with its links, newest version first, and the versions they are of.

    ``revision`` is set on the page of an upstream: another page has another one.
    """

    name: NormalizedName
    links: tuple[Link, ...]
    versions: tuple[str, ...]
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """What is asked for is over there, on the upstream index."""

    location: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: worked out once a request.

    ``user`` is None for the anonymous caller. ``principals`` are the strings of compat.md 4.6:
    ``system.Everyone``, ``system.Authenticated``, ``user:<name>``, ``group:<name>``, ``admin``.
    """

    EVERYONE: ClassVar[str] = "system.Everyone"
    AUTHENTICATED: ClassVar[str] = "system.Authenticated"
    ADMIN: ClassVar[str] = "admin"

    user: str | None = None
    principals: frozenset[str] = frozenset({EVERYONE})

    @property
    def is_admin(self) -> bool:
        """Whether the caller may do everything but overwrite, delete and cache (compat.md 4.6)."""
        return self.ADMIN in self.principals


ANONYMOUS: Final = Caller()


@dataclass(frozen=True, slots=True)
class Upload:
    """What an uploader sent: the form's fields and the bytes, spooled, counted and hashed.

    ``path`` is the spooled file and ``size`` its bytes; ``digests`` are worked out from them, ``claimed``
    are those the client sent (hex, by algorithm: ``sha256``, ``md5``, ``blake2_256``). A field that was
    absent or empty is None.
    """

    filename: str
    path: str
    size: int
    digests: Mapping[str, str]
    claimed: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    version: str | None = None
    summary: str | None = None
    requires_python: str | None = None
