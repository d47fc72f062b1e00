"""This server in the place of 1.3.12."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

from plaster import get_loader
from webtest import TestApp, TestResponse

from support.world import basic

FIXTURE: Final = Path(__file__).parent / "fixtures" / "v1_3_12"


class Successor:
    """This server, started on a directory that 1.3.12 left, with its very ini file."""

    def __init__(self, directory: Path, passwords: dict[str, str]) -> None:
        self.directory = directory
        self.packages = directory / "packages"
        self._passwords = passwords
        wsgi = get_loader(str(directory / "server.ini"), protocols=["wsgi"]).get_wsgi_app()
        self.app = TestApp(wsgi)

    def get(self, path: str, caller: str | None = "admin") -> TestResponse:
        """The answer to a GET, whatever its status."""
        return self.app.get(path, headers=self.credentials(caller), expect_errors=True)

    def upload(self, caller: str, filename: str, content: bytes, **fields: str) -> TestResponse:
        """The answer to an upload, as twine sends it."""
        form = {":action": "file_upload", "protocol_version": "1", **fields}
        files = [("content", filename, content)]
        headers = self.credentials(caller)
        return self.app.post("/simple/", form, upload_files=files, headers=headers, expect_errors=True)

    def credentials(self, caller: str | None) -> dict[str, str]:
        """The header that says who asks; None is nobody."""
        return {} if caller is None else basic(caller, self._passwords[caller])


def files_in(directory: Path) -> dict[str, bytes]:
    """Everything below a directory, by path."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def restore(directory: Path, old: dict[str, Any]) -> None:
    """Copy what 1.3.12 left, with the times of its files, which git does not keep."""
    shutil.copytree(FIXTURE, directory)
    for path, nanoseconds in old["mtimes"].items():
        os.utime(directory / path, ns=(nanoseconds, nanoseconds))
