"""What 1.3.12 stored is served as it served it, and what is stored now 1.3.12 can serve again.

The fixture is a directory and a cache that a real 1.3.12 wrote, with its answers: ``make_fixtures.py``. Where an answer
is another one on purpose, the test says which rule wants it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from compat.answers import Facts, by_filename, contains, links, newest_summary
from compat.archives import tiny_sdist
from compat.specimens import CALLERS, DELETED, SPECIMENS, Specimen
from compat.successor import FIXTURE, Successor, files_in
from support.builds import build_wheel, metadata

#: Who alone may read ``my-pkg`` now that ``package.My_Pkg.user.alice`` is understood (compat.md 1.8, FIX).
READERS_OF_MY_PKG: Final = ("admin", "alice")

#: What new uploads may not be any more: the version has to be one, and the file name fit it (design.md, ruling 6).
REFUSED_NOW: Final = ("many-weird.tar.gz", "oddext-1.0.rpm")

CALLER_NAMES: Final = [caller or "" for caller in CALLERS]


def test_list_of_projects(served: Successor, old: Facts) -> None:
    """The simple list has the same names in the same order, with links to the same places."""
    base = "http://localhost/simple/"
    assert links(served.get("/simple/").text, base) == links(old["simple"], base)


def test_project_pages(served: Successor, old: Facts) -> None:
    """Each project page has the same files in the same order, each with its address, digest and required Python."""
    for name, answers in old["projects"].items():
        base = f"http://localhost/simple/{name}/"
        assert links(served.get(f"/simple/{name}/").text, base) == links(answers["simple"], base)


def test_page_under_any_spelling(served: Successor) -> None:
    """A project answers under every spelling of its name, as pip types it."""
    pages = {served.get(f"/simple/{name}/").body for name in ("upper-case-name", "Upper.Case_Name", "UPPER_case.name")}
    assert len(pages) == 1


def test_api_lists(served: Successor, old: Facts) -> None:
    """The API lists the same names and times, and summaries as is right: of the newest version (compat.md 3.5)."""
    assert served.get("/api/package/").json["packages"] == [row["name"] for row in old["verbose"]]
    expected = [{**row, "summary": newest_summary(old, row["name"])} for row in old["verbose"]]
    assert served.get("/api/package/?verbose=true").json["packages"] == expected


def test_api_packages(served: Successor, old: Facts) -> None:
    """The API tells the same facts of each file: version, time, address, summary, digests, uploader."""
    for name, answers in old["projects"].items():
        now, then = served.get(f"/api/package/{name}/").json, answers["api"]
        assert by_filename(now["packages"]) == by_filename(then["packages"])
        assert now["write"] == then["write"]


def test_api_order(served: Successor, old: Facts) -> None:
    """The API has the newest version first, and what is no version last."""
    for name, answers in old["projects"].items():
        now, then = served.get(f"/api/package/{name}/").json, answers["api"]
        assert [row["version"] for row in now["packages"]] == [row["version"] for row in then["packages"]]


def test_legacy_json(served: Successor, old: Facts) -> None:
    """The JSON page has all that it had: highest version, releases, and each file's type, address and digests.

    More is fine (compat.md 5.4, FIX): 1.3.12 knew one type of sdist only, and left out what it could not parse.
    """
    for name, answers in old["projects"].items():
        now, then = served.get(f"/pypi/{name}/json").json, answers["json"]
        assert contains(now["info"], then["info"])
        for version, files in then["releases"].items():
            assert has_files(now["releases"][version], files)
        assert has_files(now["urls"], then.get("urls", []))


def test_downloads(served: Successor, old: Facts) -> None:
    """Each file comes with the same bytes, length, type and time."""
    for filename, then in old["files"].items():
        response = served.get(f"/api/package/{then['project']}/{filename}")
        now = {
            "project": then["project"],
            "status": response.status_int,
            "sha256": hashlib.sha256(response.body).hexdigest(),
            "length": len(response.body),
            "last_modified": response.headers["Last-Modified"],
            "content_type": response.headers["Content-Type"],
        }
        assert now == then


@pytest.mark.parametrize("caller", CALLER_NAMES)
def test_lists_of_a_caller(served: Successor, old: Facts, caller: str) -> None:
    """Each caller is shown the same projects, but for one whose permission 1.3.12 did not understand."""
    then = old["callers"][caller]
    hidden = () if caller in READERS_OF_MY_PKG else ("my-pkg",)
    page = served.get("/simple/", caller or None).text
    assert [row[0] for row in links(page)] == [name for name in then["simple"] if name not in hidden]
    names = served.get("/api/package/", caller or None).json["packages"]
    assert names == [name for name in then["packages"] if name not in hidden]


@pytest.mark.parametrize("caller", CALLER_NAMES)
def test_rights_of_a_caller(served: Successor, old: Facts, caller: str) -> None:
    """Each caller is let into the same projects, with the same right to write, and sent to the same places."""
    for name, then in old["callers"][caller]["projects"].items():
        page, api = served.get(f"/simple/{name}/", caller or None), served.get(f"/api/package/{name}/", caller or None)
        now: Facts = {"simple": page.status_int, "api": api.status_int}
        if "Location" in page.headers:
            now["location"] = page.headers["Location"]
        if api.status_int == 200:
            now["write"] = api.json["write"]
        assert now == as_it_should_be(caller, name, then), name


@pytest.mark.parametrize("caller", CALLER_NAMES)
def test_downloads_of_a_caller(served: Successor, old: Facts, caller: str) -> None:
    """Each caller gets the same files, and the same refusals."""
    for filename, status in old["callers"][caller]["downloads"].items():
        name = old["files"][filename]["project"]
        refused = 403 if caller else 401
        expected = refused if name == "my-pkg" and caller not in READERS_OF_MY_PKG else status
        assert served.get(f"/api/package/{name}/{filename}", caller or None).status_int == expected, filename


def test_serving_changes_nothing_on_disk(served: Successor, old: Facts) -> None:
    """Starting on the directory, and rebuilding from it, leaves every file as it was."""
    served.app.get("/admin/rebuild", headers=served.credentials("admin"))
    names = {f"packages/{path}" for path in files_in(served.packages)}
    assert names == set(old["mtimes"])
    assert {path: (served.directory / path).stat().st_mtime_ns for path in names} == old["mtimes"]


@pytest.mark.parametrize(
    "package", [row for row in SPECIMENS if row.filename not in REFUSED_NOW], ids=lambda row: row.filename
)
def test_same_upload_same_files(empty_successor: Successor, package: Specimen) -> None:
    """An upload that 1.3.12 took is stored at the same place, with the same bytes in it and in the ``.meta`` file."""
    response = empty_successor.upload(package.uploader, package.filename, package.content, **package.fields)
    assert response.status_int == 200, response.text
    now, then = files_in(empty_successor.packages), files_in(FIXTURE / "packages")
    kept = {path for path in then if path.rpartition("/")[2] in {package.filename, f"{package.filename}.meta"}}
    was_deleted = package.filename in {filename for _, _, filename in DELETED}
    assert len(kept) == (0 if was_deleted else 2)
    assert {path: now[path] for path in kept} == {path: then[path] for path in kept}


@pytest.mark.parametrize(
    "package", [row for row in SPECIMENS if row.filename in REFUSED_NOW], ids=lambda row: row.filename
)
def test_refused_now(empty_successor: Successor, package: Specimen) -> None:
    """What has no version, or is no distribution by its name, is served for as long as it is there, but not taken."""
    response = empty_successor.upload(package.uploader, package.filename, package.content, **package.fields)
    assert response.status_int == 400
    assert package.filename not in {path.rpartition("/")[2] for path in files_in(empty_successor.packages)}


def test_upload_leaves_only_what_the_old_scan_takes(successor: Successor) -> None:
    """What an upload adds is a file that 1.3.12 lists, two directories down, and files that its scan passes over.

    1.3.12 takes every file whose name does not end in ``.meta`` for a package of the two directories it lies in, and
    stops at a file that lies elsewhere (compat.md 2.1). A real one was seen to rebuild on such a directory, and to
    serve it.
    """
    before = files_in(successor.packages)
    content = build_wheel("simple-pkg", "2.0", summary="One more", requires_python=">=3.11")
    filename = "simple_pkg-2.0-py3-none-any.whl"
    response = successor.upload("alice", filename, content, name="simple-pkg", version="2.0")
    assert response.status_int == 200, response.text
    after = files_in(successor.packages)
    added = {path: data for path, data in after.items() if path not in before}
    assert {path: after[path] for path in before} == before
    assert {path for path in added if not path.endswith(".meta")} == {f"simple-pkg/2.0/{filename}"}
    assert added[f"simple-pkg/2.0/{filename}"] == content
    assert all(path.startswith("simple-pkg/2.0/") for path in added)
    facts = {
        "requires_python": ">=3.11",
        "hash_sha256": hashlib.sha256(content).hexdigest(),
        "hash_md5": hashlib.md5(content).hexdigest(),
        "uploader": "alice",
        "summary": "One more",
    }
    assert added[f"simple-pkg/2.0/{filename}.meta"] == json.dumps(facts).encode()


def test_upload_leaves_the_cache_to_the_old_one(successor: Successor) -> None:
    """After an upload the table of packages has the columns of 1.3.12 and no more, and a JSON object in each row."""
    response = successor.upload("alice", "many-3.0.tar.gz", tiny_sdist("many-3.0", metadata("many", "3.0")))
    assert response.status_int == 200, response.text
    then, now = columns(FIXTURE / "db.sqlite"), columns(successor.directory / "db.sqlite")
    assert now == then
    with closing(sqlite3.connect(successor.directory / "db.sqlite")) as connection:
        rows = dict(connection.execute("SELECT filename, data FROM packages"))
    assert json.loads(rows["many-3.0.tar.gz"])["uploader"] == "alice"
    assert all(isinstance(json.loads(data), dict) for data in rows.values())


def test_delete_leaves_nothing(successor: Successor) -> None:
    """Deleting what 1.3.12 stored takes the file, its ``.meta`` and the empty directories, as it did itself."""
    before = files_in(successor.packages)
    path = "/api/package/zippy/zippy-2.0.zip"
    assert successor.app.delete(path, headers=successor.credentials("admin")).status_int == 200
    assert set(before) - set(files_in(successor.packages)) == {
        "zippy/2.0/zippy-2.0.zip",
        "zippy/2.0/zippy-2.0.zip.meta",
    }
    assert not (successor.packages / "zippy").exists()


def columns(cache: Path) -> list[tuple[object, ...]]:
    """The columns of the table of packages: name, type, whether null is refused, place in the primary key."""
    with closing(sqlite3.connect(cache)) as connection:
        rows = connection.execute("PRAGMA table_info(packages)").fetchall()
    return [(name, kind, not_null, key) for _, name, kind, not_null, _, key in rows]


def has_files(now: list[Facts], then: list[Facts]) -> bool:
    """Whether every file is there with all that was told of it."""
    found = by_filename(now)
    return all(contains(found[name], facts) for name, facts in by_filename(then).items())


def as_it_should_be(caller: str, name: str, then: Facts) -> Facts:
    """What 1.3.12 answered, less its defects.

    It did not understand ``package.My_Pkg`` (compat.md 1.8), and sent who may not read a stored project upstream for
    its private name (compat.md 5.11; design.md, ruling 2).
    """
    if name == "my-pkg" and caller not in READERS_OF_MY_PKG:
        return {"simple": 404, "api": 403} if caller else {"simple": 401, "api": 401}
    if then["simple"] == 302 and name != "unknown":
        return {key: value for key, value in {**then, "simple": 404}.items() if key != "location"}
    return dict(then)
