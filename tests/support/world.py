"""An index as a team would set it up: users, groups, a private project, and ways to use it."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from passlib.hash import pbkdf2_sha256
from webtest import TestApp, TestRequest, TestResponse

from pypicloud.app import make_app
from support.builds import build_wheel, wheel_name

#: alice and bob develop, carol may overwrite, too, dave may do nothing special, root is the administrator.
USERS = ("root", "alice", "bob", "carol", "dave")


@functools.cache
def password_hash(password: str) -> str:
    """A hash that is quick to verify; tests are many."""
    return str(pbkdf2_sha256.using(rounds=1).hash(password))


def basic(user: str, password: str | None = None) -> dict[str, str]:
    """The header of Basic credentials; every user's password is the name twice."""
    text = f"{user}:{user * 2 if password is None else password}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def settings(directory: Path, **changes: str | None) -> dict[str, str]:
    """The ini file's values; a change is spelled with ``__`` for the dot, and None takes a key out."""
    values: dict[str, str | None] = {
        "pypi.fallback": "none",
        "pypi.default_read": "authenticated",
        "pypi.default_write": "developers",
        "pypi.allow_overwrite_groups": "overwriters",
        "storage.dir": str(directory / "packages"),
        "db.url": f"sqlite:///{directory / 'db.sqlite'}",
        "auth.admins": "root",
        "group.developers": "alice bob carol",
        "group.overwriters": "carol",
        "package.secret_plan.user.alice": "rw",
        "package.open-door.group.everyone": "r",
        "package.open-door.group.developers": "rw",
        **{f"user.{user}": password_hash(user * 2) for user in USERS},
    }
    values.update({key.replace("__", "."): value for key, value in changes.items()})
    return {key: value for key, value in values.items() if value is not None}


class RawResponse(TestResponse):  # type: ignore[misc]  # WebTest is untyped
    """A response as it came: WebTest would undo its content encoding."""

    def decode_content(self) -> None:
        """Leave the body as it is."""


class RawRequest(TestRequest):  # type: ignore[misc]  # WebTest is untyped
    """A request that is answered with a :class:`RawResponse`."""

    ResponseClass = RawResponse


class RawApp(TestApp):  # type: ignore[misc]  # WebTest is untyped
    """An application whose responses stay as they are sent."""

    RequestClass = RawRequest


class Index:
    """The real application with real backends in a directory, spoken to in process."""

    def __init__(self, directory: Path, **changes: str | None) -> None:
        self.directory = directory
        self.settings = settings(directory, **changes)
        self.wsgi = make_app(self.settings)
        self.app = RawApp(self.wsgi)

    def get(self, path: str, user: str | None = "alice", status: int | str = "*", **headers: str) -> TestResponse:
        """GET as a user; header names are spelled with ``_``."""
        return self.app.get(path, headers=self.headers(user, headers), status=status, expect_errors=status == "*")

    def headers(self, user: str | None, headers: dict[str, str]) -> dict[str, str]:
        """The headers of a request by a user."""
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return spelled if user is None else {**basic(user), **spelled}

    def post(
        self,
        path: str = "/simple/",
        content: bytes | None = None,
        filename: str | None = None,
        *,
        user: str | None = "alice",
        status: int | str = 200,
        accept: str = "application/json",
        **fields: str,
    ) -> TestResponse:
        """Upload as a client does; ``action=None`` style gaps are made by ``webtest`` itself."""
        files = [] if content is None else [("content", filename or "", content)]
        return self.app.post(
            path,
            params=fields,
            upload_files=files or None,
            headers=self.headers(user, {"Accept": accept}),
            status=status,
            content_type=None if files else "multipart/form-data; boundary=none",
            expect_errors=status == "*",
        )

    def upload_wheel(
        self, name: str = "acme", version: str = "1.0", *, user: str = "alice", status: int = 200, **facts: Any
    ) -> bytes:
        """Build a wheel, upload it, and give its bytes back."""
        content = build_wheel(name, version, **facts)
        fields = {":action": "file_upload", "name": name, "version": version, "sha256_digest": sha256(content)}
        self.post(content=content, filename=wheel_name(name, version), user=user, status=status, **fields)
        return content


def sha256(content: bytes) -> str:
    """The digest as clients send it."""
    return hashlib.sha256(content).hexdigest()
