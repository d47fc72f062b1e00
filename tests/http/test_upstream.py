"""What is stored, and what only the upstream has, on one page.

That is ``pypi.fallback = redirect`` with ``pypi.always_show_upstream = true``, the column "redirect+always" of
the fallback table (compat.md 5.11).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from pypicloud.errors import SettingError
from pypicloud.models import Caller
from pypicloud.outgoing import Limits
from pypicloud.render import Format
from pypicloud.request import Application, PypicloudRequest
from support.builds import build_wheel, wheel_name
from support.live import LOOPBACK, free_port
from support.upstream import JSON, Answer, FakeUpstream, fake_upstream, forget_proxies
from support.world import Index, sha256

WHEEL = wheel_name("acme", "1.0")
NEWER = wheel_name("acme", "2.0")
METADATA = "cd" * 32


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    """An upstream that has other bytes of ``acme`` 1.0, and a 2.0 and a 0.9 of its own."""
    forget_proxies(monkeypatch)
    with fake_upstream() as fake:
        fake.add("acme", wheel_name("acme", "0.9"), b"zero nine", yanked="broken")
        fake.add("acme", WHEEL, b"not ours")
        fake.add(
            "acme",
            NEWER,
            b"two",
            size=3,
            requires_python=">=3.9,<4",
            upload_time="2026-01-02T03:04:05.000006Z",
            core_metadata={"sha256": METADATA},
        )
        yield fake


def merging(directory: Path, fake: FakeUpstream, **changes: str | None) -> Index:
    """An index that shows the upstream, with what it remembers always to be asked again."""
    settings = {
        "pypi__fallback": "redirect",
        "pypi__always_show_upstream": "true",
        "pypi__fallback_base_url": fake.url,
        **changes,
    }
    index = Index(directory, **settings)
    application(index).upstream._fresh = 0
    return index


@pytest.fixture
def index(tmp_path: Path, fake: FakeUpstream) -> Index:
    """An index that shows the upstream."""
    return merging(tmp_path, fake)


def application(index: Index) -> Application:
    """What the index shares between its requests."""
    shared: Application = index.wsgi.registry.pypicloud
    return shared


def files(index: Index, path: str = "/simple/acme/", user: str | None = "alice") -> dict[str, dict[str, Any]]:
    """The files of a JSON page by name, in its order."""
    return {file["filename"]: file for file in index.get(path, user=user, Accept=JSON, status=200).json["files"]}


def test_a_stored_project_shows_what_only_the_upstream_has(index: Index, fake: FakeUpstream) -> None:
    """Newest version first, the stored file in place of the upstream's of that name, each with its own facts."""
    content = index.upload_wheel("acme", "1.0")
    page = index.get("/simple/acme/", Accept=JSON, status=200).json
    assert page["versions"] == ["2.0", "1.0", "0.9"]
    newer, stored, older = page["files"]
    assert newer == {
        "filename": NEWER,
        "url": f"{fake.url}/files/{NEWER}",
        "hashes": {"sha256": sha256(b"two")},
        "size": 3,
        "upload-time": "2026-01-02T03:04:05.000006Z",
        "requires-python": ">=3.9,<4",
        "core-metadata": {"sha256": METADATA},
    }
    assert stored["hashes"] == {"sha256": sha256(content)}
    assert urljoin("/simple/acme/", stored["url"]) == f"/api/package/acme/{WHEEL}"
    assert older["yanked"] == "broken"
    assert not {"core-metadata", "size", "upload-time", "requires-python"} & set(older)


def test_html_shows_the_same(index: Index, fake: FakeUpstream) -> None:
    """Direct links with digest, requires-python, core metadata and yanked (compat.md 5.3)."""
    content = index.upload_wheel("acme", "1.0")
    for path, way in (("/simple/acme/", "../../"), ("/acme/", "../"), ("/pypi/acme/", "../../")):
        text = index.get(path, status=200).text
        assert (
            f'<a href="{fake.url}/files/{NEWER}#sha256={sha256(b"two")}" data-requires-python="&gt;=3.9,&lt;4" '
            f'data-core-metadata="sha256={METADATA}" data-dist-info-metadata="sha256={METADATA}">{NEWER}</a>'
        ) in text
        assert f'<a href="{way}api/package/acme/{WHEEL}#sha256={sha256(content)}"' in text
        assert 'data-yanked="broken"' in text
        assert text.count("<a ") == 3


def test_the_older_json_shows_the_same(index: Index, fake: FakeUpstream) -> None:
    """``/pypi/<project>/json`` and a release that only the upstream has, with its own addresses (compat.md 5.4)."""
    index.upload_wheel("acme", "1.0")
    answer = index.get("/pypi/acme/json", status=200).json
    assert answer["info"]["version"] == "2.0"
    assert list(answer["releases"]) == ["2.0", "1.0", "0.9"]
    assert answer["releases"]["1.0"][0]["url"] == f"http://localhost/api/package/acme/{WHEEL}"
    [newer] = answer["urls"]
    assert newer["url"] == f"{fake.url}/files/{NEWER}"
    assert newer["digests"]["sha256"] == sha256(b"two")
    assert newer["upload_time_iso_8601"] == "2026-01-02T03:04:05.000006Z"
    assert index.get("/pypi/acme/0.9/json", status=200).json["urls"][0]["yanked_reason"] == "broken"
    assert index.get("/pypi/acme/7.0/json").status_int == 404


def test_lists_and_the_api_show_what_is_stored(index: Index, fake: FakeUpstream) -> None:
    """Only project pages are merged; nothing else asks the upstream."""
    index.upload_wheel("acme", "1.0")
    assert [row["filename"] for row in index.get("/api/package/acme/").json["packages"]] == [WHEEL]
    assert NEWER not in index.get("/packages/").text
    assert [row["name"] for row in index.get("/simple/", Accept=JSON).json["projects"]] == ["acme"]
    assert index.get(f"/api/package/acme/{NEWER}").status_int == 404
    assert fake.names == []


def test_a_project_that_the_upstream_does_not_have(index: Index, fake: FakeUpstream) -> None:
    """Its page is what is stored."""
    index.upload_wheel("ours", "1.0")
    assert list(files(index, "/simple/ours/")) == [wheel_name("ours", "1.0")]
    assert fake.names == ["/simple/ours/"]


def test_a_project_that_is_not_stored_is_redirected(index: Index, fake: FakeUpstream) -> None:
    """As without always: 302, and the server asks nothing itself."""
    for path in ("/simple/acme/", "/pypi/acme/", "/acme/"):
        assert index.get(path, status=302).location == f"{fake.url}/simple/acme/"
    assert index.get("/pypi/acme/json", user=None, status=302).location == f"{fake.url}/pypi/acme/json"
    assert fake.names == []


@pytest.mark.parametrize("has_json", [True, False])
def test_an_upstream_in_html_does_as_well(index: Index, fake: FakeUpstream, has_json: bool) -> None:
    """Whatever the upstream speaks, the same files are there."""
    fake.has_json = has_json
    index.upload_wheel("acme", "1.0")
    assert list(files(index)) == [NEWER, WHEEL, wheel_name("acme", "0.9")]


def test_changes_are_seen_at_once(index: Index, fake: FakeUpstream) -> None:
    """An upload here and a release there are each on the next page, under another tag; nothing changed is 304."""
    index.upload_wheel("acme", "1.0")
    tags = [index.get("/simple/acme/", Accept=JSON).headers["ETag"]]
    index.get("/simple/acme/", Accept=JSON, If_None_Match=tags[-1], status=304)
    index.upload_wheel("acme", "1.1")
    tags.append(index.get("/simple/acme/", Accept=JSON, If_None_Match=tags[-1], status=200).headers["ETag"])
    fake.add("acme", wheel_name("acme", "3.0"), b"three")
    tags.append(index.get("/simple/acme/", Accept=JSON, If_None_Match=tags[-1], status=200).headers["ETag"])
    assert len(set(tags)) == 3
    index.app.delete(f"/api/package/acme/{WHEEL}", headers=index.headers("alice", {}))
    assert files(index)[WHEEL]["url"] == f"{fake.url}/files/{WHEEL}"
    index.app.delete(f"/api/package/acme/{wheel_name('acme', '1.1')}", headers=index.headers("alice", {}))
    assert index.get("/simple/acme/", Accept=JSON).status_int == 302


def test_an_unchanged_page_is_not_made_anew(index: Index, fake: FakeUpstream) -> None:
    """A fresh answer of the upstream is not asked for again, and the rendered page comes out of the memory."""
    application(index).upstream._fresh = 60
    index.upload_wheel("acme", "1.0")
    caller, shared = alice(), application(index)
    first = shared.index().rendered_project("acme", caller, Format.JSON)
    assert shared.index().rendered_project("acme", caller, Format.JSON) is first
    assert shared.index().rendered_project("Acme", caller, Format.JSON, depth=1) is not first
    assert fake.names == ["/simple/acme/"]


def alice() -> Caller:
    """A caller who may read what is not restricted."""
    return Caller("alice", frozenset({"system.Everyone", "system.Authenticated", "user:alice"}))


def test_the_short_way_answers_for_stored_files_alone(tmp_path: Path, fake: FakeUpstream) -> None:
    """The event loop is never given a merged page, nor the stored part of one; a disallowed name it is given."""
    index = merging(tmp_path, fake, pypi__disallow_fallback="ours")
    for name in ("acme", "ours"):
        index.upload_wheel(name, "1.0")
        index.get(f"/simple/{name}/", Accept=JSON, status=200)
    fake.answers["/simple/acme/"] = Answer(500)
    assert list(files(index)) == [WHEEL]
    shared = application(index).index()
    assert shared.kept("acme", alice(), Format.JSON, shared.cache.revision("acme")) is None
    assert shared.kept("ours", alice(), Format.JSON, shared.cache.revision("ours")) is not None


TROUBLE = {
    "error": Answer(500),
    "refused": Answer(403),
    "type": Answer(200, b"PK", {"Content-Type": "application/zip"}),
    "junk": Answer(200, b"junk", {"Content-Type": JSON}),
    "circle": Answer(302, b"", {"Location": "/simple/acme/"}),
    "huge": Answer(200, b"x" * 100_000, {"Content-Type": "text/html"}, repeat=400),
    "major": Answer(200, b'{"meta": {"api-version": "2.0"}, "files": []}', {"Content-Type": JSON}),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_an_upstream_in_trouble_breaks_nothing(
    index: Index, fake: FakeUpstream, caplog: pytest.LogCaptureFixture, trouble: Answer
) -> None:
    """The page lists what is stored, the log has a warning, and the next request finds the upstream well again."""
    index.upload_wheel("acme", "1.0")
    fake.answers["/simple/acme/"] = trouble
    with caplog.at_level(logging.WARNING):
        assert list(files(index)) == [WHEEL]
    assert "project acme is listed without what is upstream" in caplog.text
    assert list(index.get("/pypi/acme/json", status=200).json["releases"]) == ["1.0"]
    fake.answers.clear()
    assert list(files(index)) == [NEWER, WHEEL, wheel_name("acme", "0.9")]


def test_an_absent_or_hanging_upstream_breaks_nothing(tmp_path: Path, fake: FakeUpstream) -> None:
    """Nobody there, or nobody who answers: the stored files in short time, and without waiting again."""
    gone = merging(tmp_path, fake, pypi__fallback_base_url=f"http://{LOOPBACK}:{free_port()}")
    gone.upload_wheel("acme", "1.0")
    assert list(files(gone)) == [WHEEL]
    index = merging(tmp_path, fake)
    application(index).upstream._client.limits = Limits(read=0.2, total=0.4, pause=30)
    fake.is_open.clear()
    start = time.monotonic()
    for _ in range(20):
        assert list(files(index)) == [WHEEL]
    assert time.monotonic() - start < 5
    assert len(fake.asked) == 1


@pytest.fixture
def house(tmp_path: Path, fake: FakeUpstream) -> Index:
    """``secret-plan`` is alice's, ``ours`` may not come from upstream, and the upstream has both, newer."""
    index = merging(tmp_path, fake, pypi__disallow_fallback="Our_S", pypi__default_read="authenticated")
    for name in ("secret-plan", "our-s"):
        index.upload_wheel(name, "1.0", user="alice")
        fake.add(name, wheel_name(name, "99.0"), b"evil")
    return index


PRIVATE = [
    "/simple/secret-plan/",
    "/simple/Secret.Plan/",
    "/pypi/secret_plan/",
    "/SECRET-plan/",
    "/pypi/Secret_Plan/json",
]


@pytest.mark.parametrize("path", PRIVATE)
def test_a_private_name_is_not_looked_up(house: Index, fake: FakeUpstream, path: str) -> None:
    """For who may not read it the upstream hears nothing of a stored private name, in any spelling (ruling 2)."""
    assert house.get(path, user="bob").status_int == 404
    assert house.get(path, user=None).status_int == 401
    assert fake.names == []
    assert house.get(path, user="alice").status_int == 200
    assert [name.lower() for name in fake.names] == ["/simple/secret-plan/"]


def test_a_name_with_permissions_is_not_looked_up(tmp_path: Path, fake: FakeUpstream) -> None:
    """Nor of one that nothing is stored of yet."""
    index = merging(tmp_path, fake)
    for path in PRIVATE:
        assert index.get(path, user="bob").status_int == 404
        assert index.get(path, user=None).status_int == 401
    assert fake.names == []


@pytest.mark.parametrize("path", ["/simple/our-s/", "/simple/Our_S/", "/pypi/our.s/", "/OUR-S/", "/pypi/Our-S/json"])
@pytest.mark.parametrize("user", ["alice", "root"])
def test_a_disallowed_name_is_not_looked_up(house: Index, fake: FakeUpstream, path: str, user: str) -> None:
    """``pypi.disallow_fallback`` holds for merged pages, every spelling and administrators (compat.md 4.7)."""
    text = house.get(path, user=user, status=200).text
    assert "1.0" in text
    assert "99.0" not in text
    assert fake.names == []


def test_a_disallowed_name_that_is_not_stored_is_nothing(tmp_path: Path, fake: FakeUpstream) -> None:
    """404 for everybody, and the upstream hears nothing."""
    index = merging(tmp_path, fake, pypi__disallow_fallback="acme")
    for user in ("alice", "root"):
        for path in ("/simple/acme/", "/simple/ACME/", "/pypi/acme/json"):
            assert index.get(path, user=user).status_int == 404
    assert fake.names == []


def test_credentials_are_for_the_upstream_alone(tmp_path: Path, fake: FakeUpstream) -> None:
    """They are sent with the look-up, and no redirect, page or property for clients has them (compat.md 9.1, S10)."""
    secret = fake.url.replace("://", "://user:hunter2@")
    index = merging(tmp_path, fake, pypi__fallback_base_url=secret)
    index.upload_wheel("acme", "1.0")
    for path in ("/simple/acme/", "/pypi/acme/json", "/simple/other/", "/pypi/other/json", "/"):
        answer = index.get(path)
        assert "hunter2" not in answer.text + str(answer.headers)
    assert index.get("/simple/other/", status=302).location == f"{fake.url}/simple/other/"
    assert fake.asked[0].headers["Authorization"] == "Basic dXNlcjpodW50ZXIy"
    assert "hunter2" not in requesting(index).fallback_simple


@pytest.mark.parametrize("always", ["true", "false"])
def test_the_deprecated_address_hides_its_credentials(tmp_path: Path, fake: FakeUpstream, always: str) -> None:
    """``pypi.fallback_url`` is the root of simple pages, for look-ups and redirects, and is shown bare (S10)."""
    index = merging(
        tmp_path,
        fake,
        pypi__always_show_upstream=always,
        pypi__fallback_base_url=None,
        pypi__fallback_url=f"{fake.url.replace('://', '://user:hunter2@')}/simple/",
    )
    index.upload_wheel("acme", "1.0")
    assert (NEWER in files(index)) is (always == "true")
    assert index.get("/pypi/other/json", status=302).location == f"{fake.url}/simple/other/"


def requesting(index: Index) -> PypicloudRequest:
    """A request as plug-ins are given it."""
    request: PypicloudRequest = PypicloudRequest.blank("/")
    request.registry = index.wsgi.registry
    return request


def test_plug_ins_find_the_locator(index: Index) -> None:
    """``request.locator`` and ``request.registry.locator`` have ``get_releases`` (compat.md 8.4)."""
    request = requesting(index)
    assert request.locator is request.registry.locator
    assert [release["version"] for release in request.locator.get_releases("Acme")] == ["2.0", "1.0", "0.9"]


def test_the_older_json_is_read_on_demand(tmp_path: Path, fake: FakeUpstream) -> None:
    """``pypi.use_json_scraper = true`` reads ``/pypi/<project>/json`` and nothing else."""
    index = merging(tmp_path, fake, pypi__use_json_scraper="true")
    index.upload_wheel("acme", "1.0")
    assert list(files(index)) == [NEWER, WHEEL, wheel_name("acme", "0.9")]
    assert index.get("/pypi/acme/2.0/json").json["info"]["summary"] == "All about acme"
    assert set(fake.names) == {"/pypi/acme/json"}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"pypi__fallback": "cache", "pypi__always_show_upstream": None}, "pypi.fallback"),
        ({"pypi__fallback": "cache"}, "pypi.fallback"),
        ({"pypi__fallback": "mirror"}, "pypi.fallback"),
        ({"pypi__fallback_base_url": "index.example"}, "pypi.fallback_base_url"),
        ({"pypi__fallback_base_url": None, "pypi__fallback_url": "file:///simple"}, "pypi.fallback_url"),
        (
            {
                "pypi__fallback_base_url": None,
                "pypi__fallback_url": "https://index.example",
                "pypi__use_json_scraper": "true",
            },
            "pypi.use_json_scraper",
        ),
    ],
)
def test_what_cannot_be_done_stops_the_start(
    tmp_path: Path, fake: FakeUpstream, changes: dict[str, str | None], key: str
) -> None:
    """Caching, an address that is none, and JSON without an address are refused by name."""
    with pytest.raises(SettingError) as caught:
        merging(tmp_path, fake, **changes)
    assert caught.value.setting == key


def test_upstream_bytes_do_not_pass_for_stored_ones(index: Index, fake: FakeUpstream) -> None:
    """Whoever registers the name upstream cannot replace a stored file, whatever its digest there."""
    content = build_wheel("acme", "1.0", summary="ours")
    index.post(content=content, filename=WHEEL, name="acme", version="1.0")
    listed = files(index)[WHEEL]
    assert index.get(urljoin("/simple/acme/", listed["url"]), status=200).body == content
    assert listed["hashes"]["sha256"] != fake.files["acme"][1]["hashes"]["sha256"]


def test_everyone_sees_the_merged_page_of_a_public_project(index: Index, fake: FakeUpstream) -> None:
    """Who is not logged in and may read gets it; who may not is asked to log in, and nothing is looked up."""
    index.upload_wheel("open-door", "1.0")
    fake.add("open-door", wheel_name("open-door", "2.0"))
    assert list(files(index, "/simple/open-door/", user=None)) == [
        wheel_name("open-door", "2.0"),
        wheel_name("open-door", "1.0"),
    ]
    index.upload_wheel("acme", "1.0")
    asked = len(fake.asked)
    assert index.get("/simple/acme/", user=None).status_int == 401
    assert len(fake.asked) == asked
