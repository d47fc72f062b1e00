"""The command: which rows, how long, where the page goes."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import cache_rows, caches, data, files_rows, page, pages_rows, scale_rows, storage_rows
from benchmarks.bench import ROOT, Bench, Row
from benchmarks.result import BenchError, Result, Verdict, shown, shown_bounds, shown_value

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Every row by the name that ``--only`` takes, in the order of the table.
ROWS: Final[dict[str, Row]] = {
    "page-json": pages_rows.page_json,
    "page-html": pages_rows.page_html,
    "page-304": pages_rows.page_304,
    "page-gzip": pages_rows.page_gzip,
    "pypiserver-page": pages_rows.pypiserver_page,
    "pypiserver-304": pages_rows.pypiserver_304,
    "pypiserver-many": pages_rows.pypiserver_many,
    "download": files_rows.download,
    "slow-readers": files_rows.slow_readers,
    "upload": files_rows.upload,
    "scale": scale_rows.scale,
    "listing": scale_rows.listing,
    "rebuild": scale_rows.rebuild,
    "at-rest": scale_rows.at_rest,
    "cache-pages": cache_rows.pages,
    "cache-threads": cache_rows.threads,
    "cache-saves": cache_rows.saves,
    "cache-rebuild": cache_rows.rebuilds,
    "cache-large": cache_rows.large,
    "storage-rebuild": storage_rows.rebuild,
    "storage-redirect": storage_rows.redirect,
    "storage-stream": storage_rows.stream,
    "storage-memory": storage_rows.memory,
    "storage-migrate": storage_rows.migrate,
    "storage-idle": storage_rows.idle,
}

_PAGE: Final = ROOT / "docs" / "reference" / "benchmarks.md"
_WORK: Final = ROOT / "benchmarks" / ".work"
_PEERS: Final = ROOT / ".make" / "bench-peers"
_MARKS: Final = {Verdict.AIM: "aim met", Verdict.MUST: "must met", Verdict.MISSED: "MISSED"}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", default=list(ROWS), help=", ".join(ROWS))
    names = [cache.name for cache in caches.OTHERS]
    parser.add_argument("--caches", nargs="+", choices=names, metavar="CACHE", default=names, help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="two short rounds: does it run at all?")
    parser.add_argument("--rounds", type=int, help="rounds a side (5)")
    parser.add_argument("--seconds", type=float, help="seconds a round (3)")
    parser.add_argument("--page", type=Path, help="write the results page here (a whole run: into the documentation)")
    command = str(Path(sys.executable).with_name("pypicloud"))
    parser.add_argument("--pypicloud", type=shlex.split, default=[command], help="the command to measure")
    return parser.parse_args(arguments)


def _check_tools() -> None:
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            raise BenchError(f"{tool} is not installed (Debian: apt-get install nginx-light wrk)")


def _print(result: Result) -> None:
    peer = f" | {result.peer} {shown(result.peer_figure, result.unit)}" if result.peer_figure else ""
    side = f", {result.side}" if result.side else ""
    print(f"{result.work}{side}\n    {shown(result.figure, result.unit)}{peer}")
    if result.peer_figure or result.goal:
        must, aim = shown_bounds(result)
        goal = f" (must {must}, aim {aim}): {_MARKS[result.verdict]}" if result.verdict else ""
        print(f"    {shown_value(result)}{goal}")
    if result.note:
        print(f"    {result.note}")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the page; 1 if a row could not be measured."""
    options = _options(arguments)
    bench = Bench(
        work=_WORK,
        peers_home=_PEERS,
        command=tuple(options.pypicloud),
        rounds=options.rounds or (2 if options.quick else 5),
        seconds=options.seconds or (1 if options.quick else 3),
        is_quick=options.quick,
        caches=tuple(options.caches),
    )
    _check_tools()
    data.remove(bench.run)
    bench.run.mkdir(parents=True)
    results: list[Result] = []
    failed: list[str] = []
    for name in options.only:
        start = time.monotonic()
        try:
            found = ROWS[name](bench)
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            failed.append(name)
            print(f"{name}: could not be measured: {error}", flush=True)
            continue
        results += found
        for result in found:
            _print(result)
        print(f"    [{name}, {time.monotonic() - start:.0f} s]", flush=True)
    is_all = len(options.only) == len(ROWS) and len(options.caches) == len(caches.OTHERS)
    is_whole = is_all and not options.quick and not failed
    target = options.page or (_PAGE if is_whole else None)
    if target is not None and results:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page.render(results, bench.rounds, bench.seconds, bench.peers_home))
        print(f"written: {target}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(str(error))
