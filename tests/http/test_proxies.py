"""Behind reverse proxies: whose word counts, and the addresses that come of it."""

from __future__ import annotations

import logging
import textwrap
from pathlib import Path

import pytest
from plaster import get_loader
from webtest import TestApp

from pypicloud.auth import FREE_FAILURES
from pypicloud.errors import SettingError
from support.wire import send
from support.world import Index, basic, settings

#: What a proxy says about a client that came by https to a mount point.
HEADERS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "pkgs.example",
    "X-Forwarded-Prefix": "/mount",
}


def addresses(index: Index, headers: dict[str, str], remote: str = "10.0.0.1") -> tuple[str, str]:
    """Where a redirect leads, and the link in the legacy JSON."""
    redirect = send(index, "GET", "/simple", headers=headers, REMOTE_ADDR=remote).location
    answer = send(index, "GET", "/pypi/acme/json", headers=headers, REMOTE_ADDR=remote)
    return redirect, answer.json["urls"][0]["url"]


def expected(root: str) -> tuple[str, str]:
    """The same below a root."""
    return f"{root}/simple/", f"{root}/api/package/acme/acme-1.0-py3-none-any.whl"


def trusting(tmp_path: Path, proxies: str | None) -> Index:
    """An index with one file that trusts these proxies."""
    index = Index(tmp_path, pypi__trusted_proxies=proxies)
    index.upload_wheel()
    return index


def test_nobody_is_believed_by_default(tmp_path: Path) -> None:
    """Without the setting the headers are a client's words, and count for nothing."""
    index = trusting(tmp_path, None)
    assert addresses(index, HEADERS) == expected("http://localhost")
    assert addresses(index, HEADERS, "127.0.0.1") == expected("http://localhost")


@pytest.mark.parametrize("proxies", ["10.0.0.1", "10.0.0.0/8", "192.0.2.1 10.0.0.0/8", "*", "10.0.0.9/8"])
def test_a_trusted_proxy_is_believed(tmp_path: Path, proxies: str) -> None:
    """Scheme, host and mount point are what it says, in redirects and in links that are absolute."""
    index = trusting(tmp_path, proxies)
    assert addresses(index, HEADERS) == expected("https://pkgs.example/mount")
    assert addresses(index, {}) == expected("http://localhost")
    api = send(index, "GET", "/api/package/acme/", headers=HEADERS, REMOTE_ADDR="10.0.0.1").json["packages"][0]
    assert api["url"].startswith("https://pkgs.example/mount/api/package/acme/")
    home = send(index, "GET", "/", headers=HEADERS, REMOTE_ADDR="10.0.0.1").text
    assert "https://pkgs.example/mount/simple/" in home
    assert 'href="/mount/' in home


@pytest.mark.parametrize("remote", ["11.0.0.1", "", "unix", "::1", "10.0.0.1, 11.0.0.1"])
def test_others_are_not_believed(tmp_path: Path, remote: str) -> None:
    """Only the address that connects is asked for, never one that somebody wrote into a header."""
    index = trusting(tmp_path, "10.0.0.0/8")
    headers = {**HEADERS, "X-Forwarded-For": "10.0.0.1", "X-Real-IP": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
    assert addresses(index, headers, remote) == expected("http://localhost")


@pytest.mark.parametrize(
    ("headers", "root"),
    [
        ({"X-Forwarded-Proto": "https"}, "https://localhost"),
        ({"X-Forwarded-Proto": "http, https"}, "https://localhost"),
        ({"X-Forwarded-Proto": "javascript"}, "http://localhost"),
        ({"X-Forwarded-Host": "evil.example, pkgs.example:8443"}, "http://pkgs.example:8443"),
        ({"X-Forwarded-Prefix": "mount/"}, "http://localhost/mount"),
        ({"X-Forwarded-Prefix": "//evil.example/x"}, "http://localhost/evil.example/x"),
        ({"X-Forwarded-Prefix": "/"}, "http://localhost"),
        ({"X-Forwarded-Prefix": "", "X-Forwarded-Host": ""}, "http://localhost"),
        ({"X-Forwarded-Prefix": "/\xff", "X-Forwarded-Host": "\xff"}, "http://localhost"),
    ],
)
def test_each_header_counts_alone(tmp_path: Path, headers: dict[str, str], root: str) -> None:
    """Of several values the nearest proxy's, the last, counts; a client in front of it cannot choose."""
    assert addresses(trusting(tmp_path, "10.0.0.1"), {"Host": "localhost", **headers}) == expected(root)


def test_pages_do_not_depend_on_the_proxy(tmp_path: Path) -> None:
    """Their links are relative: the same bytes for everybody."""
    index = trusting(tmp_path, "10.0.0.1")
    plain = send(index, "GET", "/simple/acme/")
    assert send(index, "GET", "/simple/acme/", headers=HEADERS, REMOTE_ADDR="10.0.0.1").body == plain.body


@pytest.mark.parametrize(
    ("forwarded", "same", "other"),
    [
        ("203.0.113.9", "203.0.113.9", "203.0.113.10"),
        ("198.51.100.7, 203.0.113.9", "1.2.3.4, 203.0.113.9", "203.0.113.9, 203.0.113.10"),
        ("203.0.113.9, 10.7.7.7", "203.0.113.9", "203.0.113.9, 203.0.113.10, 10.7.7.7"),
        ("nonsense", "x, nonsense", "203.0.113.9"),
    ],
)
def test_the_clients_address(tmp_path: Path, forwarded: str, same: str, other: str) -> None:
    """Failed logins count for the first address, from the right, that is no trusted proxy's."""
    index = trusting(tmp_path, "10.0.0.0/8")

    def attempt(chain: str) -> int:
        headers = {**basic("bob", "wrong"), "X-Forwarded-For": chain}
        status: int = send(index, "GET", "/simple/acme/", user=None, headers=headers, REMOTE_ADDR="10.0.0.1").status_int
        return status

    assert [attempt(forwarded) for _ in range(FREE_FAILURES)] == [401] * FREE_FAILURES
    assert attempt(same) == 429
    assert attempt(other) == 401


def test_an_address_cannot_be_made_up_to_try_passwords(tmp_path: Path) -> None:
    """Without trusted proxies another X-Forwarded-For each time does not help."""
    index = Index(tmp_path)
    for number in range(FREE_FAILURES + 1):
        headers = {**basic("bob", "wrong"), "X-Forwarded-For": f"203.0.113.{number}"}
        answer = send(index, "GET", "/simple/acme/", user=None, headers=headers)
    assert answer.status_int == 429


@pytest.mark.parametrize("value", ["10.0.0.0/99", "proxy.example", "10.0.0.1,10.0.0.2"])
def test_what_is_no_network(tmp_path: Path, value: str) -> None:
    """The start is stopped with key and value."""
    with pytest.raises(SettingError, match=r"pypi\.trusted_proxies = ") as caught:
        Index(tmp_path, pypi__trusted_proxies=value)
    assert repr(value) in str(caught.value)


def test_a_mount_point_of_the_server(tmp_path: Path) -> None:
    """SCRIPT_NAME, as WSGI servers and mounting applications set it, is part of every absolute address."""
    index = trusting(tmp_path, None)
    answer = send(index, "GET", "/simple", SCRIPT_NAME="/deep/mount")
    assert answer.location == "http://localhost/deep/mount/simple/"
    answer = send(index, "GET", "/api/package/acme/", SCRIPT_NAME="/deep/mount")
    assert answer.json["packages"][0]["url"].startswith("http://localhost/deep/mount/api/package/acme/")


def test_the_prefix_filter_of_the_ini_file(tmp_path: Path) -> None:
    """``filter-with = proxy-prefix`` with PasteDeploy's filter works as documented for 1.3.12."""
    lines = [f"{key} = {value.replace('%', '%%')}" for key, value in settings(tmp_path).items()]
    text = """
        [app:main]
        use = egg:pypicloud
        filter-with = proxy-prefix
        {settings}

        [filter:proxy-prefix]
        use = egg:PasteDeploy#prefix
        prefix = /mount
    """
    file = tmp_path / "server.ini"
    file.write_text(textwrap.dedent(text).replace("{settings}", "\n".join(lines)))
    app = TestApp(get_loader(str(file), protocols=["wsgi"]).get_wsgi_app())
    headers = {**basic("alice"), "X-Forwarded-Host": "pkgs.example", "X-Forwarded-Proto": "https"}
    assert app.get("/mount/simple", headers=headers).location == "https://pkgs.example/mount/simple/"
    assert app.get("/mount/health", headers=headers).json == {"access": "", "cache": "", "storage": ""}


def test_a_proxy_that_is_not_trusted_is_told_once(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    """The first forwarded request warns the operator, and its headers change nothing."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            index.app.get("/health", headers={"X-Forwarded-For": "203.0.113.9"})
    assert len([message for message in caplog.messages if "pypi.trusted_proxies does not name it" in message]) == 1
