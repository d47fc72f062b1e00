"""Work on caches inside one process, in turn: `python -m benchmarks.cache_work pages|saves|rebuild ...`.

Prints JSON: for ``pages`` and ``saves`` the rates by number of threads and by configuration, one for each round; for
``rebuild`` the files a second of a first rebuild, of one that finds everything as it was, and of one that finds each
hundredth changed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from benchmarks import data, fill, load
from benchmarks.store import cache_factory, open_cache, read_settings

import pypicloud
from pypicloud.models import Caller, Package
from pypicloud.render import Format

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache
    from pypicloud.cache.rebuild import Rebuilt
    from pypicloud.request import Application

#: How many different pages are asked for, and how many projects get new files.
PAGES: Final = 10
PROJECTS: Final = 1000

#: The files of a project that is rebuilt.
FILES_EACH: Final = 10

#: Does one piece of work; made once for each thread, as requests have backends of their own.
Work: TypeAlias = Callable[[], object]


def rate(make: Callable[[int], Work], threads: int, seconds: float) -> float:
    """How many pieces of work so many threads do in a second, together."""
    works = [make(number) for number in range(threads)]
    done = [0] * threads
    start = time.perf_counter()
    end = start + seconds

    def run(number: int) -> None:
        while time.perf_counter() < end:
            works[number]()
            done[number] += 1

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def in_turn(works: list[Callable[[int], Work]], threads: int, seconds: float, rounds: int) -> list[list[float]]:
    """The rates of each kind of work, measured in turn after a round to warm up."""
    found: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        order = range(len(works)) if number % 2 else reversed(range(len(works)))
        for index in order:
            value = rate(works[index], threads, seconds)
            if number:
                found[index].append(value)
    return found


def page_work(config: str) -> Callable[[int], Work]:
    """Unchanged project pages, as a request gets them once the framework has found out what it is about."""
    application: Application = pypicloud.main({}, **read_settings(config)).registry.pypicloud
    caller = Caller(load.USER, frozenset({Caller.EVERYONE, Caller.AUTHENTICATED, f"user:{load.USER}"}))

    def make(number: int) -> Work:
        names = itertools.cycle([data.numbered_project((number + each) % PAGES) for each in range(PAGES)])
        return lambda: application.index().rendered_project(next(names), caller, Format.JSON)

    return make


def save_work(config: str) -> Callable[[int], Work]:
    """New files of projects that exist, one after the other."""
    factory = cache_factory(config)
    numbers = itertools.count(1000)

    def make(number: int) -> Work:
        cache, projects = factory(None), itertools.cycle(range(number, PROJECTS, 8))

        def save() -> None:
            cache.save(fill.package(data.numbered_project(next(projects)), f"1.{next(numbers)}"))

        return save

    return make


class Listing:
    """A storage that lists made-up files at no cost."""

    unreadable_count = 0

    def __init__(self, packages: list[Package]) -> None:
        self._packages = packages

    def list(self, _: object) -> Iterator[Package]:
        """The files."""
        return iter(self._packages)


def rebuild(cache: ICache, files: int) -> dict[str, float]:
    """Files a second of three rebuilds of an empty cache."""
    packages = list(fill.packages(files // FILES_EACH, FILES_EACH))
    changed = [copy.copy(package) for package in packages]
    for package in changed[::100]:
        package.data = {**package.data, "yanked": True}
    return {
        "first": _timed(cache, packages, lambda rebuilt: rebuilt.added == files),
        "again": _timed(cache, packages, lambda rebuilt: rebuilt.unchanged == files),
        "changed": _timed(cache, changed, lambda rebuilt: rebuilt.changed == files // 100),
    }


def _timed(cache: ICache, packages: list[Package], is_right: Callable[[Rebuilt], bool]) -> float:
    cache.storage = Listing(packages)
    start = time.perf_counter()
    rebuilt = cache.rebuild()
    seconds = time.perf_counter() - start
    if not is_right(rebuilt):
        sys.exit(f"a rebuild of {len(packages)} files did something else: {rebuilt}")
    return len(packages) / seconds


def main() -> None:
    """Do the work and print what was found."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("pages", "saves"):
        command = commands.add_parser(name)
        command.add_argument("--threads", type=int, nargs="+", required=True)
        command.add_argument("seconds", type=float)
        command.add_argument("rounds", type=int)
        command.add_argument("configs", nargs="+")
    command = commands.add_parser("rebuild")
    command.add_argument("config")
    command.add_argument("files", type=int)
    options = parser.parse_args()
    if options.command == "rebuild":
        print(json.dumps(rebuild(open_cache(options.config), options.files)))
        return
    works = [(page_work if options.command == "pages" else save_work)(config) for config in options.configs]
    print(json.dumps([in_turn(works, number, options.seconds, options.rounds) for number in options.threads]))


if __name__ == "__main__":
    main()
