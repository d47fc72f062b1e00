"""What wheels and source distributions say about themselves, and which are not sound."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pypicloud.errors import InvalidDistribution
from pypicloud.metadata import Distribution, Limits, parse_metadata, read_distribution, wheel_metadata
from support.builds import build_sdist, build_wheel, metadata

WHEEL = "acme-1.0-py3-none-any.whl"
SDIST = "acme-1.0.tar.gz"
INFO = "acme-1.0.dist-info"
PLAIN = {
    "acme.py": b"VERSION = 1\n",
    f"{INFO}/METADATA": metadata("acme", "1.0").encode(),
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\n",
    f"{INFO}/RECORD": b"",
}

Read = Callable[..., Distribution | None]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads bytes as a file of the name given."""
    path = tmp_path / "spooled"

    def read(data: bytes, filename: str, **limits: int) -> Distribution | None:
        path.write_bytes(data)
        return read_distribution(str(path), filename, Limits(**limits))

    return read


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return buffer.getvalue()


def tarred(*members: tarfile.TarInfo | tuple[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                archive.addfile(entry, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = target
    return entry


PKG_INFO = ("acme-1.0/PKG-INFO", metadata("acme", "1.0").encode())


# Sound archives


def test_a_wheel_tells_its_facts(read: Read) -> None:
    """Name, version, Requires-Python, summary, the raw bytes and the other fields come out of METADATA."""
    found = read(build_wheel("acme", "1.0", requires_python=">=3.11", summary="An acme", author="Ann"), WHEEL)
    assert found is not None
    assert (found.name, found.version, found.requires_python, found.summary) == ("acme", "1.0", ">=3.11", "An acme")
    assert found.metadata == metadata("acme", "1.0", requires_python=">=3.11", summary="An acme", author="Ann").encode()
    assert found.fields["author"] == "Ann"


def test_an_sdist_tells_its_facts(read: Read) -> None:
    """The same comes out of PKG-INFO."""
    found = read(build_sdist("acme", "1.0", requires_python=">=3.11"), SDIST)
    assert found is not None
    assert (found.name, found.version, found.requires_python, found.summary) == ("acme", "1.0", ">=3.11", None)


@pytest.mark.parametrize("ending", [".tgz", ".tar.gz", ".tar", ".tar.bz2", ".tbz", ".zip", ".TAR.GZ"])
def test_sdists_of_every_kind_are_read(read: Read, ending: str) -> None:
    """Each kind of source distribution that old tools made is opened by its ending, in any case."""
    data = tarred(PKG_INFO)
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "tgz": gzip.compress,
        "bz2": bz2.compress,
        "tbz": bz2.compress,
    }
    kind = ending.lower().rpartition(".")[2]
    packed = zipped(dict([PKG_INFO])) if kind == "zip" else pack.get(kind, bytes)(data)
    found = read(packed, f"acme-1.0{ending}")
    assert found is not None
    assert found.name == "acme"


@pytest.mark.parametrize("filename", ["acme-1.0.egg", "acme-1.0.exe", "acme-1.0.msi", "acme-1.0.deb", "acme"])
def test_files_without_metadata_are_left_alone(read: Read, filename: str) -> None:
    """What is neither wheel nor source distribution is not opened."""
    assert read(b"junk", filename) is None


@pytest.mark.parametrize(
    ("filename", "directory"),
    [
        ("Acme.Core-1.0-py2.py3-none-any.whl", "Acme.Core-1.0.dist-info"),
        ("acme_core-1.0-py3-none-any.whl", "Acme.Core-1.0.dist-info"),
        ("acme_core-1.0.0-py3-none-any.whl", "acme_core-1.0.dist-info"),
        ("acme_core-1.0+abc-py3-none-any.whl", "acme_core-1.0_abc.dist-info"),
        ("acme_core-1.0_local-py3-none-any.whl", "acme_core-1.0_local.dist-info"),
        ("acme_core-1.0-1-py3-none-any.whl", "acme_core-1.0.dist-info"),
    ],
)
def test_older_spellings_of_wheels_are_read(read: Read, filename: str, directory: str) -> None:
    """The .dist-info directory agrees if it means the same name and version as the file name."""
    members = {name.replace(INFO, directory): data for name, data in PLAIN.items()}
    found = read(zipped(members), filename)
    assert found is not None


def test_a_wheel_written_without_seeking_is_read(read: Read) -> None:
    """Sizes and checksums that follow the data are understood."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: Any) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**PLAIN, "empty": b""}.items():
            archive.writestr(name, data)
    assert read(pipe.getvalue(), WHEEL) is not None


def test_a_wheel_with_zip64_fields_is_read(read: Read) -> None:
    """Sizes in the wide fields of ZIP64 are understood, in headers and at the end."""
    assert read(zip64(zipped(PLAIN, zipfile.ZIP_STORED)), WHEEL) is not None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in PLAIN.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert read(buffer.getvalue(), WHEEL) is not None


def test_directories_and_links_inside_are_fine(read: Read) -> None:
    """An ordinary sdist may hold directories, a ``./`` in front, and links that stay inside."""
    members = (
        special("./", tarfile.DIRTYPE),
        special("./acme-1.0", tarfile.DIRTYPE),
        ("./acme-1.0/PKG-INFO", PKG_INFO[1]),
        special("./acme-1.0/docs/README", tarfile.SYMTYPE, "../README"),
        special("./acme-1.0/same", tarfile.LNKTYPE, "./acme-1.0/PKG-INFO"),
        ("./acme-1.0/" + "long/" * 60 + "name", b"x"),
    )
    for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert read(gzip.compress(tarred(*members, tar_format=tar_format)), SDIST) is not None


def test_old_kinds_of_sdist_may_lack_metadata(read: Read) -> None:
    """A .zip or .tar.bz2 without PKG-INFO, as old tools made them, says nothing; a .tar.gz must."""
    assert read(bz2.compress(tarred(("acme-1.0/setup.py", b""))), "acme-1.0.tar.bz2") is None
    assert read(zipped({"acme-1.0/setup.py": b""}), "acme-1.0.zip") is None
    with pytest.raises(InvalidDistribution, match="no PKG-INFO"):
        read(gzip.compress(tarred(("acme-1.0/setup.py", b""))), SDIST)


# Wheels that are not sound


def zip64(data: bytes) -> bytes:
    """A zip file whose end record is a wide one."""
    count, size, start = struct.unpack_from("<HLL", data, len(data) - 12)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data) - 22, 1)
    return data[:-22] + wide + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)


def with_name(old: bytes, new: bytes) -> bytes:
    """A wheel with a member renamed, byte for byte, in header and directory."""
    assert len(old) == len(new)
    return zipped({**PLAIN, old.decode(): b"data"}).replace(old, new)


@pytest.mark.parametrize(
    "name",
    [
        b"/bs",
        b"../x",
        b"a/../b",
        b"a//b",
        b"./ab",
        b"C:ab",
        b"a\\b",
        b"a\x00b",
        b"a\nb",
        b"a\x7fb",
        b"\xff\xfe",
        b"..",
        b"",
    ],
)
def test_unsafe_names_in_a_wheel_are_refused(read: Read, name: bytes) -> None:
    """No member may be absolute, lead upwards, or have a name with control characters, backslashes or no UTF-8."""
    data = with_name(b"?" * len(name), name) if name else zipped({**PLAIN, "": b""})
    with pytest.raises(InvalidDistribution, match="name"):
        read(data, WHEEL)


def test_a_file_that_is_no_archive_is_refused(read: Read) -> None:
    """Junk under any ending we read is refused in a sentence."""
    for filename in (WHEEL, SDIST, "a-1.zip", "a-1.tar", "a-1.tar.bz2"):
        for junk in (b"", b"junk", bytes(10240)):
            with pytest.raises(InvalidDistribution, match=r"^[A-Z].*\.$"):
                read(junk, filename)


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL", "RECORD"])
def test_a_wheel_needs_its_three_files(read: Read, missing: str) -> None:
    """METADATA, WHEEL and RECORD must be there."""
    members = {name: data for name, data in PLAIN.items() if not name.endswith(missing)}
    with pytest.raises(InvalidDistribution, match=f"no {INFO}/{missing}"):
        read(zipped(members), WHEEL)


def test_a_wheel_has_exactly_one_info_directory(read: Read) -> None:
    """None and two are refused; one deeper down does not count."""
    for members in ({"acme.py": b""}, {**PLAIN, "other-1.0.dist-info/METADATA": b""}):
        with pytest.raises(InvalidDistribution, match="exactly one"):
            read(zipped(members), WHEEL)
    assert read(zipped({**PLAIN, "acme/vendor/other-1.0.dist-info/METADATA": b""}), WHEEL) is not None


@pytest.mark.parametrize("filename", ["other-1.0-py3-none-any.whl", "acme-1.1-py3-none-any.whl"])
def test_the_info_directory_is_of_the_file_name(read: Read, filename: str) -> None:
    """A .dist-info directory of another name or version is refused."""
    with pytest.raises(InvalidDistribution, match="does not agree"):
        read(zipped(PLAIN), filename)


def test_a_wheel_needs_a_valid_file_name(read: Read) -> None:
    """A file name that says no name and version is refused."""
    with pytest.raises(InvalidDistribution, match="file name"):
        read(zipped(PLAIN), "acme.whl")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_stored_or_deflated(read: Read, compression: int) -> None:
    """Other ways of packing are refused."""
    with pytest.raises(InvalidDistribution, match="neither stored nor deflated"):
        read(zipped(PLAIN, compression), WHEEL)


def test_encrypted_members_are_refused(read: Read) -> None:
    """A member that claims to be encrypted is refused."""
    data = bytearray(zipped(PLAIN))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(InvalidDistribution, match="neither stored nor deflated"):
        read(bytes(data), WHEEL)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(read: Read) -> None:
    """The same name twice, or as file and as directory, is refused."""
    buffer = io.BytesIO(zipped(PLAIN))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("acme.py", b"other")
    for data in (buffer.getvalue(), zipped({**PLAIN, "acme.py/": b""})):
        with pytest.raises(InvalidDistribution, match="two members of one name"):
            read(data, WHEEL)


def shifted(data: bytes, by: int) -> bytes:
    """A zip file moved by some bytes, with offsets that know it."""
    result = bytearray(data)
    position = start = struct.unpack_from("<L", data, len(data) - 6)[0]
    for _ in range(struct.unpack_from("<H", data, len(data) - 12)[0]):
        sizes = struct.unpack_from("<3H", data, position + 28)
        struct.pack_into("<L", result, position + 42, struct.unpack_from("<L", data, position + 42)[0] + by)
        position += 46 + sum(sizes)
    struct.pack_into("<L", result, len(data) - 6, start + by)
    return bytes(by) + bytes(result)


def test_nothing_may_stand_around_a_zip_file(read: Read) -> None:
    """Data before the first member, after the end, in a comment, or in front of the directory is refused."""
    data = zipped(PLAIN)
    commented = data[:-2] + b"\x03\x00abc"
    cut_comment = data[:-2] + b"\x03\x00"
    directory = struct.unpack_from("<L", data, len(data) - 6)[0]
    moved = data[:directory] + b"hidden" + data[directory:-6] + struct.pack("<LH", directory + 6, 0)
    for odd in (
        b"#!/bin/sh\n" + data,
        shifted(data, 512),
        data + b"\n",
        data + data,
        commented,
        cut_comment,
        moved,
        data[:-1],
    ):
        with pytest.raises(InvalidDistribution):
            read(odd, WHEEL)


@pytest.mark.parametrize("offset", [0, 6, 8, 14, 18, 22, 30])
def test_a_header_must_agree_with_the_directory(read: Read, offset: int) -> None:
    """Signature, flags, method, checksum, sizes and name of a member are the same in both places."""
    data = bytearray(zipped(PLAIN))
    data[offset] ^= 8
    with pytest.raises(InvalidDistribution, match="disagrees with its directory"):
        read(bytes(data), WHEEL)


def test_members_that_overlap_are_refused(read: Read) -> None:
    """Two entries of the directory over the same bytes, the heart of a bomb, are refused."""
    data = zipped({"a": b"x", "b": b"x"}, zipfile.ZIP_STORED)
    second = data.rindex(b"PK\1\2")
    overlapping = data[: second + 42] + bytes(4) + data[second + 46 :]
    with pytest.raises(InvalidDistribution, match=r"overlap|disagrees"):
        read(overlapping, WHEEL)


def test_ends_that_disagree_are_refused(read: Read) -> None:
    """The narrow end record, if it says anything, says the same as the wide one; both are where they say."""
    data = zip64(zipped(PLAIN))
    wrong_count = data[:-12] + struct.pack("<H", 3) + data[-10:]
    wrong_place = data[:-34] + struct.pack("<Q", 7) + data[-26:]
    wrong_length = data.replace(b"PK\6\6" + b"\x2c", b"PK\6\6" + b"\x2d")
    for odd in (wrong_count, wrong_place, wrong_length):
        with pytest.raises(InvalidDistribution, match="two ends"):
            read(odd, WHEEL)


def patched(data: bytes, place: bytes, offset: int, value: bytes) -> bytes:
    """The bytes with some replaced, counted from the first place where others stand."""
    start = data.index(place) + offset
    return data[:start] + value + data[start + len(value) :]


@pytest.mark.parametrize(
    ("place", "offset", "value"),
    [
        (b"PK\5\6", 4, b"\1\0"),
        (b"PK\5\6", 6, b"\1\0"),
        (b"PK\5\6", 8, b"\3\0"),
        (b"PK\5\6", 8, b"\3\0\3\0"),
        (b"PK\5\6", 8, b"\5\0\5\0"),
        (b"PK\1\2", 0, b"PK\1\3"),
        (b"PK\1\2", 28, b"\xff\xff"),
        (b"PK\1\2", 34, b"\1\0"),
    ],
)
def test_a_directory_must_be_whole_and_in_one_file(read: Read, place: bytes, offset: int, value: bytes) -> None:
    """Archives over several disks, and directories with fewer or more entries than they say, are refused."""
    with pytest.raises(InvalidDistribution, match="directory"):
        read(patched(zipped(PLAIN), place, offset, value), WHEEL)


def test_sizes_must_be_somewhere(read: Read) -> None:
    """A member that refers to wide sizes without having any is refused."""
    with pytest.raises(InvalidDistribution, match="without a size"):
        read(patched(zipped(PLAIN), b"PK\1\2", 20, b"\xff" * 8), WHEEL)


def test_a_stored_member_has_one_size(read: Read) -> None:
    """A member that is stored as it is cannot unpack to another size."""
    data = zipped(PLAIN, zipfile.ZIP_STORED)
    for place, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        data = patched(data, place, offset, b"\1\0\0\0")
    with pytest.raises(InvalidDistribution, match="two sizes"):
        read(data, WHEEL)


def with_extra(extra: bytes) -> bytes:
    entry = zipfile.ZipInfo("extra")
    entry.extra = extra
    buffer = io.BytesIO(zipped(PLAIN))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(entry, b"data")
    return buffer.getvalue()


def unicode_path(name: bytes) -> bytes:
    return struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(b"extra")) + name


@pytest.mark.parametrize(
    ("extra", "sound"),
    [
        (b"", True),
        (struct.pack("<HHL", 0x5455, 4, 1), True),
        (b"\0\0\0", True),
        (unicode_path(b"extra"), True),
        (unicode_path(b"other"), False),
        (unicode_path(b"extra") * 2, False),
        (struct.pack("<HH", 0x0001, 0) * 2, False),
        (struct.pack("<HH", 0x5455, 400), False),
    ],
)
def test_extra_fields_may_not_say_other_things(read: Read, extra: bytes, sound: bool) -> None:
    """Another name, doubled ZIP64 or name fields, and fields over the end are refused; others are not our affair."""
    data = with_extra(extra)
    if sound:
        assert read(data, WHEEL) is not None
        return
    with pytest.raises(InvalidDistribution, match=r"two names|extra fields"):
        read(data, WHEEL)


def test_a_wheel_that_is_also_a_tar_is_refused(read: Read) -> None:
    """A zip file whose first block is a tar header, too, is refused."""
    entry = zipfile.ZipInfo("acme.py")
    entry.extra = struct.pack("<HH", 0x9999, 600) + bytes(600)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, b"")
        for name, data in PLAIN.items():
            archive.writestr(name.replace("acme.py", "more.py"), data)
    assert read(buffer.getvalue(), WHEEL) is not None
    both = bytearray(buffer.getvalue())
    both[:512] = summed(bytes(both[:512]))
    with pytest.raises(InvalidDistribution, match="at once"):
        read(bytes(both), WHEEL)


def test_a_damaged_member_is_refused(read: Read) -> None:
    """METADATA with another checksum, another size or broken compression is refused."""
    data = zipped(PLAIN, zipfile.ZIP_STORED).replace(b"Metadata-Version: 2.1", b"Metadata-Version: 2.2")
    with pytest.raises(InvalidDistribution, match="damaged"):
        read(data, WHEEL)
    packed = bytearray(zipped({f"{INFO}/METADATA": bytes(1000), **PLAIN}))
    start = 30 + len(f"{INFO}/METADATA")
    packed[start : start + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(InvalidDistribution, match="damaged"):
        read(bytes(packed), WHEEL)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(read: Read) -> None:
    """A size that is too small is found out, and the rest is not unpacked on the way."""
    name = f"{INFO}/METADATA"
    data = zipped({name: PLAIN[name] + b"\n" * 20_000_000, f"{INFO}/WHEEL": b"", f"{INFO}/RECORD": b""})
    for place, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        data = patched(data, place, offset, struct.pack("<L", 100))
    tracemalloc.start()
    with pytest.raises(InvalidDistribution, match="damaged"):
        read(data, WHEEL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"members": 3}, "more than 3 members"),
        ({"small": 20}, "larger than 20 bytes"),
        ({"unpacked": 100}, "more than 100 bytes"),
        ({"ratio_from": 1 << 20}, "more than 50 times"),
    ],
)
def test_a_wheel_has_limits(read: Read, limits: dict[str, int], message: str) -> None:
    """Too many members, too big metadata, too big a whole and too good a compression are refused."""
    data = zipped({**PLAIN, "zeros": bytes(2 << 20)})
    assert read(data, WHEEL) is not None
    with pytest.raises(InvalidDistribution, match=message):
        read(data, WHEEL, **limits)


def test_a_bomb_of_64_mib_is_refused_by_default(read: Read) -> None:
    """More than 64 MiB at more than 50:1 is too much (standards.md 7.2)."""
    with pytest.raises(InvalidDistribution, match="50 times"):
        read(zipped({**PLAIN, "zeros": bytes((64 << 20) + 1)}), WHEEL)


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        (b"[console_scripts]\nacme = acme:main\n", True),
        (b"", True),
        (b"[a.b]\nx = y:z [extra]\nc:d = e\n", True),
        (b"console_scripts]\nacme", False),
        (b"[console_scripts]\nacme\n", False),
        (b"[x]\na = \xff", False),
    ],
)
def test_entry_points_must_be_readable(read: Read, text: bytes, sound: bool) -> None:
    """An entry_points.txt that installers would stumble over is refused."""
    data = zipped({**PLAIN, f"{INFO}/entry_points.txt": text})
    if sound:
        assert read(data, WHEEL) is not None
        return
    with pytest.raises(InvalidDistribution, match="entry_points"):
        read(data, WHEEL)


# Source distributions that are not sound


def sparse() -> bytes:
    """A tar archive with a sparse member as old GNU tar wrote it."""
    block = bytearray(special("acme-1.0/sparse", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    return bytes(block) + tarred(PKG_INFO)


def sparse_by_header() -> bytes:
    entry = tarfile.TarInfo("acme-1.0/sparse")
    entry.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "10"}
    return tarred(PKG_INFO, entry)


def endlessly_sparse() -> bytes:
    """A sparse member whose map goes on in the next block, which is not there."""
    block = special("acme-1.0/sparse", tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    return tarred(PKG_INFO)[:1024] + summed(block[:482] + b"\1" + block[483:512])


def negative_prefix() -> bytes:
    """A long name of a negative number of bytes."""
    block = special("acme-1.0/long", tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    return tarred(PKG_INFO)[:1024] + summed(block[:124] + b"\xff" * 12 + block[136:512])


def summed(block: bytes) -> bytes:
    """A tar header with its checksum put right."""
    return block[:148] + b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:])) + block[156:]


def negative_size() -> bytes:
    entry = tarfile.TarInfo("acme-1.0/back")
    entry.pax_headers = {"size": "-1024"}
    return tarred(PKG_INFO, entry)


def endless_prefix() -> bytes:
    return tarred(PKG_INFO) + special("x", tarfile.XHDTYPE).tobuf()


def huge_prefix() -> bytes:
    entry = special("x", tarfile.GNUTYPE_LONGNAME)
    entry.size = 1 << 30
    return entry.tobuf(tarfile.GNU_FORMAT) + tarred(PKG_INFO)


def many_digits() -> bytes:
    """An extended header that is the start of a very long number."""
    payload = b"1" * 5000 + b" path=x\n"
    entry = special("x", tarfile.XHDTYPE)
    entry.size = len(payload)
    return entry.tobuf() + payload + bytes(-len(payload) % 512) + tarred(PKG_INFO)


def nested_prefixes() -> bytes:
    return special("x", tarfile.XHDTYPE).tobuf() * 3000 + tarred(PKG_INFO)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tarred(PKG_INFO, ("other/x", b"")), "must be one directory"),
        (tarred(PKG_INFO, ("README", b"")), "must be one directory"),
        (tarred(PKG_INFO, PKG_INFO), "two files"),
        (tarred(PKG_INFO, ("acme-1.0/../x", b"")), "unsafe name"),
        (tarred(("/acme-1.0/x", b"")), "unsafe name"),
        (tarred(PKG_INFO, ("acme-1.0/a\nb", b"")), "unsafe name"),
        (tarred(PKG_INFO, special("acme-1.0/null", tarfile.CHRTYPE)), "no file"),
        (tarred(PKG_INFO, special("acme-1.0/disk", tarfile.BLKTYPE)), "no file"),
        (tarred(PKG_INFO, special("acme-1.0/pipe", tarfile.FIFOTYPE)), "no file"),
        (tarred(PKG_INFO, special("acme-1.0/x", tarfile.SYMTYPE, "../../etc/passwd")), "leads out"),
        (tarred(PKG_INFO, special("acme-1.0/x", tarfile.SYMTYPE, "/etc/passwd")), "leads out"),
        (tarred(PKG_INFO, special("acme-1.0/x", tarfile.SYMTYPE, "..")), "leads out"),
        (tarred(PKG_INFO, special("acme-1.0/x", tarfile.LNKTYPE, "../acme-1.0/x")), "leads out"),
        (tarred(special("acme-1.0/PKG-INFO", tarfile.SYMTYPE, "x")), "must be a file"),
        (tarred(), "empty"),
        (tarred(PKG_INFO)[:700], "damaged"),
        (tarred(PKG_INFO) + b"more", "data after its end"),
        (tarred(PKG_INFO) + bytes(2 << 20), "data after its end"),
        (sparse(), "sparse"),
        (sparse_by_header(), "sparse"),
        (endlessly_sparse(), "sparse"),
        (negative_size(), "impossible size"),
        (negative_prefix(), "impossible size"),
        (huge_prefix(), "impossible size"),
        (nested_prefixes(), "damaged"),
        (many_digits(), "damaged"),
        (endless_prefix(), "after its end"),
    ],
)
def test_unsound_tar_archives_are_refused(read: Read, data: bytes, message: str) -> None:
    """Everything in a tar archive that could harm who unpacks it, or mislead who reads it, is refused."""
    with pytest.raises(InvalidDistribution, match=message):
        read(gzip.compress(data), SDIST)


def test_damage_in_what_is_passed_over_is_noticed(read: Read) -> None:
    """Compressed data that breaks within a member that nobody wants is refused, too."""
    numbers = b"".join(b"%d " % number for number in range(100_000))
    packed = bytearray(gzip.compress(tarred(("acme-1.0/numbers", numbers), PKG_INFO)))
    packed[len(packed) // 2 : len(packed) // 2 + 400] = b"\xff" * 400
    with pytest.raises(InvalidDistribution, match="damaged"):
        read(bytes(packed), SDIST)


def test_a_damaged_stream_is_refused(read: Read) -> None:
    """A gzip or bzip2 stream that is cut, has a wrong checksum or has more behind it is refused."""
    packed = gzip.compress(tarred(PKG_INFO))
    for odd in (
        packed[:-9],
        packed[:-8] + bytes(8),
        packed + b"more",
        packed[:12] + b"\xff" * 40,
        b"\x1f\x8b" + bytes(20),
    ):
        with pytest.raises(InvalidDistribution):
            read(odd, SDIST)
    with pytest.raises(InvalidDistribution):
        read(bz2.compress(tarred(PKG_INFO))[:-20], "acme-1.0.tar.bz2")


def test_a_missing_file_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    """An error of the file system is not reported as a bad archive."""
    with pytest.raises(FileNotFoundError):
        read_distribution(str(tmp_path / "missing"), SDIST)


def test_a_tar_that_is_also_a_zip_is_refused(read: Read) -> None:
    """A tar archive in which a zip reader would find a zip file is refused."""
    for inner in (zipped(PLAIN), zipped({})):
        with pytest.raises(InvalidDistribution, match="at once"):
            read(tarred(PKG_INFO, ("acme-1.0/inner", inner)), "acme-1.0.tar")
    # The signature alone, as chance may have it in any archive, does no harm.
    assert read(tarred(PKG_INFO, ("acme-1.0/inner", b"PK\5\6" + bytes(range(1, 40)))), "acme-1.0.tar") is not None


class Counted(io.BytesIO):
    """Counts what is read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, which count."""
        data = super().read(size)
        self.total += len(data)
        return data


def test_a_tar_bomb_is_stopped_early(read: Read) -> None:
    """A member that says it is huge is refused before it is unpacked, whatever the compression."""
    bomb = tarfile.TarInfo("acme-1.0/zeros")
    bomb.size = 70 << 20
    data = gzip.compress(bomb.tobuf() + bytes(1 << 20))
    with pytest.raises(InvalidDistribution, match="50 times"):
        read(data, SDIST)
    with pytest.raises(InvalidDistribution, match="more than 1000 bytes"):
        read(gzip.compress(tarred(PKG_INFO, ("acme-1.0/big", bytes(2000)))), SDIST, unpacked=1000)
    with pytest.raises(InvalidDistribution, match="more than 1 members"):
        read(gzip.compress(tarred(PKG_INFO, ("acme-1.0/more", b""))), SDIST, members=1)
    with pytest.raises(InvalidDistribution, match="at most 10 bytes"):
        read(gzip.compress(tarred(PKG_INFO)), SDIST, small=10)


def test_a_tar_is_looked_through_up_to_a_bound(read: Read) -> None:
    """Once the metadata is known and the bound is passed, what follows is not unpacked any more."""
    data = gzip.compress(tarred(PKG_INFO, ("acme-1.0/big", bytes(5000)), ("elsewhere", b"")))
    with pytest.raises(InvalidDistribution, match="must be one directory"):
        read(data, SDIST)
    assert read(data, SDIST, walk=4000) is not None


# Stored wheels


def test_metadata_of_a_stored_wheel_is_read_lazily() -> None:
    """Of a big wheel only its end and the header of METADATA are read."""
    stream = Counted(zipped({"big": bytes(range(256)) * 20_000, **PLAIN}, zipfile.ZIP_STORED))
    assert wheel_metadata(stream) == PLAIN[f"{INFO}/METADATA"]
    assert stream.total < 100_000


def test_metadata_of_a_stored_wheel_is_found_at_its_start() -> None:
    """METADATA may be anywhere in the wheel."""
    stream = Counted(zipped({**PLAIN, "big": bytes(5_000_000)}, zipfile.ZIP_STORED))
    assert wheel_metadata(stream) == PLAIN[f"{INFO}/METADATA"]
    assert stream.total < 100_000


def test_metadata_comes_out_of_a_stream_that_cannot_seek() -> None:
    """A stream that only goes forward is spooled."""

    class Forward(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *args: Any) -> int:
            raise io.UnsupportedOperation

    assert wheel_metadata(Forward(zipped(PLAIN))) == PLAIN[f"{INFO}/METADATA"]


def test_a_stored_wheel_without_metadata_is_told() -> None:
    """No METADATA, or one that is too big, is an InvalidDistribution."""
    members = {name: data for name, data in PLAIN.items() if not name.endswith("METADATA")}
    with pytest.raises(InvalidDistribution, match="has no"):
        wheel_metadata(io.BytesIO(zipped(members)))
    with pytest.raises(InvalidDistribution, match="larger"):
        wheel_metadata(io.BytesIO(zipped(PLAIN)), Limits(small=10))
    with pytest.raises(InvalidDistribution, match="more than 2 members"):
        wheel_metadata(io.BytesIO(zipped(PLAIN)), Limits(members=2))


# Core metadata


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "2.0", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6"])
def test_every_version_of_core_metadata_is_read(version: str) -> None:
    """The legal versions, and 2.0 that old wheels carry, are read (standards.md 6)."""
    assert parse_metadata(f"Metadata-Version: {version}\nName: a\nVersion: 1\n".encode()).name == "a"


def test_a_newer_minor_version_warns(caplog: pytest.LogCaptureFixture) -> None:
    """A newer minor version is read with a warning (standards.md 6)."""
    assert parse_metadata(b"Metadata-Version: 2.7\nName: a\nVersion: 1\n").version == "1"
    assert "2.7" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Metadata-Version"),
        (b"Name: a\nVersion: 1\n", "Metadata-Version"),
        (b"Metadata-Version: 3.0\nName: a\nVersion: 1\n", "'3.0'"),
        (b"Metadata-Version: 0.9\nName: a\nVersion: 1\n", "'0.9'"),
        (b"Metadata-Version: two\nName: a\nVersion: 1\n", "'two'"),
        (b"Metadata-Version: 2.1\nMetadata-Version: 2.1\nName: a\nVersion: 1\n", "exactly one Metadata-Version"),
        (b"Metadata-Version: 2.1\nVersion: 1\n", "exactly one Name"),
        (b"Metadata-Version: 2.1\nName: a\nVersion:\n", "exactly one Name and one Version"),
        (b"Metadata-Version: 2.1\nName: a\nName: b\nVersion: 1\n", "exactly one Name"),
        (b"Metadata-Version: 2.1\nName: -a\nVersion: 1\n", "'-a'"),
        (b"Metadata-Version: 2.1\nName: a b\nVersion: 1\n", "'a b'"),
        (b"Metadata-Version: 2.1\nName: \xc3\xa9t\xc3\xa9\nVersion: 1\n", "valid name"),
    ],
)
def test_malformed_metadata_is_refused(text: bytes, message: str) -> None:
    """Metadata without exactly one known version, valid name and version is refused, and the sentence says why."""
    with pytest.raises(InvalidDistribution, match=message):
        parse_metadata(text)


@pytest.mark.parametrize(
    "part", [b"Content-Type: message/rfc822\n\n", b"Content-Type: multipart/a;boundary=b\n\n--b\n"]
)
def test_messages_within_messages_are_refused(part: bytes) -> None:
    """Metadata is mail in form only; a tower of mails in it is refused."""
    parts = b"".join(part.replace(b"=b", b"=b%d" % i).replace(b"--b", b"--b%d" % i) for i in range(3000))
    with pytest.raises(InvalidDistribution, match="too deep"):
        parse_metadata(b"Metadata-Version: 2.1\nName: a\nVersion: 1\n" + parts)


@pytest.mark.parametrize(
    ("field", "summary"),
    [
        ("Summary: one", "one"),
        ("Summary: one\n        two", "one"),
        ("Summary:   ", None),
        ("Summary: UNKNOWN", None),
        ("Author: Ann", None),
    ],
)
def test_the_summary_is_its_first_line(field: str, summary: str | None) -> None:
    """Only the first line counts, and the word that old tools wrote for none counts as none."""
    assert parse_metadata(f"Metadata-Version: 1.1\nName: a\nVersion: 1\n{field}\n".encode()).summary == summary


def test_malformed_minor_fields_do_no_harm() -> None:
    """Old files with other encodings, odd requirements and folded lines are read."""
    text = b"Metadata-Version: 1.2\nName: a\nVersion: 1\nAuthor: Andr\xe9\nRequires-Dist: a (>1.*\n"
    text += b"Requires-Python: >=2.7,\n  !=3.0.*\n"
    assert parse_metadata(text).requires_python == ">=2.7, !=3.0.*"


# Whatever is sent

ENDINGS = st.sampled_from([WHEEL, SDIST, "acme-1.0.zip", "acme-1.0.tar", "acme-1.0.tar.bz2", "acme-1.0.egg"])
BOUNDED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SOUND = {
    WHEEL: build_wheel(),
    SDIST: build_sdist(),
    "acme-1.0.zip": zipped(dict([PKG_INFO])),
    "acme-1.0.tar": tarred(PKG_INFO, special("acme-1.0/link", tarfile.SYMTYPE, "PKG-INFO")),
    "acme-1.0.tar.bz2": bz2.compress(tarred(PKG_INFO)),
}


def answers(read: Read, data: bytes, filename: str) -> None:
    """Reading either gives an answer or says that the distribution is invalid; other errors come through."""
    try:
        found = read(data, filename)
    except InvalidDistribution as error:
        assert error.message  # noqa: PT017 - either outcome is fine, any other exception is not
        return
    assert found is None or found.metadata


@BOUNDED
@given(data=st.binary(max_size=2000), filename=ENDINGS)
@example(data=gzip.compress(b"\0" * 512), filename=SDIST)
@example(data=b"PK\5\6" + bytes(18), filename=WHEEL)
def test_junk_is_answered_or_refused(read: Read, data: bytes, filename: str) -> None:
    """No bytes whatever lead to another error than InvalidDistribution."""
    answers(read, data, filename)
    answers(read, gzip.compress(data), SDIST)


@BOUNDED
@given(
    filename=st.sampled_from(sorted(SOUND)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6
    ),
    cut=st.floats(0, 1),
)
@example(filename="acme-1.0.tar.bz2", changes=[(0.0, b"PK\x05\x06")], cut=0.09375)
def test_damage_is_answered_or_refused(
    read: Read, filename: str, changes: list[tuple[float, bytes]], cut: float
) -> None:
    """A sound archive with bytes changed or cut off never leads to another error than InvalidDistribution."""
    data = bytearray(SOUND[filename])
    for place, patch in changes:
        start = int(place * len(data))
        data[start : start + len(patch)] = patch
    answers(read, bytes(data), filename)
    answers(read, bytes(data[: int(cut * len(data))]), filename)


@BOUNDED
@given(changes=st.lists(st.tuples(st.integers(0, 2559), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6))
def test_damaged_tar_headers_are_answered_or_refused(read: Read, changes: list[tuple[int, bytes]]) -> None:
    """The same holds for what is inside of the compression, where no checksum helps."""
    data = bytearray(tarred(PKG_INFO, ("acme-1.0/" + "x" * 200, b"data"), special("acme-1.0/l", tarfile.SYMTYPE, "x")))
    for start, patch in changes:
        data[start : start + len(patch)] = patch
    for block in range(0, len(data) - 511, 512):
        header = data[block : block + 512]
        if header.count(0) < 512:
            data[block : block + 512] = summed(bytes(header))
    answers(read, gzip.compress(bytes(data)), SDIST)


@BOUNDED
@given(data=st.binary(max_size=500) | st.text(max_size=300).map(lambda text: f"Name: a\nVersion: 1\n{text}".encode()))
def test_junk_metadata_is_answered_or_refused(data: bytes) -> None:
    """No text whatever leads to another error than InvalidDistribution."""
    try:
        parse_metadata(b"Metadata-Version: 2.1\n" + data)
    except InvalidDistribution as error:
        assert error.message  # noqa: PT017 - either outcome is fine, any other exception is not
