"""Zip and tar archives, read with suspicion: whatever two readers could take differently is refused.

Nothing is unpacked to disk. Of a zip file we read its directory, the header in front of each member, and
small members when asked; of a tar archive its headers, in one pass. Every complaint is an
:class:`InvalidDistribution`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import posixpath
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

from pypicloud.errors import InvalidDistribution

#: Control characters, backslashes, absolute paths, drive letters, and steps that lead nowhere or upwards.
_ODD_PATH: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|^/|^[A-Za-z]:|(^|/)\.{1,2}(/|$)|//|^$")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold; sizes are in bytes.

    ``ratio`` is how many times its own size an archive of more than ``ratio_from`` may unpack to.
    ``small`` is for each of the members that are read. ``walk`` is how far a tar archive is looked through
    once what is wanted of it has been found.
    """

    members: int = 100_000
    small: int = 8 << 20
    unpacked: int = 64 << 30
    ratio: int = 50
    ratio_from: int = 64 << 20
    walk: int = 1 << 30

    def check(self, members: int, unpacked: int, packed: int) -> None:
        """Refuse an archive of ``packed`` bytes that holds more than it may."""
        if members > self.members:
            raise InvalidDistribution(f"The archive has more than {self.members} members.")
        if unpacked > self.unpacked:
            raise InvalidDistribution(f"The archive unpacks to more than {self.unpacked} bytes.")
        if unpacked > self.ratio_from and unpacked > self.ratio * packed:
            raise InvalidDistribution(f"The archive unpacks to more than {self.ratio} times its size.")


_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR: Final = struct.Struct("<4sLQL")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_FULL16: Final = 0xFFFF
_FULL32: Final = 0xFFFFFFFF

_ENCRYPTED: Final = 0x0001
#: Sizes and checksum of a member follow its data, because its writer could not seek.
_DESCRIBED: Final = 0x0008
_ZIP64_EXTRA: Final = 0x0001
_UNICODE_PATH_EXTRA: Final = 0x7075

#: The directory of a zip file may take this many bytes for each member that is allowed.
_DIRECTORY_SHARE: Final = 512

#: One read of this many bytes gets the end, the directory of most archives, and often the metadata, too.
_TAIL: Final = 64 << 10


class ZipMember(NamedTuple):
    """One member of a zip file as the directory has it; ``size`` is the unpacked one."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


class ZipArchive:
    """A zip file (APPNOTE 6.3). ``members`` are those of its directory, by name."""

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self.size = stream.seek(0, os.SEEK_END)
        self._tail_start = max(0, self.size - _TAIL)
        self._tail = self._read(self._tail_start, self.size - self._tail_start)
        count, size, self._directory_start = self._directory()
        if count > limits.members or size > limits.members * _DIRECTORY_SHARE:
            raise InvalidDistribution(f"The archive has more than {limits.members} members.")
        self.members: Mapping[str, ZipMember] = _entries(self.at(self._directory_start, size), count)

    def at(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes from ``offset`` on."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise InvalidDistribution("The zip file is cut short or damaged.")
        start = offset - self._tail_start
        return self._tail[start : start + count] if start >= 0 else self._read(offset, count)

    def _read(self, offset: int, count: int) -> bytes:
        self._stream.seek(offset)
        data = b""
        while len(data) < count:
            more = self._stream.read(count - len(data))
            if not more:
                raise InvalidDistribution("The zip file is cut short or damaged.")
            data += more
        return data

    def _directory(self) -> tuple[int, int, int]:
        """The number of members, and size and place of the directory."""
        stop = self.size - _END.size
        end = self.at(stop, _END.size) if stop >= 0 else bytes(_END.size)
        signature, *disks, here, count, size, start, comment = _END.unpack(end)
        if signature != b"PK\x05\x06" or comment:
            raise InvalidDistribution("The archive is no zip file, or has a comment or other data after its end.")
        stop64 = stop - _END64_LOCATOR.size - _END64.size
        locator = self.at(stop64 + _END64.size, _END64_LOCATOR.size) if stop64 >= 0 else b""
        if locator.startswith(b"PK\x06\x07"):
            small = ((here, _FULL16), (count, _FULL16), (size, _FULL32), (start, _FULL32))
            signature, length, _, _, *disks, here, count, size, start = _END64.unpack(self.at(stop64, _END64.size))
            large = (here, count, size, start)
            agree = all(value in {full, wide} for (value, full), wide in zip(small, large, strict=True))
            place = _END64_LOCATOR.unpack(locator)[2]
            if signature != b"PK\x06\x06" or length != _END64.size - 12 or place != stop64 or not agree:
                raise InvalidDistribution("The zip file has two ends that do not agree.")
            stop = stop64
        if any(disks) or here != count or start + size != stop:
            raise InvalidDistribution("The zip file has data before its start or around its directory.")
        return count, size, start

    def check(self) -> None:
        """Refuse what a sound archive has no need of: gaps, overlaps, headers that disagree, bombs."""
        members = sorted(self.members.values(), key=lambda member: member.offset)
        self._limits.check(len(members), sum(member.size for member in members), self.size)
        stops = [*(member.offset for member in members), self._directory_start]
        if stops[0] != 0:
            raise InvalidDistribution("The zip file has data before its first member.")
        for member, stop in zip(members, stops[1:], strict=True):
            self._check_member(member, stop)

    def _check_member(self, member: ZipMember, stop: int) -> None:
        """Refuse a member that disagrees with its own header, or does not end exactly at ``stop``."""
        name = member.raw_name.decode()
        if member.flags & _ENCRYPTED or member.method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise InvalidDistribution(f"The zip file has a member that is neither stored nor deflated, {name!r}.")
        if member.method == zipfile.ZIP_STORED and member.packed != member.size:
            raise InvalidDistribution(f"The zip file has a stored member with two sizes, {name!r}.")
        end = self._data_start(member) + member.packed
        allowed = _descriptors(member) if member.flags & _DESCRIBED else (b"",)
        if stop - end not in {len(after) for after in allowed} or self.at(end, stop - end) not in allowed:
            raise InvalidDistribution(f"The zip file has data between its members, or two that overlap, at {name!r}.")

    def _data_start(self, member: ZipMember) -> int:
        """Where a member's data starts, if the header in front of it says the same as the directory."""
        header = _LOCAL.unpack(self.at(member.offset, _LOCAL.size))
        signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = header
        start: int = member.offset + _LOCAL.size + name_length + extra_length
        names = self.at(member.offset + _LOCAL.size, name_length + extra_length)
        size, packed = _widened((size, packed), names[name_length:], member.raw_name)
        found, known = (crc, packed, size), (member.crc, member.packed, member.size)
        if (
            signature != b"PK\x03\x04"
            or names[:name_length] != member.raw_name
            or method != member.method
            or (flags ^ member.flags) & (_ENCRYPTED | _DESCRIBED)
            or not (found == known or (flags & _DESCRIBED and not any(found)))
        ):
            shown = member.raw_name.decode()
            raise InvalidDistribution(f"The zip file has a header that disagrees with its directory, {shown!r}.")
        return start

    def read(self, name: str) -> bytes:
        """A small member, unpacked."""
        member = self.members.get(name)
        if member is None:
            raise InvalidDistribution(f"The archive has no {name}.")
        if max(member.size, member.packed) > self._limits.small:
            raise InvalidDistribution(f"{name} is larger than {self._limits.small} bytes.")
        data = self.at(self._data_start(member), member.packed)
        if member.method == zipfile.ZIP_DEFLATED:
            data = _inflated(data, member.size)
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise InvalidDistribution(f"{name} is damaged or packed in an unusual way.")
        return data


def _entries(directory: bytes, count: int) -> dict[str, ZipMember]:
    """The members of a zip directory, by name."""
    members: dict[str, ZipMember] = {}
    paths = set()
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise InvalidDistribution("The zip file has a damaged directory.")
        signature, _, _, flags, method, _, _, crc, *numbers = _CENTRAL.unpack_from(directory, position)
        packed, size, name_length, extra_length, comment_length, disk, _, _, offset = numbers
        name_end = position + _CENTRAL.size + name_length
        raw_name = directory[position + _CENTRAL.size : name_end]
        extra = directory[name_end : name_end + extra_length]
        position = name_end + extra_length + comment_length
        if signature != b"PK\x01\x02" or position > len(directory) or disk:
            raise InvalidDistribution("The zip file has a damaged directory.")
        name = _name(raw_name)
        if name.rstrip("/") in paths:
            raise InvalidDistribution(f"The zip file has two members of one name, {name!r}.")
        paths.add(name.rstrip("/"))
        size, packed, offset = _widened((size, packed, offset), extra, raw_name)
        members[name] = ZipMember(raw_name, flags, method, crc, packed, size, offset)
    if position != len(directory):
        raise InvalidDistribution("The zip file has more in its directory than it says.")
    return members


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidDistribution(f"The zip file has a member whose name is not UTF-8, {raw!r}.") from None
    if _ODD_PATH.search(name):
        raise InvalidDistribution(f"The zip file has a member with an unsafe name, {name!r}.")
    return name


def _widened(values: tuple[int, ...], extra: bytes, raw_name: bytes) -> tuple[int, ...]:
    """Sizes and offsets, from the ZIP64 extra field where they do not fit into 32 bits."""
    fields = _extra_fields(extra)
    path = fields.get(_UNICODE_PATH_EXTRA)
    if path is not None and path[5:] != raw_name:
        raise InvalidDistribution(f"The zip file has a member with two names, {raw_name!r}.")
    if _FULL32 not in values:
        return values
    needed = values.count(_FULL32)
    wide = fields.get(_ZIP64_EXTRA, b"")
    if len(wide) < 8 * needed:
        raise InvalidDistribution(f"The zip file has a member without a size, {raw_name!r}.")
    larger = iter(struct.unpack_from(f"<{needed}Q", wide))
    return tuple(next(larger) if value == _FULL32 else value for value in values)


def _extra_fields(extra: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    position = 0
    # Some tools pad with less than a whole field.
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4 + length
        if position > len(extra) or (kind in fields and kind in {_ZIP64_EXTRA, _UNICODE_PATH_EXTRA}):
            raise InvalidDistribution("The zip file has damaged or doubled extra fields.")
        fields[kind] = extra[position - length : position]
    return fields


def _descriptors(member: ZipMember) -> tuple[bytes, ...]:
    """The forms that what follows a member's data may take: with and without signature, with wide or narrow sizes."""
    bodies = [struct.pack("<L2Q", member.crc, member.packed, member.size)]
    if max(member.packed, member.size) <= _FULL32:
        bodies.append(struct.pack("<3L", member.crc, member.packed, member.size))
    return tuple(signature + body for signature in (b"PK\x07\x08", b"") for body in bodies)


def _inflated(data: bytes, size: int) -> bytes:
    """The first ``size`` bytes of deflated data, and one more if there are more."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error:
        raise InvalidDistribution("The zip file has a damaged member.") from None


#: How a tar archive is opened, by the ending of its name.
TAR_OPENERS: Final[Mapping[str, Callable[[str], io.RawIOBase | io.BufferedIOBase]]] = {
    ".tar.gz": gzip.GzipFile,
    ".tgz": gzip.GzipFile,
    ".tar.bz2": bz2.BZ2File,
    ".tbz": bz2.BZ2File,
    ".tar": io.FileIO,
}

#: A tar member may follow others of these types, which hold its long name and the like.
_PREFIX_TYPES: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
#: Small, because tarfile takes quadratic time for some of them before Python 3.11.10 and 3.12.6 (CVE-2024-6232).
_PREFIX_SIZE: Final = 16 << 10

#: How much padding may follow the end of a tar archive; tar rounds up to 10 KiB unless it is told otherwise.
_TAR_PADDING: Final = 1 << 20


class _TarHeader(tarfile.TarInfo):
    """A tar header whose size is looked at before anything is read that it promises."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        header = super().frombuf(buf, encoding or "utf-8", errors)
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise InvalidDistribution(f"The tar archive has a sparse member, {header.name!r}.")
        if header.size < 0 or (header.type in _PREFIX_TYPES and header.size > _PREFIX_SIZE):
            raise InvalidDistribution("The tar archive has a header of impossible size.")
        return header


def tar_members(
    path: str, opener: Callable[[str], io.RawIOBase | io.BufferedIOBase], limits: Limits, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes | None]]:
    """Each member's name, less a ``./`` in front, with its content if it is a file that is wanted.

    Ends with the archive, which is then seen to be whole, or before that when something wanted has been
    found and ``limits.walk`` bytes have gone by.
    """
    if _may_be_zip(path):
        raise InvalidDistribution("The archive is a tar archive and a zip archive at once.")
    packed = Path(path).stat().st_size
    found = False
    with opener(path) as stream, tarfile.TarFile(fileobj=stream, tarinfo=_TarHeader) as tar:
        for count, member in enumerate(tar, 1):
            position = member.offset_data + member.size
            limits.check(count, position, packed)
            name = re.sub(r"^(\./+)+", "", member.name)
            if name in {"", "."} and member.isdir():
                continue
            _check_tar_member(name, member)
            content = _read_tar_member(tar, member, limits) if wanted(name) else None
            yield name, content
            found = found or content is not None
            if found and position > limits.walk:
                return
        rest = stream.read(_TAR_PADDING + 1)
        if len(rest) > _TAR_PADDING or rest.strip(b"\0"):
            raise InvalidDistribution("The tar archive is damaged, or has data after its end.")


def _may_be_zip(path: str) -> bool:
    """Whether a lenient reader, as pip's is, would find a zip file at the end of a file, or near it."""
    with Path(path).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        tail_start = max(0, size - _END.size - _FULL16)
        stream.seek(tail_start)
        tail = stream.read()
        # A negative end would count from behind.
        end = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size + 4))
        if end < 0:
            return False
        count, directory_size = _END.unpack_from(tail, end)[4:6]
        stream.seek(max(0, tail_start + end - directory_size))
        return count in {0, _FULL16} or stream.read(4) == b"PK\x01\x02"


def _check_tar_member(name: str, member: tarfile.TarInfo) -> None:
    if _ODD_PATH.search(name):
        raise InvalidDistribution(f"The tar archive has a member with an unsafe name, {name!r}.")
    if member.size < 0:
        raise InvalidDistribution(f"The tar archive has a member of impossible size, {name!r}.")
    if member.issparse():
        raise InvalidDistribution(f"The tar archive has a sparse member, {name!r}.")
    if member.issym() or member.islnk():
        # A symbolic link starts where it is, a hard link at the root of the archive.
        start = posixpath.dirname(name) if member.issym() else ""
        target = posixpath.normpath(posixpath.join(start, member.linkname))
        if target.partition("/")[0] != name.partition("/")[0]:
            raise InvalidDistribution(f"The tar archive has a link that leads out of its directory, {name!r}.")
    elif not (member.isreg() or member.isdir()):
        raise InvalidDistribution(f"The tar archive has a member that is no file, {name!r}.")


def _read_tar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, limits: Limits) -> bytes:
    content = tar.extractfile(member) if member.isreg() and member.size <= limits.small else None
    if content is None:
        raise InvalidDistribution(f"{member.name} must be a file of at most {limits.small} bytes.")
    return content.read()
