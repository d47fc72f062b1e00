"""``/api/``: every row of compat.md 5.5, the health check, the rebuild, and who gets what from each route."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from pypicloud.route import ROUTES, Permission, Route
from pypicloud.testing.cache import until
from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.wire import form, part, post, refusal, send, stored, upload_form
from support.world import Index, sha256

WHEEL = wheel_name("acme", "1.0")


def furnish(index: Index) -> Index:
    """Two projects that all users read, and one that only alice does."""
    index.upload_wheel("acme", "1.0", summary="Roads")
    index.upload_wheel("acme", "1.10")
    index.upload_wheel("acme", "1.9")
    index.upload_wheel("open-door", "1.0")
    index.upload_wheel("secret-plan", "1.0")
    return index


@pytest.fixture
def house(index: Index) -> Index:
    """Such an index, for one test."""
    return furnish(index)


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Such an index, which no test changes for long."""
    return furnish(Index(tmp_path_factory.mktemp("museum")))


# Lists


def test_the_list_of_projects(museum: Index) -> None:
    """Sorted names, and only those that the caller may read."""
    answers = {"alice": ["acme", "open-door", "secret-plan"], "bob": ["acme", "open-door"], None: ["open-door"]}
    for user, names in answers.items():
        answer = send(museum, "GET", "/api/package/", user=user)
        assert (answer.status_int, answer.json) == (200, {"packages": names})
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("query", ["verbose=true", "verbose=1", "verbose=yes", "verbose=x"])
def test_the_verbose_list(museum: Index, query: str) -> None:
    """Name, summary and time in seconds of the latest file; summary may be null."""
    rows = send(museum, "GET", "/api/package/", query=query).json["packages"]
    assert [row["name"] for row in rows] == ["acme", "open-door", "secret-plan"]
    assert all(set(row) == {"name", "summary", "last_modified"} for row in rows)
    assert all(abs(row["last_modified"] - time.time()) < 100 for row in rows)
    assert rows[1]["summary"] is None


@pytest.mark.parametrize(
    "query", ["verbose=false", "verbose=False", "verbose=0", "verbose=no", "verbose=off", "verbose", ""]
)
def test_verbose_can_be_false(museum: Index, query: str) -> None:
    """The words for no mean no in a form, too (compat.md 5.1)."""
    assert send(museum, "GET", "/api/package/", query=query).json["packages"][0] == "acme"


@pytest.mark.parametrize(
    ("body", "verbose"), [(b'{"verbose": true}', True), (b'{"verbose": false}', False), (b"", False)]
)
def test_arguments_as_json(museum: Index, body: bytes, *, verbose: bool) -> None:
    """The keys of a JSON body count; programs that name the type without a body send none."""
    answer = send(museum, "GET", "/api/package/", body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert isinstance(answer.json["packages"][0], dict) == verbose


def test_the_files_of_a_project(museum: Index) -> None:
    """Newest version first, each as the documented object, and whether the caller may write."""
    answer = send(museum, "GET", "/api/package/Acme/")
    assert set(answer.json) == {"packages", "write"}
    assert [package["version"] for package in answer.json["packages"]] == ["1.10", "1.9", "1.0"]
    package = answer.json["packages"][2]
    assert set(package) == {"name", "filename", "last_modified", "version", "url", "summary", "metadata"}
    assert (package["name"], package["filename"], package["summary"]) == ("acme", WHEEL, "Roads")
    assert isinstance(package["last_modified"], int)
    assert set(package["metadata"]) == {"summary", "hash_sha256", "hash_md5", "uploader"}


@pytest.mark.parametrize(
    ("user", "project", "write"),
    [
        ("alice", "acme", True),
        ("dave", "acme", False),
        ("root", "acme", True),
        (None, "open-door", False),
        ("bob", "open-door", True),
        ("root", "secret-plan", True),
    ],
)
def test_the_flag_write(museum: Index, user: str | None, project: str, *, write: bool) -> None:
    """It says what the caller may do, not what anybody may."""
    assert send(museum, "GET", f"/api/package/{project}/", user=user).json["write"] is write


def test_an_unknown_project_is_an_empty_list(museum: Index) -> None:
    """200 without files, if the caller may read such a project by default; else 401."""
    answer = send(museum, "GET", "/api/package/nowhere/")
    assert (answer.status_int, answer.json) == (200, {"packages": [], "write": True})
    assert send(museum, "GET", "/api/package/nowhere/", user=None).status_int == 401


# Uploads


@pytest.mark.parametrize("path", ["/api/package/new-pkg/whatever", "/api/package/New_Pkg/new_pkg-1.0.tar.gz/"])
def test_an_upload_by_api(index: Index, path: str) -> None:
    """The project is in the URL, in any spelling; the file name there does not count."""
    content = build_sdist("new-pkg", "1.0")
    filename = sdist_name("new-pkg", "1.0")
    answer = post(index, form(part("content", content, filename), part("summary", "By API")), path)
    assert answer.status_int == 200
    assert (answer.json["name"], answer.json["version"], answer.json["filename"]) == ("new-pkg", "1.0", filename)
    assert (answer.json["summary"], answer.json["metadata"]["hash_sha256"]) == ("By API", sha256(content))
    wheel = build_wheel("new-pkg", "1.0")
    answer = post(index, form(part("content", wheel, wheel_name("new-pkg", "1.0"))), path)
    assert (answer.status_int, answer.json["name"]) == (200, "new-pkg")
    assert len(send(index, "GET", "/api/package/new-pkg/").json["packages"]) == 2


def test_an_upload_by_api_again(index: Index) -> None:
    """The rules for the same name again are the same as everywhere."""
    path = f"/api/package/acme/{WHEEL}"
    first = post(index, form(part("content", build_wheel(), WHEEL)), path)
    assert post(index, form(part("content", build_wheel(), WHEEL)), path, user="bob").json == first.json
    other = form(part("content", build_wheel(summary="x"), WHEEL))
    assert refusal(post(index, other, path))[:2] == (409, "file-exists")
    assert post(index, other, path, user="carol").status_int == 200


# Deletes


def test_a_delete(house: Index) -> None:
    """An empty 200; file, facts, companion and row are gone, and a second one is 404."""
    path = f"/api/package/acme/{WHEEL}"
    answer = send(house, "DELETE", path, user="bob")
    assert (answer.status_int, answer.body, answer.content_type) == (200, b"", "text/html")
    assert not [name for name in stored(house) if name.startswith("acme/1.0/")]
    for method in ("GET", "DELETE"):
        sentence = f"project 'acme' has no file {WHEEL!r}"
        assert refusal(send(house, method, path)) == (404, "package-not-found", sentence)
    assert send(house, "GET", f"{path}.metadata").status_int == 404
    house.upload_wheel("acme", "1.0", summary="A new one")


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("dave", 403)])
def test_a_delete_without_the_right_to_write(museum: Index, user: str | None, status: int) -> None:
    """401 or 403, whether there is such a file or not."""
    before = stored(museum)
    for filename in (WHEEL, "nowhere-1.0.tar.gz"):
        assert send(museum, "DELETE", f"/api/package/acme/{filename}", user=user).status_int == status
    assert stored(museum) == before


def test_a_delete_outside_of_the_group(tmp_path: Path) -> None:
    """403 for who may write but not delete, administrators included (compat.md 4.6)."""
    index = Index(tmp_path, pypi__allow_delete_groups="overwriters")
    index.upload_wheel()
    for user in ("alice", "root"):
        sentence = f"you may not delete packages (pypi.allow_delete_groups); {WHEEL!r} stays"
        assert refusal(send(index, "DELETE", f"/api/package/acme/{WHEEL}", user=user)) == (403, "forbidden", sentence)
    assert send(index, "DELETE", f"/api/package/acme/{WHEEL}", user="carol").status_int == 200


def test_a_delete_of_a_row_without_a_file(house: Index) -> None:
    """The row goes: the file counts as gone."""
    (house.directory / "packages" / "acme" / "1.0" / WHEEL).unlink()
    assert send(house, "DELETE", f"/api/package/acme/{WHEEL}").status_int == 200
    assert len(send(house, "GET", "/api/package/acme/").json["packages"]) == 2


# The rest


def test_the_health_check(museum: Index) -> None:
    """200 with an empty string for each backend, for everybody and every method."""
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = send(museum, method, "/health", user=None)
        assert (answer.status_int, answer.json) == (200, {"access": "", "cache": "", "storage": ""})
        assert answer.headers["Cache-Control"] == "no-store"
    assert send(museum, "HEAD", "/health", user=None).status_int == 200


def test_an_ill_backend(house: Index) -> None:
    """500, with what is wrong and without where."""
    folder = house.directory / "packages"
    folder.rename(house.directory / "away")
    answer = send(house, "GET", "/health", user=None)
    assert answer.status_int == 500
    assert answer.json == {
        "access": "",
        "cache": "",
        "storage": "the storage directory cannot be read: No such file or directory",
    }
    assert str(house.directory) not in answer.text


def test_the_rebuild(house: Index) -> None:
    """An empty 200 by any method; the cache then has what the storage has."""
    folder = house.directory / "packages" / "acme"
    for each in (folder / "1.9").iterdir():
        each.unlink()
    copy = folder / "2.0"
    copy.mkdir()
    (copy / wheel_name("acme", "2.0")).write_bytes(build_wheel("acme", "2.0"))
    for method, path in (("GET", "/admin/rebuild"), ("POST", "/admin/rebuild/")):
        answer = send(house, method, path, user="root")
        assert (answer.status_int, answer.body) == (200, b"")
    found = send(house, "GET", "/api/package/acme/").json["packages"]
    assert [package["version"] for package in found] == ["2.0", "1.10", "1.0"]


def test_a_rebuild_in_the_background(house: Index) -> None:
    """With wait=false the answer is a 202 at once, and its progress can be asked for."""
    for wait in ("false", "0", "no"):
        answer = send(house, "POST", "/admin/rebuild", query=f"wait={wait}", user="root")
        assert (answer.status_int, answer.json["state"] in {"running", "done"}) == (202, True)
    until(lambda: send(house, "GET", "/admin/rebuild/status", user="root").json["files"] == 5)
    until(lambda: send(house, "GET", "/admin/rebuild/status", user="root").json["state"] == "done")
    answer = send(house, "GET", "/admin/rebuild/status/", user="root")
    assert answer.headers["Cache-Control"] == "no-store"
    assert (answer.json["files"], answer.json["error"]) == (5, None)
    assert answer.json["counts"]["unchanged"] == 5
    assert answer.json["started"] <= answer.json["updated"]


# Every route


def example(route: Route) -> str:
    """A path that a route matches."""
    values = {
        "name": "acme",
        "filename": WHEEL,
        "target": WHEEL,
        "index": "simple",
        "slash": "",
        "rest": "/x",
        "version": "1.0",
        "file": "robots.txt",
    }
    return re.sub(r"\{(\w+)(?::(?:[^{}]|\\.)*)?\}", lambda match: values[match[1]], route.pattern)


CASES = [(route, method) for route in ROUTES for method in route.methods]


@pytest.mark.parametrize(("route", "method"), CASES, ids=[f"{method} {route.name}" for route, method in CASES])
def test_every_route_answers_each_kind_of_caller(museum: Index, route: Route, method: str) -> None:
    """Success or a refusal in the one shape: administrators' routes for these alone, files for who may read them."""
    path = example(route)
    body, kind = b"", ""
    if route.name == "xmlrpc":
        body, kind = b"<methodCall><methodName>nothing</methodName></methodCall>", "text/xml"
    elif "upload" in route.name and method == "POST":
        body, kind = (
            upload_form(build_wheel(summary="Roads"), WHEEL, name="acme", version="1.0"),
            "multipart/form-data; boundary=frontier",
        )
    open_ones = {"home", "health", "unknown", "packages", "api_projects", "projects", "xmlrpc", "api", "s3_events"}
    is_open = route.name in open_ones
    # Without a secret there is no address for events.
    is_nothing = route.view == "home.nothing_here" or route.name == "s3_events"
    found = 404 if is_nothing else 200
    expected = {None: found if is_open else 401, "alice": found, "root": found}
    if route.permission is Permission.ADMIN:
        expected |= {None: 401, "alice": 403}
    for user, status in expected.items():
        answer = send(museum, method, path, body, user=user, headers={"Content-Type": kind, "Accept": "*/*"})
        assert answer.status_int == status, (user, path)
        if status == 401:
            assert (answer.body, answer.headers["WWW-Authenticate"]) == (b"", 'Basic realm="pypi"')
        elif status >= 400 and method != "HEAD" and path.startswith(("/api", "/admin")):
            assert refusal(answer)[0] == status
        if method == "DELETE" and status == 200:
            museum.upload_wheel("acme", "1.0", summary="Roads")
        if route.name == "yank" and status == 200:
            send(museum, "POST", path.replace("/yank", "/unyank"))


def test_every_slash_redirects(museum: Index) -> None:
    """Routes that end in a slash send a GET without it there, whoever asks."""
    for route in ROUTES:
        if route.slash:
            path = example(route)
            answer = send(museum, "GET", path.removesuffix("/"), user=None, query="a=b")
            assert (answer.status_int, answer.location) == (302, f"http://localhost{path}?a=b")
