"""The simple API over HTTP: lists, project pages, negotiation, revalidation, the legacy JSON."""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import urljoin

import pytest

from support.builds import build_sdist, sdist_name, wheel_name
from support.world import Index, sha256

JSON = "application/vnd.pypi.simple.v1+json"


def test_a_project_page_holds_what_was_uploaded(index: Index) -> None:
    """Each file is there with digest, size, time, requires-python and core metadata; newest version first."""
    content = index.upload_wheel("acme", "1.0", requires_python=">=3.9")
    index.upload_wheel("acme", "2.0")
    page = index.get("/simple/acme/", Accept=JSON, status=200)
    assert page.content_type == JSON
    assert page.json["versions"] == ["2.0", "1.0"]
    entry = page.json["files"][1]
    assert entry["filename"] == wheel_name("acme", "1.0")
    assert entry["hashes"] == {"sha256": sha256(content)}
    assert (entry["size"], entry["requires-python"]) == (len(content), ">=3.9")
    assert entry["upload-time"].endswith("Z")
    assert set(entry["core-metadata"]) == {"sha256"}


@pytest.mark.parametrize("path", ["/simple/acme/", "/pypi/acme/", "/acme/", "/simple/+simple/acme/", "/+simple/acme/"])
def test_relative_links_lead_to_the_file(index: Index, path: str) -> None:
    """Every page of a project, however deep it lies, links to bytes with the digest that it shows."""
    content = index.upload_wheel("acme", "1.0+local.1")
    [entry] = index.get(path, Accept=JSON, status=200).json["files"]
    assert not entry["url"].startswith(("http", "/"))
    target = urljoin(f"http://localhost{path}", entry["url"])
    assert index.get(target.removeprefix("http://localhost"), status=200).body == content
    assert index.get(target.removeprefix("http://localhost").replace("+", "%2B"), status=200).body == content


def test_any_spelling_of_a_name_finds_the_project(index: Index) -> None:
    """Names are normalised on every way in."""
    index.upload_wheel("my.pkg")
    for spelling in ("my-pkg", "My_Pkg", "MY.pkg", "my--pkg"):
        page = index.get(f"/simple/{spelling}/", Accept=JSON, status=200)
        assert page.json["name"] == "my-pkg"


@pytest.mark.parametrize("path", ["/simple", "/simple/acme", "/pypi/acme", "/acme", "/api/package", "/packages"])
def test_a_missing_slash_is_a_redirect_that_keeps_the_query(index: Index, path: str) -> None:
    """302 to the same address with the slash (compat.md 5.1)."""
    answer = index.get(f"{path}?a=1", status=302)
    assert answer.location == f"http://localhost{path}/?a=1"


def test_a_wildcard_gives_html_and_nothing_acceptable_406(index: Index) -> None:
    """``*/*`` is answered with HTML; ``application/json`` alone, which no index speaks, with 406."""
    index.upload_wheel()
    assert index.get("/simple/acme/", Accept="*/*", status=200).content_type == "text/html"
    assert index.get("/simple/acme/", status=200).content_type == "text/html"
    assert index.get("/simple/", Accept="application/json", status=406).json["error"] == "not-acceptable"
    assert index.get(f"/simple/acme/?format={JSON.replace('+', '%2B')}", status=200).content_type == JSON


@pytest.mark.parametrize("path", ["/simple/", "/simple/acme/"])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_a_page_is_revalidated_by_its_tag(index: Index, path: str, encoding: str) -> None:
    """A strong tag per representation and encoding; the same tag sent back gives an empty 304."""
    index.upload_wheel()
    headers = {"Accept": JSON, "Accept_Encoding": encoding}
    first = index.get(path, status=200, **headers)
    assert first.headers["Cache-Control"] == "private, max-age=0"
    assert "Accept" in first.headers["Vary"]
    assert "Accept-Encoding" in first.headers["Vary"]
    assert first.headers.get("Content-Encoding", "identity") == encoding
    tag = first.headers["ETag"]
    assert tag.startswith('"')
    again = index.get(path, status=304, **headers, If_None_Match=tag)
    assert again.body == b""
    assert again.headers["ETag"] == tag
    other = index.get(path, status=200, Accept="text/html", Accept_Encoding=encoding, If_None_Match=tag)
    assert other.headers["ETag"] != tag


def test_a_compressed_page_is_the_same_page(index: Index) -> None:
    """The gzip body decodes to the plain body."""
    index.upload_wheel()
    plain = index.get("/simple/acme/", status=200).body
    zipped = index.get("/simple/acme/", status=200, Accept_Encoding="gzip")
    assert gzip.decompress(zipped.body) == plain


def test_a_change_is_seen_at_once(index: Index) -> None:
    """Upload, overwrite and delete each change page and tag before the next request."""
    index.upload_wheel("acme", "1.0")
    tags = [index.get("/simple/acme/", Accept=JSON).headers["ETag"]]
    index.upload_wheel("acme", "1.1")
    tags.append(index.get("/simple/acme/", Accept=JSON, If_None_Match=tags[-1], status=200).headers["ETag"])
    index.upload_wheel("acme", "1.1", user="carol", summary="other bytes")
    tags.append(index.get("/simple/acme/", Accept=JSON, If_None_Match=tags[-1], status=200).headers["ETag"])
    index.app.delete(f"/api/package/acme/{wheel_name('acme', '1.1')}", headers=index.headers("alice", {}))
    after = index.get("/simple/acme/", Accept=JSON, If_None_Match=tags[-1], status=200)
    assert after.headers["ETag"] == tags[0]
    assert len(set(tags)) == 3


def test_a_second_server_sees_a_change_at_once(tmp_path: Path) -> None:
    """Two applications on one database never show each other's changes late."""
    first, second = Index(tmp_path), Index(tmp_path)
    first.upload_wheel("acme", "1.0")
    assert len(second.get("/simple/acme/", Accept=JSON).json["files"]) == 1
    first.upload_wheel("acme", "1.1")
    assert len(second.get("/simple/acme/", Accept=JSON).json["files"]) == 2


def test_the_list_holds_what_the_caller_may_read(index: Index) -> None:
    """Lists are filtered, and are 200 for everybody (compat.md 5.1)."""
    index.upload_wheel("acme")
    index.upload_wheel("secret-plan")
    index.upload_wheel("open-door")
    names = {
        user: [row["name"] for row in index.get("/simple/", user=user, Accept=JSON, status=200).json["projects"]]
        for user in (None, "alice", "bob", "root")
    }
    assert names == {
        None: ["open-door"],
        "alice": ["acme", "open-door", "secret-plan"],
        "bob": ["acme", "open-door"],
        "root": ["acme", "open-door", "secret-plan"],
    }


def test_head_is_answered_like_get_without_a_body(index: Index) -> None:
    """HEAD is accepted wherever GET is, with the same headers."""
    index.upload_wheel()
    for path in ("/", "/simple/", "/simple/acme/", "/pypi/acme/json", "/packages/", "/api/package/acme/"):
        got = index.get(path, status=200)
        head = index.app.head(path, headers=index.headers("alice", {}), status=200)
        assert head.body == b""
        assert head.headers.get("ETag") == got.headers.get("ETag")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]


def test_a_wrong_method_or_path_is_404(index: Index) -> None:
    """Never 405 (compat.md 5.1)."""
    for method, path in (("PUT", "/simple/"), ("DELETE", "/simple/acme/"), ("GET", "/api/nothing"), ("GET", "/a/b/c")):
        answer = index.app.request(path, method=method, headers=index.headers("alice", {}), expect_errors=True)
        assert answer.status_int == 404, path
    for path in ("/robots.txt", "/favicon.ico", "/admin", "/api", "/.well-known/pytp"):
        assert index.get(path, user="root").status_int == 404, path


def test_legacy_json_lists_releases(index: Index) -> None:
    """``/pypi/<project>/json`` and the page of one release, with absolute links."""
    index.upload_wheel("acme", "1.0", summary="First")
    content = build_sdist("acme", "1.1rc1", summary="Second")
    index.post(content=content, filename=sdist_name("acme", "1.1rc1"), name="acme", version="1.1rc1")
    for path in ("/pypi/acme/json", "/simple/acme/json", "/acme/json", "/pypi/acme/json/"):
        answer = index.get(path, status=200)
        assert answer.content_type == "application/json"
        assert answer.json["info"]["version"] == "1.1rc1"
        assert answer.json["info"]["summary"] == "Second"
        assert set(answer.json["releases"]) == {"1.0", "1.1rc1"}
    [file] = answer.json["urls"]
    assert file["url"] == f"http://localhost/api/package/acme/{sdist_name('acme', '1.1rc1')}"
    assert file["packagetype"] == "sdist"
    release = index.get("/pypi/acme/1.0/json", status=200).json
    assert release["info"]["summary"] == "First"
    assert "releases" not in release
    assert index.get("/pypi/acme/7.0/json").status_int == 404


def test_all_files_are_on_one_page(index: Index) -> None:
    """``/packages/`` links every readable file to its bytes, with the digest."""
    content = index.upload_wheel("acme", "1.0")
    index.upload_wheel("secret-plan", "1.0")
    text = index.get("/packages/", user="bob", status=200).text
    assert f'href="../api/package/acme/{wheel_name("acme", "1.0")}#sha256={sha256(content)}"' in text
    assert "secret" not in text


def test_redirect_sends_unknown_names_upstream(tmp_path: Path) -> None:
    """302 to the normalised page of the upstream, which no client may keep; the mount point is left out."""
    index = Index(tmp_path, pypi__fallback="redirect", pypi__fallback_base_url="https://index.example/")
    answers = {
        "/simple/Some_Thing/": "https://index.example/simple/some-thing/",
        "/pypi/some-thing/": "https://index.example/simple/some-thing/",
        "/some-thing/": "https://index.example/simple/some-thing/",
        "/pypi/some-thing/json": "https://index.example/pypi/some-thing/json",
        "/pypi/some-thing/1.0/json": "https://index.example/pypi/some-thing/1.0/json",
    }
    for path, location in answers.items():
        answer = index.app.get(path, headers=index.headers("bob", {}), extra_environ={"SCRIPT_NAME": "/mount"})
        assert (answer.status_int, answer.location) == (302, location)
        assert answer.headers["Cache-Control"] == "no-store"


def test_the_deprecated_upstream_takes_every_redirect(tmp_path: Path) -> None:
    """``pypi.fallback_url`` is the root of simple pages, for every route (compat.md 1.3)."""
    index = Index(tmp_path, pypi__fallback="redirect", pypi__fallback_url="https://index.example/root/simple/")
    for path in ("/simple/thing/", "/pypi/thing/json", "/thing/"):
        assert index.get(path, status=302).location == "https://index.example/root/simple/thing/"


def test_a_private_name_is_not_sent_upstream(tmp_path: Path) -> None:
    """Who may not read a stored or restricted project gets 404, or 401 when anonymous, in redirect mode, too."""
    index = Index(tmp_path, pypi__fallback="redirect", pypi__fallback_base_url="https://index.example")
    index.upload_wheel("acme")
    for path in ("/simple/secret_plan/", "/simple/Secret-Plan/", "/pypi/secret-plan/json", "/secret-plan/"):
        assert index.get(path, user="bob").status_int == 404
        assert index.get(path, user=None).status_int == 401
    assert index.get("/simple/acme/", user=None).status_int == 401
    assert index.get("/simple/acme/", user="dave").status_int == 200
    assert index.get("/simple/secret-plan/", user="alice").status_int == 302


def test_a_disallowed_name_is_never_redirected(tmp_path: Path) -> None:
    """``pypi.disallow_fallback`` holds for every spelling, every route and for admins (compat.md 4.7)."""
    index = Index(
        tmp_path,
        pypi__fallback="redirect",
        pypi__fallback_base_url="https://index.example",
        pypi__disallow_fallback="My_Own",
    )
    for path in ("/simple/my-own/", "/simple/MY.own/", "/pypi/my-own/json", "/my-own/"):
        for user in ("bob", "root"):
            assert index.get(path, user=user).status_int == 404
    assert index.get("/simple/other/", user="root").status_int == 302


def test_pages_are_the_same_behind_a_mount_point(index: Index) -> None:
    """The bytes do not depend on host or mount point; redirects and legacy JSON keep them."""
    index.upload_wheel()
    plain = index.get("/simple/acme/", Accept=JSON)
    mounted = index.app.get(
        "/simple/acme/",
        headers=index.headers("alice", {"Accept": JSON, "Host": "pkgs.example"}),
        extra_environ={"SCRIPT_NAME": "/mount", "wsgi.url_scheme": "https"},
    )
    assert mounted.body == plain.body
    environ = {"SCRIPT_NAME": "/mount", "wsgi.url_scheme": "https"}
    json = index.app.get(
        "/pypi/acme/json", headers=index.headers("alice", {"Host": "a.example"}), extra_environ=environ
    )
    assert json.json["urls"][0]["url"].startswith("https://a.example/mount/api/package/acme/")
