"""Makes ``fixtures/v1_3_12_caches``: the caches that a real PyPICloud 1.3.12 kept, service by service.

Run once after ``make_fixtures``, with uv on the path, a Python 3.8, and all that the tests of the services need::

    PYTHONPATH=src:tests python -m compat.make_cache_fixtures /path/to/python3.8

1. makes a virtual environment of that Python with 1.3.12, the libraries that ``make_fixtures`` pins, and the drivers
   pinned below;
2. for each cache, starts its service, and 1.3.12 on it with the ini file of ``fixtures/v1_3_12`` but for ``db.*``;
3. does there what ``make_fixtures`` did: files laid by hand, uploads over HTTP, two of them deleted again;
4. asks every page as every caller, and sees that the answers are those of ``fixtures/v1_3_12/expected.json`` but for
   times and summaries, which each cache has of another file;
5. writes what the service holds to a text that puts it back: statements for SQL, keys and values for Redis, tables
   and items for DynamoDB; and beside it the answers that differ, and the times of the stored files.

The stored files themselves are byte for byte those of ``fixtures/v1_3_12``, which is checked.
What was asked of the DynamoDB of MiniStack was seen to be the same on Moto, but for zeros after the point of a number;
a Redis Cluster got the same keys with the same values as a single Redis.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import sqlalchemy

from compat.contents import DynamoContents, RedisContents, contents, line_by_line
from compat.make_fixtures import TARGET as STORED
from compat.make_fixtures import ask, lay_by_hand, make_environment, question, running, upload
from compat.specimens import DELETED, SPECIMENS
from compat.successor import cache_settings, files_in
from support.caches import CacheWorld, own_world

TARGET: Final = Path(__file__).parent / "fixtures" / "v1_3_12_caches"

#: The last drivers that 1.3.12 works with on that Python.
DRIVERS: Final = (
    "redis==6.1.1",
    "flywheel==0.5.4",
    "dynamo3==0.4.10",
    "boto3==1.37.38",
    "psycopg2-binary==2.9.10",
    "PyMySQL==1.1.2",
)

#: The caches and the files that they are written to.
DUMPS: Final = {
    "sqlite": "sqlite.sql",
    "postgres": "postgres.sql",
    "mariadb": "mariadb.sql",
    "redis": "redis.json",
    "dynamo": "dynamo.json",
}

#: Answers that are others in each cache.
_OF_ITS_OWN: Final = ("last_modified", "upload_time", "upload_time_iso_8601", "verbose")


def timeless(answer: Any) -> Any:
    """An answer without what is another one in each cache, and in an order of its own."""
    if isinstance(answer, dict):
        return {key: timeless(value) for key, value in answer.items() if key not in _OF_ITS_OWN}
    if isinstance(answer, list):
        return sorted(map(timeless, answer), key=str)
    return sorted(answer.splitlines()) if isinstance(answer, str) else answer


def fill(world: CacheWorld, commands: Path, work: Path) -> dict[str, Any]:
    """Let 1.3.12 fill the cache; what it then answers, and the times of the files it stored."""
    packages = work / "packages"
    packages.mkdir(parents=True)
    shutil.copy(STORED / "server.ini", work)
    cache_settings(work / "server.ini", {key: for_then(value) for key, value in world.settings.items()})
    lay_by_hand(packages)
    with running(commands, work) as port:
        for package in SPECIMENS:
            upload(port, package)
        for caller, name, filename in DELETED:
            ask(port, caller, f"/api/package/{name}/{filename}", method="DELETE")
        answers = question(port)
    check(world, answers, packages)
    listed = [package for project in answers["projects"].values() for package in project["api"]["packages"]]
    stored = sorted(path for path in packages.rglob("*") if path.is_file())
    return {
        "summaries": {row["name"]: [row["summary"], row["last_modified"]] for row in answers["verbose"]},
        "times": {package["filename"]: package["last_modified"] for package in listed},
        "mtimes": {str(path.relative_to(work)): path.stat().st_mtime_ns for path in stored},
    }


def for_then(value: str) -> str:
    """The value of a setting as 1.3.12 has to have it: psycopg 3 did not exist."""
    return value.replace("postgresql+psycopg:", "postgresql:")


def check(world: CacheWorld, answers: Mapping[str, Any], packages: Path) -> None:
    """Raise RuntimeError if 1.3.12 has stored or answered anything else than with SQLite."""
    old = json.loads((STORED / "expected.json").read_text("utf-8"))
    if timeless(answers) != timeless({key: old[key] for key in answers}):
        raise RuntimeError(f"1.3.12 answers otherwise with {world.name}")
    if files_in(packages) != files_in(STORED / "packages"):
        raise RuntimeError(f"1.3.12 stores otherwise with {world.name}")


def dump(world: CacheWorld) -> str:
    """The text of what the service holds."""
    found = contents(world.settings)
    if isinstance(found, RedisContents | DynamoContents):
        return found.dump()
    url = sqlalchemy.make_url(world.settings["db.url"])
    if world.name == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as connection:
            statements = [line for line in connection.iterdump() if line not in {"BEGIN TRANSACTION;", "COMMIT;"}]
        return "\n".join(statements) + "\n"
    return trimmed(DUMPERS[world.name](url))


def dump_postgres(url: sqlalchemy.URL) -> str:
    """What ``pg_dump`` writes."""
    options = ["--inserts", "--no-owner", "--no-privileges", "--no-tablespaces"]
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = ["pg_dump", *options, plain]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def dump_mariadb(url: sqlalchemy.URL) -> str:
    """What ``mariadb-dump`` writes."""
    server = ["--no-defaults", f"--host={url.host}", f"--port={url.port}", f"--user={url.username}"]
    options = [f"--password={url.password}", "--default-character-set=utf8mb4"]
    shape = ["--compact", "--skip-extended-insert", "--no-tablespaces"]
    command = ["mariadb-dump", *server, *options, *shape, str(url.database)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


DUMPERS: Final = {"postgres": dump_postgres, "mariadb": dump_mariadb}


def trimmed(text: str) -> str:
    """A dump without comments, and without what it says about itself and the session that reads it."""
    noise = ("--", "SET ", "SELECT pg_catalog.set_config", "\\", "/*")
    return "".join(f"{line}\n" for line in text.splitlines() if line and not line.startswith(noise))


def make(python: str) -> None:
    """Make the fixtures anew."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        commands = make_environment(python, directory / "venv", *DRIVERS)
        made = directory / "made"
        made.mkdir()
        for name, file in DUMPS.items():
            (directory / name).mkdir()
            with own_world(name, directory / name) as world:
                answers = fill(world, commands, directory / name / "work")
                (made / file).write_text(dump(world), encoding="utf-8")
                (made / f"{name}.answers.json").write_text(line_by_line(answers), encoding="utf-8")
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(made, TARGET)


if __name__ == "__main__":
    make(sys.argv[1])
