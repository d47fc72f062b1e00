"""Pages as bytes, and which of them a client gets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pypicloud.errors import NotAcceptable
from pypicloud.models import Link, Package, ProjectPage, normalized
from pypicloud.render import (
    Format,
    _best_format,
    latest,
    legacy_json,
    link_list,
    link_to,
    negotiate,
    project_list,
    project_page,
)

PIP = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
POETRY = "application/vnd.pypi.simple.v1+json, */*;q=0.1"

WHEEL = Link(
    filename="acme_core-1.1+a.1-py3-none-any.whl",
    url="../../api/package/acme-core/acme_core-1.1+a.1-py3-none-any.whl",
    version="1.1+a.1",
    sha256="9f" * 32,
    md5="0c" * 16,
    size=41213,
    upload_time=datetime(2026, 11, 20, 7, 15, 0, 123456, tzinfo=UTC),
    requires_python=">=3.10,<4",
    core_metadata="1c" * 32,
    yanked='broken on "ARM" & <more>',
    summary="The core",
)
BARE = Link(filename="acme-core-1.0.zip", url="../../api/package/acme-core/acme-core-1.0.zip", version="1.0")
PAGE = ProjectPage(normalized("acme.core"), (WHEEL, BARE), ("1.1+a.1", "1.0"))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PIP, Format.JSON),
        (UV, Format.JSON),
        (POETRY, Format.JSON),
        ("*/*", Format.HTML),
        (None, Format.HTML),
        ("", Format.HTML),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Format.HTML),
        ("application/vnd.pypi.simple.latest+json", Format.JSON),
        ("application/vnd.pypi.simple.latest+html", Format.HTML_V1),
        ("application/vnd.pypi.simple.v1+html, application/vnd.pypi.simple.v1+json", Format.JSON),
        ("application/vnd.pypi.simple.v1+json;q=0.1, text/html", Format.HTML),
        ("application/vnd.pypi.simple.v1+json;q=0, */*", Format.HTML),
        ("APPLICATION/VND.PYPI.SIMPLE.V1+JSON", Format.JSON),
        ("text/*", Format.HTML),
        ("application/vnd.pypi.simple.v1+json;q=junk, text/html;q=0.1", Format.HTML),
    ],
)
def test_the_accept_header_chooses_the_format(accept: str | None, expected: Format) -> None:
    """What real clients send gives them JSON; a wildcard alone, or nothing, gives HTML (standards.md 4.2)."""
    assert negotiate(accept) is expected


@pytest.mark.parametrize("accept", ["application/json", "image/png", "text/html;q=0", "text/html;q=0, */*"])
def test_what_cannot_be_made_is_not_acceptable(accept: str) -> None:
    """A client that accepts nothing that is offered is told what is (406)."""
    with pytest.raises(NotAcceptable, match=r"vnd\.pypi\.simple"):
        negotiate(accept)


def test_the_query_beats_the_header() -> None:
    """``?format=`` names one exact type."""
    assert negotiate("text/html", "application/vnd.pypi.simple.v1+json") is Format.JSON
    with pytest.raises(NotAcceptable, match="format 'json' is not offered"):
        negotiate("text/html", "json")


def test_a_long_header_is_understood_but_not_remembered() -> None:
    """What was chosen is remembered by the header, so no client can fill the memory with its headers."""
    before = _best_format.cache_info().currsize
    assert negotiate("text/x, " * 1000 + "text/html") is Format.HTML
    assert _best_format.cache_info().currsize == before


def test_json_holds_every_known_fact() -> None:
    """The JSON page is version 1.4 with all facts of PEP 700, 592 and 714."""
    page = json.loads(project_page(PAGE, Format.JSON))
    assert page["meta"] == {"api-version": "1.4"}
    assert (page["name"], page["versions"]) == ("acme-core", ["1.1+a.1", "1.0"])
    assert page["files"][0] == {
        "filename": WHEEL.filename,
        "url": WHEEL.url,
        "hashes": {"sha256": WHEEL.sha256},
        "size": 41213,
        "upload-time": "2026-11-20T07:15:00.123456Z",
        "requires-python": ">=3.10,<4",
        "core-metadata": {"sha256": WHEEL.core_metadata},
        "yanked": WHEEL.yanked,
    }


def test_json_leaves_unknown_facts_out() -> None:
    """No key is null: one null makes uv refuse the whole page (standards.md 1.3)."""
    page = json.loads(project_page(PAGE, Format.JSON))
    assert page["files"][1] == {"filename": BARE.filename, "url": BARE.url, "hashes": {}}


def test_html_carries_the_facts_as_attributes() -> None:
    """The HTML page is version 1.4: marker, escaped attributes, both spellings of core metadata."""
    text = project_page(PAGE, Format.HTML).decode()
    assert '<meta name="pypi:repository-version" content="1.4">' in text
    assert f'href="{WHEEL.url}#sha256={WHEEL.sha256}"' in text
    assert 'data-requires-python="&gt;=3.10,&lt;4"' in text
    assert f'data-core-metadata="sha256={WHEEL.core_metadata}"' in text
    assert f'data-dist-info-metadata="sha256={WHEEL.core_metadata}"' in text
    assert 'data-yanked="broken on &quot;ARM&quot; &amp; &lt;more&gt;"' in text
    assert f'<a href="{BARE.url}">{BARE.filename}</a><br>' in text


def test_html_is_sorted_by_file_name() -> None:
    """Rows stand in the order of their file names, without regard to case (compat.md 5.3)."""
    links = tuple(replace(BARE, filename=name) for name in ("b-1.zip", "A-1.zip", "C-1.zip"))
    text = project_page(replace_links(links), Format.HTML).decode()
    assert text.index("A-1.zip") < text.index("b-1.zip") < text.index("C-1.zip")


def replace_links(links: tuple[Link, ...]) -> ProjectPage:
    return ProjectPage(PAGE.name, links, PAGE.versions)


def test_a_yank_without_a_reason_is_shown() -> None:
    """The presence of the attribute is what counts."""
    text = project_page(replace_links((replace(BARE, yanked=True),)), Format.HTML).decode()
    assert 'data-yanked=""' in text


def test_the_list_of_projects_in_both_formats() -> None:
    """Names are relative links in HTML, objects in JSON."""
    assert json.loads(project_list(["a", "b"], Format.JSON)) == {
        "meta": {"api-version": "1.4"},
        "projects": [{"name": "a"}, {"name": "b"}],
    }
    text = project_list(["a", "b"], Format.HTML).decode()
    assert '<a href="a/">a</a><br>' in text
    assert "<title>Simple Index</title>" in text


def test_the_list_of_all_files_says_when_it_is_empty() -> None:
    """``/packages/`` has a paragraph instead of nothing (compat.md 5.3)."""
    assert b"There are no packages" in link_list([])
    assert b"acme-core-1.0.zip</a>" in link_list([BARE])


def test_links_keep_a_plus_and_quote_what_must_be() -> None:
    """A local version's ``+`` stays as it is in the URL; a space does not (standards.md 1.10)."""
    plus = link_to(Package("foo", "1.0+a", "foo-1.0+a.tar.gz", size=5), "api/package/foo/")
    assert plus.url == "api/package/foo/foo-1.0+a.tar.gz"
    assert plus.size == 5
    space = link_to(Package("foo", "1.0", "foo 1.0.tar.gz", yanked="gone"), "api/package/foo/")
    assert space.url == "api/package/foo/foo%201.0.tar.gz"
    assert space.yanked == "gone"


def test_legacy_json_has_releases_and_the_latest_urls() -> None:
    """``/pypi/<project>/json`` has info, releases and urls, with summary, size and times (compat.md 5.4, FIXes)."""
    answer = legacy_json(PAGE, "https://index.example")
    assert answer["info"]["version"] == "1.0"  # The newer one is yanked.
    assert set(answer["releases"]) == {"1.0", "1.1+a.1"}
    [wheel] = answer["releases"]["1.1+a.1"]
    assert wheel["url"] == "https://index.example/api/package/acme-core/" + WHEEL.filename
    assert wheel["digests"] == {"md5": WHEEL.md5, "sha256": WHEEL.sha256}
    assert wheel["md5_digest"] == WHEEL.md5
    assert wheel["upload_time_iso_8601"] == "2026-11-20T07:15:00.123456Z"
    assert (wheel["packagetype"], wheel["yanked"], wheel["size"]) == ("bdist_wheel", True, 41213)
    [sdist] = answer["urls"]
    assert sdist["packagetype"] == "sdist"
    assert "digests" not in sdist


def test_legacy_json_of_one_release() -> None:
    """A release is found by any spelling of its version, and its page has no ``releases``."""
    answer = legacy_json(PAGE, "https://index.example", "1.0.0")
    assert "releases" not in answer
    assert [file["filename"] for file in answer["urls"]] == [BARE.filename]
    assert legacy_json(PAGE, "", "9")["urls"] == []


def test_the_latest_version_may_be_a_prerelease_but_not_nonsense() -> None:
    """Pre-releases count (compat.md 5.4); what is no version at all sorts below everything."""
    releases = {version: [replace(BARE, version=version)] for version in ("1.0", "2.0rc1", "weird")}
    assert latest(releases) == "2.0rc1"
    assert latest({}) is None
