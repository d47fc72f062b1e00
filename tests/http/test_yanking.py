"""Yanking through HTTP: who may, what is yanked, where it shows, and that it stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from webtest import TestResponse

from pypicloud.cache.sql import SQLCache
from pypicloud.errors import BackendUnavailable, NotSupported
from pypicloud.storage.base import IStorage
from pypicloud.storage.files import FileStorage
from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.wire import MULTIPART, form, part, post, refusal, send, upload_form
from support.world import Index

WHEEL = wheel_name("acme", "1.0")
SDIST = sdist_name("acme", "1.0")
OTHER = wheel_name("acme", "2.0")

PYPI_JSON = "application/vnd.pypi.simple.v1+json"
JSON = {"Content-Type": "application/json"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}

#: A reason with everything that a page has to escape.
REASON = 'broken on "ARM" & <more>'


@pytest.fixture
def house(index: Index) -> Index:
    """Two versions of a project, one of two files, and a project that only alice sees."""
    index.upload_wheel("acme", "1.0", summary="Roads", requires_python=">=3.8")
    index.post(content=build_sdist("acme", "1.0"), filename=SDIST)
    index.upload_wheel("acme", "2.0")
    index.upload_wheel("secret-plan", "1.0")
    return index


def yank(
    index: Index, target: str, reason: str | None = None, user: str | None = "alice", project: str = "acme"
) -> TestResponse:
    """The answer to a yank with a JSON body, or none."""
    body = b"" if reason is None else json.dumps({"reason": reason}).encode()
    return send(index, "POST", f"/api/package/{project}/{target}/yank", body, user=user, headers=JSON)


def unyank(index: Index, target: str, user: str | None = "alice") -> TestResponse:
    """The answer to its taking back."""
    return send(index, "POST", f"/api/package/acme/{target}/unyank", user=user)


def yanked(index: Index, project: str = "acme") -> dict[str, Any]:
    """What the project's page says of each file; None where it says nothing."""
    page = send(index, "GET", f"/simple/{project}/", headers={"Accept": PYPI_JSON}).json
    return {file["filename"]: file.get("yanked") for file in page["files"]}


def facts_of(index: Index, filename: str = WHEEL) -> dict[str, Any]:
    """The facts that are stored with a file."""
    path = Path(index.settings["storage.dir"], "acme", "1.0", f"{filename}.meta")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


# What is yanked


@pytest.mark.parametrize("version", ["1.0", "1.0.0", "v1", "1.0/"])
def test_a_version(house: Index, version: str) -> None:
    """All files of a version are yanked, however the version is spelled, and no others."""
    path = f"/api/package/Acme/{version.rstrip('/')}/yank{'/' if version.endswith('/') else ''}"
    answer = send(house, "POST", path)
    assert answer.status_int == 200
    assert {package["filename"]: package["yanked"] for package in answer.json["packages"]} == {WHEEL: True, SDIST: True}
    assert yanked(house) == {WHEEL: True, SDIST: True, OTHER: None}


def test_a_file(house: Index) -> None:
    """A file's exact name yanks that file alone."""
    assert [package["filename"] for package in yank(house, SDIST, "no build").json["packages"]] == [SDIST]
    assert yanked(house) == {WHEEL: None, SDIST: "no build", OTHER: None}


def test_the_answer(house: Index) -> None:
    """The files as the API shows them, each with what it is now: the reason, true or false."""
    (package,) = yank(house, OTHER, "broken").json["packages"]
    row = send(house, "GET", "/api/package/acme/").json["packages"][0]
    assert package == row
    assert row["yanked"] == "broken"
    (package,) = unyank(house, OTHER).json["packages"]
    assert package.pop("yanked") is False
    assert package == send(house, "GET", "/api/package/acme/").json["packages"][0]


def test_undo(house: Index) -> None:
    """Taking it back for a version or a file leaves everything as it was, facts and times included."""
    pages = [send(house, "GET", "/simple/acme/", headers={"Accept": kind}).body for kind in (PYPI_JSON, "text/html")]
    before = facts_of(house)
    yank(house, "1.0", "broken")
    assert facts_of(house) == {**before, "yanked": "broken"}
    unyank(house, WHEEL)
    assert yanked(house) == {WHEEL: None, SDIST: "broken", OTHER: None}
    unyank(house, "1.0")
    assert facts_of(house) == before
    after = [send(house, "GET", "/simple/acme/", headers={"Accept": kind}).body for kind in (PYPI_JSON, "text/html")]
    assert after == pages


def test_again(house: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same again gets the same answer and writes nothing; another reason replaces the first."""
    first = yank(house, "1.0", "broken")
    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "update_metadata", None)
        patch.setattr(SQLCache, "save", None)
        assert yank(house, "1.0", "broken").json == first.json
        assert unyank(house, "2.0").status_int == 200
    yank(house, "1.0", "worse")
    assert yanked(house)[WHEEL] == "worse"
    yank(house, "1.0")
    assert yanked(house)[WHEEL] is True


@pytest.mark.parametrize("target", ["3.0", "1", "acme", "nothing-1.0.tar.gz", "1.0.dev0", "\u00e9", " "])
def test_what_is_not_there(index: Index, target: str) -> None:
    """A version or file that the project does not have is 404, whoever else has it."""
    index.upload_wheel("acme", "1.0.1")
    index.upload_wheel("open-door", "3.0")
    for action in ("yank", "unyank"):
        answer = send(index, "POST", f"/api/package/acme/{target}/{action}")
        assert refusal(answer)[:2] == (404, "package-not-found")
    assert yank(index, wheel_name("open-door", "3.0")).status_int == 404
    assert yank(index, "1.0", project="nowhere").status_int == 404
    assert yanked(index, "open-door") == {wheel_name("open-door", "3.0"): None}


def test_a_version_that_is_none(house: Index) -> None:
    """A stored version that is not valid is meant by its exact text only."""
    folder = Path(house.settings["storage.dir"], "acme", "new-one")
    folder.mkdir()
    (folder / "acme-new-one.zip").write_bytes(b"old")
    assert send(house, "POST", "/admin/rebuild", user="root").status_int == 200
    assert yank(house, "New-One").status_int == 404
    assert yank(house, "new-one", "old").status_int == 200
    assert yanked(house)["acme-new-one.zip"] == "old"


def test_a_file_that_was_lost(house: Index) -> None:
    """A file that is not in the storage any more is 404, and the rest of the version is not kept from being yanked."""
    Path(house.settings["storage.dir"], "acme", "1.0", WHEEL).unlink()
    assert refusal(yank(house, WHEEL))[:2] == (404, "package-not-found")
    assert yank(house, SDIST).status_int == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods(house: Index, method: str) -> None:
    """Only POST yanks."""
    assert send(house, method, "/api/package/acme/1.0/yank").status_int == 404
    assert yanked(house) == {WHEEL: None, SDIST: None, OTHER: None}


def test_an_upload_of_that_name(index: Index) -> None:
    """A POST to a file called yank is the upload that it always was."""
    answer = post(index, form(part("content", build_wheel(), WHEEL)), "/api/package/acme/yank")
    assert (answer.status_int, answer.json["filename"]) == (200, WHEEL)


# The reason


@pytest.mark.parametrize(
    ("body", "headers", "query"),
    [
        (b'{"reason": "broken on ARM"}', JSON, ""),
        (b"reason=broken+on%20ARM", URLENCODED, ""),
        (form(part("reason", "broken on ARM")), {"Content-Type": MULTIPART}, ""),
        (b"", {}, "reason=broken%20on+ARM"),
        (b'{"reason": "  broken on ARM\\n"}', JSON, ""),
    ],
)
def test_the_ways_of_a_reason(house: Index, body: bytes, headers: dict[str, str], query: str) -> None:
    """It comes as JSON, in either kind of form or in the query; space around it does not count."""
    answer = send(house, "POST", "/api/package/acme/2.0/yank", body, headers=headers, query=query)
    assert answer.status_int == 200
    assert yanked(house)[OTHER] == "broken on ARM"


@pytest.mark.parametrize("body", [b"{}", b'{"reason": null}', b'{"reason": ""}', b'{"reason": " \\n"}', b""])
def test_no_reason(house: Index, body: bytes) -> None:
    """No reason, and one of nothing but space, is a yank without a reason."""
    assert send(house, "POST", "/api/package/acme/2.0/yank", body, headers=JSON).status_int == 200
    assert yanked(house)[OTHER] is True


@pytest.mark.parametrize(
    "reason",
    [
        "two\nlines",
        "\x1b[31mred",
        "null\0",
        "a\x85b",
        "a\u2028b",
        "\u202egnorw",
        "\ud800",
        "x" * 501,
        "ß" * 84,
        5,
        True,
        ["x"],
    ],
)
def test_what_is_no_reason(house: Index, reason: Any) -> None:
    """Control characters, more than a line, text that turns around, too much of it, and what is no text are 400."""
    answer = yank(house, "2.0", reason)
    assert refusal(answer)[:2] == (400, "bad-request")
    assert "reason" in answer.json["message"]
    assert yanked(house)[OTHER] is None


@pytest.mark.parametrize(
    "reason", ["x" * 500, "ß" * 83, "auf ARM kaputt: größer", "壊れた", "it eats files 👩‍👩‍👧", REASON]
)
def test_what_is_a_reason(house: Index, reason: str) -> None:
    """Text in any language, up to 500 characters as JSON."""
    assert yank(house, "2.0", reason).status_int == 200
    assert yanked(house)[OTHER] == reason


# Where it shows


def test_where_it_shows(house: Index) -> None:
    """Pages in JSON and HTML, the list of all files, the older JSON and the API say it, and why, at once."""
    for path in ("/simple/acme/", "/packages/"):
        assert b"data-yanked" not in send(house, "GET", path, headers={"Accept": "text/html"}).body
    assert "yanked" not in send(house, "GET", "/api/package/acme/").json["packages"][0]
    yank(house, "2.0", REASON)
    escaped = b'data-yanked="broken on &quot;ARM&quot; &amp; &lt;more&gt;"'
    for path in ("/simple/acme/", "/packages/"):
        assert send(house, "GET", path, headers={"Accept": "text/html"}).body.count(escaped) == 1
    assert yanked(house)[OTHER] == REASON
    whole = send(house, "GET", "/simple/acme/json").json
    assert (whole["info"]["version"], whole["info"]["yanked"]) == ("1.0", False)
    release = send(house, "GET", "/simple/acme/2.0/json").json
    for facts in (release["info"], release["urls"][0], whole["releases"]["2.0"][0]):
        assert (facts["yanked"], facts["yanked_reason"]) == (True, REASON)
    rows = send(house, "GET", "/api/package/acme/").json["packages"]
    assert [row.get("yanked") for row in rows] == [REASON, None, None]


def test_the_etag_changes(house: Index) -> None:
    """Who has the page from before is not told that nothing has changed."""
    page = send(house, "GET", "/simple/acme/", headers={"Accept": PYPI_JSON})
    headers = {"Accept": PYPI_JSON, "If-None-Match": page.headers["ETag"]}
    assert send(house, "GET", "/simple/acme/", headers=headers).status_int == 304
    yank(house, "2.0")
    assert send(house, "GET", "/simple/acme/", headers=headers).status_int == 200


def test_another_server_on_the_same_cache(house: Index) -> None:
    """A second server shows it at once, although it remembers the page from before."""
    second = Index(house.directory)
    assert yanked(second)[OTHER] is None
    yank(house, "2.0", "broken")
    assert yanked(second)[OTHER] == "broken"


def test_a_yanked_file_can_be_had(house: Index) -> None:
    """Nothing is taken away: the file and its metadata are served as before."""
    before = [send(house, "GET", f"/api/package/acme/{OTHER}{end}") for end in ("", ".metadata")]
    yank(house, "2.0")
    after = [send(house, "GET", f"/api/package/acme/{OTHER}{end}") for end in ("", ".metadata")]
    assert [answer.status_int for answer in after] == [200, 200]
    assert [answer.body for answer in after] == [answer.body for answer in before]


# That it stays


def test_a_rebuild_keeps_it(house: Index) -> None:
    """A rebuild, of an emptied cache, too, gives what was there before, and finds nothing else changed."""
    yank(house, "1.0", REASON)
    before = send(house, "GET", "/simple/acme/", headers={"Accept": PYPI_JSON}).body
    for name in ("db.sqlite", "db.sqlite-wal", "db.sqlite-shm"):
        house.directory.joinpath(name).unlink(missing_ok=True)
    fresh = Index(house.directory)
    assert send(fresh, "GET", "/simple/acme/", headers={"Accept": PYPI_JSON}).body == before


@pytest.mark.parametrize("lost", ["", "row", "file"])
def test_the_same_bytes_again(house: Index, lost: str) -> None:
    """An upload of the same bytes leaves a file yanked, also where it brings back a lost row or a lost file."""
    content = build_wheel("acme", "2.0")
    yank(house, "2.0", "broken")
    if lost == "row":
        cache = house.wsgi.registry.pypicloud.cache_factory(None)
        cache.clear(cache.fetch(OTHER))
    elif lost == "file":
        Path(house.settings["storage.dir"], "acme", "2.0", OTHER).unlink()
    assert post(house, upload_form(content, OTHER)).json["yanked"] == "broken"
    assert yanked(house)[OTHER] == "broken"
    send(house, "POST", "/admin/rebuild", user="root")
    assert yanked(house)[OTHER] == "broken"


def test_other_bytes(house: Index) -> None:
    """Who may overwrite a yanked file puts another in its place, which is not yanked."""
    yank(house, "2.0", "broken")
    other = upload_form(build_wheel("acme", "2.0", summary="mended"), OTHER)
    assert post(house, other).status_int == 409
    assert yanked(house)[OTHER] == "broken"
    assert post(house, other, user="carol").status_int == 200
    assert yanked(house)[OTHER] is None


# Who may


@pytest.mark.parametrize(
    ("user", "project", "status"),
    [
        (None, "acme", 401),
        ("dave", "acme", 403),
        ("bob", "acme", 200),
        ("root", "acme", 200),
        (None, "secret-plan", 401),
        ("bob", "secret-plan", 403),
        ("alice", "secret-plan", 200),
        ("dave", "nowhere", 403),
    ],
)
def test_who_may(house: Index, user: str | None, project: str, status: int) -> None:
    """It takes the right to write the project, and no group; who may not learns nothing about what is there."""
    for target, reason in (("1.0", None), ("99", None), ("1.0", "\0")):
        allowed = {None: 404 if target == "99" else 200, "\0": 400}[reason]
        answer = yank(house, target, reason, user, project)
        assert answer.status_int == (allowed if status == 200 else status)
        if status == 401:
            assert answer.body == b""
    if status != 200 and project != "nowhere":
        assert set(yanked(house, project).values()) == {None}


def test_the_project_of_the_file_counts(house: Index) -> None:
    """The right to write one project does not reach another's file through it."""
    answer = yank(house, wheel_name("secret-plan", "1.0"), user="bob")
    assert refusal(answer)[:2] == (404, "package-not-found")
    assert yanked(house, "secret-plan") == {wheel_name("secret-plan", "1.0"): None}


def test_who_writes_without_reading(tmp_path: Path) -> None:
    """Who may write but not read yanks, and is told nothing of the files."""
    index = Index(tmp_path, **{"package.secret_plan.user.bob": "w"})
    index.upload_wheel("secret-plan", "1.0")
    answer = yank(index, "1.0", "broken", user="bob", project="secret-plan")
    assert (answer.status_int, answer.json) == (200, {"packages": []})
    assert yanked(index, "secret-plan") == {wheel_name("secret-plan", "1.0"): "broken"}


# What fails


def test_a_storage_that_cannot(house: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that cannot change the facts of a file says so, and nothing is yanked."""
    monkeypatch.setattr(FileStorage, "update_metadata", IStorage.update_metadata)
    status, key, message = refusal(yank(house, "1.0"))
    assert (status, key) == (NotSupported.status, "not-supported")
    assert "cannot change the facts" in message
    assert set(yanked(house).values()) == {None}


def test_half_way(house: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the cache fails after the storage, the same request again, or a rebuild, does the rest."""

    def fail(*_: object) -> None:
        raise BackendUnavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(SQLCache, "save", fail)
        assert yank(house, "1.0", "broken").status_int == 503
    assert set(yanked(house).values()) == {None}
    assert yank(house, "1.0", "broken").status_int == 200
    assert yanked(house) == {WHEEL: "broken", SDIST: "broken", OTHER: None}
    with monkeypatch.context() as patch:
        patch.setattr(SQLCache, "save", fail)
        assert unyank(house, SDIST).status_int == 503
    send(house, "POST", "/admin/rebuild", user="root")
    assert yanked(house) == {WHEEL: "broken", SDIST: None, OTHER: None}


def test_facts_that_others_changed(house: Index) -> None:
    """A fact that was added to the stored ones since the cache read them is still there afterwards."""
    path = Path(house.settings["storage.dir"], "acme", "1.0", f"{WHEEL}.meta")
    path.write_text(json.dumps({**facts_of(house), "team": "blue"}))
    yank(house, WHEEL, "broken")
    assert (facts_of(house)["team"], facts_of(house)["yanked"]) == ("blue", "broken")
    page = send(house, "GET", "/simple/acme/", headers={"Accept": PYPI_JSON}).json
    (file,) = (file for file in page["files"] if file["filename"] == WHEEL)
    assert {"hashes", "size", "core-metadata", "requires-python"} <= file.keys()
