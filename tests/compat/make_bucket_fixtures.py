"""Makes ``fixtures/v1_3_12_buckets``: a bucket that a real PyPICloud 1.3.12 filled, and what it answered about it.

Run once, with uv on the path, a Python 3.8, and all that the tests of S3 need::

    PYTHONPATH=src:tests python -m compat.make_bucket_fixtures /path/to/python3.8

1. makes a virtual environment of that Python with 1.3.12, the libraries that ``make_fixtures`` pins, and boto3;
2. starts a Ceph Object Gateway, and puts into a bucket there what 1.3.12 finds beside its own: objects of older
   versions, and of strangers;
3. has 1.3.12 upload the specimens over HTTP, the first half of them with ``storage.prepend_hash``, the others without,
   and delete two of them again;
4. starts it with an empty cache, which it fills from the bucket, and asks every page;
5. writes the bucket to ``objects.json``, a line for each object, and the answers to ``answers.json``;
6. has this version complete the facts (``pypicloud backfill``), and sees that 1.3.12 can go on from there: it fills an
   empty cache, answers the same of its own uploads, serves, replaces and deletes; and this version then again.

The gateway turns underscores in the names of metadata into hyphens, Amazon does not. So all is done a second time with
MiniStack, which must come to the same but for that; what is written is what that had.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from compat.archives import tiny_sdist
from compat.contents import line_by_line
from compat.make_cache_fixtures import timeless
from compat.make_fixtures import ask, make_environment, running, upload
from compat.objects import ANSWERS, OBJECTS, PREFIX, TARGET, Objects, S3Objects, Stored, dumped, write_ini
from compat.specimens import BY_HAND, DELETED, SPECIMENS, Specimen
from pypicloud.scripts.main import main
from support.builds import build_wheel, metadata
from support.services.aws import MiniStack
from support.services.radosgw import RadosGW
from support.services.s3 import S3Service

#: The last one for that Python.
BOTO: Final = "boto3==1.37.38"

#: How many specimens are uploaded before the setting changes.
HALF: Final = len(SPECIMENS) // 2


def by_hand() -> Iterable[tuple[str, Stored]]:
    """What 1.3.12 finds in the bucket."""
    (_, first, _), (_, second, _) = BY_HAND
    third = tiny_sdist("bare-0.3", metadata("bare", "0.3"), as_zip=True)
    wheel = build_wheel("under-score", "1.0", summary="Nothing is written on it", requires_python=">=3.6", members={})
    written = {
        "name": "bare",
        "version": "0.2",
        "summary": "By hand",
        "requires_python": ">=2.7",
        "hash_sha256": hashlib.sha256(second).hexdigest(),
        "hash_md5": hashlib.md5(second).hexdigest(),
        "uploader": "bob",
        "colour": "blue",
    }
    # As older versions wrote them.
    yield f"{PREFIX}aaaa/bare/bare-0.1.tar.gz", Stored({}, first)
    yield f"{PREFIX}bbbb/bare/bare-0.2.tar.gz", Stored(written, second)
    yield f"{PREFIX}/deeper/down/bare-0.3.zip", Stored({"name": "Bare", "version": "0.3"}, third)
    yield f"{PREFIX}Under_Score/Under_Score-1.0-py2.py3-none-any.whl", Stored({}, wheel)
    # As others did.
    yield f"{PREFIX}/readme.txt", Stored({}, b"no package")
    yield f"{PREFIX}/oddity-1.0.msi", Stored({}, b"no package")
    yield "elsewhere/outside-1.0.tar.gz", Stored({"name": "outside", "version": "1.0"}, first)


def question(port: int, bucket: str) -> dict[str, Any]:
    """What the server says of all that it holds, and where it sends who wants a file."""
    listed = json.loads(ask(port, "admin", "/api/package/?verbose=true").body)["packages"]
    files: dict[str, dict[str, Any]] = {}
    projects: dict[str, dict[str, Any]] = {}
    for name in sorted(row["name"] for row in listed):
        api = json.loads(ask(port, "admin", f"/api/package/{name}/").body)
        projects[name] = {
            "simple": ask(port, "admin", f"/simple/{name}/").body.decode(),
            "json": json.loads(ask(port, "admin", f"/pypi/{name}/json").body),
            "api": api,
        }
        for package in api["packages"]:
            answer = ask(port, "admin", f"/api/package/{name}/{package['filename']}")
            with urllib.request.urlopen(answer.headers["Location"], timeout=10) as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            key = unquote(urlsplit(answer.headers["Location"]).path).removeprefix(f"/{bucket}/")
            files[package["filename"]] = {"project": name, "status": answer.status, "key": key, "sha256": digest}
    return {
        "simple": ask(port, "admin", "/simple/").body.decode(),
        "verbose": listed,
        "projects": projects,
        "files": files,
    }


class Trial:
    """1.3.12 and this version on one bucket, taking turns; each time with an empty cache."""

    def __init__(self, commands: Path, service: S3Service, work: Path) -> None:
        self._commands = commands
        self._work = work
        work.mkdir(parents=True)
        self.settings = service.settings()
        self.bucket = self.settings["storage.bucket"]
        self.objects: Objects = S3Objects(self.settings)

    def ini(self, *, prepend_hash: bool = False) -> Path:
        """The ini file of both."""
        (self._work / "db.sqlite").unlink(missing_ok=True)
        path = self._work / "server.ini"
        write_ini(path, {**self.objects.settings(), "storage.prepend_hash": str(prepend_hash).lower()})
        return path

    def fill(self) -> dict[str, Any]:
        """Let 1.3.12 fill the bucket; what it then answers."""
        for key, stored in by_hand():
            self.objects.put(key, stored)
        self.upload(SPECIMENS[:HALF], prepend_hash=True)
        self.upload(SPECIMENS[HALF:], prepend_hash=False)
        self.ini()
        with running(self._commands, self._work) as port:
            for caller, name, filename in DELETED:
                ask(port, caller, f"/api/package/{name}/{filename}", method="DELETE")
        return self.answers()

    def upload(self, packages: Iterable[Specimen], *, prepend_hash: bool) -> None:
        """Let 1.3.12 store these."""
        self.ini(prepend_hash=prepend_hash)
        with running(self._commands, self._work) as port:
            for package in packages:
                upload(port, package)

    def answers(self) -> dict[str, Any]:
        """What 1.3.12 answers from a cache that it has just filled from the bucket."""
        self.ini()
        with running(self._commands, self._work) as port:
            return question(port, self.bucket)

    def hand_over(self, old: Mapping[str, Any]) -> None:
        """Let this version complete the facts, and 1.3.12 go on from there. Raises RuntimeError if it cannot."""
        own = {name for name in old["projects"] if name not in {"bare", "under-score"}}
        before = self.objects.read()
        wheels = sum(key.endswith(".whl") for key in before)
        ini = str(self.ini())
        if main(["backfill", ini]) != 0 or main(["yank", ini, "many", "1.9"]) != 0:
            raise RuntimeError("the facts could not be changed")
        now = self.answers()
        if len(self.objects.read()) != len(before) + wheels:
            raise RuntimeError("there is nothing beside the wheels for 1.3.12 to pass over")
        if now["files"] != old["files"]:
            raise RuntimeError("1.3.12 has other files")
        for name in own:
            if timeless(now["projects"][name]) != timeless(old["projects"][name]):
                raise RuntimeError(f"1.3.12 answers otherwise about {name}")
        self._change()
        changed = self.answers()
        if main(["rebuild", str(self.ini())]) != 0 or main(["backfill", str(self.ini())]) != 0:
            raise RuntimeError("this version cannot take over again")
        if sorted(changed["files"]) != sorted(set(now["files"]) - {"eggy-0.3-py2.7.egg"}):
            raise RuntimeError(f"1.3.12 did not delete and replace, but has {sorted(changed['files'])}")

    def _change(self) -> None:
        """Let 1.3.12 replace a file and delete one."""
        again = build_wheel("simple-pkg", "1.0", core_metadata=metadata("simple-pkg", "1.0", summary="Once more"))
        fields = {"name": "simple-pkg", "version": "1.0", "summary": "Once more"}
        key = next(key for key in self.objects.read() if key.endswith("/simple_pkg-1.0-py3-none-any.whl"))
        self.ini(prepend_hash=True)
        with running(self._commands, self._work) as port:
            upload(port, Specimen("bob", "simple_pkg-1.0-py3-none-any.whl", again, fields))
            answer = ask(port, "admin", "/api/package/eggy/eggy-0.3-py2.7.egg", method="DELETE")
        if answer.status != http.client.OK:
            raise RuntimeError(f"1.3.12 does not delete: {answer.status} {answer.body!r}")
        if self.objects.read()[key].content != again:
            raise RuntimeError("1.3.12 did not replace the file where it is")


def hyphenated(objects: Mapping[str, Stored]) -> dict[str, Stored]:
    """Objects as the gateway keeps them."""
    return {
        key: Stored({name.replace("_", "-"): value for name, value in stored.metadata.items()}, stored.content)
        for key, stored in objects.items()
    }


def make(python: str) -> None:
    """Make the fixtures anew."""
    with tempfile.TemporaryDirectory() as scratch, RadosGW() as gateway, MiniStack() as amazon:
        directory = Path(scratch)
        commands = make_environment(python, directory / "venv", BOTO)
        trials = [Trial(commands, service, directory / service.name / "work") for service in (gateway, amazon)]
        filled = [(trial.fill(), trial.objects.read()) for trial in trials]
        (there, gateways), (answers, objects) = filled
        if hyphenated(objects) != gateways or timeless(there) != timeless(answers):
            raise RuntimeError("1.3.12 stores or answers otherwise with one service than with the other")
        for trial in trials:
            trial.hand_over(answers)
        shutil.rmtree(TARGET, ignore_errors=True)
        TARGET.mkdir()
        OBJECTS.write_text(dumped(objects), encoding="utf-8")
        ANSWERS.write_text(line_by_line(answers), encoding="utf-8")


if __name__ == "__main__":
    make(sys.argv[1])
