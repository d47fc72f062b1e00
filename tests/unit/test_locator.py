"""The upstream index: what is remembered, for how long, and what is asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pypicloud.errors import BackendUnavailable
from pypicloud.locator import FormattedScrapingLocator, SimpleJsonLocator, Upstream
from pypicloud.models import normalized
from pypicloud.outgoing import Limits
from support.live import LOOPBACK, free_port
from support.upstream import JSON, Answer, FakeUpstream, fake_upstream, forget_proxies

ACME = normalized("acme")
WHEEL = "acme-1.0-py3-none-any.whl"
QUICK = Limits(connect=2.0, read=0.5, total=1.0, pause=0.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUpstream]:
    """An upstream that has one wheel of ``acme``."""
    forget_proxies(monkeypatch)
    with fake_upstream() as fake:
        fake.add("acme", WHEEL, b"bytes", requires_python=">=3.9", upload_time="2026-01-02T03:04:05Z", size=5)
        yield fake


def test_a_page_is_asked_for_by_its_normalised_name(fake: FakeUpstream) -> None:
    """The simple page is asked for, JSON first; its links are absolute."""
    page = Upstream(fake.url + "/").page(ACME)
    assert page is not None
    assert [link.url for link in page.links] == [f"{fake.url}/files/{WHEEL}"]
    [asked] = fake.asked
    assert asked.path == "/simple/acme/"
    assert asked.headers["Accept"].startswith(f"{JSON}, ")
    assert "text/html;q=" in asked.headers["Accept"]


def test_simple_pages_may_be_elsewhere(fake: FakeUpstream) -> None:
    """``simple_url`` is the root of the simple pages as it is."""
    fake.answers["/root/acme/"] = Answer(200, b"<a href=acme-2.0.zip>x</a>", {"Content-Type": "text/html"})
    page = Upstream("https://index.example", f"{fake.url}/root/").page(ACME)
    assert page is not None
    assert page.versions == ("2.0",)
    assert page.links[0].url == f"{fake.url}/root/acme/acme-2.0.zip"


def test_html_is_read_where_there_is_no_json(fake: FakeUpstream) -> None:
    """An index that knows HTML only has the same files."""
    fake.has_json = False
    page = Upstream(fake.url).page(ACME)
    assert page is not None
    assert [(link.filename, link.requires_python, link.size) for link in page.links] == [(WHEEL, ">=3.9", None)]


def test_links_count_from_where_the_page_is(fake: FakeUpstream) -> None:
    """After a redirect relative links belong to the final address."""
    fake.answers["/simple/acme/"] = Answer(301, b"", {"Location": "/mirror/root/deep/"})
    fake.answers["/mirror/root/deep/"] = Answer(200, b"<a href=../acme-2.0.zip>x</a>", {"Content-Type": "text/html"})
    page = Upstream(fake.url).page(ACME)
    assert page is not None
    assert page.links[0].url == f"{fake.url}/mirror/root/acme-2.0.zip"


def test_a_fresh_answer_is_not_asked_for_again(fake: FakeUpstream) -> None:
    """For a while the same value is given, and so is the answer that there is no such project."""
    upstream = Upstream(fake.url)
    assert upstream.page(ACME) is upstream.page(ACME)
    assert upstream.page(normalized("nothing")) is upstream.page(normalized("nothing")) is None
    assert fake.names == ["/simple/acme/", "/simple/nothing/"]


@pytest.mark.parametrize("has_tags", [True, False])
def test_a_page_that_has_not_changed_is_the_same_value(fake: FakeUpstream, has_tags: bool) -> None:
    """Asked again, with the tag if there is one, it is the same; a changed page is another, with another revision."""
    fake.has_tags = has_tags
    upstream = Upstream(fake.url, fresh=0)
    first = upstream.page(ACME)
    assert upstream.page(ACME) is first
    assert ("If-None-Match" in fake.asked[1].headers) is has_tags
    fake.add("acme", "acme-1.1.tar.gz")
    second = upstream.page(ACME)
    assert first is not None
    assert second is not None
    assert second.versions == ("1.1", "1.0")
    assert first.revision != second.revision


def test_a_date_serves_where_there_is_no_tag(fake: FakeUpstream) -> None:
    """``Last-Modified`` is sent back as ``If-Modified-Since``, and 304 keeps the page."""
    moment = "Fri, 20 Nov 2026 07:15:00 GMT"
    page = Answer(200, b"<a href=acme-2.0.zip>x</a>", {"Content-Type": "text/html", "Last-Modified": moment})
    fake.answers["/simple/acme/"] = [page, Answer(304)]
    upstream = Upstream(fake.url, fresh=0)
    assert upstream.page(ACME) is upstream.page(ACME)
    assert fake.asked[1].headers["If-Modified-Since"] == moment


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 206, 304])
def test_trouble_is_not_remembered(fake: FakeUpstream, status: int) -> None:
    """Any other status is trouble, and the next caller asks again."""
    upstream = Upstream(fake.url, limits=QUICK)
    fake.answers["/simple/acme/"] = Answer(status)
    with pytest.raises(BackendUnavailable, match=str(status)):
        upstream.page(ACME)
    fake.answers.clear()
    assert upstream.page(ACME) is not None


def test_trouble_does_not_forget_what_to_compare_with(fake: FakeUpstream) -> None:
    """After trouble the page is still revalidated, not fetched anew."""
    upstream = Upstream(fake.url, fresh=0, limits=QUICK)
    first = upstream.page(ACME)
    fake.answers["/simple/acme/"] = Answer(500)
    with pytest.raises(BackendUnavailable):
        upstream.page(ACME)
    fake.answers.clear()
    assert upstream.page(ACME) is first


@pytest.mark.parametrize("status", [404, 410])
def test_a_project_may_vanish_and_come_back(fake: FakeUpstream, status: int) -> None:
    """None while it is gone, and no validator of the old page is sent after that."""
    upstream = Upstream(fake.url, fresh=0)
    assert upstream.page(ACME) is not None
    fake.answers["/simple/acme/"] = Answer(status)
    assert upstream.page(ACME) is None
    fake.answers.clear()
    assert upstream.page(ACME) is not None
    assert "If-None-Match" not in fake.asked[-1].headers


def wait_for(fake: FakeUpstream, count: int) -> None:
    """Wait until the upstream was asked that often."""
    deadline = time.monotonic() + 10
    while len(fake.asked) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(fake.asked) == count


def test_callers_at_the_same_time_share_a_request(fake: FakeUpstream) -> None:
    """Many threads that want one project make one request; another project is not held up by it."""
    upstream = Upstream(fake.url)
    fake.is_open.clear()
    with ThreadPoolExecutor(9) as threads:
        pages = [threads.submit(upstream.page, ACME)]
        wait_for(fake, 1)
        pages += [threads.submit(upstream.page, ACME) for _ in range(7)]
        other = threads.submit(upstream.page, normalized("other"))
        wait_for(fake, 2)
        fake.is_open.set()
        assert len({id(page.result()) for page in pages}) == 1
        assert other.result() is None
    assert sorted(fake.names) == ["/simple/acme/", "/simple/other/"]


def test_callers_share_trouble_too(fake: FakeUpstream) -> None:
    """All that waited for a request hear that it failed."""
    upstream = Upstream(fake.url, limits=QUICK)
    fake.is_open.clear()
    fake.answers["/simple/acme/"] = Answer(500)
    with ThreadPoolExecutor(4) as threads:
        pages = [threads.submit(upstream.page, ACME)]
        wait_for(fake, 1)
        pages += [threads.submit(upstream.page, ACME) for _ in range(3)]
        fake.is_open.set()
        for page in pages:
            with pytest.raises(BackendUnavailable):
                page.result()


def test_nobody_waits_longer_than_a_request_may_take(fake: FakeUpstream) -> None:
    """Who shares a request that hangs is told so in time."""
    upstream = Upstream(fake.url, limits=Limits(total=0.2))
    shared = threading.Event()
    upstream._fetch = lambda *_: shared.wait(10)  # type: ignore[method-assign,assignment]
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(upstream.page, ACME)
        while not upstream._under_way:
            time.sleep(0.005)
        with pytest.raises(BackendUnavailable, match="in time"):
            upstream.page(ACME)
        shared.set()
        assert first.exception() is not None


def test_the_memory_is_bounded(fake: FakeUpstream) -> None:
    """What was not asked for longest is forgotten first, and a page that is too large is not kept at all."""
    for name in ("one", "two"):
        fake.add(name, f"{name}-1.0.zip")
    upstream = Upstream(fake.url, max_rows=4)
    one, two = normalized("one"), normalized("two")
    for name in (one, two, one, ACME, one, two):
        upstream.page(name)
    assert fake.names == [f"/simple/{name}/" for name in ("one", "two", "acme", "two")]
    for version in range(9):
        fake.add("acme", f"acme-{version}.zip")
    upstream = Upstream(fake.url, max_rows=4)
    upstream.page(ACME)
    upstream.page(ACME)
    assert fake.names[4:] == ["/simple/acme/", "/simple/acme/"]
    assert not upstream._rows


def test_credentials_are_sent_and_not_shown(fake: FakeUpstream) -> None:
    """The address's user and password are in the request, and in no link and no message."""
    upstream = Upstream(fake.url.replace("://", "://user:secret@"), limits=QUICK, fresh=0)
    page = upstream.page(ACME)
    assert fake.asked[0].headers["Authorization"].startswith("Basic ")
    assert "secret" not in repr(page)
    fake.answers["/simple/acme/"] = Answer(500)
    with pytest.raises(BackendUnavailable) as caught:
        upstream.page(ACME)
    assert "secret" not in str(caught.value)


RELEASE = {"name": "acme", "version": "1.0", "requires_python": ">=3.9"}


def test_releases_of_the_older_json(fake: FakeUpstream) -> None:
    """``SimpleJsonLocator`` reads ``/pypi/<name>/json`` and gives the documented keys, summary included."""
    [release] = SimpleJsonLocator(fake.url).get_releases("ACME")
    assert fake.names == ["/pypi/acme/json"]
    digests = {"sha256": fake.files["acme"][0]["hashes"]["sha256"], "md5": "0" * 32}
    url = f"{fake.url}/files/{WHEEL}"
    assert release == {**RELEASE, "summary": "All about acme", "url": url, "digests": digests}


def test_releases_of_simple_pages(fake: FakeUpstream) -> None:
    """``FormattedScrapingLocator`` reads ``<url>/<name>/`` and gives the documented keys."""
    locator = FormattedScrapingLocator(f"{fake.url}/simple/", timeout=3, num_workers=2, scheme="legacy")
    [release] = locator.get_releases("ACME")
    assert fake.names == ["/simple/acme/"]
    digests = {"sha256": fake.files["acme"][0]["hashes"]["sha256"]}
    assert release == {**RELEASE, "summary": "", "url": f"{fake.url}/files/{WHEEL}", "digests": digests}
    assert locator.get_releases("nothing") == []


def test_releases_of_an_upstream_in_trouble(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are none, as in 1.3.12, and the log says why."""
    forget_proxies(monkeypatch)
    locator = FormattedScrapingLocator(f"http://{LOOPBACK}:{free_port()}")
    with caplog.at_level(logging.WARNING):
        assert locator.get_releases("acme") == []
    assert "Cannot look up acme: the upstream index does not answer" in caplog.text
