"""Core metadata out of wheels and source distributions, and what each must hold (standards.md 3, 6, 7.2)."""

from __future__ import annotations

import configparser
import logging
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from packaging.metadata import parse_email

from pypicloud.archives import TAR_OPENERS, Limits, ZipArchive, tar_members
from pypicloud.errors import InvalidDistribution
from pypicloud.models import parse_version
from pypicloud.util import PackageParseError, normalize_name, parse_filename

__all__ = ["Distribution", "Limits", "parse_metadata", "read_distribution", "wheel_metadata"]

LOG: Final = logging.getLogger(__name__)

#: The newest version of core metadata that is known here.
NEWEST_METADATA: Final = (2, 6)

_DEFAULT_LIMITS: Final = Limits()

_NAME: Final = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)

_PKG_INFO: Final = re.compile(r"[^/]+/PKG-INFO")


@dataclass(frozen=True)
class Distribution:
    """What a wheel or a source distribution says about itself.

    ``metadata`` is the METADATA or PKG-INFO file, byte for byte; ``fields`` are its fields as
    ``packaging.metadata.RawMetadata`` names them.
    """

    name: str
    version: str
    requires_python: str | None
    summary: str | None
    metadata: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)


def read_distribution(path: str, filename: str, limits: Limits = _DEFAULT_LIMITS) -> Distribution | None:
    """What the archive at ``path``, to be stored as ``filename``, says about itself.

    None for the kinds of file that say nothing (``.egg``, ``.exe``, ``.rpm``...), and for a source
    distribution of the older kinds (``.zip``, ``.tar.bz2``...) that has no PKG-INFO, as some were made.
    Raises :class:`InvalidDistribution` if the archive or its metadata is not sound. Whether name and
    version agree with the file name, the form and the URL is for the index to judge.
    """
    try:
        data = _read(path, filename, limits)
    except OSError as error:
        # What gzip and bz2 say about damaged data has no error number; a failing disk has one.
        if error.errno is not None:
            raise
        raise InvalidDistribution("The archive is damaged; build it anew.") from error
    except (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise InvalidDistribution("The archive is damaged; build it anew.") from error
    return None if data is None else parse_metadata(data)


def wheel_metadata(stream: BinaryIO, limits: Limits = _DEFAULT_LIMITS) -> bytes:
    """The METADATA file of a stored wheel, byte for byte; reads no more of the stream than it must.

    Raises :class:`InvalidDistribution` if there is none that can be read.
    """
    if not stream.seekable():
        with tempfile.SpooledTemporaryFile(max_size=limits.small) as spool:
            shutil.copyfileobj(stream, spool)
            return wheel_metadata(cast("BinaryIO", spool), limits)
    archive = ZipArchive(stream, limits)
    return archive.read(f"{_info_directory(archive)}/METADATA")


def parse_metadata(data: bytes) -> Distribution:
    """What a METADATA or PKG-INFO file says.

    Lenient, as installers are: fields that no index acts on may be malformed. Raises
    :class:`InvalidDistribution` if it is no such file, or of a major version yet unknown.
    """
    try:
        raw, _ = parse_email(data)
    except RecursionError:
        raise InvalidDistribution("The metadata holds messages within messages, too deep to be read.") from None
    fields = cast("Mapping[str, Any]", raw)
    _check_metadata_version(fields.get("metadata_version"))
    name, version = _one_line(fields.get("name")), _one_line(fields.get("version"))
    if name is None or version is None:
        raise InvalidDistribution("The metadata must have exactly one Name and one Version.")
    if not _NAME.fullmatch(name):
        raise InvalidDistribution(f"The metadata has the Name {name!r}, which is no valid name of a project.")
    return Distribution(
        name=name,
        version=version,
        requires_python=_one_line(fields.get("requires_python")),
        summary=_summary(fields.get("summary")),
        metadata=data,
        fields=fields,
    )


def _check_metadata_version(text: str | None) -> None:
    if text is None:
        raise InvalidDistribution("The metadata must have exactly one Metadata-Version.")
    match = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", text.strip())
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= version[0] <= NEWEST_METADATA[0]:
        raise InvalidDistribution(f"The metadata has the Metadata-Version {text!r}, which is not known here.")
    if version > NEWEST_METADATA:
        LOG.warning("core metadata of version %s, which is newer than what is known here", text)


def _one_line(value: str | None) -> str | None:
    return " ".join((value or "").split()) or None


def _summary(value: str | None) -> str | None:
    line = (value or "").strip().partition("\n")[0].strip()
    # Old build tools write this word where they were told nothing.
    return None if line in {"", "UNKNOWN"} else line


def _read(path: str, filename: str, limits: Limits) -> bytes | None:
    lowered = filename.lower()
    if lowered.endswith((".whl", ".zip")):
        with Path(path).open("rb", buffering=0) as stream:
            archive = ZipArchive(cast("BinaryIO", stream), limits)
            archive.check()
            return _out_of_wheel(archive, filename) if lowered.endswith(".whl") else _out_of_zip(archive)
    for ending in TAR_OPENERS:
        if lowered.endswith(ending):
            return _out_of_tar(path, ending, limits)
    return None


def _out_of_wheel(archive: ZipArchive, filename: str) -> bytes:
    if _is_tar(archive.at(0, min(archive.size, tarfile.BLOCKSIZE))):
        raise InvalidDistribution("The wheel is a zip archive and a tar archive at once.")
    directory = _info_directory(archive)
    for member in ("METADATA", "WHEEL", "RECORD"):
        if f"{directory}/{member}" not in archive.members:
            raise InvalidDistribution(f"The wheel has no {directory}/{member}.")
    if not _is_of(directory, filename):
        raise InvalidDistribution(f"The wheel has a directory {directory}, which does not agree with its file name.")
    if f"{directory}/entry_points.txt" in archive.members:
        _check_entry_points(archive.read(f"{directory}/entry_points.txt"))
    return archive.read(f"{directory}/METADATA")


def _is_tar(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _info_directory(archive: ZipArchive) -> str:
    tops = {name.partition("/")[0] for name in archive.members if "/" in name}
    found = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(found) != 1:
        raise InvalidDistribution(f"The wheel must have exactly one .dist-info directory, but has {len(found)}.")
    return found[0]


def _is_of(directory: str, filename: str) -> bool:
    """Whether a ``.dist-info`` directory is of the project and the version that a wheel's file name says."""
    try:
        name, version = parse_filename(filename)
    except PackageParseError:
        raise InvalidDistribution(f"{filename!r} is no valid file name of a wheel.") from None
    own_name, _, own_version = directory.removesuffix(".dist-info").rpartition("-")
    # Old tools write "_" for the "+" of a local version.
    versions = [parse_version(text.replace("_", "+", 1)) for text in (version, own_version)]
    return normalize_name(own_name) == normalize_name(name) and versions[0] == versions[1]


def _check_entry_points(data: bytes) -> None:
    parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
    try:
        parser.read_string(data.decode("utf-8-sig"))
    except (configparser.Error, ValueError) as error:
        raise InvalidDistribution("The wheel has an entry_points.txt that cannot be read.") from error


def _out_of_zip(archive: ZipArchive) -> bytes | None:
    name = f"{_only_top(archive.members)}/PKG-INFO"
    return archive.read(name) if name in archive.members else None


def _out_of_tar(path: str, ending: str, limits: Limits) -> bytes | None:
    top, found = "", None
    for name, content in tar_members(path, TAR_OPENERS[ending], limits, lambda name: bool(_PKG_INFO.fullmatch(name))):
        top = _only_top([top or name, name])
        if content is not None:
            if found is not None:
                raise InvalidDistribution(f"The source distribution has two files {name}.")
            found = content
    if not top:
        raise InvalidDistribution("The source distribution is empty.")
    if found is None and ending == ".tar.gz":
        raise InvalidDistribution("The source distribution has no PKG-INFO in its top directory.")
    return found


def _only_top(paths: Iterable[str]) -> str:
    tops = sorted({path.partition("/")[0] for path in paths})
    if len(tops) != 1:
        raise InvalidDistribution(f"The source distribution must be one directory, but has {tops[:3]} at its top.")
    return tops[0]
