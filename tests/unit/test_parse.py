"""Pages of another index, read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pypicloud import render
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Link, NormalizedName, ProjectPage, normalized
from pypicloud.parse import legacy_page, simple_page
from pypicloud.render import Format

JSON = "application/vnd.pypi.simple.v1+json"
ACME = normalized("acme")
URL = "https://index.example/simple/acme/"
SHA256, MD5 = "ab" * 32, "cd" * 16
WHEEL = "acme-1.0-py3-none-any.whl"


def from_json(*files: Any, url: str = URL, **rest: Any) -> tuple[Link, ...]:
    """The links of a JSON page with these files."""
    body = json.dumps({"meta": {"api-version": "1.4"}, "name": "acme", "files": files, **rest})
    return simple_page(ACME, body.encode(), JSON, url).links


def from_html(text: str, url: str = URL) -> tuple[Link, ...]:
    """The links of an HTML page."""
    return simple_page(ACME, text.encode(), "text/html; charset=utf-8", url).links


def entry(**facts: Any) -> dict[str, Any]:
    """A file as PEP 691 spells it; facts are spelled with ``_``."""
    return {"filename": WHEEL, "url": f"/f/{WHEEL}", "hashes": {}} | {
        key.replace("_", "-"): value for key, value in facts.items()
    }


def test_json_brings_every_fact() -> None:
    """Digests, size, time, requires-python, core metadata and yanked are those that the index says."""
    [link] = from_json(
        entry(
            hashes={"sha256": SHA256.upper(), "md5": MD5, "blake2b": "00"},
            size=7,
            upload_time="2026-11-20T08:15:00.5+01:00",
            requires_python=">=3.9",
            core_metadata={"sha256": SHA256},
            yanked="broken",
        )
    )
    assert link == Link(
        filename=WHEEL,
        url=f"https://index.example/f/{WHEEL}",
        version="1.0",
        sha256=SHA256,
        md5=MD5,
        size=7,
        upload_time=datetime(2026, 11, 20, 7, 15, 0, 500000, UTC),
        requires_python=">=3.9",
        core_metadata=SHA256,
        yanked="broken",
    )


@pytest.mark.parametrize("strange", [None, "", 7, -1, True, [], {}, "\x00", "9999-99-99", {"sha256": 3}, [None]])
def test_a_strange_fact_is_unknown(strange: Any) -> None:
    """A null or an odd value in any optional place takes away that fact at most, never the file."""
    facts = ("hashes", "size", "upload_time", "requires_python", "core_metadata", "yanked", "provenance")
    [link] = from_json(entry(**dict.fromkeys(facts, strange)), meta=strange, versions=strange)
    assert (link.filename, link.sha256, link.upload_time) == (WHEEL, None, None)
    assert link.size in {None, 7}
    assert render.project_page(ProjectPage(ACME, (link,), ("1.0",)), Format.JSON)
    assert render.project_page(ProjectPage(ACME, (link,), ("1.0",)), Format.HTML)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"core_metadata": True}, True),
        ({"core_metadata": False, "dist_info_metadata": {"sha256": SHA256}}, None),
        ({"dist_info_metadata": {"sha256": SHA256}}, SHA256),
        ({"core_metadata": {"sha512": "00"}}, True),
        ({"core_metadata": {}}, True),
        ({}, None),
    ],
)
def test_core_metadata_is_told_if_the_index_tells_it(facts: dict[str, Any], expected: str | bool | None) -> None:
    """The newer key counts before the older, and metadata without a digest we know are told as such (PEP 714)."""
    [link] = from_json(entry(**facts))
    assert link.core_metadata == expected
    assert link.core_metadata is None or (b"core-metadata" in render.project_page(page_of(link), Format.JSON))


def page_of(*links: Link) -> ProjectPage:
    """A page of links as they are."""
    return ProjectPage(ACME, links, ())


def test_metadata_without_a_digest_are_rendered_as_true() -> None:
    """True comes out as true, in both formats and in the older JSON."""
    page = page_of(*from_json(entry(core_metadata=True)))
    assert json.loads(render.project_page(page, Format.JSON))["files"][0]["core-metadata"] is True
    assert b'data-core-metadata="true"' in render.project_page(page, Format.HTML)
    assert render.legacy_json(page, "https://here.example")["urls"][0]["core-metadata"] is True


def test_html_brings_what_html_can_say() -> None:
    """Digest, requires-python, core metadata and yanked come out of the attributes; other anchors do no harm."""
    links = from_html(
        f"""<!DOCTYPE html><meta name="pypi:repository-version" content="1.4">
        <a name=top>Links</a><a href="../">up</a><a href>nothing</a><a href="http://[broken">broken</a>
        <a href="../../f/{WHEEL}#sha256={SHA256}" data-requires-python="&gt;=3.9" data-yanked
           data-dist-info-metadata="sha256={SHA256}">{WHEEL}</a>
        <a href="https://files.example/acme-0.9.tar.gz#md5={MD5}" data-yanked="a &lt;reason&gt;"
           data-core-metadata=true>the old one</a>
        <a href='acme-0.8%2Blocal.zip?token=1#egg'>acme</a>"""
    )
    assert links == (
        Link(
            WHEEL,
            f"https://index.example/f/{WHEEL}",
            "1.0",
            sha256=SHA256,
            requires_python=">=3.9",
            core_metadata=SHA256,
            yanked=True,
        ),
        Link(
            "acme-0.9.tar.gz",
            "https://files.example/acme-0.9.tar.gz",
            "0.9",
            md5=MD5,
            core_metadata=True,
            yanked="a <reason>",
        ),
        Link("acme-0.8+local.zip", "https://index.example/simple/acme/acme-0.8%2Blocal.zip?token=1", "0.8+local"),
    )


def test_a_base_element_moves_relative_links() -> None:
    """Links are relative to the first ``<base>``, as browsers and installers take it."""
    [link] = from_html(f'<base href="https://files.example/a/"><a href="b/{WHEEL}">x</a>')
    assert link.url == f"https://files.example/a/b/{WHEEL}"


def test_the_older_json_brings_its_facts() -> None:
    """Summary and yanked reason, time and digests are found under their older names; releases are put in order."""
    file = {
        "filename": WHEEL,
        "url": f"https://files.example/{WHEEL}",
        "digests": {"sha256": SHA256, "md5": MD5},
        "size": 3,
        "upload_time_iso_8601": "2026-11-20T07:15:00Z",
        "requires_python": None,
        "yanked": True,
        "yanked_reason": None,
    }
    newer = {"filename": "acme-1.10.zip", "url": "https://files.example/acme-1.10.zip", "yanked_reason": "not yanked"}
    body = json.dumps({"info": {"summary": "Things"}, "releases": {"1.0": [file], "1.1": [], "1.10": [newer, {}]}})
    page = legacy_page(ACME, body.encode(), "https://index.example/pypi/acme/json")
    assert page.versions == ("1.10", "1.0")
    assert page.links[0] == Link("acme-1.10.zip", "https://files.example/acme-1.10.zip", "1.10", summary="Things")
    assert page.links[1] == Link(
        WHEEL,
        f"https://files.example/{WHEEL}",
        "1.0",
        sha256=SHA256,
        md5=MD5,
        size=3,
        upload_time=datetime(2026, 11, 20, 7, 15, tzinfo=UTC),
        yanked=True,
        summary="Things",
    )


@pytest.mark.parametrize(
    "filename",
    [
        "other-1.0-py3-none-any.whl",
        "other-1.0.tar.gz",
        "acme_tools-1.0-py3-none-any.whl",
        "acme-tools-1.0.tar.gz",
        "../acme-1.0.tar.gz",
        "a/acme-1.0.tar.gz",
        "acme-1.0.tar.gz\x07",
        "acme-1.0.msi",
        "acme-1.0.win32-py2.7.exe",
        "acme.html",
        "",
        None,
        3,
    ],
)
def test_a_file_of_no_or_another_project_is_left_out(filename: Any) -> None:
    """Only files that installers would take for this project's are listed."""
    assert [link.filename for link in from_json(entry(filename=filename), entry())] == [WHEEL]


def test_a_name_with_digits_and_dashes_is_found_in_file_names() -> None:
    """The name in the file may be spelled in any way, and hold what looks like a version."""
    name = normalized("zope.3-interface")
    files = [entry(filename="zope.3-interface-5.0.tar.gz"), entry(filename="zope_3_interface-5.1-py3-none-any.whl")]
    page = simple_page(name, json.dumps({"files": files}).encode(), JSON, URL)
    assert page.versions == ("5.1", "5.0")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "ftp://files.example/f",
        "data:text/html,x",
        "http://[::1/f",
        "http:///f",
        "https://files.example:port/f",
        None,
        7,
    ],
)
def test_an_unsafe_address_is_left_out(url: Any) -> None:
    """A file that is not at an http or https address is not listed, and the others are."""
    other = entry(filename="acme-2.0.zip")
    assert [link.filename for link in from_json(entry(url=url), other)] == ["acme-2.0.zip"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("acme 1.whl", "https://index.example/simple/acme/acme%201.whl"),
        ("//cdn.example/a", "https://cdn.example/a"),
        ("http://user:secret@files.example:8080/a#b", "http://files.example:8080/a"),
        ('https://files.example/"><script>', "https://files.example/%22%3E%3Cscript%3E"),
        ("https://files.example/a%2Bb?c=d&e=%41", "https://files.example/a%2Bb?c=d&e=%41"),
    ],
)
def test_addresses_come_out_absolute_and_clean(url: str, expected: str) -> None:
    """Relative addresses are resolved, strange characters encoded, credentials and fragments dropped."""
    [link] = from_json(entry(url=url))
    assert link.url == expected


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (b"{}", JSON, "no page of a project"),
        (b"[]", JSON, "no page of a project"),
        (b'{"files": [7]}', JSON, "no page of a project"),
        (b"\xff", JSON, "no page of a project"),
        (b"<html>", JSON, "no page of a project"),
        (b'{"files": [], "meta": {"api-version": "2.0"}}', JSON, "version '2.0'"),
        (b'<meta name="pypi:repository-version" content="2.1">', "text/html", "version '2.1'"),
        (b"PK", "application/octet-stream", "'application/octet-stream'"),
        (b"{}", "application/vnd.pypi.simple.v2+json", "v2"),
        (b"", "", "''"),
        (b"<![unknown[", "text/html", "cannot be read"),
    ],
)
def test_what_is_no_page_is_trouble(body: bytes, content_type: str, message: str) -> None:
    """Another format, another version or junk raises with a sentence on what came."""
    with pytest.raises(BackendUnavailable, match=message):
        simple_page(ACME, body, content_type, URL)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([WHEEL, URL, SHA256, "acme"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["files", "releases", "info", "meta", *entry(), "yanked"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JUNK, st.sampled_from([JSON, "text/html"]))
def test_junk_is_a_page_or_trouble(junk: Any, content_type: str) -> None:
    """Whatever an index sends gives a page that can be rendered, or the one error."""
    body = json.dumps({"files": [junk, entry(url=junk, yanked=junk)]} if content_type == JSON else junk).encode()
    page = page_or_trouble(ACME, body, content_type)
    if page is not None:
        assert render.project_page(page, Format.JSON)
        assert render.project_page(page, Format.HTML)


@given(st.binary() | st.text(alphabet='<>!-[]a/ hrefbase="=#&;').map(str.encode), st.sampled_from([JSON, "text/html"]))
def test_bytes_are_a_page_or_trouble(body: bytes, content_type: str) -> None:
    """No bytes at all raise anything but the one error."""
    page_or_trouble(ACME, body, content_type)


def page_or_trouble(name: NormalizedName, body: bytes, content_type: str) -> ProjectPage | None:
    """The page, or None for what is none."""
    try:
        return simple_page(name, body, content_type, URL)
    except BackendUnavailable:
        return None
