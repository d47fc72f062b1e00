"""The whole HTTP surface against what nobody would send on purpose.

Requests are put together out of every route's pattern, hostile pieces of paths, headers, queries and
bodies. Whatever comes: no error of the server, every refusal in the one shape, nothing kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from pypicloud.route import ROUTES
from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.wire import ERROR_KEYS, MULTIPART, form, part, send, stored
from support.world import Index, basic

WHEEL = wheel_name("acme", "1.0")

PIECES = st.one_of(
    st.sampled_from(
        [
            b"acme",
            b"Acme",
            b"secret-plan",
            b"open-door",
            b"nowhere",
            b"1.0",
            b"json",
            b"simple",
            b"+simple",
            b"api",
            b"package",
            b"admin",
            b"rebuild",
            b"yank",
            b"robots.txt",
            b".well-known",
            b"static",
            b"..",
            b".",
            b"",
            b"%2e%2e",
            b"\x00",
            b"\xff\xfe",
            b"\\",
            b"a\r\nb",
            b"{0.__class__}",
            b"{",
            b"%s",
            b"'",
            b'"><b>',
            b"*",
            b"\xc3\xa9",
            b"\xf0\x9f\x90\x8d",
            b"\xe2\x80\xae",
            b"-",
            b"_",
            b"a" * 300,
            b"a" * 5000,
            b".metadata",
            b"x.metadata",
            WHEEL.encode(),
            WHEEL.encode() + b".metadata",
            wheel_name("secret-plan", "1.0").encode(),
            b"acme-1.0.tar.gz",
            b"~",
            b" ",
        ]
    ),
    st.binary(max_size=8),
)

VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "*/*",
            "text/html",
            "application/json",
            "application/vnd.pypi.simple.v1+json",
            "gzip",
            "bytes=0-3",
            "bytes=-",
            "bytes=9-1",
            "bytes=99999-",
            '"x"',
            "*",
            "W/",
            "Basic",
            "Basic //8=",
            "Basic YWxpY2U6d3Jvbmc=",
            "localhost",
            "[",
            "a:b:c",
            "https",
            "10.0.0.1",
            "/x",
            ",",
            ";q=",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "-1",
            "9" * 40,
            "\xff",
            "a" * 3000,
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12),
)

HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Accept",
            "Accept-Encoding",
            "Authorization",
            "Range",
            "If-Range",
            "If-None-Match",
            "If-Modified-Since",
            "If-Match",
            "Host",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "X-Forwarded-Prefix",
            "Cookie",
            "Referer",
            "X-HTTP-Method-Override",
        ]
    ),
    VALUES,
    max_size=4,
)

QUERIES = st.one_of(
    st.just(""),
    st.lists(
        st.tuples(
            st.sampled_from(["format", "verbose", ":action", "x", "%ff", ""]),
            st.sampled_from(
                ["", "1", "false", "%ff", "%00", "text/html", "application/json", "%E2%80%AE", "a" * 2000, "="]
            ),
        ),
        max_size=3,
    ).map(lambda pairs: "&".join(f"{key}={value}" for key, value in pairs)),
)

TEXTS = PIECES.map(lambda piece: piece.replace(b"\r\n", b""))

#: Forms that are never an upload: they lack the right ending, or the right to it, or sound bytes.
FORMS = st.lists(
    st.one_of(
        st.builds(part, st.sampled_from(["name", "version", ":action", "sha256_digest", "summary", "x"]), TEXTS),
        st.builds(
            part,
            st.sampled_from(["content", "gpg_signature", "x"]),
            st.one_of(
                st.binary(max_size=40), st.just(build_wheel("acme", "2.0")[:-9]), st.just(build_sdist("other", "1.0"))
            ),
            st.sampled_from(
                [
                    WHEEL,
                    "acme-2.0-py3-none-any.whl",
                    sdist_name("acme", "2.0"),
                    "../acme-2.0.tar.gz",
                    "",
                    "x",
                    "acme-2.0.zip",
                ]
            ),
        ),
    ),
    max_size=5,
).map(lambda parts: form(*parts))

XML = st.sampled_from(
    [
        b"<methodCall><methodName>search</methodName></methodCall>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<methodCall><methodName>search</methodName><params><param><value><bigdecimal>x</bigdecimal></value></param></params></methodCall>",
        b"<a" * 500,
    ]
)

BODIES = st.one_of(
    st.just((b"", "")),
    st.tuples(FORMS, st.just(MULTIPART)),
    st.tuples(FORMS, st.sampled_from([MULTIPART, "multipart/form-data", "text/xml", "application/json", "\xff"])),
    st.tuples(XML, st.just("text/xml")),
    st.tuples(
        st.sampled_from([b"{}", b"[", b'{"verbose": []}', b'{"verbose": {}}', b"\xff", b"[" * 5000]),
        st.just("application/json"),
    ),
    st.tuples(
        st.sampled_from([b"verbose=1", b"verbose=%ff", b"\xff=\xff"]), st.just("application/x-www-form-urlencoded")
    ),
    st.tuples(st.binary(max_size=60), VALUES),
)


@dataclass(frozen=True)
class Shot:
    """One request."""

    method: str
    path: bytes
    query: str
    headers: dict[str, str]
    body: tuple[bytes, str]
    user: str | None


@st.composite
def paths(draw: st.DrawFn) -> bytes:
    """A route's pattern with anything in its gaps, or just anything."""
    if draw(st.integers(0, 4)) == 0:
        return b"/" + b"/".join(draw(st.lists(PIECES, max_size=5)))
    route = draw(st.sampled_from(ROUTES))
    words = re.split(r"(\{(?:[^{}]|\{[^{}]*\})*\})", route.pattern)
    gaps = {
        "{index:simple|pypi}": st.sampled_from([b"simple", b"pypi"]),
        "{slash:/?}": st.sampled_from([b"", b"/"]),
        "{name}": st.one_of(st.sampled_from([b"acme", b"Acme", b"secret-plan"]), PIECES),
        "{version}": st.one_of(st.just(b"1.0"), PIECES),
        "{filename}": st.one_of(st.just(WHEEL.encode()), PIECES),
        "{target}": st.one_of(st.sampled_from([b"1.0", WHEEL.encode()]), PIECES),
        "{filename:[^/]+}": st.one_of(st.just(WHEEL.encode()), PIECES),
    }
    return b"".join(draw(gaps.get(word, PIECES)) if word.startswith("{") else word.encode() for word in words)


SHOTS = st.builds(
    Shot,
    method=st.sampled_from(["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]),
    path=paths(),
    query=QUERIES,
    headers=HEADERS,
    body=BODIES,
    user=st.sampled_from([None, "dave", "alice", "root"]),
)


@pytest.fixture(scope="module", params=["none", "redirect"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index with files in it that believes every proxy, so that their headers count, too."""
    index = Index(
        tmp_path_factory.mktemp("surface"),
        pypi__fallback=request.param,
        pypi__fallback_base_url="https://index.example",
        pypi__trusted_proxies="*",
        pypi__max_upload_size="60000",
    )
    index.upload_wheel("acme", "1.0")
    index.upload_wheel("secret-plan", "1.0")
    yield index
    assert Path(index.settings["storage.dir"]).is_dir()


@seed(20261120)
@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(shot=SHOTS)
def test_nothing_a_client_sends_breaks_the_server(target: Index, shot: Shot) -> None:
    """No 5xx, no unknown status, errors in the one shape without a trace of the machine, and the files as before."""
    before = stored(target)
    content, content_type = shot.body if shot.method not in {"GET", "HEAD"} else (b"", shot.body[1])
    # Who may delete or yank would: dave reads, and no more.
    changes = shot.method == "DELETE" or shot.path.rstrip(b"/").endswith(b"yank")
    user = "dave" if changes and shot.user else shot.user
    headers = {"Content-Type": content_type, **shot.headers}
    answer = send(target, shot.method, shot.path, content, user=user, headers=headers, query=shot.query)
    assert answer.status_int in {200, 206, 301, 302, 304, 400, 401, 403, 404, 406, 409, 413, 416, 429}, answer.text
    assert stored(target) == before
    assert str(target.directory) not in answer.headers.get("Location", "")
    if shot.method == "HEAD" or answer.status_int in {401, 416}:
        assert answer.body == b""
    elif answer.status_int >= 400:
        assert str(target.directory).encode() not in answer.body
        assert b"Traceback" not in answer.body
        if shot.path.startswith((b"/api/", b"/admin/")):
            assert answer.headers["Content-Type"] == "application/json"
        if answer.content_type == "application/json":
            assert set(answer.json) == ERROR_KEYS
        else:
            assert answer.content_type in {"text/html", "text/plain"}
            assert "error id" in answer.text.lower()


def test_the_server_is_as_before(target: Index) -> None:
    """After all that the same files are listed and the same answers given."""
    for user, names in {"alice": ["acme", "secret-plan"], "bob": ["acme"]}.items():
        assert send(target, "GET", "/api/package/", headers=basic(user)).json == {"packages": names}
    assert send(target, "GET", "/health").json == {"access": "", "cache": "", "storage": ""}
