"""Source distributions and eggs of a few hundred bytes, the same bytes for the same arguments every time."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping

#: What every member of a zip file is dated.
_DATE = (2020, 1, 1, 0, 0, 0)


def tiny_sdist(stem: str, metadata: str, *, as_zip: bool = False) -> bytes:
    """A source distribution of nothing but metadata, in the one directory ``stem``."""
    members = {f"{stem}/PKG-INFO": metadata.encode()}
    return _zipped(members) if as_zip else _tarred(members)


def tiny_egg(metadata: str) -> bytes:
    """An egg of nothing but metadata."""
    return _zipped({"EGG-INFO/PKG-INFO": metadata.encode()})


def _zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path, _DATE), data)
    return buffer.getvalue()


def _tarred(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in members.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    # Python 3.13 writes another byte for the operating system, which says nothing.
    packed = bytearray(gzip.compress(buffer.getvalue(), mtime=0))
    packed[9] = 3
    return bytes(packed)
