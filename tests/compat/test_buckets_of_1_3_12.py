"""A bucket that 1.3.12 filled is served as it is, written to, and made better by a backfill: in every object store.

The fixture is what a real 1.3.12 had in S3: ``make_bucket_fixtures.py``. What it would have had in the other stores
follows from how it wrote there (compat.md 2.2, 2.3). A real one was seen to write just that to the stand-ins of both,
but for the summary that is not ASCII, at which it failed in Azure; and to list what a backfill had been over.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from compat.answers import Facts, by_filename, contains, links, newest_summary
from compat.archives import tiny_sdist
from compat.make_bucket_fixtures import HALF
from compat.objects import (
    ANSWERS,
    OBJECTS,
    PREFIX,
    AzureObjects,
    GCSObjects,
    Objects,
    S3Objects,
    Stored,
    restored,
    write_ini,
)
from compat.specimens import DELETED, SPECIMENS
from compat.successor import Successor
from pypicloud.scripts.main import main
from support.builds import build_wheel, metadata
from support.dynamo import one_loader
from support.services.s3 import fetch

#: The services, and what each of them is; MiniStack keeps underscores in the names of metadata, as Amazon does.
KINDS: Final = {"radosgw": "s3", "ministack": "s3", "gcs": "gcs", "azurite": "azure"}

#: What new uploads may not be any more.
REFUSED_NOW: Final = ("many-weird.tar.gz", "oddext-1.0.rpm")

#: The summary that lost what is not ASCII in S3, and what it was.
CUT: Final = "Groe, naive <> & more"
WHOLE: Final = "Größe, naïve <数据> & more"

#: What 1.3.12 cannot make a package of, even without metadata.
COMPANION: Final = re.compile(r"(?P<file>.*)\.[0-9a-f]{32}\.metadata")


@dataclass
class Legacy:
    """What 1.3.12 left in a bucket, and what it answered; ``held`` is what there was before anybody came."""

    objects: Objects
    held: Mapping[str, Stored]
    answers: Facts
    passwords: dict[str, str]
    directory: Path
    started: list[Successor] = field(default_factory=list)

    def ini(self, **settings: str) -> Path:
        """An ini file for this server, with an empty cache."""
        (self.directory / "db.sqlite").unlink(missing_ok=True)
        write_ini(self.directory / "server.ini", {**self.objects.settings(), **settings})
        return self.directory / "server.ini"

    def server(self, **settings: str) -> Successor:
        """This server on the bucket, with an empty cache."""
        self.ini(**settings)
        server = Successor(self.directory, self.passwords)
        self.started.append(server)
        return server

    def key(self, filename: str) -> str:
        """The key of a file's object."""
        return str(self.answers["files"][filename]["key"])

    def backfill(self) -> None:
        """Have this version complete the facts."""
        assert main(["backfill", str(self.ini())]) == 0


def objects_of(kind: str, request: pytest.FixtureRequest) -> Objects:
    """An empty bucket of a service."""
    service = request.getfixturevalue(kind)
    settings = service.settings()
    match KINDS[kind]:
        case "s3":
            return S3Objects(settings)
        case "gcs":
            return GCSObjects(settings)
        case _:
            return AzureObjects(settings, service.client(settings))


def key_of(kind: str, key: str) -> str:
    """The key that an object would have had there: without a hash in Azure (compat.md 2.2)."""
    return re.sub(f"^{PREFIX}[0-9a-f]{{4}}/", PREFIX, key) if KINDS[kind] == "azure" else key


def metadata_of(kind: str, there: Mapping[str, str]) -> dict[str, str]:
    """The metadata that an object would have had there (compat.md 2.3)."""
    if KINDS[kind] == "s3":
        return dict(there)
    kept = {name.replace("-", "_"): value for name, value in there.items()}
    return {name: WHOLE if value == CUT and KINDS[kind] == "gcs" else value for name, value in kept.items()}


def answers_of(kind: str) -> Facts:
    """What 1.3.12 would have answered there."""
    answers: Facts = json.loads(ANSWERS.read_text("utf-8"))
    if KINDS[kind] == "gcs":
        answers = json.loads(json.dumps(answers, ensure_ascii=False).replace(CUT, WHOLE))
    for row in answers["files"].values():
        row["key"] = key_of(kind, row["key"])
    return answers


@contextlib.contextmanager
def left_behind(kind: str, request: pytest.FixtureRequest, directory: Path, old: Facts) -> Iterator[Legacy]:
    """Put the objects of 1.3.12 into a bucket."""
    objects = objects_of(kind, request)
    for key, stored in restored(OBJECTS.read_text("utf-8")).items():
        objects.put(key_of(kind, key), Stored(metadata_of(kind, stored.metadata), stored.content))
    legacy = Legacy(objects, objects.read(), answers_of(kind), old["passwords"], directory)
    yield legacy
    for server in legacy.started:
        server.close()
    objects.close()


@pytest.fixture(scope="module", autouse=True)
def _quick_clients() -> Iterator[None]:
    """Many clients are made here."""
    with one_loader():
        yield


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The name of a service."""
    return str(request.param)


@pytest.fixture
def legacy(request: pytest.FixtureRequest, kind: str, tmp_path: Path, old: Facts) -> Iterator[Legacy]:
    """What 1.3.12 left, to be changed."""
    with left_behind(kind, request, tmp_path, old) as made:
        yield made


@pytest.fixture(scope="module")
def kept(
    request: pytest.FixtureRequest, kind: str, tmp_path_factory: pytest.TempPathFactory, old: Facts
) -> Iterator[Legacy]:
    """What 1.3.12 left, for questions that change nothing."""
    with left_behind(kind, request, tmp_path_factory.mktemp("kept"), old) as made:
        yield made


@pytest.fixture(scope="module")
def served(kept: Legacy) -> Successor:
    """This server on it, which filled its cache from it."""
    return kept.server()


def test_pages(kept: Legacy, served: Successor) -> None:
    """The lists and the pages have the same projects, files, addresses, digests and required Pythons."""
    assert links(served.get("/simple/").text) == links(kept.answers["simple"])
    assert served.get("/api/package/").json["packages"] == sorted(kept.answers["projects"])
    # The summary is that of the newest version, as is right (compat.md 3.5).
    told = {row["name"]: row["summary"] for row in served.get("/api/package/?verbose=true").json["packages"]}
    assert told == {name: newest_summary(kept.answers, name) for name in kept.answers["projects"]}
    for name, then in kept.answers["projects"].items():
        assert links(served.get(f"/simple/{name}/").text) == links(then["simple"])


def test_api(kept: Legacy, served: Successor) -> None:
    """The API tells the same facts of each file in the same order, and the time of its object."""
    for name, then in kept.answers["projects"].items():
        now = served.get(f"/api/package/{name}/").json["packages"]
        told = [
            {**row, "last_modified": kept.held[kept.key(row["filename"])].moment} for row in then["api"]["packages"]
        ]
        assert by_filename(now) == by_filename(told)
        assert [row["version"] for row in now] == [row["version"] for row in told]


def test_json(kept: Legacy, served: Successor) -> None:
    """The JSON pages have all that they had: highest version, releases, and each file's type, address and digests."""
    for name, answers in kept.answers["projects"].items():
        now, then = served.get(f"/pypi/{name}/json").json, answers["json"]
        assert contains(now["info"], then["info"])
        for version, files in then["releases"].items():
            found = by_filename(now["releases"][version])
            assert all(contains(found[row["filename"]], untimed(row)) for row in files)


def test_downloads(kept: Legacy, served: Successor) -> None:
    """Each file is to be had where 1.3.12 sent its clients: the very object, with the same bytes."""
    for filename, then in kept.answers["files"].items():
        answer = served.get(f"/api/package/{then['project']}/{filename}")
        assert answer.status_int == then["status"]
        location = answer.headers["Location"]
        assert unquote(urlsplit(location).path).endswith(f"/{then['key']}")
        assert hashlib.sha256(fetch(location)).hexdigest() == then["sha256"]


def test_streamed_downloads(kept: Legacy) -> None:
    """Each file comes through the server, too, with the same bytes."""
    server = kept.server(**{"pypi.stream_files": "true"})
    for filename, then in kept.answers["files"].items():
        answer = server.get(f"/api/package/{then['project']}/{filename}")
        assert (answer.status_int, hashlib.sha256(answer.body).hexdigest()) == (200, then["sha256"])


def test_serving_changes_nothing(kept: Legacy) -> None:
    """A start with an empty cache, a rebuild, each page and each file leave every object as it was."""
    server = kept.server()
    server.get("/admin/rebuild")
    for filename, then in kept.answers["files"].items():
        server.get(f"/simple/{then['project']}/")
        server.get(f"/api/package/{then['project']}/{filename}")
    now = kept.objects.read()
    assert now == kept.held
    assert {key: stored.state for key, stored in now.items()} == {key: row.state for key, row in kept.held.items()}


def test_same_upload_same_object(kind: str, request: pytest.FixtureRequest, tmp_path: Path, old: Facts) -> None:
    """An upload that 1.3.12 took is stored under the same key with the same bytes; what is new is one more field."""
    gone = {*REFUSED_NOW, *(filename for _, _, filename in DELETED)}
    legacy = Legacy(objects_of(kind, request), {}, answers_of(kind), old["passwords"], tmp_path)
    for half, packages in enumerate((SPECIMENS[:HALF], SPECIMENS[HALF:])):
        server = legacy.server(**{"storage.prepend_hash": "true" if half == 0 else "false"})
        for package in packages:
            if package.filename not in gone:
                answer = server.upload(package.uploader, package.filename, package.content, **package.fields)
                assert answer.status_int == 200, answer.text
        server.close()
    now = {key: stored for key, stored in legacy.objects.read().items() if not COMPANION.fullmatch(key)}
    then = {
        key_of(kind, key): Stored(metadata_of(kind, stored.metadata), stored.content)
        for key, stored in restored(OBJECTS.read_text("utf-8")).items()
        if key.rpartition("/")[2] in {package.filename for package in SPECIMENS} - gone
    }
    legacy.objects.close()
    assert {key: Stored(without_facts(stored), stored.content) for key, stored in now.items()} == then
    assert all(json.loads(stored.metadata["facts"])["upload_time"] for stored in now.values())


def test_delete(legacy: Legacy) -> None:
    """A delete takes the object and nothing else, wherever it lies."""
    server = legacy.server()
    for name, filename in (("many", "many-1.9.tar.gz"), ("bare", "bare-0.3.zip"), ("eggy", "eggy-0.3-py2.7.egg")):
        path = f"/api/package/{name}/{filename}"
        assert server.app.delete(path, headers=server.credentials("admin")).status_int == 200
        del legacy.answers["files"][filename]
    strangers = [f"{PREFIX}/readme.txt", f"{PREFIX}/oddity-1.0.msi", "elsewhere/outside-1.0.tar.gz"]
    now = legacy.objects.read()
    assert sorted(now) == sorted([*strangers, *map(legacy.key, legacy.answers["files"])])
    assert now == {key: legacy.held[key] for key in now}


def test_overwrite_in_place(legacy: Legacy) -> None:
    """A file is replaced where it lies, whatever the settings say of new ones, and 1.3.12 finds it there."""
    server = legacy.server(**{"storage.prefix": PREFIX})
    again = tiny_sdist("many-1.9", metadata("many", "1.9", summary="Once more"))
    older = tiny_sdist("bare-0.2", metadata("bare", "0.2", summary="Once more"))
    for name, version, content in (("many", "1.9", again), ("bare", "0.2", older)):
        filename = f"{name}-{version}.tar.gz"
        answer = server.upload("bob", filename, content, name=name, version=version, summary="Once more")
        assert answer.status_int == 200, answer.text
    now = legacy.objects.read()
    assert set(now) == set(legacy.held)
    for filename, content in (("many-1.9.tar.gz", again), ("bare-0.2.tar.gz", older)):
        stored = now[legacy.key(filename)]
        assert stored.content == content
        read = as_read(stored)
        assert read["summary"] == "Once more"
        assert read["hash_sha256"] == hashlib.sha256(content).hexdigest()


@pytest.fixture
def filled(legacy: Legacy) -> Legacy:
    """What 1.3.12 left and a backfill has been over, to be changed."""
    legacy.backfill()
    return legacy


@pytest.fixture(scope="module")
def complete(
    request: pytest.FixtureRequest, kind: str, tmp_path_factory: pytest.TempPathFactory, old: Facts
) -> Iterator[Legacy]:
    """What 1.3.12 left and a backfill has been over, for questions that change nothing."""
    with left_behind(kind, request, tmp_path_factory.mktemp("complete"), old) as made:
        made.backfill()
        yield made


def test_backfill_keeps_all(complete: Legacy) -> None:
    """A backfill changes no bytes, and nothing that 1.3.12 wrote; it adds one field, and companions."""
    now = complete.objects.read()
    assert set(complete.held) <= set(now)
    ours = {package.filename for package in SPECIMENS}
    for key, then in complete.held.items():
        assert now[key].content == then.content
        if key.rpartition("/")[2] in ours:
            assert without_facts(now[key]) == then.metadata
        elif key != complete.key("bare-0.3.zip"):
            # Of that one the name is not normalised, as it should be.
            assert contains(as_read(now[key]), as_read(then))


def test_backfill_adds_digests(complete: Legacy) -> None:
    """Files of which older versions noted no digest have one, in the fields that 1.3.12 reads."""
    now = complete.objects.read()
    for row in complete.answers["files"].values():
        assert as_read(now[row["key"]])["hash_sha256"] == row["sha256"]


def test_backfill_adds_companions(kind: str, complete: Legacy) -> None:
    """Each wheel gets its core metadata beside it, under a name of which 1.3.12 can make no package."""
    now = complete.objects.read()
    added = {key: COMPANION.fullmatch(key) for key in set(now) - set(complete.held)}
    wheels = {key for key in complete.held if key.endswith(".whl")}
    assert {match["file"] for match in added.values() if match} == wheels
    assert len(added) == len(wheels)
    for key, match in added.items():
        assert match
        assert now[key].content == metadata_inside(now[match["file"]].content)
        # 1.3.12 asks every blob of Azure for these, and ends if one has none (compat.md 2.3). So it lists companions
        # there, as files of an ending that no installer takes.
        told = {"name", "version"} if KINDS[kind] == "azure" else set()
        assert as_read(now[key]) == {name: as_read(now[match["file"]])[name] for name in told}


def test_pages_after_a_backfill(complete: Legacy) -> None:
    """Then pages say what 1.3.12 said, and sizes, core metadata and missing digests besides."""
    server = complete.server()
    for name, then in complete.answers["projects"].items():
        page = page_of(server, name)
        assert {file["filename"] for file in page["files"]} == {row[0] for row in links(then["simple"])}
        for file in page["files"]:
            row = complete.answers["files"][file["filename"]]
            assert file["hashes"]["sha256"] == row["sha256"]
            assert file["size"] == len(complete.held[row["key"]].content)
            if file["filename"].endswith(".whl"):
                inside = metadata_inside(complete.held[row["key"]].content)
                assert file["core-metadata"] == {"sha256": hashlib.sha256(inside).hexdigest()}
                assert server.get(f"/api/package/{name}/{file['filename']}.metadata").body == inside


def test_times_after_a_backfill(complete: Legacy) -> None:
    """The upload times are those that there were."""
    server = complete.server()
    for name in complete.answers["projects"]:
        for row in server.get(f"/api/package/{name}/").json["packages"]:
            assert row["last_modified"] == complete.held[complete.key(row["filename"])].moment


def test_a_second_backfill_has_nothing_to_do(complete: Legacy, capsys: pytest.CaptureFixture[str]) -> None:
    """What is complete is passed over."""
    before = complete.objects.read()
    complete.backfill()
    assert capsys.readouterr().out.strip().endswith("nothing to complete")
    now = complete.objects.read()
    assert {key: stored.state for key, stored in now.items()} == {key: row.state for key, row in before.items()}


def test_delete_after_a_backfill(filled: Legacy) -> None:
    """With a wheel goes its companion."""
    server = filled.server()
    filename = "localver-1.0+abc.1-py3-none-any.whl"
    before = set(filled.objects.read())
    path = f"/api/package/localver/{filename}"
    assert server.app.delete(path, headers=server.credentials("admin")).status_int == 200
    taken = before - set(filled.objects.read())
    assert len(taken) == 2
    assert all(key.startswith(filled.key(filename)) for key in taken)


def test_replaced_by_1_3_12_after_a_backfill(filled: Legacy) -> None:
    """A file that 1.3.12 replaces has no core metadata any more: the companion of the old one is not shown."""
    filename = "simple_pkg-1.0-py3-none-any.whl"
    again = build_wheel("simple-pkg", "1.0", core_metadata=metadata("simple-pkg", "1.0", summary="Once more"))
    held = filled.held[filled.key(filename)].metadata
    digest = {name: hashlib.sha256(again).hexdigest() for name in held if name.startswith("hash") and "256" in name}
    filled.objects.put(filled.key(filename), Stored({**held, **digest}, again))
    server = filled.server()
    page = page_of(server, "simple-pkg")
    (file,) = (file for file in page["files"] if file["filename"] == filename)
    assert "core-metadata" not in file
    assert file["hashes"]["sha256"] == hashlib.sha256(again).hexdigest()


def untimed(row: Facts) -> Facts:
    """What the JSON page of 1.3.12 has of a file, but for the time of an object that it had itself."""
    return {key: value for key, value in row.items() if not key.startswith("upload_time")}


def page_of(server: Successor, name: str) -> Facts:
    """A project's page in JSON."""
    headers = {**server.credentials("admin"), "Accept": "application/vnd.pypi.simple.v1+json"}
    page: Facts = server.app.get(f"/simple/{name}/", headers=headers).json
    return page


def without_facts(stored: Stored) -> dict[str, str]:
    """An object's metadata without the field that 1.3.12 did not know."""
    return {name: value for name, value in stored.metadata.items() if name != "facts"}


def as_read(stored: Stored) -> dict[str, str]:
    """An object's metadata as 1.3.12 reads it: with underscores in the names, or hyphens."""
    return {name.replace("-", "_"): value for name, value in without_facts(stored).items()}


def metadata_inside(wheel: bytes) -> bytes:
    """The core metadata that a wheel has inside."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name)


def test_what_is_restored_is_what_was_kept() -> None:
    """The fixture has what the script says it has: both layouts, old names of metadata, none at all, and strangers."""
    objects: dict[str, Any] = restored(OBJECTS.read_text("utf-8"))
    assert sum(bool(re.match(f"{PREFIX}[0-9a-f]{{4}}/", key)) for key in objects) > 10
    assert any("hash_sha256" in stored.metadata for stored in objects.values())
    assert sum(not stored.metadata for stored in objects.values()) == 4
