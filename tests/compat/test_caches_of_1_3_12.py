"""A cache that 1.3.12 kept is served as it is, written to, and made better by a rebuild: on every service.

The fixtures are what a real 1.3.12 had in each service: ``make_cache_fixtures.py``. The stored files beside them are
those of ``fixtures/v1_3_12``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from compat.answers import Facts, by_filename, links, newest_summary
from compat.archives import tiny_sdist
from compat.contents import Contents, Held, contents
from compat.make_cache_fixtures import DUMPS, TARGET
from compat.successor import Successor, UnlistedStorage, cache_settings, restore
from support.builds import build_wheel, metadata
from support.caches import CacheWorld, shared_world

#: The caches that have the fixture of another one: 1.3.12 wrote the same there.
SAME: Final = {"redis-cluster": "redis", "dynamo-moto": "dynamo"}


@dataclass
class Legacy:
    """What 1.3.12 left: a service with its cache in it, a directory of stored files, and what it answered.

    ``held`` and ``shape`` are what there was in the service before anybody came, and has to last.
    """

    contents: Contents
    held: Held
    shape: Any
    directory: Path
    old: Facts
    answers: Facts
    started: list[Successor] = field(default_factory=list)

    def server(self) -> Successor:
        """This server, with the ini file that 1.3.12 had."""
        server = Successor(self.directory, self.old["passwords"])
        self.started.append(server)
        return server

    def blind_server(self) -> Successor:
        """This server, which cannot make the cache anew: it does not get to know what is stored."""
        ini = self.directory / "server.ini"
        text, place = ini.read_text("utf-8"), f"{UnlistedStorage.__module__}.{UnlistedStorage.__qualname__}"
        ini.write_text(text.replace("pypi.storage = file", f"pypi.storage = {place}"), encoding="utf-8")
        try:
            return self.server()
        finally:
            ini.write_text(text, encoding="utf-8")

    def latest(self, name: str) -> int:
        """When the latest file of a project was written, in seconds."""
        packages = self.old["projects"][name]["api"]["packages"]
        return max(int(self.answers["times"][package["filename"]]) for package in packages)


@contextlib.contextmanager
def left_behind(world: CacheWorld, directory: Path, old: Facts) -> Iterator[Legacy]:
    """Put the cache of 1.3.12 back into its service, and its files into a directory."""
    name = SAME.get(world.name, world.name)
    answers = json.loads((TARGET / f"{name}.answers.json").read_text("utf-8"))
    restore(directory, answers)
    (directory / "db.sqlite").unlink()
    cache_settings(directory / "server.ini", {**world.settings, "pypi.allow_overwrite_groups": "authenticated"})
    found = contents(world.settings)
    found.put((TARGET / DUMPS[name]).read_text("utf-8"))
    legacy = Legacy(found, found.lasting(), found.shape(), directory, old, answers)
    yield legacy
    for server in legacy.started:
        server.close()
    found.close()


@pytest.fixture(scope="module", params=[*DUMPS, *SAME])
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a cache that 1.3.12 kept."""
    return str(request.param)


@pytest.fixture
def legacy(request: pytest.FixtureRequest, kind: str, tmp_path: Path, old: Facts) -> Iterator[Legacy]:
    """What 1.3.12 left, to be changed."""
    with left_behind(shared_world(kind, request, tmp_path), tmp_path / "v1_3_12", old) as made:
        yield made


@pytest.fixture(scope="module")
def kept(
    request: pytest.FixtureRequest, kind: str, tmp_path_factory: pytest.TempPathFactory, old: Facts
) -> Iterator[Legacy]:
    """What 1.3.12 left, for questions that change nothing."""
    directory = tmp_path_factory.mktemp("kept")
    with left_behind(shared_world(kind, request, directory), directory / "v1_3_12", old) as made:
        yield made


@pytest.fixture(scope="module")
def blind(kept: Legacy) -> Successor:
    """This server on it, which can't make the cache anew."""
    return kept.blind_server()


def test_a_blind_server_is_blind(tmp_path: Path, old: Facts) -> None:
    """Without a cache such a server does not start: what the others show, they show from the cache."""
    restore(tmp_path / "v1_3_12", old)
    (tmp_path / "v1_3_12" / "db.sqlite").unlink()
    legacy = Legacy(contents({"pypi.db": "sql", "db.url": "sqlite://"}), {}, None, tmp_path / "v1_3_12", old, {})
    with pytest.raises(AssertionError, match="the storage was asked for all that it holds"):
        legacy.blind_server()


def test_serving_changes_nothing(kept: Legacy, blind: Successor) -> None:
    """A start, and a page of each project, leave what 1.3.12 wrote as it was."""
    for name in kept.old["projects"]:
        assert blind.get(f"/simple/{name}/").status_int == 200
    now = kept.contents.lasting()
    assert {key: now.get(key) for key in kept.held} == kept.held
    assert kept.contents.shape() == kept.shape


def test_pages(kept: Legacy, blind: Successor) -> None:
    """The lists, the pages and the API say what 1.3.12 said from this cache, and no storage is listed for it."""
    assert links(blind.get("/simple/").text) == links(kept.old["simple"])
    assert blind.get("/api/package/").json["packages"] == sorted(kept.old["projects"])
    for name, then in kept.old["projects"].items():
        assert links(blind.get(f"/simple/{name}/").text) == links(then["simple"])
        told = [{**row, "last_modified": kept.answers["times"][row["filename"]]} for row in then["api"]["packages"]]
        assert by_filename(blind.get(f"/api/package/{name}/").json["packages"]) == by_filename(told)


def test_downloads(kept: Legacy, blind: Successor) -> None:
    """Each file comes with the bytes that 1.3.12 stored."""
    for filename, then in kept.old["files"].items():
        answer = blind.get(f"/api/package/{then['project']}/{filename}")
        assert hashlib.sha256(answer.body).hexdigest() == then["sha256"]


def test_summaries(kept: Legacy, blind: Successor) -> None:
    """The verbose list has each project with what 1.3.12 kept of it, or better: of the newest version."""
    told = summaries(blind)
    assert list(told) == sorted(kept.old["projects"])
    for name, (summary, last_modified) in told.items():
        then = kept.answers["summaries"][name]
        assert summary in {newest_summary(kept.old, name), then[0]}
        assert last_modified in {kept.latest(name), then[1]}


def test_search(blind: Successor) -> None:
    """A search finds text in any case, in names and in summaries of any script."""
    assert found(blind, {"name": ["CASE"]}) == [("upper-case-name", "1.1rc1")]
    assert found(blind, {"summary": ["NAÏVE <数据>"]}) == [("unicode-sum", "1.0")]
    assert found(blind, {"summary": ["the t"]}) == [("many", "1.10")]


def test_changes_on_top(legacy: Legacy) -> None:
    """An upload, an overwrite and two deletes are seen at once by every server, and 1.3.12 could go on from there."""
    writer, reader = legacy.blind_server(), legacy.blind_server()
    before = legacy.contents.packages()
    for name in (*legacy.old["projects"], "fresh"):
        reader.get(f"/simple/{name}/")
    change(writer)
    pages = {name: links(reader.get(f"/simple/{name}/").text) for name in ("many", "epoch")}
    assert "many-3.0-py3-none-any.whl" in {text for text, *_ in pages["many"]}
    assert [text for text, *_ in pages["epoch"]] == ["epoch-1!2.0-py3-none-any.whl"]
    assert reader.get("/api/package/zippy/").json["packages"] == []
    told = summaries(reader)
    assert (told["many"][0], told["fresh"][0]) == ("Größer", "New here")
    assert "zippy" not in told
    now = legacy.contents.packages()
    changed = {filename for filename in before.keys() | now.keys() if before.get(filename) != now.get(filename)}
    assert changed == {
        "many-3.0-py3-none-any.whl",
        "fresh-1.0-py3-none-any.whl",
        "many-1.9.tar.gz",
        "zippy-2.0.zip",
        "epoch-2017.4.tar.gz",
    }
    assert now["many-1.9.tar.gz"]["data"]["uploader"] == "bob"
    assert now["many-3.0-py3-none-any.whl"]["summary"] == "Größer"
    assert "zippy-2.0.zip" not in now


def test_a_rebuild_upgrades_in_place(legacy: Legacy) -> None:
    """A rebuild adds the facts that 1.3.12 did not keep to those that it did; tables stay, with their settings."""
    before = legacy.contents.packages()
    server = legacy.server()
    assert server.get("/admin/rebuild").status_int == 200
    now = legacy.contents.packages()
    assert now.keys() == before.keys()
    for filename, facts in now.items():
        then = before[filename]
        assert [facts[key] for key in ("name", "version", "summary")] == [
            then[key] for key in ("name", "version", "summary")
        ]
        assert facts["data"] == {**then["data"], "size": legacy.old["files"][filename]["length"]}
        mtime = legacy.answers["mtimes"][f"packages/{facts['name']}/{facts['version']}/{filename}"]
        # MariaDB's table of 1.3.12 has no fractions of a second.
        assert facts["last_modified"] == pytest.approx(mtime / 10**9, abs=1)
    assert legacy.contents.shape() == legacy.shape
    told = {name: summary for name, (summary, _) in summaries(server).items()}
    assert told == {name: newest_summary(legacy.old, name) for name in told}


def test_a_second_rebuild_has_nothing_to_do(legacy: Legacy) -> None:
    """Once a rebuild has brought an old cache up to date, another one leaves every page's revision as it is."""
    server = legacy.server()
    server.get("/admin/rebuild")
    tags = etags(server, legacy)
    server.get("/admin/rebuild")
    assert etags(server, legacy) == tags


def change(server: Successor) -> None:
    """Upload a version and a project, overwrite a file, delete one of several files and the only one."""
    new = build_wheel("many", "3.0", summary="Größer")
    first = build_wheel("fresh", "1.0", summary="New here")
    again = tiny_sdist("many-1.9", metadata("many", "1.9", summary="Once more"))
    answers = [
        server.upload("alice", "many-3.0-py3-none-any.whl", new, name="many", version="3.0"),
        server.upload("alice", "fresh-1.0-py3-none-any.whl", first, name="fresh", version="1.0"),
        server.upload("bob", "many-1.9.tar.gz", again, name="many", version="1.9"),
    ]
    paths = ("epoch/epoch-2017.4.tar.gz", "zippy/zippy-2.0.zip")
    answers += [server.app.delete(f"/api/package/{path}", headers=server.credentials("admin")) for path in paths]
    assert [answer.status_int for answer in answers] == [200] * 5, [answer.text for answer in answers]


def summaries(server: Successor) -> dict[str, tuple[str | None, int]]:
    """By project, the summary and the time that the verbose list has."""
    rows = server.get("/api/package/?verbose=true").json["packages"]
    return {row["name"]: (row["summary"], row["last_modified"]) for row in rows}


def found(server: Successor, criteria: dict[str, list[str]]) -> list[tuple[str, str]]:
    """What a search answers: names and versions."""
    body = xmlrpc.client.dumps((criteria, "and"), "search").encode()
    answer = server.app.post("/pypi", body, server.credentials("admin"), content_type="text/xml")
    rows: Any = xmlrpc.client.loads(answer.body)[0][0]
    return [(row["name"], row["version"]) for row in rows]


def etags(server: Successor, legacy: Legacy) -> list[str]:
    """The tag of each project's page, and of the list."""
    return [
        server.get(path).headers["ETag"] for path in ("/simple/", *(f"/simple/{n}/" for n in legacy.old["projects"]))
    ]
