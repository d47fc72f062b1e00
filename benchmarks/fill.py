"""Fill a cache with made-up facts, as a program of its own: `python -m benchmarks.fill CONFIG PROJECTS FILES`.

No file is stored: a project page is made of facts alone.
"""

from __future__ import annotations

import argparse
import hashlib
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from benchmarks import data, load
from benchmarks.store import open_cache

from pypicloud.cache.fill import FILL, filled
from pypicloud.models import Package

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Packages saved at once.
_CHUNK: Final = 50_000

_WHEN: Final = datetime(2026, 1, 1, tzinfo=UTC)


def package(project: str, version: str) -> Package:
    """A wheel of a project with all the facts that an upload leaves."""
    filename = data.file_name(project, version)
    digest = hashlib.sha256(filename.encode()).hexdigest()
    return Package(
        project,
        version,
        filename,
        _WHEN,
        data.summary(project),
        requires_python=data.REQUIRES_PYTHON,
        hash_sha256=digest,
        hash_md5=digest[:32],
        core_metadata=digest[::-1],
        uploader=load.USER,
        size=41213,
    )


def packages(projects: int, files: int) -> Iterator[Package]:
    """The packages of so many projects with so many files each."""
    for number in range(projects):
        for minor in range(files):
            yield package(data.numbered_project(number), f"1.{minor}")


def main() -> None:
    """Fill the cache that the ini file names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("projects", type=int)
    parser.add_argument("files", type=int)
    options = parser.parse_args()
    cache, remaining = open_cache(options.config), packages(options.projects, options.files)
    while some := list(islice(remaining, _CHUNK)):
        cache.save_all(some)
    # Else the server that finds the cache would fill it from its storage, which has no files.
    cache.write_note(FILL, filled())


if __name__ == "__main__":
    main()
