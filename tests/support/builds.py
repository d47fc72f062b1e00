"""Wheels and source distributions, built on the spot: small, sound, and the same bytes every time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping

#: A fixed moment, so that the same call gives the same bytes.
_DATE = (2026, 11, 20, 7, 0, 0)


def metadata(name: str, version: str, **fields: str) -> str:
    """Core metadata; ``requires_python=">=3.11"`` becomes ``Requires-Python: >=3.11``."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"{key.replace('_', '-').title()}: {value}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def wheel_name(name: str, version: str, tag: str = "py3-none-any") -> str:
    """The file name of a wheel."""
    return f"{name.replace('-', '_')}-{version}-{tag}.whl"


def sdist_name(name: str, version: str) -> str:
    """The file name of a source distribution (PEP 625)."""
    return f"{name.replace('-', '_')}-{version}.tar.gz"


def build_wheel(
    name: str = "acme",
    version: str = "1.0",
    *,
    members: Mapping[str, bytes] | None = None,
    core_metadata: str | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
    **fields: str,
) -> bytes:
    """A wheel that pip and uv install; ``members`` are the files beside its ``.dist-info``."""
    module = name.replace("-", "_").replace(".", "_")
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    contents = dict(members if members is not None else {f"{module}.py": f"VERSION = {version!r}\n".encode()})
    contents[f"{info}/METADATA"] = (core_metadata or metadata(name, version, **fields)).encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},sha256={_urlsafe(data)},{len(data)}" for path, data in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, data in contents.items():
            archive.writestr(zipfile.ZipInfo(path, _DATE), data, compress_type=compression)
    return buffer.getvalue()


def build_sdist(
    name: str = "acme",
    version: str = "1.0",
    *,
    members: Mapping[str, bytes] | None = None,
    core_metadata: str | None = None,
    **fields: str,
) -> bytes:
    """A source distribution that pip and uv can build with the backend it carries itself."""
    top = f"{name.replace('-', '_')}-{version}"
    contents = {
        "PKG-INFO": (core_metadata or metadata(name, version, **fields)).encode(),
        "pyproject.toml": b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": _backend(name, version),
        **(members or {}),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in contents.items():
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _backend(name: str, version: str) -> bytes:
    """A PEP 517 build backend that needs nothing: it writes a wheel that was made beforehand."""
    ready = base64.b64encode(build_wheel(name, version)).decode()
    return (
        "import base64, pathlib\n"
        f"NAME = {wheel_name(name, version)!r}\n"
        f"WHEEL = base64.b64decode({ready!r})\n"
        "def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):\n"
        "    pathlib.Path(wheel_directory, NAME).write_bytes(WHEEL)\n"
        "    return NAME\n"
    ).encode()


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
