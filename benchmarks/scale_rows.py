"""Rows about size: many projects in the cache, many files on disk, the server at rest."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks import caches, data, load, peers, process
from benchmarks.caches import SQLITE
from benchmarks.load import Target
from benchmarks.peers import Server, Static
from benchmarks.result import BenchError, Result, Samples, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

PROJECTS = 100_000
FILES_EACH = 10


@contextlib.contextmanager
def _server(bench: Bench, projects: int) -> Iterator[Server]:
    """Our server with so many projects in its cache and no file in its storage."""
    name = f"scale-{projects}"
    with caches.kept(bench, SQLITE, name, projects, FILES_EACH) as cache, bench.server(name, cache=cache) as server:
        yield server


def scale(bench: Bench) -> tuple[Result, ...]:
    """The same ten project pages, with few and with very many others beside them."""
    paths = [f"/simple/{data.numbered_project(number)}/" for number in range(10)]
    with _server(bench, 10) as small, _server(bench, PROJECTS) as large:
        few, many = small.target(paths[0], load.JSON), large.target(paths[0], load.JSON)
        if load.expect(few).body != load.expect(many).body:
            raise BenchError("the two servers give different pages")
        figure, peer = bench.in_turn(
            lambda: load.wrk(many, bench.seconds, paths).rate, lambda: load.wrk(few, bench.seconds, paths).rate
        )
    work = f"project pages with {PROJECTS:,} projects and {PROJECTS * FILES_EACH:,} files in the cache"
    return (Result("scale", work, "/s", figure, at_least(0.9, 1.0), "the same with 10 projects", peer),)


def listing(bench: Bench) -> tuple[Result, ...]:
    """The list of all projects."""
    with _server(bench, PROJECTS) as server:
        ours = server.target("/simple/", load.JSON, "gzip")
        start = time.perf_counter()
        answer = load.expect(ours)
        cold = time.perf_counter() - start
        with peers.nginx(bench.run, [Static("list", answer=answer)]) as port:
            theirs = Target(port, "/list", ours.headers)
            if load.expect(theirs).body != answer.body:
                raise BenchError("nginx does not serve the same bytes")
            figure, peer = bench.in_turn(
                lambda: load.wrk(ours, bench.seconds).rate, lambda: load.wrk(theirs, bench.seconds).rate
            )
    encoding = answer.header("Content-Encoding") or "not compressed"
    note = f"{len(answer.body):,} bytes, {encoding}; the first answer took {cold:.2g} s"
    work = f"`/simple/` of {PROJECTS:,} projects, JSON, gzip, warm"
    return (Result("listing", work, "/s", figure, at_least(0.1, 0.3), "nginx, the same bytes", peer, note),)


def rebuild(bench: Bench) -> tuple[Result, ...]:
    """A cache made anew from a folder of 20,000 files."""
    tree = bench.world.rebuild_tree()
    config = bench.config("rebuild", tree)
    times = bench.program("rebuild", str(config), str(tree), "20000", str(bench.rounds))
    walk, again = Samples.of(times["walk"]), Samples.of(times["again"])
    note = f"once more with nothing changed: {again.median:.3g} s, {again.median / walk.median:.3g} x"
    work = "rebuild from disk, 20,000 files, empty cache"
    figure = Samples.of(times["empty"])
    return (Result("rebuild", work, "s", figure, at_most(20, 8), "os.walk + stat of the same tree", walk, note),)


def at_rest(bench: Bench) -> tuple[Result, ...]:
    """Starts of a server that has a cache already: the time to its first answer, and its memory after one page."""
    with bench.pages_server():
        pass  # The first start fills the cache.
    times, resident, shares = [], [], []
    for _ in range(max(bench.rounds, 5)):
        start = time.perf_counter()
        with bench.pages_server() as server:
            times.append(time.perf_counter() - start)
            load.expect(server.target(f"/simple/{data.TWENTY}/", load.JSON))
            time.sleep(0.5)
            worker = process.memory(process.worker_of(server.pid))
            everyone = [process.memory(pid) for pid in (server.pid, *process.descendants(server.pid))]
            resident.append(worker.rss / 1e6)
            shares.append((worker.pss / 1e6, sum(each.pss for each in everyone) / 1e6))
    own, whole = shares[-1]
    note = f"its proportional share (PSS) is {own:.3g} MB; with the process that watches over it {whole:.3g} MB"
    return (
        Result("memory", "memory of an idle worker (RSS)", "MB", Samples.of(resident), at_most(100, 70), note=note),
        Result("start", "start to the first answer", "s", Samples.of(times), at_most(2, 1)),
    )
