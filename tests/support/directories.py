"""A storage directory, seen with and without the storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pypicloud.settings import EnvironSettings
from pypicloud.storage import get_storage_impl
from pypicloud.storage.files import FileStorage


def tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory by its path, and every directory by its path and a slash."""
    return {
        f"{path.relative_to(directory)}{'/' if path.is_dir() else ''}": b"" if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


def configured(directory: Path, request: Any = None) -> FileStorage:
    """The storage, as the server makes it."""
    storage = get_storage_impl(EnvironSettings({"storage.dir": str(directory)}, {}))(request)
    assert isinstance(storage, FileStorage)
    return storage


def put(directory: Path, path: str, content: bytes = b"x") -> Path:
    """A file that lies in the directory already."""
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
