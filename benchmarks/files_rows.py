"""Rows about files: a download, slow readers, a large upload."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks import data, load, peers, process
from benchmarks.bench import ROOT, Bench
from benchmarks.load import Target
from benchmarks.peers import Static
from benchmarks.result import BenchError, Result, Samples, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READERS: Final = 300
READER_RATE: Final = 64_000

#: How long the readers go on before others are asked how it is: what the sockets hold is filled by then.
SETTLE_SECONDS: Final = 2


def _file_path(project: str) -> str:
    return f"/api/package/{project}/{data.file_name(project, '1.0')}"


def download(bench: Bench) -> tuple[Result, ...]:
    """A file of 20 MB, over and over."""
    stored = bench.world.large_file()
    with bench.pages_server() as server, peers.nginx(bench.run, [Static("file", file=stored)]) as port:
        ours, theirs = server.target(_file_path(data.LARGE)), Target(port, "/file", {})
        if load.expect(ours).body != stored.read_bytes():
            raise BenchError("the download differs from what is stored")
        figure, peer = bench.in_turn(
            lambda: load.wrk(ours, bench.seconds).bytes_rate / 1e9,
            lambda: load.wrk(theirs, bench.seconds).bytes_rate / 1e9,
        )
    goal = at_least(0.9, 1.2)
    return (Result("download", "download, 20 MB", "GB/s", figure, goal, "nginx, sendfile", peer),)


@contextlib.contextmanager
def _slow_readers(port: int, path: str) -> Iterator[list[float]]:
    """Readers in a process of their own while the block runs; then the list holds the bytes a second they had."""
    command = [sys.executable, "-m", "benchmarks.slow_readers", str(port), path, load.AUTHORIZATION]
    command += [str(READERS), str(READER_RATE)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    rates: list[float] = []
    try:
        assert child.stdout is not None
        if child.stdout.readline() != b"ready\n":
            raise BenchError("the slow readers did not start")
        yield rates
        child.terminate()
        report = json.loads(child.stdout.read())
        if report["cut"] or report["broken"]:
            raise BenchError(f"slow readers were cut off: {report}")
        rates.append(report["bytes_per_second"])
    finally:
        process.stop(child)


def _quiet_and_busy(bench: Bench, page: Target, file: str) -> tuple[Samples, Samples, float]:
    """The page's p99 (ms) without and with slow readers of the file, and how full a share the readers had."""
    quiet, busy, shares = [], [], []
    load.wrk(page, bench.seconds)
    for _ in range(bench.rounds):
        quiet.append(load.wrk(page, bench.seconds).p99 * 1000)
        with _slow_readers(page.port, file) as rates:
            time.sleep(SETTLE_SECONDS)
            busy.append(load.wrk(page, bench.seconds).p99 * 1000)
        shares.append(rates[0] / (READERS * READER_RATE))
        time.sleep(0.5)
    return Samples.of(quiet), Samples.of(busy), Samples.of(shares).median


def slow_readers(bench: Bench) -> tuple[Result, ...]:
    """How long others wait while very many read slowly."""
    with bench.pages_server() as server:
        page = server.target(f"/simple/{data.TWENTY}/", load.JSON)
        answer = load.expect(page)
        quiet, busy, share = _quiet_and_busy(bench, page, _file_path(data.LARGE))
    statics = [Static("page", answer=answer), Static("file", file=bench.world.large_file())]
    with peers.nginx(bench.run, statics) as port:
        nginx_quiet, nginx_busy, _ = _quiet_and_busy(bench, Target(port, "/page", page.headers), "/file")
    note = (
        f"the readers had {share:.0%} of their rate; nginx in the same place: "
        f"{nginx_quiet.median:.3g} ms quiet, {nginx_busy.median:.3g} ms busy"
    )
    work = f"p99 of a page while {READERS} readers take a file at {READER_RATE // 1000} kB/s"
    return (Result("slow-readers", work, "ms", busy, at_most(5, 2), "its own quiet p99", quiet, note),)


def upload(bench: Bench) -> tuple[Result, ...]:
    """A wheel of 200 MB: how long it takes, and what the worker's memory does meanwhile."""
    body = bench.world.upload_body()
    storage = bench.run / "upload"
    storage.mkdir(exist_ok=True)
    growths: list[float] = []
    copies: list[float] = []
    with bench.server("upload", storage) as server:
        worker = process.worker_of(server.pid)
        stored = server.target(_file_path(body.project))

        def ours() -> float:
            os.sync()
            process.forget_peak(worker)
            before = process.memory(worker).rss
            seconds = load.upload(server.port, body.path, body.boundary)
            growths.append((process.peak(worker) - before) / 1e6)
            load.expect(stored, method="DELETE")
            return seconds

        def theirs() -> float:
            plain, durable = _copy_and_hash(body.wheel, storage.with_name("copied.whl"))
            copies.append(durable)
            return plain

        figure, peer = bench.in_turn(ours, theirs)
    note = f"with the copy flushed to disk as ours is: {Samples.of(copies).median:.3g} s"
    memory = Samples.of([max(growths)])
    return (
        Result("upload", "upload, 200 MB", "s", figure, at_most(2, 1.3), "cp + sha256sum", peer, note),
        Result("upload-memory", "growth of the worker's memory during these uploads", "MB", memory, at_most(32, 32)),
    )


def _copy_and_hash(source: Path, copy: Path) -> tuple[float, float]:
    """The seconds of ``cp`` and ``sha256sum``, and of the two with the copy flushed to disk."""
    copy.unlink(missing_ok=True)
    os.sync()
    times = []
    for command in (["cp", str(source), str(copy)], ["sha256sum", str(source)], ["sync", str(copy)]):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    copy.unlink()
    return times[0] + times[1], sum(times)
