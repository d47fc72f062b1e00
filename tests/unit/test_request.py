"""The typed request: arguments, addresses, and whose forwarding headers count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pypicloud.errors import BadRequest, TooLarge
from pypicloud.request import PypicloudRequest, TrustedProxies, as_flag
from support.world import Index, basic


def request(path: str = "/", **options: Any) -> PypicloudRequest:
    """A request without an application."""
    made: PypicloudRequest = PypicloudRequest.blank(path, **options)
    return made


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {"a": "1", "b": ""}),
        ({"method": "PUT", "body": b"a=2&c=%C3%A9", "content_type": FORM}, {"a": "2", "b": "", "c": "\u00e9"}),
        ({"method": "POST", "body": b"a=2;c=3", "content_type": f"{FORM}; charset=utf-8"}, {"a": "2;c=3", "b": ""}),
        ({"method": "POST", "body": b'{"a": true}', "content_type": "application/json"}, {"a": True}),
        ({"method": "DELETE", "body": b'{"a": null}', "content_type": "application/json; x=y"}, {"a": None}),
        ({"method": "GET", "content_type": "application/json"}, {"a": "1", "b": ""}),
        ({"method": "POST", "body": b"a=2", "content_type": "text/plain"}, {"a": "1", "b": ""}),
    ],
)
def test_where_arguments_come_from(options: dict[str, Any], arguments: dict[str, Any]) -> None:
    """A JSON body's keys, or query string and form together, the form's first (compat.md 5.1)."""
    assert request("/?a=0&a=1&b=", **options).arguments == arguments


@pytest.mark.parametrize("body", [b"a=%ff", b"\xff=1"])
def test_a_form_that_is_not_text(body: bytes) -> None:
    """400, not a guess at the encoding."""
    with pytest.raises(BadRequest, match="the body holds arguments that are not UTF-8 text"):
        _ = request(method="PUT", body=body, content_type=FORM).arguments


@pytest.mark.parametrize("content_type", [FORM, "application/json", "text/plain"])
def test_a_small_body_is_small(content_type: str) -> None:
    """413 for more than 64 KiB, whatever its type."""
    with pytest.raises(TooLarge, match="larger than 65536 bytes"):
        _ = request(method="PUT", body=b"x" * 65537, content_type=content_type).arguments


def test_param() -> None:
    """Named, converted, checked; missing without a default it is an error that names it."""
    found = request("/?n=7&flag=false&word=x")
    assert found.param("n", type=int) == 7
    assert found.param("word") == "x"
    assert found.param("none", None) is None
    assert found.param("flag", type=bool) is False
    assert found.param("n", type=int, validate=lambda number: number < 10) == 7
    with pytest.raises(BadRequest, match="Missing argument 'gone'"):
        found.param("gone")
    with pytest.raises(BadRequest, match="argument 'word' has the value 'x', which is not valid"):
        found.param("word", type=int)
    with pytest.raises(BadRequest, match="argument 'n' has the value 7, which is not valid"):
        found.param("n", type=int, validate=lambda number: number > 10)


@pytest.mark.parametrize("value", [False, None, 0, "false", "False", " no ", "off", "0", "n", "f"])
def test_words_for_no(value: Any) -> None:
    """JSON's and the forms' ways to say no."""
    assert as_flag(value) is False


@pytest.mark.parametrize("value", [True, 1, "true", "yes", "on", "1", "x"])
def test_words_for_yes(value: Any) -> None:
    """Everything else means yes (compat.md 5.1)."""
    assert as_flag(value) is True


def test_app_url() -> None:
    """Absolute below the mount point, parts taken as they are, the query escaped."""
    mounted = request("/x", environ={"SCRIPT_NAME": "/mount"}, base_url=None)
    assert mounted.app_url() == "http://localhost/mount"
    url = mounted.app_url("api", "a+b", fragment="f", q="a b&c")
    assert url == "http://localhost/mount/api/a+b?q=a+b%26c#f"


def test_what_plugins_may_ask(tmp_path: Path) -> None:
    """The documented attributes answer on a real request (compat.md 8.4)."""
    index = Index(tmp_path, pypi__fallback_base_url="https://index.example/", pypi__download_url="https://pkgs.example")
    made = request("/", headers=basic("alice"))
    made.registry = index.wsgi.registry
    assert made.caller.user == "alice"
    assert made.db.storage is made.index.cache.storage
    assert made.access is made.index.access
    assert made.custom_download_url == "https://pkgs.example"
    assert made.fallback_simple == "https://index.example/simple"
    assert made.pypicloud_version == made.app.version
    assert made.named_subpaths == {}
    assert made.registry.fallback_base_url == "https://index.example"


@pytest.mark.parametrize(("user", "status"), [("alice", 403), (None, 401)])
def test_forbid(tmp_path: Path, user: str | None, status: int) -> None:
    """403 for who is known, 401 for who is not; request_login is always 401."""
    index = Index(tmp_path)
    made = request("/", headers={} if user is None else basic(user))
    made.registry = index.wsgi.registry
    assert made.forbid().status_int == status
    assert made.request_login().status_int == 401


def apply(trusted: list[str], **environ: str) -> dict[str, str]:
    """What trusted proxies make of a WSGI environment."""
    changed = {
        "REMOTE_ADDR": "10.0.0.1",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "inside",
        "SCRIPT_NAME": "",
        **environ,
    }
    TrustedProxies(trusted).apply(changed)
    return changed


@pytest.mark.parametrize(
    ("trusted", "chain", "client"),
    [
        (["10.0.0.0/8"], "1.1.1.1, 2.2.2.2", "2.2.2.2"),
        (["10.0.0.0/8"], "1.1.1.1, 10.1.1.1", "1.1.1.1"),
        (["10.0.0.0/8"], "10.2.2.2, 10.1.1.1", "10.2.2.2"),
        (["10.0.0.0/8"], " , ,", "10.0.0.1"),
        (["10.0.0.0/8"], "", "10.0.0.1"),
        (["10.0.0.0/8", "2001:db8::/32"], "::1, 2001:db8::1", "::1"),
        (["*"], "1.1.1.1, 2.2.2.2", "2.2.2.2"),
        (["10.0.0.0/8"], "1.1.1.1, ::ffff:10.1.1.1", "1.1.1.1"),
        (["10.0.0.0/8"], "1.1.1.1, unknown", "unknown"),
        (["11.0.0.0/8"], "1.1.1.1", "10.0.0.1"),
    ],
)
def test_the_chain_is_walked_back(trusted: list[str], chain: str, client: str) -> None:
    """From the nearest hop to the first that is no trusted proxy."""
    assert apply(trusted, HTTP_X_FORWARDED_FOR=chain)["REMOTE_ADDR"] == client


@pytest.mark.parametrize("make", [TrustedProxies, lambda words: TrustedProxies(iter(words))])
def test_any_iterable_of_words(make: Callable[[list[str]], TrustedProxies]) -> None:
    """Addresses and networks of both families."""
    proxies = make(["192.0.2.1", "2001:db8::/32"])
    assert [proxies.trusts(each) for each in ("192.0.2.1", "2001:db8::5", "192.0.2.2", "", "x")] == [
        True,
        True,
        False,
        False,
        False,
    ]
