"""Rows about pages: against nginx with the very same bytes, and against pypiserver with the very same files."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from benchmarks import data, load, peers
from benchmarks.load import Target
from benchmarks.peers import Static
from benchmarks.result import BenchError, Result, at_least

if TYPE_CHECKING:
    from benchmarks.bench import Bench

_AGAINST_NGINX: Final = at_least(0.15, 0.35)
_AGAINST_PYPISERVER: Final = at_least(50, 200)


def _page(project: str) -> str:
    return f"/simple/{project}/"


def _conditional(target: Target) -> Target:
    """The same request once more, by a client that has the page: answered 304, or the row is void."""
    tag = load.expect(target).header("ETag")
    if tag is None:
        raise BenchError(f"{target.path} has no ETag")
    again = target.with_headers({"If-None-Match": tag})
    load.expect(again, HTTPStatus.NOT_MODIFIED)
    return again


def _against_nginx(
    bench: Bench, row: str, work: str, project: str, accept: str, *, encoding: str | None = None
) -> Result:
    with bench.pages_server() as server:
        ours = server.target(_page(project), accept, encoding)
        answer = load.expect(ours)
        if answer.header("Content-Encoding") != encoding:
            raise BenchError(f"{ours.path} was not encoded as asked: {answer.headers}")
        with peers.nginx(bench.run, [Static("page", answer=answer)]) as port:
            theirs = Target(port, "/page", ours.headers)
            if load.expect(theirs).body != answer.body:
                raise BenchError("nginx does not serve the same bytes")
            figure, peer = bench.in_turn(
                lambda: load.wrk(ours, bench.seconds).rate, lambda: load.wrk(theirs, bench.seconds).rate
            )
    kind = "nginx, gzip_static" if encoding else "nginx, static file"
    note = f"{len(answer.body):,} bytes a page"
    return Result(row, work, "/s", figure, _AGAINST_NGINX, kind, peer, note)


def page_json(bench: Bench) -> tuple[Result, ...]:
    """A project page of 20 files as pip and uv ask for it."""
    return (_against_nginx(bench, "page-json", "project page, 20 files, JSON", data.TWENTY, load.JSON),)


def page_html(bench: Bench) -> tuple[Result, ...]:
    """The same as HTML."""
    return (_against_nginx(bench, "page-html", "project page, 20 files, HTML", data.TWENTY, load.HTML),)


def page_gzip(bench: Bench) -> tuple[Result, ...]:
    """A large page, compressed."""
    work = "project page, 2,000 files, JSON, gzip"
    return (_against_nginx(bench, "page-gzip", work, data.MANY, load.JSON, encoding="gzip"),)


def page_304(bench: Bench) -> tuple[Result, ...]:
    """A page that the client has already."""
    with bench.pages_server() as server:
        full = server.target(_page(data.TWENTY), load.JSON)
        ours = _conditional(full)
        with peers.nginx(bench.run, [Static("page", answer=load.expect(full))]) as port:
            theirs = _conditional(Target(port, "/page", full.headers))
            figure, peer = bench.in_turn(
                lambda: load.wrk(ours, bench.seconds).rate, lambda: load.wrk(theirs, bench.seconds).rate
            )
    work = "project page, 20 files, JSON, If-None-Match"
    return (Result("page-304", work, "/s", figure, _AGAINST_NGINX, "nginx, 304", peer),)


def _against_pypiserver(bench: Bench, row: str, work: str, project: str, *, conditional: bool = False) -> Result:
    home = peers.pypiserver_home(bench.peers_home)
    folder = bench.world.flat_folder(project)
    encoding = None if project == data.TWENTY else "gzip"
    with bench.pages_server() as server, peers.pypiserver(home, folder, project, bench.run) as theirs:
        ours = server.target(_page(project), load.HTML, encoding)
        load.expect(ours)
        if conditional:
            ours = _conditional(ours)
        listed = load.expect(theirs).body.count(b".whl#sha256=")
        if listed != data.FILES[project]:
            raise BenchError(f"pypiserver lists {listed} files with their hashes instead of {data.FILES[project]}")
        # The peer takes a second or so for a large page, eight of which are asked for at once.
        patience = bench.seconds if project == data.TWENTY else max(bench.seconds, 8)
        figure, peer = bench.in_turn(
            lambda: load.wrk(ours, bench.seconds).rate, lambda: load.wrk(theirs, patience).rate
        )
    return Result(row, work, "/s", figure, _AGAINST_PYPISERVER, "pypiserver", peer)


def pypiserver_page(bench: Bench) -> tuple[Result, ...]:
    """A project page of 20 files as HTML, the only form the peer has."""
    return (_against_pypiserver(bench, "pypiserver-page", "project page, 20 files, HTML", data.TWENTY),)


def pypiserver_304(bench: Bench) -> tuple[Result, ...]:
    """A page that the client has already; the peer has no ETag and sends it again."""
    work = "project page, 20 files, HTML, If-None-Match"
    return (_against_pypiserver(bench, "pypiserver-304", work, data.TWENTY, conditional=True),)


def pypiserver_many(bench: Bench) -> tuple[Result, ...]:
    """A large page."""
    work = "project page, 2,000 files, HTML, gzip"
    return (_against_pypiserver(bench, "pypiserver-many", work, data.MANY),)
