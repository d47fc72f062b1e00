"""What an upload must be to be taken: names that agree, digests that match, nothing that could become a path."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

from packaging.version import InvalidVersion, Version

from pypicloud.errors import DigestMismatch, InvalidUpload
from pypicloud.models import NormalizedName, Upload, normalized
from pypicloud.util import ALL_EXTENSIONS, PackageParseError, parse_filename

if TYPE_CHECKING:
    from pypicloud.metadata import Distribution

#: A project name as PEP 508 has it; anything else cannot be a project.
VALID_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def name_and_version(upload: Upload) -> tuple[NormalizedName, str]:
    """Name and version of an upload: the form's, else the file name's; checked against each other (ruling 6)."""
    filename = upload.filename
    _check_segment("file name", filename)
    if not filename.lower().endswith(tuple(ALL_EXTENSIONS)):
        known = ", ".join(sorted(ALL_EXTENSIONS))
        raise InvalidUpload(f"{filename!r} is no distribution file; its name must end in one of {known}")
    try:
        parsed_name, parsed_version = parse_filename(filename, upload.name)
    except PackageParseError:
        raise InvalidUpload(f"{filename!r} is not named <project>-<version> and an ending; build it anew") from None
    name, version = upload.name or parsed_name, upload.version or parsed_version
    _check_segment("name", name)
    _check_segment("version", version)
    if not VALID_NAME.match(name):
        raise InvalidUpload(f"name {name!r} is not valid: use letters, digits, '.', '-' and '_' (PEP 508)")
    # The form's name tells where in the file name the version begins, but is not believed to stand there.
    spelled = normalized(filename.replace(" ", "-"))
    is_prefix = spelled.startswith(normalized(f"{parsed_name}-{parsed_version}"))
    if normalized(parsed_name) != normalized(name) or not is_prefix:
        raise InvalidUpload(f"file name {filename!r} is not one of project {name!r}; build it anew")
    if _valid_version(version) != _valid_version(parsed_version):
        raise InvalidUpload(f"file name {filename!r} is not of version {version!r}; build it anew")
    return normalized(name), version


def _valid_version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise InvalidUpload(f"version {text!r} is not valid (PEP 440)") from None


def _check_segment(what: str, text: str) -> None:
    """Refuse what could be anything but one plain segment of a path."""
    if len(text.encode(errors="replace")) > 200:  # noqa: PLR2004 - leaves room for the endings of companions
        raise InvalidUpload(f"the {what} {text[:40]!r}... is longer than 200 bytes")
    if not text.isprintable() or set(text) & set("/\\%") or text in {".", ".."} or text != text.strip():
        raise InvalidUpload(f"the {what} {text!r} holds characters that it may not hold")


def check_digests(upload: Upload) -> None:
    """Refuse bytes that are not those whose digests the client sent (compat.md 9.1, S8)."""
    for algorithm, claimed in upload.claimed.items():
        found = upload.digests[algorithm]
        if not hmac.compare_digest(claimed.strip().lower().encode(), found.encode()):
            raise DigestMismatch(
                f"the {algorithm} digest sent is {claimed[:128]!r}, but the bytes have {found!r}; upload again"
            )


def check_agreement(name: NormalizedName, version: str, distribution: Distribution) -> None:
    """Refuse an archive whose own metadata name another project or version."""
    if normalized(distribution.name) != name:
        raise InvalidUpload(f"the metadata inside says project {distribution.name!r}, not {name!r}; build it anew")
    try:
        agrees = Version(distribution.version) == Version(version)
    except InvalidVersion:
        agrees = False
    if not agrees:
        raise InvalidUpload(
            f"the metadata inside says version {distribution.version!r}, not {version!r}; build it anew"
        )
