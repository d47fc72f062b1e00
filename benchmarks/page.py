"""The results page of the documentation, made from a run."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.result import Result, Verdict, number, shown, shown_bounds, shown_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Why a row misses its "must" and what was tried, by row.
_REMARKS: Final = Path(__file__).with_name("remarks.toml")

#: The programs behind the caches and what they call themselves, and what speaks to them.
_DATABASES: Final = (("postgres", "PostgreSQL"), ("mariadbd", "MariaDB"), ("redis-server", "Redis"))
_DRIVERS: Final = ("psycopg", "PyMySQL", "mysqlclient", "redis", "boto3")

#: What speaks to the object stores.
_LIBRARIES: Final = ("boto3", "google-cloud-storage", "azure-storage-blob")

_WORDS: Final = {Verdict.AIM: "yes", Verdict.MUST: "must, not aim", Verdict.MISSED: "**no**"}

#: The head of the tables with a line for each row.
_COLUMNS: Final = """\
| work | figure | peer | peer's figure | ratio | must | aim | met |
| --- | --- | --- | --- | --- | --- | --- | --- |"""

_HEAD: Final = """\
# Benchmarks

How fast the server is, as ratios to other programs that do the same work on the same machine in the same run.
This page is written by `make bench`; [how it measures](#how-it-is-measured) is below.

{facts}

{table}

The figure after ± is half the distance between the best and the worst round.
"""

_CACHES: Final = """\
## The caches beside each other

{table}

The multiple in parentheses is that of SQLite in the same line, unless the line says otherwise. A figure in bold misses
its must. What stands behind the caches is told [below](#how-it-is-measured).
"""

_STORAGES: Final = """\
## The storages in object stores

{table}

What stands behind the storages is told [below](#how-it-is-measured).
"""

_METHOD: Final = """\
(how-it-is-measured)=

## How it is measured

One worker process of `pypicloud serve`, file storage, a SQLite cache, users in the ini file, Basic authentication on
every request, `default_read = authenticated`. Requests come from `wrk` with one thread and eight connections over the
loopback. Both sides of a row run at the same time but are loaded in turn: once each to warm up, then {rounds} rounds of
{seconds:g} s a side, whose order is turned round each time. The table shows medians.

- **nginx** is one process without authentication or log, with open files kept. It serves a file that holds the very
  bytes of our answer, with our headers; compressed pages through `gzip_static`; a 304 by its own ETag.
- **pypiserver** is as `pip install pypiserver` leaves it, without authentication, and alone with the files of the one
  project, 100 kB each. It reads and hashes them for each page, so that its rate depends on their size; with its
  `cache` extra, which keeps the hashes, and gunicorn in front it made about three times as many small pages in a trial.
- The **slow readers** are a process of their own with small receive buffers.
- The **upload** is a valid wheel of bytes that do not compress, in the form that twine sends, given to the socket by
  the kernel. Memory is the highest resident size during an upload less that before, the worst of all rounds.
- The **caches** are the servers that Debian installs, on the same machine: PostgreSQL and MariaDB with what they do
  when nothing is configured, so that each commit waits for the disk, as with SQLite; Redis keeps nothing on disk.
  DynamoDB is an emulator in one process (ministack), whose figures say little about Amazon's. The pages are ten
  different ones, and the listing behind the rebuilds costs nothing; a project in them has ten files. There are at
  most three rounds of at most two seconds. What takes very many files is measured with one driver of MariaDB alone.
- **S3** is a Ceph Object Gateway as Debian installs it, which keeps everything in memory, on the same two cores; what
  is said to be some milliseconds away is behind a proxy that holds back each request and each answer for half of
  that. The gateway answers within a millisecond otherwise, so that the processor is what both sides of a row wait for;
  what asks many questions at once is there for services that are further away. boto3 is used as its manual says: its
  own rate is taken of a thousand objects or, from afar, of a hundred. A download is taken by one client, which does
  nothing with it. Google's and Microsoft's storages are emulators here, of which nothing but our own memory is shown.
  There are at most three rounds.
- The **rebuild** from disk and its peer run inside one process, in turn, on files that are in the page cache.

Run it with `make bench`, or a part of it with `python benchmarks/run.py --quick --only ROW`. It needs `nginx` and `wrk`
(Debian: `nginx-light`, `wrk`); pypiserver gets an environment of its own.
"""


def _first_line(command: list[str], word: str) -> str:
    """The first line in which a program that tells its version mentions a word."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return next((line.strip() for line in lines if word in line), "unknown")


def _facts(pypiserver: Path) -> list[tuple[str, str]]:
    processor = _first_line(["cat", "/proc/cpuinfo"], "model name").partition(":")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    version = importlib.metadata.version
    return [
        ("date", dt.datetime.now(tz=dt.UTC).date().isoformat()),
        ("machine", f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"),
        ("ours", f"pypicloud {version('pypicloud')}, Python {platform.python_version()}, granian {version('granian')}"),
        ("nginx", _first_line(["nginx", "-v"], "nginx version").rpartition("/")[2]),
        ("wrk", _first_line(["wrk", "-v"], "wrk ").removeprefix("wrk ").partition(" ")[0]),
        ("pypiserver", _first_line([str(pypiserver / "bin" / "pypi-server"), "--version"], "").rpartition(" ")[2]),
        ("databases", ", ".join(f"{name} {_version(program, name)}" for program, name in _DATABASES)),
        ("their drivers", ", ".join(f"{driver} {version(driver)}" for driver in _DRIVERS)),
        ("object stores", f"Ceph {_version('radosgw', 'ceph')}"),
        ("their libraries", ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)),
    ]


def _version(program: str, name: str) -> str:
    """A database's version. Debian keeps some programs where only root looks, and PostgreSQL's by version."""
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = re.search(r"\d+(\.\d+)+", _first_line([shutil.which(program, path=path) or "false", "--version"], name))
    return found[0] if found else "unknown"


def row_line(result: Result) -> str:
    """One line of the table."""
    cells = [
        result.work,
        shown(result.figure, result.unit),
        result.peer or "",
        shown(result.peer_figure, result.unit) if result.peer_figure else "",
        shown_value(result) if result.peer_figure else "",
        *shown_bounds(result),
        _WORDS[result.verdict] if result.verdict else "",
    ]
    return f"| {' | '.join(cells)} |"


def row_table(results: Sequence[Result]) -> str:
    """A table with a line for each row."""
    return "\n".join([_COLUMNS, *map(row_line, results)])


def storage_parts(results: Sequence[Result]) -> list[str]:
    """The table of the storages in object stores."""
    return [_STORAGES.format(table=row_table(results))] if results else []


def _is_of_storage(result: Result) -> bool:
    return result.row.startswith("storage-")


def cache_parts(results: Sequence[Result]) -> list[str]:
    """The table of the caches: a line for each kind of work, a column for each cache."""
    if not results:
        return []
    sides = list(dict.fromkeys(result.side for result in results))
    works = dict.fromkeys((result.work, result.unit) for result in results)
    lines = [f"| work | {' | '.join(sides)} | must | aim |", "|" + " --- |" * (len(sides) + 3)]
    for work, unit in works:
        found = {result.side: result for result in results if result.work == work}
        bounds = next((shown_bounds(result) for result in found.values() if result.goal), ("", ""))
        cells = [f"{work}, {unit}", *(cache_cell(found[side]) if side in found else "" for side in sides), *bounds]
        lines.append(f"| {' | '.join(cells)} |")
    return [_CACHES.format(table="\n".join(lines))]


def cache_cell(result: Result) -> str:
    """A figure in that table: ``2,400 (0.62 x)``; bold where a must is missed."""
    text = number(result.figure.median)
    if result.peer_figure:
        text += f" ({number(result.value)} x)"
    if result.note:
        text += f", {result.note}"
    return f"**{text}**" if result.verdict is Verdict.MISSED else text


def _named(name: str, result: Result) -> str:
    return f"{name}, {result.side}" if result.side else name


def _remark(remarks: Mapping[str, str], result: Result) -> str:
    return remarks.get(_named(result.row, result), remarks.get(result.row, "not explained yet."))


def render(results: Sequence[Result], rounds: int, seconds: float, pypiserver: Path) -> str:
    """The whole page."""
    facts = "\n".join(f"- {name}: {value}" for name, value in _facts(pypiserver))
    servers = [result for result in results if not result.side and not _is_of_storage(result)]
    parts = [
        _HEAD.format(facts=facts, table=row_table(servers)),
        *cache_parts([result for result in results if result.side]),
        *storage_parts([result for result in results if _is_of_storage(result)]),
    ]
    notes = [f"- {result.work}: {result.note}." for result in results if result.note and not result.side]
    if notes:
        parts.append("## Beside the figures\n\n" + "\n".join(notes) + "\n")
    missed = [result for result in results if result.verdict is Verdict.MISSED]
    if missed:
        remarks: dict[str, str] = tomllib.loads(_REMARKS.read_text())
        lines = [f"- {_named(result.work, result)}: {_remark(remarks, result)}" for result in missed]
        parts.append("## Where a must is missed\n\n" + "\n".join(lines) + "\n")
    parts.append(_METHOD.format(rounds=rounds, seconds=seconds))
    return "\n".join(parts)
