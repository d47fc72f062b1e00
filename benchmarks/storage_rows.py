"""Rows about storages in object stores: what they cost beside the store itself, or beside a folder."""

from __future__ import annotations

import contextlib
import http.client
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
from benchmarks import data, load, process, storages, store
from benchmarks.load import Target
from benchmarks.result import BenchError, Result, Samples, at_least, at_most
from benchmarks.storages import OTHERS, S3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.peers import Server

#: How many objects are in the bucket from which a cache is rebuilt.
_OBJECTS: Final = 10_000

#: How many objects a rate is taken of where one comes after the other, near and far.
_NEAR: Final = 1000
_FAR: Final = 100

#: What is said of rows behind a proxy that takes its time.
_AWAY: Final = f"{storages.DISTANCE * 1000:g} ms away"

#: How many files are redirected to.
_FILES: Final = 20

_LARGE: Final = 100_000_000
_LARGEST: Final = 1_000_000_000

_REBUILD: Final = at_least(8, 20)
_MOVE: Final = at_least(5, 7)
_REDIRECT: Final = at_least(0.3, 0.9)
_STREAM: Final = at_least(0.7, 0.9)
_GROWTH: Final = at_most(64, 32)

#: Each round of these rows takes seconds.
_MOST_ROUNDS: Final = 3

#: How many bytes the client of a download takes at a time.
_PIECE: Final = 1 << 20


def rebuild(bench: Bench) -> tuple[Result, ...]:
    """A cache made anew from a bucket, beside one question after the other about its objects."""
    count = _OBJECTS // 10 if bench.is_quick else _OBJECTS
    with storages.bucket(S3) as settings:
        bench.program("storage_work", "store", str(bench.config("s3", settings)), str(count))
        near = _rebuilt(bench, settings, count, _NEAR)
        with storages.far(settings) as there:
            far = _rebuilt(bench, there, count, _FAR)
    return near, replace(far, work=f"{far.work}, {_AWAY}")


def _rebuilt(bench: Bench, settings: Mapping[str, str], count: int, sample: int) -> Result:
    def work(kind: str, objects: int) -> float:
        rate: float = bench.program("storage_work", kind, str(bench.config("s3", settings)), str(objects))
        return rate

    figure, peer = _in_turn(bench, lambda: work("rebuild", count), lambda: work("heads", sample))
    what = f"rebuild from S3, {count:,} objects"
    return Result("storage-rebuild", what, "objects/s", figure, _REBUILD, "boto3, HEAD after HEAD", peer)


def migrate(bench: Bench) -> tuple[Result, ...]:
    """A thousand files moved from a folder to a bucket, beside one upload after the other."""
    with storages.bucket(S3) as settings:
        near = _migrated(bench, settings, _NEAR)
        with storages.far(settings) as there:
            far = _migrated(bench, there, _FAR)
    return near, replace(far, work=f"{far.work}, {_AWAY}")


def _migrated(bench: Bench, settings: Mapping[str, str], sample: int) -> Result:
    old = str(bench.config("folder", bench.world.moving_tree()))
    cache = bench.run / "moved.sqlite"

    def work(kind: str, files: int) -> float:
        for left in bench.run.glob(f"{cache.name}*"):
            left.unlink()
        config = bench.config("moved", storages.another(settings), data.sqlite(cache))
        rate: float = bench.program("storage_work", kind, str(config), str(files), old)
        return rate

    figure, peer = _in_turn(bench, lambda: work("migrate", data.MOVED), lambda: work("puts", sample))
    what = f"{data.MOVED:,} files of 100 kB moved from a folder to S3"
    return Result("storage-migrate", what, "files/s", figure, _MOVE, "boto3, upload after upload", peer)


def redirect(bench: Bench) -> tuple[Result, ...]:
    """Downloads of some files, each answered with a signed address, beside the pages of their projects."""
    with storages.bucket(S3) as settings:
        bench.program("storage_work", "store", str(bench.config("redirect", settings)), str(_FILES))
        with bench.server("redirect", settings) as server:
            projects = [data.numbered_project(number) for number in range(_FILES)]
            pages = [f"/simple/{project}/" for project in projects]
            files = [f"/api/package/{project}/{data.file_name(project, '1.0')}" for project in projects]
            page, file = server.target(pages[0], load.JSON), server.target(files[0])
            load.expect(page)
            load.expect(file, 302)
            figure, peer = bench.in_turn(
                lambda: load.wrk(file, bench.seconds, files).rate, lambda: load.wrk(page, bench.seconds, pages).rate
            )
    work = "a file in S3 asked for, answered with a signed redirect"
    return (Result("storage-redirect", work, "/s", figure, _REDIRECT, "project page, 1 file", peer),)


def stream(bench: Bench) -> tuple[Result, ...]:
    """A large file through the server, up and down, beside the store itself."""
    body, project = bench.world.upload_body(_LARGE), f"acme-upload-{_LARGE // 1_000_000}"
    with _streaming(bench) as (server, settings):
        bucket = _Bucket(settings)
        stored = server.target(f"/api/package/{project}/{data.file_name(project, '1.0')}")

        def ours() -> float:
            seconds = load.upload(server.port, body.path, body.boundary)
            load.expect(stored, method="DELETE")
            return _LARGE / seconds / 1e6

        up, up_peer = _in_turn(bench, ours, lambda: _LARGE / bucket.send(body.wheel) / 1e6)
        load.upload(server.port, body.path, body.boundary)
        direct = bucket.target()
        if not load.expect(stored).body == load.expect(direct).body == body.wheel.read_bytes():
            raise BenchError("a download differs from what was sent")
        down, down_peer = _in_turn(bench, lambda: _taken(stored) / 1e6, lambda: _taken(direct) / 1e6)
    return (
        Result("storage-download", "download from S3, 100 MB, streamed", "MB/s", down, _STREAM, "S3 itself", down_peer),
        Result("storage-upload", "upload to S3, 100 MB", "MB/s", up, _STREAM, "boto3, to S3 itself", up_peer),
    )


def memory(bench: Bench) -> tuple[Result, ...]:
    """What the server's memory does while a very large file goes through it."""
    size = _LARGE if bench.is_quick else _LARGEST
    body, project = bench.world.upload_body(size), f"acme-upload-{size // 1_000_000}"
    with _streaming(bench) as (server, _):
        worker = process.worker_of(server.pid)
        stored = server.target(f"/api/package/{project}/{data.file_name(project, '1.0')}")
        up = _growth(worker, lambda: load.upload(server.port, body.path, body.boundary))
        down = _growth(worker, lambda: _taken(stored))
        load.expect(stored, method="DELETE")
    work, much = "growth of the worker's memory while a file of", f"{size / 1e9:g} GB"
    return (
        Result("storage-memory", f"{work} {much} goes to S3", "MB", up, _GROWTH),
        Result("storage-memory", f"{work} {much} is streamed from S3", "MB", down, _GROWTH),
    )


def _growth(worker: int, work: Callable[[], object]) -> Samples:
    process.forget_peak(worker)
    before = process.memory(worker).rss
    work()
    return Samples.of([(process.peak(worker) - before) / 1e6])


def idle(bench: Bench) -> tuple[Result, ...]:
    """What a server holds in memory that has started on a storage and shown its list of projects."""
    work = "memory of an idle worker (RSS)"
    folder = _idle_memory(bench, "folder", None)
    results = [Result("storage-idle", f"{work}, files in a folder", "MB", folder)]
    for storage in OTHERS:
        with storages.bucket(storage) as settings:
            figure = _idle_memory(bench, storage.name, settings)
        results.append(Result("storage-idle", f"{work}, {storage.title}", "MB", figure, None, "in a folder", folder))
    return tuple(results)


def _idle_memory(bench: Bench, name: str, settings: Mapping[str, str] | None) -> Samples:
    found = []
    # The first start fills the cache.
    for _ in range(2):
        with bench.server(f"idle-{name}", settings) as server:
            load.expect(server.target("/simple/", load.JSON))
            time.sleep(0.5)
            found.append(process.memory(process.worker_of(server.pid)).rss / 1e6)
    return Samples.of(found[1:])


@contextlib.contextmanager
def _streaming(bench: Bench) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server that sends the files in S3 itself, and the settings of its storage."""
    with storages.bucket(S3) as settings:
        settings |= {"pypi.stream_files": "true"}
        with bench.server("stream", settings) as server:
            # So that the password is known.
            load.expect(server.target("/simple/", load.JSON))
            yield server, settings


class _Bucket:
    """A bucket as anybody would use it with boto3, for one object."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._client: Any = boto3.client("s3", **store.boto_options(settings))
        self._object = {"Bucket": settings["storage.bucket"], "Key": "direct"}

    def send(self, path: Path) -> float:
        """The seconds that an upload takes; what was there is removed before."""
        self._client.delete_object(**self._object)
        start = time.perf_counter()
        self._client.upload_file(str(path), *self._object.values())
        return time.perf_counter() - start

    def target(self) -> Target:
        """The signed address of the object."""
        url = urlsplit(self._client.generate_presigned_url("get_object", Params=self._object))
        return Target(url.port or 80, f"{url.path}?{url.query}", {})


def _taken(target: Target) -> float:
    """The bytes a second of a download."""
    piece, count = memoryview(bytearray(_PIECE)), 0
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=300)
    with contextlib.closing(connection):
        connection.request("GET", target.path, headers=dict(target.headers))
        response = connection.getresponse()
        while taken := response.readinto(piece):
            count += taken
    if response.status != 200 or response.length:
        raise BenchError(f"GET {target.path}: {response.status}, {response.length} bytes are missing")
    return count / (time.perf_counter() - start)


def _in_turn(bench: Bench, *sides: Callable[[], float]) -> list[Samples]:
    return bench.in_turn(*sides, rounds=min(bench.rounds, _MOST_ROUNDS))
