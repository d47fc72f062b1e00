"""Backends that others wrote for 1.3.12 run unchanged, named in the ini file by dotted path.

``plugins/thirdparty.py`` has one of each kind. A real 1.3.12 was seen to run them, on these ini files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from plaster import get_loader
from webtest import TestApp, TestResponse

from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.world import basic, password_hash

PLUGINS: Final = Path(__file__).parent / "plugins"

STORAGE: Final = {"pypi.storage": "thirdparty.DepotStorage", "storage.depot": "%(here)s/depot"}
CACHE: Final = {"pypi.db": "thirdparty:ShelfCache"}
ACCESS: Final = {"pypi.auth": "thirdparty.PhonebookAccess", "auth.phonebook": "%(here)s/phonebook.json"}

#: What the built-in backends need in place of a plug-in.
BUILT_IN: Final = {
    "pypi.storage": {"storage.dir": "%(here)s/packages"},
    "pypi.db": {"db.url": "sqlite:///%(here)s/db.sqlite"},
    "pypi.auth": {
        "auth.admins": "root",
        "group.developers": "alice bob",
        "package.secret.user.alice": "rw",
        "package.shown.group.everyone": "r",
        "package.shown.group.developers": "rw",
        **{f"user.{user}": password_hash(user * 2) for user in ("root", "alice", "bob", "dave")},
    },
}

PHONEBOOK: Final = {
    "users": {user: user * 2 for user in ("root", "alice", "bob", "dave")},
    "admins": ["root"],
    "groups": {"developers": ["alice", "bob"]},
    "user_permissions": {"secret": {"alice": ["read", "write"]}},
    "group_permissions": {"shown": {"everyone": ["read"], "developers": ["read", "write"]}},
}


class Server:
    """The application of an ini file that names plug-ins."""

    def __init__(self, directory: Path, **plugins: str) -> None:
        values = {"pypi.fallback": "none", "pypi.default_read": "authenticated", "pypi.default_write": "developers"}
        for key, needed in BUILT_IN.items():
            values.update({} if key in plugins else needed)
        values.update(plugins)
        self.ini = directory / "server.ini"
        lines = [f"{key} = {value}" for key, value in values.items()]
        self.ini.write_text("\n".join(["[app:main]", "use = egg:pypicloud", *lines, ""]), encoding="utf-8")
        (directory / "phonebook.json").write_text(json.dumps(PHONEBOOK), encoding="utf-8")
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        self.app = TestApp(get_loader(str(self.ini), protocols=["wsgi"]).get_wsgi_app())

    def get(self, path: str, user: str | None = "alice") -> TestResponse:
        """The answer to a GET, whatever its status."""
        return self.app.get(path, headers={} if user is None else basic(user), expect_errors=True)

    def upload(self, user: str, name: str, version: str = "1.0") -> bytes:
        """Upload a wheel, and give its bytes back."""
        content = build_wheel(name, version, summary=f"{name} of {user}", requires_python=">=3.8")
        assert self.post(user, wheel_name(name, version), content, name=name, version=version).status_int == 200
        return content

    def post(self, user: str, filename: str, content: bytes, **fields: str) -> TestResponse:
        """The answer to an upload."""
        files = [("content", filename, content)]
        form = {":action": "file_upload", **fields}
        return self.app.post("/simple/", form, upload_files=files, headers=basic(user), expect_errors=True)

    def delete(self, user: str, path: str) -> TestResponse:
        """The answer to a DELETE."""
        return self.app.delete(path, headers=basic(user), expect_errors=True)


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug-ins can be imported, as if they were installed."""
    monkeypatch.syspath_prepend(str(PLUGINS))


@pytest.fixture(params=["storage", "cache", "access", "all"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    """A server with one plug-in among the built-in backends, or with nothing but plug-ins."""
    chosen = {"storage": STORAGE, "cache": CACHE, "access": ACCESS, "all": {**STORAGE, **CACHE, **ACCESS}}
    return Server(tmp_path, **chosen[request.param])


def test_upload_page_download_delete(server: Server) -> None:
    """A file goes up, stands on its page with its facts, comes down whole, and goes."""
    content = server.upload("alice", "acme")
    filename = wheel_name("acme", "1.0")
    page = server.get("/simple/acme/")
    assert re.findall(r">([^<]+)</a>", page.text) == [filename]
    assert 'data-requires-python="&gt;=3.8"' in page.text
    assert server.get("/simple/").text.count('href="acme/"') == 1
    facts = server.get("/api/package/acme/").json["packages"][0]
    assert facts["summary"] == "acme of alice"
    assert facts["metadata"]["uploader"] == "alice"
    assert f"#sha256={facts['metadata']['hash_sha256']}" in page.text
    assert server.get(f"/api/package/acme/{filename}").body == content
    assert server.delete("alice", f"/api/package/acme/{filename}").status_int == 200
    assert server.get("/simple/acme/").status_int == 404
    assert server.get(f"/api/package/acme/{filename}").status_int == 404


def test_versions_newest_first(server: Server) -> None:
    """A project's files are listed by version, the newest first."""
    for version in ("1.9", "1.10", "1.0"):
        server.upload("alice", "acme", version)
    assert [row["version"] for row in server.get("/api/package/acme/").json["packages"]] == ["1.10", "1.9", "1.0"]


def test_no_overwrite(server: Server) -> None:
    """A second file of the same name is refused, and the first one stays."""
    content = server.upload("alice", "acme")
    other = build_wheel("acme", "1.0", summary="Another one")
    filename = wheel_name("acme", "1.0")
    assert server.post("alice", filename, other, name="acme", version="1.0").status_int == 409
    assert server.get(f"/api/package/acme/{filename}").body == content


def test_permissions(server: Server) -> None:
    """Rights on projects, defaults, groups and administrators hold for pages, downloads, lists and uploads."""
    for name in ("secret", "shown", "plain"):
        server.upload("alice", name)
    callers = (None, "alice", "bob", "dave", "root")
    pages = {caller: [server.get(f"/simple/{name}/", caller).status_int for name in PROJECTS] for caller in callers}
    assert pages == {
        None: [401, 200, 401],
        "alice": [200, 200, 200],
        "bob": [404, 200, 200],
        "dave": [404, 200, 200],
        "root": [200, 200, 200],
    }
    files = {caller: [server.get(path(name), caller).status_int for name in PROJECTS] for caller in callers}
    assert files == {
        None: [401, 200, 401],
        "alice": [200, 200, 200],
        "bob": [403, 200, 200],
        "dave": [403, 200, 200],
        "root": [200, 200, 200],
    }
    lists = {caller: server.get("/api/package/", caller).json["packages"] for caller in callers}
    assert lists == {
        None: ["shown"],
        "alice": ["plain", "secret", "shown"],
        "bob": ["plain", "shown"],
        "dave": ["plain", "shown"],
        "root": ["plain", "secret", "shown"],
    }
    written = {caller: [upload_status(server, caller, name) for name in PROJECTS] for caller in callers if caller}
    assert written == {
        "alice": [200, 200, 200],
        "bob": [403, 200, 200],
        "dave": [403, 403, 403],
        "root": [200, 200, 200],
    }


def test_wrong_password(server: Server) -> None:
    """Wrong credentials are those of nobody."""
    server.upload("alice", "plain")
    response = server.app.get("/simple/plain/", headers=basic("alice", "wrong"), expect_errors=True)
    assert response.status_int == 401


def test_rebuild(server: Server) -> None:
    """A start with an empty cache, and a rebuild, find every stored file with its facts."""
    content = server.upload("alice", "acme")
    before = server.get("/api/package/acme/").json
    for left in server.ini.parent.glob("db.sqlite*"):
        left.unlink()
    server.start()
    assert server.get("/api/package/acme/").json == before
    assert server.get("/admin/rebuild", "root").status_int == 200
    assert server.get("/api/package/acme/").json == before
    assert server.get(path("acme")).body == content


def test_health(server: Server) -> None:
    """The plug-ins are asked how they are."""
    response = server.get("/health", None)
    assert response.json == {"access": "", "cache": "", "storage": ""}
    assert response.status_int == 200


def test_own_response(tmp_path: Path) -> None:
    """A storage that makes the response to a download itself is left to it."""
    server = Server(tmp_path, **STORAGE)
    content = server.upload("alice", "acme")
    response = server.get(path("acme"))
    assert (response.content_type, response.body) == ("application/x-depot", content)


def test_own_urls(tmp_path: Path) -> None:
    """A storage that gives out addresses of its own has them on the pages, in the API, and is asked for downloads."""
    server = Server(tmp_path, **{**STORAGE, "pypi.storage": "thirdparty.CdnStorage"})
    server.upload("alice", "acme")
    address = f"https://cdn.example/{wheel_name('acme', '1.0')}"
    assert f'href="{address}' in server.get("/simple/acme/").text
    assert server.get("/api/package/acme/").json["packages"][0]["url"] == address
    response = server.get(path("acme"))
    assert (response.status_int, response.location) == (302, address)


def test_streamed(tmp_path: Path) -> None:
    """With ``pypi.stream_files`` the bytes come through the server, from the documented context manager.

    1.3.12 streamed only from an ``open`` that gave a plain file.
    """
    server = Server(tmp_path, **{**STORAGE, "pypi.storage": "thirdparty.CdnStorage", "pypi.stream_files": "true"})
    content = server.upload("alice", "acme")
    assert server.get(path("acme")).body == content


def test_sdist(server: Server) -> None:
    """A source distribution without a form goes up, too: name and version are in its file name."""
    content = build_sdist("acme", "2.0")
    assert server.post("alice", sdist_name("acme", "2.0"), content).status_int == 200
    assert server.get(f"/api/package/acme/{sdist_name('acme', '2.0')}").body == content


PROJECTS: Final = ("secret", "shown", "plain")


def path(name: str) -> str:
    """Where the wheel of version 1.0 is."""
    return f"/api/package/{name}/{wheel_name(name, '1.0')}"


def upload_status(server: Server, user: str, name: str) -> Any:
    """The status of an upload of a version of the user's own."""
    version = f"2.{len(user)}.{ord(user[0])}"
    content = build_wheel(name, version)
    return server.post(user, wheel_name(name, version), content, name=name, version=version).status_int
