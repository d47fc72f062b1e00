"""This server in the place of 1.3.12."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from plaster import get_loader
from webtest import TestApp, TestResponse

from pypicloud.models import Package
from pypicloud.storage.files import FileStorage
from support.world import basic

FIXTURE: Final = Path(__file__).parent / "fixtures" / "v1_3_12"

#: What the fixture's ini file says of its cache.
_CACHE: Final = "db.url = sqlite:///%(here)s/db.sqlite\n"


class Successor:
    """This server, started on a directory that 1.3.12 left, with its very ini file."""

    def __init__(self, directory: Path, passwords: dict[str, str]) -> None:
        self.directory = directory
        self.packages = directory / "packages"
        self._passwords = passwords
        self._wsgi = get_loader(str(directory / "server.ini"), protocols=["wsgi"]).get_wsgi_app()
        self.app = TestApp(self._wsgi)

    def get(self, path: str, caller: str | None = "admin") -> TestResponse:
        """The answer to a GET, whatever its status."""
        return self.app.get(path, headers=self.credentials(caller), expect_errors=True)

    def upload(self, caller: str, filename: str, content: bytes, **fields: str) -> TestResponse:
        """The answer to an upload, as twine sends it."""
        form = {":action": "file_upload", "protocol_version": "1", **fields}
        files = [("content", filename, content)]
        headers = self.credentials(caller)
        return self.app.post("/simple/", form, upload_files=files, headers=headers, expect_errors=True)

    def close(self) -> None:
        """Close the connections of the cache."""
        shared = self._wsgi.registry.pypicloud.cache_factory.keywords.values()
        for close in filter(None, (getattr(value, "close", None) for value in shared)):
            close()

    def credentials(self, caller: str | None) -> dict[str, str]:
        """The header that says who asks; None is nobody."""
        return {} if caller is None else basic(caller, self._passwords[caller])


def files_in(directory: Path) -> dict[str, bytes]:
    """Everything below a directory, by path."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


class UnlistedStorage(FileStorage):
    """A directory of package files that gives each, but does not say which there are."""

    def list(self, factory: Callable[..., Package] = Package) -> Iterator[Package]:
        """Nobody may ask."""
        raise AssertionError("the storage was asked for all that it holds")


def cache_settings(ini: Path, settings: Mapping[str, str]) -> None:
    """Have the server of the fixture's ini file use another cache."""
    lines = "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in settings.items())
    text = ini.read_text("utf-8")
    if _CACHE not in text:
        raise AssertionError(f"{ini} names another cache already")
    ini.write_text(text.replace(_CACHE, lines), encoding="utf-8")


def restore(directory: Path, old: dict[str, Any]) -> None:
    """Copy what 1.3.12 left, with the times of its files, which git does not keep."""
    shutil.copytree(FIXTURE, directory)
    for path, nanoseconds in old["mtimes"].items():
        os.utime(directory / path, ns=(nanoseconds, nanoseconds))
