"""Rebuilds of a cache from disk, timed inside one process: `python -m benchmarks.rebuild CONFIG TREE FILES ROUNDS`.

Each round walks the tree and asks for each file's facts with nothing but `os`, rebuilds into an empty cache, and
rebuilds again with nothing changed; the order turns from round to round. Prints the seconds of each as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.store import open_cache


def walk(tree: str) -> float:
    """The seconds it takes to list a tree and to `stat` every file in it."""
    start = time.perf_counter()
    for folder, _, names in os.walk(tree):
        for name in names:
            os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - the yardstick is `os` at its barest
    return time.perf_counter() - start


def rebuild(config: str, expected: int) -> tuple[float, float]:
    """The seconds of a rebuild into an empty cache, and of a second one that finds everything as it was."""
    with tempfile.TemporaryDirectory(dir=Path(config).parent) as folder:
        cache = open_cache(config, Path(folder) / "cache.sqlite")
        times, counts = [], []
        for _ in range(2):
            start = time.perf_counter()
            counts.append(cache.rebuild())
            times.append(time.perf_counter() - start)
    if (counts[0].added, counts[1].unchanged) != (expected, expected):
        sys.exit(f"the rebuilds were to add and then keep {expected} files: {counts}")
    return times[0], times[1]


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("tree")
    parser.add_argument("files", type=int)
    parser.add_argument("rounds", type=int)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"walk": [], "empty": [], "again": []}
    walk(options.tree)
    for number in range(options.rounds):
        if number % 2:
            found["walk"].append(walk(options.tree))
        empty, again = rebuild(options.config, options.files)
        found["empty"].append(empty)
        found["again"].append(again)
        if not number % 2:
            found["walk"].append(walk(options.tree))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
