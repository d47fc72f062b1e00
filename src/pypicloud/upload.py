"""What an upload must be to be taken, what is known of it, and how it is put beside what is stored already.

Taken are names that agree, digests that match, and nothing that could become a path.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from packaging.version import InvalidVersion, Version

from pypicloud.errors import DigestMismatch, FileExists, InvalidUpload, PackageNotFound
from pypicloud.metadata import Distribution, read_distribution
from pypicloud.models import NormalizedName, Package, Upload, normalized
from pypicloud.storage.body import BLOCK
from pypicloud.util import ALL_EXTENSIONS, PackageParseError, parse_filename

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache

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


def checked(upload: Upload, name: NormalizedName, version: str) -> Distribution | None:
    """What the archive says of itself, None if it is of a kind that says nothing; checked against all that was sent.

    Raises :class:`DigestMismatch` or :class:`InvalidUpload`.
    """
    _check_digests(upload)
    distribution = read_distribution(upload.path, upload.filename)
    if distribution is not None:
        _check_agreement(name, version, distribution)
    return distribution


def _check_digests(upload: Upload) -> None:
    """Refuse bytes that are not those whose digests the client sent (compat.md 9.1, S8)."""
    for algorithm, claimed in upload.claimed.items():
        found = upload.digests[algorithm]
        if not hmac.compare_digest(claimed.strip().lower().encode(), found.encode()):
            raise DigestMismatch(
                f"the {algorithm} digest sent is {claimed[:128]!r}, but the bytes have {found!r}; upload again"
            )


def _check_agreement(name: NormalizedName, version: str, distribution: Distribution) -> None:
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


def facts_of(
    upload: Upload, distribution: Distribution | None, uploader: str | None, *, with_hashes: bool
) -> dict[str, Any]:
    """What is known of an uploaded file, as keywords of a package.

    The archive's own facts count where it has any, else the form's (standards.md 6).
    """
    facts: dict[str, Any] = {"size": upload.size, "uploader": uploader}
    facts["summary"], facts["requires_python"] = upload.summary, upload.requires_python
    if distribution is not None:
        facts["summary"] = distribution.summary or upload.summary
        facts["requires_python"] = distribution.requires_python
    metadata = companions_of(upload, distribution).get("metadata")
    if metadata is not None:
        facts["core_metadata"] = hashlib.sha256(metadata).hexdigest()
    if with_hashes:
        facts["hash_sha256"], facts["hash_md5"] = upload.digests["sha256"], upload.digests["md5"]
    return facts


def companions_of(upload: Upload, distribution: Distribution | None) -> dict[str, bytes]:
    """What is kept beside an uploaded file, by kind: of a wheel its core metadata (PEP 658)."""
    if distribution is None or not upload.filename.endswith(".whl"):
        return {}
    return {"metadata": distribution.metadata}


def store(
    cache: ICache,
    package: Package,
    upload: Upload,
    companions: Mapping[str, bytes],
    may_overwrite: Callable[[], bool],
) -> Package:
    """Keep an upload, whose file name the caller has locked; the package as it is known then.

    The same bytes under the same name change nothing. Raises :class:`FileExists` for others without the right.
    """
    sha256 = upload.digests["sha256"]
    known = cache.fetch(package.filename)
    replace = False
    if known is not None:
        if known.name != package.name:
            raise FileExists(f"File already exists: {package.filename!r} belongs to another project; rename yours")
        # Another spelling of the version would be another place, and leave the old file behind.
        package.version = known.version
        if "path" in known.data:
            # A file stays where its storage has it (compat.md 2.2).
            package.data["path"] = known.data["path"]
        if (known.data.get("hash_sha256") or _stored_digest(cache, known)) != sha256:
            _demand(may_overwrite, package)
            replace = True
        elif _is_stored(cache, known):
            return known
        else:
            _keep_yanked(package, known)
    try:
        _put(cache, package, upload, companions, replace=replace)
    except FileExists:
        # The storage has a file that the cache does not know: an upload that was cut short between
        # the two, or another server's. The same bytes adopt it.
        if _stored_digest(cache, package) != sha256:
            _demand(may_overwrite, package)
        else:
            stored: Package | None = cache.storage.stored(package, cache.new_package)
            if stored is not None and _is_whole(stored, package):
                cache.check_facts(stored)
                cache.save(stored)
                return stored
            _keep_yanked(package, stored)
        _put(cache, package, upload, companions, replace=True)
    return package


def _put(cache: ICache, package: Package, upload: Upload, companions: Mapping[str, bytes], *, replace: bool) -> None:
    with Path(upload.path).open("rb") as stream:
        cache.store(package, stream, companions, replace=replace)


def _is_whole(stored: Package, package: Package) -> bool:
    """Whether all is known of a stored file that is known of the same one when it is uploaded."""
    same = ("hash_sha256", "core_metadata")
    return all(stored.data.get(fact) == package.data.get(fact) for fact in same) and bool(stored.data.get("size"))


def _keep_yanked(package: Package, before: Package | None) -> None:
    """The same bytes stay yanked, whoever brings them again."""
    if before is not None and before.yanked:
        package.data["yanked"] = before.yanked


def _is_stored(cache: ICache, known: Package) -> bool:
    """Whether a known file is there; an upload of the same bytes brings back what was lost."""
    try:
        with cache.storage.open(known):
            return True
    except PackageNotFound:
        return False


def _stored_digest(cache: ICache, package: Package) -> str | None:
    """The sha256 of the bytes in the storage; None if there are none."""
    try:
        with cache.storage.open(package) as stored:
            digest = hashlib.sha256()
            while block := stored.read(BLOCK):
                digest.update(block)
            return digest.hexdigest()
    except PackageNotFound:
        return None


def _demand(may_overwrite: Callable[[], bool], package: Package) -> None:
    if not may_overwrite():
        raise FileExists(
            f"File already exists: {package.filename!r} is stored with other bytes, and you may not overwrite it; "
            "upload a new version"
        )
