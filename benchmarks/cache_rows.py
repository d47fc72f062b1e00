"""Rows about the caches: each beside SQLite in one run, or beside itself with few files in it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from benchmarks import cache_work, caches, data, load, process
from benchmarks.caches import OTHERS, SQLITE, Cache
from benchmarks.result import Goal, Result, Samples, at_least

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench
    from benchmarks.load import Target
    from benchmarks.peers import Server

#: The files of each project whose pages are asked for.
_FILES: Final = 20

_PAGES: Final = at_least(0.4, 0.8)
_REBUILDS: Final = at_least(5000, 20_000)
_GROWTH: Final = at_least(0.9, 1)

#: With so many sides to a row, each round is short.
_MOST_ROUNDS: Final = 3
_MOST_SECONDS: Final = 2


def measured(bench: Bench) -> list[Cache]:
    """The caches of this run, SQLite first, beside which the others are measured."""
    return [SQLITE, *(cache for cache in OTHERS if cache.name in bench.caches)]


def _measured_in_bulk(bench: Bench) -> list[Cache]:
    """Those of them that are given very many files."""
    return [cache for cache in measured(bench) if cache.bulk]


def pages(bench: Bench) -> tuple[Result, ...]:
    """Ten project pages over HTTP, from a server on each cache; and what such a server holds in memory before that."""
    with ExitStack() as stack:
        servers = [_pages_server(bench, cache, stack) for cache in measured(bench)]
        memory = [_memory(server) for server in servers]
        targets = [_page(server) for server in servers]
        rates = _in_turn(bench, [_load(bench, target, load.CONNECTIONS) for target in targets])
        many = _in_turn(bench, [_load(bench, target, 64) for target in targets], rounds=1)
    return (
        *_beside(bench, "cache-pages", "project page, 20 files, JSON, 8 connections", rates, goal=_PAGES),
        *_beside(bench, "cache-pages", "the same, 64 connections", many),
        *_beside(bench, "cache-pages", "memory of an idle worker (RSS)", memory, unit="MB"),
    )


def threads(bench: Bench) -> tuple[Result, ...]:
    """The same pages without HTTP and without the framework, from eight threads of one process."""
    (found,) = _worked(bench, "pages", cache_work.PAGES, _FILES, 8)
    return tuple(_beside(bench, "cache-threads", "such a page inside the process, 8 threads", found, goal=_PAGES))


def saves(bench: Bench) -> tuple[Result, ...]:
    """Files saved one by one."""
    one, eight = _worked(bench, "saves", cache_work.PROJECTS, 1, 1, 8)
    return (
        *_beside(bench, "cache-saves", "a file's facts saved, one by one", one),
        *_beside(bench, "cache-saves", "the same, 8 threads", eight),
    )


def rebuilds(bench: Bench) -> tuple[Result, ...]:
    """Rebuilds from a listing that costs nothing."""
    usual = 10_000 if bench.is_quick else 100_000
    results: list[Result] = []
    for cache in _measured_in_bulk(bench):
        files = int(usual * cache.bulk)
        with caches.empty(bench, cache, "rebuild") as settings:
            config = bench.config(f"rebuild-{cache.name}", cache=settings)
            found: dict[str, float] = bench.program("cache_work", "rebuild", str(config), str(files))
        note = "" if files == usual else f"with {files:,} files"
        goal = None if cache.bulk < 1 else _REBUILDS
        works = {"first": "into an empty cache", "again": "nothing has changed", "changed": "1 % has changed"}
        for kind, what in works.items():
            work = f"rebuild, {usual:,} files, {what}"
            results.append(
                Result("cache-rebuild", work, "files/s", Samples.of([found[kind]]), goal, note=note, side=cache.title)
            )
    return _by_work(results)


def large(bench: Bench) -> tuple[Result, ...]:
    """Pages and the list of projects of a cache that is a hundred times as large as another one."""
    usual = 10_000 if bench.is_quick else 100_000
    results = [result for cache in _measured_in_bulk(bench) for result in _grown(bench, cache, usual)]
    return _by_work(results)


def _grown(bench: Bench, cache: Cache, usual: int) -> list[Result]:
    projects = int(usual * cache.bulk)
    with ExitStack() as stack:
        few = stack.enter_context(caches.filled(bench, cache, "few", 1000, 10))
        many = stack.enter_context(caches.kept(bench, cache, "many", projects, 10))
        small = stack.enter_context(bench.server(f"few-{cache.name}", cache=few))
        grown = stack.enter_context(bench.server(f"many-{cache.name}", cache=many))
        # So that the password is known when the list is asked for.
        load.expect(_page(grown))
        listing = grown.target("/simple/", load.JSON, "gzip")
        start = time.perf_counter()
        load.expect(listing)
        first = Samples.of([time.perf_counter() - start])
        again = Samples.of([load.wrk(listing, _seconds(bench)).rate])
        figure, peer = _in_turn(bench, [_load(bench, _page(server), load.CONNECTIONS) for server in (grown, small)])
    note = "" if projects == usual else f"with {projects:,} projects"
    row, side, listed = "cache-large", cache.title, f"`/simple/` of {usual:,} projects, JSON, gzip, "
    growth = f"project page, one of {usual:,}, {usual * 10:,} files; multiple of the same with 10,000 files"
    return [
        Result(row, growth, "/s", figure, _GROWTH, "the same with 10,000 files", peer, note, side),
        Result(row, f"{listed}first answer", "s", first, note=note, side=side),
        Result(row, f"{listed}warm", "/s", again, note=note, side=side),
    ]


def _pages_server(bench: Bench, cache: Cache, stack: ExitStack) -> Server:
    settings = stack.enter_context(caches.filled(bench, cache, "pages", cache_work.PAGES, _FILES))
    return stack.enter_context(bench.server(f"pages-{cache.name}", cache=settings))


def _page(server: Server) -> Target:
    return server.target(_PATHS[0], load.JSON)


_PATHS: Final = [f"/simple/{data.numbered_project(number)}/" for number in range(cache_work.PAGES)]


def _load(bench: Bench, target: Target, connections: int) -> Callable[[], float]:
    return lambda: load.wrk(target, _seconds(bench), _PATHS, connections).rate


def _seconds(bench: Bench) -> float:
    return min(bench.seconds, _MOST_SECONDS)


def _in_turn(bench: Bench, sides: list[Callable[[], float]], rounds: int = _MOST_ROUNDS) -> list[Samples]:
    return bench.in_turn(*sides, rounds=min(bench.rounds, rounds))


def _memory(server: Server) -> Samples:
    load.expect(_page(server))
    time.sleep(0.5)
    return Samples.of([process.memory(process.worker_of(server.pid)).rss / 1e6])


def _worked(bench: Bench, kind: str, projects: int, files: int, *threads: int) -> list[list[Samples]]:
    """The rates of some work inside one process, by number of threads and by cache."""
    with ExitStack() as stack:
        filled = [stack.enter_context(caches.filled(bench, cache, kind, projects, files)) for cache in measured(bench)]
        configs = [
            bench.config(f"{kind}-{cache.name}", cache=settings)
            for cache, settings in zip(measured(bench), filled, strict=True)
        ]
        lasting = [_seconds(bench) / 2, min(bench.rounds, _MOST_ROUNDS)]
        words = [kind, *lasting, *configs, "--threads", *threads]
        found: list[list[list[float]]] = bench.program("cache_work", *map(str, words))
    return [[Samples.of(values) for values in each] for each in found]


def _by_work(results: list[Result]) -> tuple[Result, ...]:
    """The same, those of each kind of work together."""
    works = list(dict.fromkeys(result.work for result in results))
    return tuple(sorted(results, key=lambda result: works.index(result.work)))


def _beside(
    bench: Bench, row: str, work: str, found: list[Samples], *, unit: str = "/s", goal: Goal | None = None
) -> list[Result]:
    """SQLite's figure for itself, and that of every other cache beside it."""
    peer = found[0]
    results = [Result(row, work, unit, peer, side=SQLITE.title)]
    for cache, samples in zip(measured(bench)[1:], found[1:], strict=True):
        results.append(Result(row, work, unit, samples, goal, SQLITE.title, peer, side=cache.title))
    return results
