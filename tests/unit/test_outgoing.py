"""Requests that the server makes: bounded, through proxies, and careful with credentials."""

from __future__ import annotations

import gzip
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypicloud.errors import BackendUnavailable
from pypicloud.outgoing import Client, Fetched, Limits, is_web_address, without_credentials
from support.live import LOOPBACK, free_port
from support.upstream import Answer, FakeUpstream, fake_upstream, forget_proxies

QUICK = Limits(connect=2.0, read=0.3, total=0.8, pause=0.3, size=1 << 20)
PAGE = Answer(200, b"a page")


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    """An upstream that has something at ``/page``, and an environment without proxies."""
    forget_proxies(monkeypatch)
    with fake_upstream() as upstream:
        upstream.answers["/page"] = PAGE
        yield upstream


def get(client: Client, path: str = "/page") -> Fetched:
    """What the client gets at a path of its own index."""
    return client.get(client.address + path, {})


def test_connections_are_kept(upstream: FakeUpstream) -> None:
    """One connection serves many requests, whatever the status; the server says who it is."""
    client = Client(upstream.url, QUICK)
    statuses = [get(client, path).status for path in ("/page", "/nothing", "/page", "/page")]
    assert statuses == [200, 404, 200, 200]
    assert {asked.connection for asked in upstream.asked} == {1}
    assert upstream.asked[0].headers["User-Agent"] == "pypicloud"
    assert "gzip" in upstream.asked[0].headers["Accept-Encoding"]


def test_a_new_process_makes_connections_of_its_own(upstream: FakeUpstream) -> None:
    """After a fork no connection of the parent is used."""
    client = Client(upstream.url, QUICK)
    get(client)
    client.postfork()
    get(client)
    assert [asked.connection for asked in upstream.asked] == [1, 2]


def test_a_compressed_answer_is_unpacked(upstream: FakeUpstream) -> None:
    """The body is what was compressed."""
    upstream.answers["/zipped"] = Answer(200, gzip.compress(b"a page"), {"Content-Encoding": "gzip"})
    assert get(Client(upstream.url, QUICK), "/zipped").body == b"a page"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"x" * (2 << 20)),
        Answer(200, b"x" * (1 << 16), repeat=1000),
        Answer(200, gzip.compress(b"\0" * (64 << 20)), {"Content-Encoding": "gzip"}),
    ],
    ids=["announced", "endless", "bomb"],
)
def test_too_large_an_answer_is_broken_off(upstream: FakeUpstream, answer: Answer) -> None:
    """A body over the limit is trouble, unpacked or not, and the index is not left alone for it."""
    upstream.answers["/huge"] = answer
    client = Client(upstream.url, QUICK)
    with pytest.raises(BackendUnavailable, match="more than 1048576 bytes"):
        get(client, "/huge")
    assert get(client).body == b"a page"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"no gzip", {"Content-Encoding": "gzip"}),
        Answer(302, b"", {"Location": "http://[broken/"}),
    ],
)
def test_a_broken_answer_is_trouble(upstream: FakeUpstream, answer: Answer) -> None:
    """Bytes or headers that mean nothing raise the one error."""
    upstream.answers["/broken"] = answer
    with pytest.raises(BackendUnavailable, match="cannot be read"):
        get(Client(upstream.url, QUICK), "/broken")


def test_a_short_answer_is_trouble(upstream: FakeUpstream) -> None:
    """A body that ends before its length is no answer."""
    upstream.answers["/short"] = Answer(200, b"a page", {"Content-Length": "100", "Connection": "close"})
    with pytest.raises(BackendUnavailable, match="does not answer"):
        get(Client(upstream.url, QUICK), "/short")


def test_a_hanging_index_is_given_up_and_left_alone(upstream: FakeUpstream) -> None:
    """No answer: trouble after the time-out, then at once for a while, then it is asked again."""
    client = Client(upstream.url, QUICK)
    upstream.is_open.clear()
    start = time.monotonic()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        get(client)
    with pytest.raises(BackendUnavailable, match="a moment ago"):
        get(client)
    assert time.monotonic() - start < QUICK.total + 1
    assert len(upstream.asked) == 1
    upstream.is_open.set()
    time.sleep(QUICK.pause)
    assert get(client).body == b"a page"


def test_a_slow_index_is_given_up(upstream: FakeUpstream) -> None:
    """An answer that comes in drops is broken off when its whole time is over."""
    upstream.answers["/slow"] = Answer(200, b"x", repeat=50, delay=0.1)
    start = time.monotonic()
    with pytest.raises(BackendUnavailable, match="does not answer: TimeoutError"):
        get(Client(upstream.url, QUICK), "/slow")
    assert time.monotonic() - start < QUICK.total + 1


def test_an_absent_index_is_trouble() -> None:
    """Nobody listens there: the one error, which names no address."""
    with pytest.raises(BackendUnavailable, match="does not answer: NewConnectionError"):
        get(Client(f"http://{LOOPBACK}:{free_port()}", QUICK))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_failure_is_asked_once_more(upstream: FakeUpstream, status: int) -> None:
    """What a balancer says for a moment is tried a second time, and not a third."""
    upstream.answers["/page"] = [Answer(status), PAGE, Answer(status), Answer(status), PAGE]
    client = Client(upstream.url, QUICK)
    assert get(client).status == 200
    assert get(client).status == status
    assert len(upstream.asked) == 4


def test_too_many_requests_at_once_are_trouble(upstream: FakeUpstream) -> None:
    """With all connections busy the next request waits for a moment, and then gives up by itself alone."""
    client = Client(upstream.url, Limits(connect=0.05, connections=1))
    client._pool(upstream.url).connection_from_url(upstream.url)._get_conn()
    with pytest.raises(BackendUnavailable, match="too many requests"):
        get(client)
    with pytest.raises(BackendUnavailable, match="too many requests"):
        get(client)


def test_redirects_are_followed(upstream: FakeUpstream) -> None:
    """The final address is told, without a fragment; relative ones count from the last."""
    upstream.answers["/a"] = Answer(301, b"", {"Location": "/b/"})
    upstream.answers["/b/"] = Answer(307, b"", {"Location": "c#part"})
    upstream.answers["/b/c"] = PAGE
    found = get(Client(upstream.url, QUICK), "/a")
    assert (found.url, found.body) == (f"{upstream.url}/b/c", b"a page")


@pytest.mark.parametrize(
    ("location", "message"),
    [("/a", "more than 5 times"), ("file:///etc/passwd", "no http"), ("ftp://files.example/", "no http")],
)
def test_redirects_have_an_end_and_a_scheme(upstream: FakeUpstream, location: str, message: str) -> None:
    """A circle, and the way to anything but http and https, are trouble."""
    upstream.answers["/a"] = Answer(302, b"", {"Location": location})
    with pytest.raises(BackendUnavailable, match=message):
        get(Client(upstream.url, QUICK), "/a")
    assert len(upstream.asked) <= 6


def test_credentials_go_to_the_index_alone(upstream: FakeUpstream) -> None:
    """User and password of the address are sent to it, unquoted, and not where it redirects to."""
    client = Client(upstream.url.replace("://", "://us%40er:p%3Ass@") + "/", QUICK)
    assert client.address == upstream.url
    with fake_upstream() as other:
        other.answers["/page"] = PAGE
        upstream.answers["/away"] = Answer(302, b"", {"Location": f"{other.url}/page"})
        upstream.answers["/here"] = Answer(302, b"", {"Location": "/page"})
        assert get(client, "/away").body == get(client, "/here").body == b"a page"
        assert "Authorization" not in other.asked[0].headers
    assert {asked.headers["Authorization"] for asked in upstream.asked} == {"Basic dXNAZXI6cDpzcw=="}


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The proxy gets the request with its own credentials; the index's go along with it."""
    monkeypatch.setenv(variable, upstream.url.replace("http://", "http://proxy:secret@"))
    upstream.answers["http://index.example/page"] = PAGE
    assert get(Client("http://user@index.example", QUICK)).body == b"a page"
    [asked] = upstream.asked
    assert asked.path == "http://index.example/page"
    assert asked.headers["Proxy-Authorization"] == "Basic cHJveHk6c2VjcmV0"
    assert asked.headers["Authorization"] == "Basic dXNlcjo="


def test_a_proxy_may_be_named_without_a_scheme(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """``host:port`` means http."""
    monkeypatch.setenv("HTTP_PROXY", upstream.url.removeprefix("http://"))
    upstream.answers["http://index.example/page"] = PAGE
    assert get(Client("http://index.example", QUICK)).body == b"a page"


def test_no_proxy_is_honoured(upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in ``NO_PROXY`` is asked straight."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{LOOPBACK}:{free_port()}")
    monkeypatch.setenv("NO_PROXY", f"files.example,{LOOPBACK}")
    assert get(Client(upstream.url, QUICK)).body == b"a page"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the loopback address that nobody trusts, with its key in the same file."""
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]
    name = ["-subj", "/CN=A server", "-addext", f"subjectAltName=IP:{LOOPBACK}"]
    made = subprocess.run(["openssl", "req", "-x509", *key, *name], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + made.stdout)
    return path


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", None])
def test_certificates_are_verified(certificate: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    """An unknown authority is trouble, and one of ``REQUESTS_CA_BUNDLE`` is trusted."""
    forget_proxies(monkeypatch)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with fake_upstream(tls) as upstream:
        upstream.answers["/page"] = PAGE
        client = Client(upstream.url, QUICK)
        if variable is None:
            with pytest.raises(BackendUnavailable, match="SSLError"):
                get(client)
        else:
            monkeypatch.setenv(variable, str(certificate))
            assert get(client).body == b"a page"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://index.example/simple", True),
        ("http://[::1]:8080", True),
        ("index.example/simple", False),
        ("https://", False),
        ("file:///simple", False),
        ("https://index.example:port", False),
        ("http://[broken", False),
    ],
)
def test_web_addresses(url: str, expected: bool) -> None:
    """Only absolute http and https addresses with a host are some."""
    assert is_web_address(url) is expected


def test_credentials_are_taken_out_of_addresses() -> None:
    """What stands before the last ``@`` of the host goes, and nothing else."""
    assert without_credentials("https://a:b@c@index.example:1/d?e=f@g#h") == "https://index.example:1/d?e=f@g#h"
    assert without_credentials("https://index.example/@a") == "https://index.example/@a"


def test_the_http_client_is_imported_when_it_is_needed() -> None:
    """A server that asks no upstream does not load what asks."""
    code = "import sys, pypicloud.app; print(*{'urllib3', 'requests', 'boto3'} & set(sys.modules))"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True, env=environ
    )
    assert answer.stdout.strip() == ""
