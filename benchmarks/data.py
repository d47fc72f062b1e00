"""What is measured on: wheels, trees in the layout of 1.3.12 (compat.md 2.1), configurations.

Everything is made once below the work folder and used again by the next run; a piece is moved into place
only when it is whole.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from benchmarks import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

#: Changed whenever what is made below changes, so that older pieces are not used again.
GENERATION: Final = "2"

#: What a pure wheel of some size weighs; the peer that reads its files for each page should have real ones to read.
WHEEL_BYTES: Final = 100_000
DOWNLOAD_BYTES: Final = 20_000_000
UPLOAD_BYTES: Final = 200_000_000

#: How many files are moved from one storage to another.
MOVED: Final = 1000

TWENTY: Final = "acme-twenty"
MANY: Final = "acme-many"
LARGE: Final = "acme-large"
FILES: Final = {TWENTY: 20, MANY: 2000}

#: The sha512_crypt hash of ``load.PASSWORD`` with the rounds that ``ppc-gen-password`` gives it.
_HASH: Final = (
    "$6$rounds=20500$YX0A79.IwZPg2/Do$"
    "UTAfrq0JL5YLpCYRm2RUEUdaCnaSNoeyzl4yYM89MnIYQuTPUN9naFAc0DFO/Kq5Erj2ZugKtH82QGQ9I4JCl1"
)

_CONFIG: Final = """\
[app:main]
use = egg:pypicloud
pypi.fallback = none
pypi.default_read = authenticated
pypi.default_write = authenticated
{storage}
{cache}
pypi.auth = config
user.{user} = {hash}
session.encrypt_key = {key}
session.validate_key = {key}
"""


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """A file or folder that is made on first use. ``make`` is given a path beside it to fill."""
    stamp = path.with_name(f"{path.name}.generation")
    if path.exists() and stamp.exists() and stamp.read_text() == GENERATION:
        return path
    half = path.with_name(f"{path.name}.half")
    for old in (path, half):
        remove(old)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(half)
    half.rename(path)
    stamp.write_text(GENERATION)
    return path


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def numbered_project(number: int) -> str:
    """The name of the n-th of very many projects."""
    return f"project-{number:06}"


def file_name(project: str, version: str) -> str:
    """The name of a project's pure wheel."""
    return f"{project.replace('-', '_')}-{version}-py3-none-any.whl"


def summary(project: str) -> str:
    """The one line that describes a project."""
    return f"What {project} is for, in one line of the usual length"


REQUIRES_PYTHON: Final = ">=3.10"


def wheel(project: str, version: str, payload: Iterable[bytes] = (b"answer = 42\n",)) -> bytes:
    """A valid wheel, all members stored, so that its size is that of the payload and a little more."""
    stream = io.BytesIO()
    _write_wheel(stream, project, version, payload)
    return stream.getvalue()


def _write_wheel(stream: BinaryIO, project: str, version: str, payload: Iterable[bytes]) -> None:
    folder = project.replace("-", "_")
    info = f"{folder}-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
        f"Summary: {summary(project)}\nRequires-Python: {REQUIRES_PYTHON}\n"
    )
    tags = "Wheel-Version: 1.0\nGenerator: benchmarks\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes) -> str:
            archive.writestr(zipfile.ZipInfo(name), data)
            return f"{name},sha256={_record_digest(data)},{len(data)}\n"

        for number, part in enumerate(payload):
            record += add(f"{folder}/part_{number}.bin", part)
        record += add(f"{info}/METADATA", metadata.encode())
        record += add(f"{info}/WHEEL", tags.encode())
        add(f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode())


def sdist(project: str, version: str) -> bytes:
    """A valid source distribution with nothing in it but its metadata."""
    info = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nSummary: {summary(project)}\n".encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo(f"{project.replace('-', '_')}-{version}/PKG-INFO")
        member.size = len(info)
        archive.addfile(member, io.BytesIO(info))
    return stream.getvalue()


def _record_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _noise(size: int) -> Iterator[bytes]:
    """Bytes that cannot be compressed, the same in every run, in parts of at most ten megabytes."""
    source = random.Random(size)
    part = 10_000_000
    return (source.randbytes(min(part, size - start)) for start in range(0, size, part))


def store(tree: Path, project: str, version: str, filename: str, data: bytes) -> None:
    """Put a file and the facts about it into a storage folder, as 1.3.12 would."""
    folder = tree / project / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / filename).write_bytes(data)
    facts = {
        "requires_python": REQUIRES_PYTHON,
        "hash_sha256": hashlib.sha256(data).hexdigest(),
        "hash_md5": hashlib.md5(data).hexdigest(),
        "uploader": load.USER,
        "summary": summary(project),
    }
    (folder / f"{filename}.meta").write_text(json.dumps(facts))


@dataclass(frozen=True, slots=True)
class Body:
    """A multipart upload that lies ready to be sent, and the wheel in it."""

    path: Path
    boundary: str
    wheel: Path
    project: str


@dataclass(frozen=True, slots=True)
class World:
    """All pieces, below one folder."""

    root: Path

    def pages_tree(self) -> Path:
        """A storage folder with a project of 20 files of 100 kB, one of 2,000 and one of a single large file."""

        def make(tree: Path) -> None:
            for project, count in FILES.items():
                for number in range(count):
                    version = f"1.{number // 10}.{number % 10}"
                    data = wheel(project, version, _noise(WHEEL_BYTES))
                    store(tree, project, version, file_name(project, version), data)
            data = wheel(LARGE, "1.0", _noise(DOWNLOAD_BYTES))
            store(tree, LARGE, "1.0", file_name(LARGE, "1.0"), data)

        return made_once(self.root / "pages", make)

    def flat_folder(self, project: str) -> Path:
        """The files of one project in a folder of their own, as a plain file server wants them."""

        def make(folder: Path) -> None:
            folder.mkdir()
            for path in (self.pages_tree() / project).glob("*/*.whl"):
                os.link(path, folder / path.name)

        return made_once(self.root / "flat" / project, make)

    def large_file(self) -> Path:
        """The stored file of 20 MB."""
        return self.pages_tree() / LARGE / "1.0" / file_name(LARGE, "1.0")

    def rebuild_tree(self) -> Path:
        """A storage folder with 20,000 files: 1,000 projects, ten versions each, a wheel and an sdist of each."""

        def make(tree: Path) -> None:
            for number in range(1000):
                project = f"rebuild-{number:04}"
                for minor in range(10):
                    version = f"1.{minor}"
                    store(tree, project, version, file_name(project, version), wheel(project, version))
                    sdist_name = f"{project.replace('-', '_')}-{version}.tar.gz"
                    store(tree, project, version, sdist_name, sdist(project, version))

        return made_once(self.root / "rebuild", make)

    def moving_tree(self) -> Path:
        """A storage folder with 1,000 projects of one wheel of 100 kB."""

        def make(tree: Path) -> None:
            for number in range(MOVED):
                project = numbered_project(number)
                store(tree, project, "1.0", file_name(project, "1.0"), wheel(project, "1.0", _noise(WHEEL_BYTES)))

        return made_once(self.root / "moving", make)

    def upload_body(self, size: int = UPLOAD_BYTES) -> Body:
        """A wheel of 200 MB or another size, and the form around it as twine sends it."""
        project, version, boundary = f"acme-upload-{size // 1_000_000}", "1.0", "b0a71e57c0ffee"

        def make_wheel(half: Path) -> None:
            with half.open("wb") as stream:
                _write_wheel(stream, project, version, _noise(size))

        path = made_once(self.root / f"{project}.whl", make_wheel)

        def make(half: Path) -> None:
            fields = {
                ":action": "file_upload",
                "protocol_version": "1",
                "metadata_version": "2.1",
                "name": project,
                "version": version,
                "summary": summary(project),
                "requires_python": REQUIRES_PYTHON,
                "filetype": "bdist_wheel",
                "pyversion": "py3",
                "sha256_digest": _digest(path, "sha256"),
                "blake2_256_digest": _digest(path, lambda: hashlib.blake2b(digest_size=32)),
            }
            head = "".join(
                f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in fields.items()
            )
            head += (
                f'--{boundary}\r\nContent-Disposition: form-data; name="content"; '
                f'filename="{file_name(project, version)}"\r\nContent-Type: application/octet-stream\r\n\r\n'
            )
            with half.open("wb") as stream, path.open("rb") as content:
                stream.write(head.encode())
                shutil.copyfileobj(content, stream, 1 << 20)
                stream.write(f"\r\n--{boundary}--\r\n".encode())

        return Body(made_once(self.root / f"{project}.body", make), boundary, path, project)


def folder(path: Path) -> dict[str, str]:
    """The settings of a storage in this folder."""
    return {"pypi.storage": "file", "storage.dir": str(path)}


def sqlite(database: Path) -> dict[str, str]:
    """The settings of a cache in this file."""
    return {"pypi.db": "sql", "db.url": f"sqlite:///{database}"}


def write_config(path: Path, storage: Mapping[str, str], cache: Mapping[str, str]) -> None:
    """Write an ini file for a server on the storage and the cache of these settings."""
    key = base64.b64encode(bytes(32)).decode()
    path.write_text(_CONFIG.format(storage=_lines(storage), cache=_lines(cache), user=load.USER, hash=_HASH, key=key))


def _lines(settings: Mapping[str, str]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in settings.items())


def _digest(path: Path, digest: Any) -> str:
    with path.open("rb") as stream:
        found: str = hashlib.file_digest(stream, digest).hexdigest()
    return found
