"""Work on S3 inside one process: `python -m benchmarks.storage_work store|heads|rebuild|puts|migrate ...`.

``store`` stores small made-up wheels. All others print how many objects they did in a second: ``heads`` and ``puts``
one after the other as anybody would with boto3, ``rebuild`` and ``migrate`` as our commands do.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from benchmarks import data, fill
from benchmarks.store import boto_options, environ_settings, open_cache, read_settings

from pypicloud.cache import get_cache_impl
from pypicloud.moving import Moving, Outcome, Plan
from pypicloud.storage import get_storage_impl

if TYPE_CHECKING:
    from pypicloud.models import Package


def store(config: str, count: int) -> None:
    """Store so many wheels, one for each project."""
    make = get_storage_impl(environ_settings(config))

    def publish(package: Package) -> None:
        make(None).publish(package, io.BytesIO(data.wheel(package.name, package.version)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, fill.packages(count, 1)))


def heads(config: str, count: int) -> float:
    """Objects a second: HEAD for one key after the other."""
    client, bucket = _boto(config)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [found["Key"] for found in islice((found for page in pages for found in page["Contents"]), count)]
    start = time.perf_counter()
    for key in keys:
        client.head_object(Bucket=bucket, Key=key)
    return len(keys) / (time.perf_counter() - start)


def rebuild(config: str, count: int) -> float:
    """Objects a second: a rebuild into an empty cache."""
    with tempfile.TemporaryDirectory(dir=Path(config).parent) as folder:
        cache = open_cache(config, Path(folder) / "cache.sqlite")
        start = time.perf_counter()
        rebuilt = cache.rebuild()
        seconds = time.perf_counter() - start
    if rebuilt.added != count:
        sys.exit(f"the rebuild was to add {count} files: {rebuilt}")
    return count / seconds


def puts(config: str, count: int, old: str) -> float:
    """Objects a second: PUT for one file of a folder after the other."""
    client, bucket = _boto(config)
    client.create_bucket(Bucket=bucket)
    paths = sorted(islice(Path(read_settings(old)["storage.dir"]).glob("*/*/*.whl"), count))
    start = time.perf_counter()
    for path in paths:
        client.upload_file(str(path), bucket, path.name, ExtraArgs={"Metadata": {"name": path.parts[-3]}})
    return len(paths) / (time.perf_counter() - start)


def migrate(config: str, count: int, old: str) -> float:
    """Objects a second: all files of a folder moved to a new bucket, and told to its cache."""
    new = environ_settings(config)
    plan = Plan(get_storage_impl(environ_settings(old)), get_storage_impl(new), get_cache_impl(new))
    moving = Moving(plan, lambda *words: print(*words, file=sys.stderr))
    start = time.perf_counter()
    moving.run(lambda _: None)
    seconds = time.perf_counter() - start
    if moving.tally.outcomes[Outcome.COPIED] != count:
        sys.exit(f"{count} files were to be copied: {moving}")
    return count / seconds


def _boto(config: str) -> tuple[Any, str]:
    settings = read_settings(config)
    return boto3.client("s3", **boto_options(settings)), settings["storage.bucket"]


def main() -> None:
    """Do what is asked, and print what there is to tell."""
    works = {work.__name__: work for work in (heads, rebuild)}
    moves = {work.__name__: work for work in (puts, migrate)}
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["store", *works, *moves])
    parser.add_argument("config")
    parser.add_argument("count", type=int)
    parser.add_argument("old", nargs="?")
    options = parser.parse_args()
    if options.work == "store":
        store(options.config, options.count)
    elif options.work in works:
        print(works[options.work](options.config, options.count))
    else:
        print(moves[options.work](options.config, options.count, options.old))


if __name__ == "__main__":
    main()
