"""Package files of a few hundred bytes, the same bytes for the same arguments on every machine and Python."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping

#: 1 January 2020: what every member of every archive is dated.
STAMP = (2020, 1, 1, 0, 0, 0)


def core_metadata(name: str, version: str, summary: str = "", requires_python: str = "") -> bytes:
    """The metadata file of a distribution, in the oldest form that has all that is said here."""
    fields = {
        "Metadata-Version": "2.1",
        "Name": name,
        "Version": version,
        "Summary": summary,
        "Requires-Python": requires_python,
    }
    return "".join(f"{key}: {value}\n" for key, value in fields.items() if value).encode()


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip file of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path, STAMP), data)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A gzipped tar file of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def wheel(distribution: str, version: str, metadata: bytes, tag: str = "py3-none-any") -> bytes:
    """A wheel with one empty module; ``distribution`` is the name as the file name spells it."""
    info = f"{distribution}-{version}.dist-info"
    members = {
        f"{distribution.replace('.', '_').lower()}.py": b"",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: archives\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = [f"{path},sha256={_record_digest(data)},{len(data)}" for path, data in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    return zipped(members)


def sdist(stem: str, metadata: bytes, *, as_zip: bool = False) -> bytes:
    """A source distribution whose one directory is ``stem``."""
    members = {
        f"{stem}/PKG-INFO": metadata,
        f"{stem}/pyproject.toml": b'[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n',
    }
    return zipped(members) if as_zip else tarred(members)


def egg(metadata: bytes) -> bytes:
    """An egg with nothing but its metadata."""
    return zipped({"EGG-INFO/PKG-INFO": metadata})


def _record_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
