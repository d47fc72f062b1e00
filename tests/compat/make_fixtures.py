"""Makes ``fixtures/v1_3_12``: what a real PyPICloud 1.3.12 stored, and what it answered about it.

Run once, with uv on the path and a Python 3.8 (the newest that 1.3.12 starts on without trouble)::

    PYTHONPATH=tests python -m compat.make_fixtures /path/to/python3.8

1. makes a virtual environment of that Python with 1.3.12 and the libraries pinned below;
2. writes ``server.ini``: what ``ppc-make-config -d`` writes for file storage and SQLite, plus users, groups and package
   permissions; the password hashes come from that environment's ``ppc-gen-password``;
3. lays two files into the storage directory by hand, as old trees have them, and starts ``pserve``;
4. uploads the specimens over HTTP with Basic credentials and deletes two of them again;
5. asks every page as every caller, and writes the answers to ``expected.json``;
6. puts the cache file aside, starts the server again, which rebuilds, and sees that the answers are the same.

Git keeps no modification times, so ``expected.json`` has them, too, in nanoseconds.
Every question carries ``Host: localhost``, so that answers don't depend on the port.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from compat.specimens import BY_HAND, BY_HAND_TIME, CALLERS, DELETED, SPECIMENS, USERS, Specimen

TARGET: Final = Path(__file__).parent / "fixtures" / "v1_3_12"

#: 1.3.12 itself, and the last libraries that it starts with.
REQUIREMENTS: Final = (
    "pypicloud==1.3.12",
    "setuptools==56.0.0",
    "sqlalchemy==1.4.54",
    "waitress==3.0.0",
    "pyramid==2.0.2",
    "beaker==1.14.1",
    "packaging==26.2",
    "zope.interface==7.2",
    "zope.sqlalchemy==4.0",
)

INI: Final = """\
[app:main]
use = egg:pypicloud

pyramid.reload_templates = False
pyramid.debug_authorization = false
pyramid.debug_notfound = false
pyramid.debug_routematch = false
pyramid.default_locale_name = en

pypi.fallback = redirect
pypi.fallback_base_url = https://index.example
pypi.default_read =
    everyone
pypi.default_write =
    authenticated

pypi.storage = file
storage.dir = %(here)s/packages

db.url = sqlite:///%(here)s/db.sqlite

auth.admins =
  admin

{users}

group.devs =
    alice
    bob
group.qa.team = carol

# One reader and writer, and a group that may read.
package.secret-lib.user.alice = rw
package.secret-lib.group.devs = r
# Everybody with a name reads, a group writes.
package.team-tool.group.authenticated = r
package.team-tool.group.devs = read write
# No right at all, which still switches the defaults off.
package.closed.user.bob =
# Write without read.
package.dropbox.user.carol = w
# A name that is not normalised: 1.3.12 never finds it on /simple.
package.My_Pkg.user.alice = rw

# For beaker
session.encrypt_key = ZmFrZS1lbmNyeXB0LWtleS1mb3ItZml4dHVyZXMtMTI=
session.validate_key = ZmFrZS12YWxpZGF0ZS1rZXktZm9yLWZpeHR1cmVzLTE=
session.secure = False
session.invalidate_corrupt = true

###
# wsgi server configuration
###

[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = 6543

###
# logging configuration
# http://docs.pylonsproject.org/projects/pyramid/en/latest/narr/logging.html
###

[loggers]
keys = root, botocore, pypicloud

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[logger_pypicloud]
level = DEBUG
qualname = pypicloud
handlers =

[logger_botocore]
level = WARN
qualname = botocore
handlers =

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(levelname)s %(asctime)s [%(name)s] %(message)s
"""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    port: int, caller: str | None, path: str, *, method: str = "GET", body: bytes = b"", content_type: str = ""
) -> Answer:
    """One request to the server on this port."""
    headers = {"Host": "localhost"}
    if content_type:
        headers["Content-Type"] = content_type
    if caller is not None:
        word = f"{caller}:{USERS[caller][0]}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(word).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, urllib.parse.quote(path, safe="/?=+!"), body=body, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def upload(port: int, package: Specimen) -> None:
    """Send a specimen as twine would."""
    boundary = uuid.uuid4().hex
    form = {":action": "file_upload", "protocol_version": "1", **package.fields}
    parts = [f'Content-Disposition: form-data; name="{key}"\r\n\r\n{value}'.encode() for key, value in form.items()]
    head = f'Content-Disposition: form-data; name="content"; filename="{package.filename}"\r\n'
    parts.append(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + package.content)
    edge = f"--{boundary}".encode()
    body = b"".join(edge + b"\r\n" + part + b"\r\n" for part in parts) + edge + b"--\r\n"
    content_type = f"multipart/form-data; boundary={boundary}"
    answer = ask(port, package.uploader, "/simple/", method="POST", body=body, content_type=content_type)
    if answer.status != http.client.OK:
        raise RuntimeError(f"{package.filename}: {answer.status} {answer.body!r}")


def question(port: int) -> dict[str, Any]:
    """Everything the server says about what it holds."""
    names = re.findall(r'<a href="([^"]+)/">', ask(port, "admin", "/simple/").body.decode())
    files: dict[str, dict[str, Any]] = {}
    projects: dict[str, dict[str, Any]] = {}
    for name in names:
        api = json.loads(ask(port, "admin", f"/api/package/{name}/").body)
        projects[name] = {
            "simple": ask(port, "admin", f"/simple/{name}/").body.decode(),
            "json": json.loads(ask(port, "admin", f"/pypi/{name}/json").body),
            "api": api,
        }
        for package in api["packages"]:
            answer = ask(port, "admin", f"/api/package/{name}/{package['filename']}")
            files[package["filename"]] = {
                "project": name,
                "status": answer.status,
                "sha256": hashlib.sha256(answer.body).hexdigest(),
                "length": len(answer.body),
                "last_modified": answer.headers["Last-Modified"],
                "content_type": answer.headers["Content-Type"],
            }
    return {
        "simple": ask(port, "admin", "/simple/").body.decode(),
        "verbose": json.loads(ask(port, "admin", "/api/package/?verbose=true").body)["packages"],
        "projects": projects,
        "files": files,
        "callers": {caller or "": rights(port, caller, files) for caller in CALLERS},
    }


def rights(port: int, caller: str | None, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What one caller is shown, told and given."""
    listed = ask(port, caller, "/simple/").body.decode()
    seen: dict[str, dict[str, Any]] = {}
    for name in sorted({facts["project"] for facts in files.values()} | {"unknown"}):
        page, api = ask(port, caller, f"/simple/{name}/"), ask(port, caller, f"/api/package/{name}/")
        seen[name] = {"simple": page.status, "api": api.status}
        if "Location" in page.headers:
            seen[name]["location"] = page.headers["Location"]
        if api.status == http.client.OK:
            seen[name]["write"] = json.loads(api.body)["write"]
    downloads = {
        filename: ask(port, caller, f"/api/package/{facts['project']}/{filename}").status
        for filename, facts in files.items()
    }
    return {
        "simple": re.findall(r'<a href="([^"]+)/">', listed),
        "packages": json.loads(ask(port, caller, "/api/package/").body)["packages"],
        "projects": seen,
        "downloads": downloads,
    }


def make_environment(python: str, directory: Path, *more: str) -> Path:
    """A virtual environment that runs 1.3.12, with more requirements if need be; its directory of commands."""
    subprocess.run(["uv", "venv", "--quiet", "--python", python, str(directory)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(directory), *REQUIREMENTS, *more], check=True)
    return directory / "bin"


def write_ini(commands: Path, path: Path) -> None:
    """The ini file, with fresh password hashes."""
    lines = []
    for user, (password, scheme, rounds) in USERS.items():
        command = [str(commands / "ppc-gen-password"), "-i", "-s", scheme, "-r", str(rounds)]
        # No line end: 1.3.12 would hash it as a part of the password.
        made = subprocess.run(command, input=password, capture_output=True, text=True, check=True)
        lines.append(f"user.{user} = {made.stdout.strip()}")
    path.write_text(INI.replace("{users}", "\n".join(lines)), encoding="utf-8")


@contextlib.contextmanager
def running(commands: Path, directory: Path) -> Iterator[int]:
    """``pserve`` on the directory's ini file, moved to a free port for the time being."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ini = directory / "server.ini"
    moved = directory / "moved.ini"
    moved.write_text(ini.read_text("utf-8").replace("port = 6543", f"port = {port}"), encoding="utf-8")
    with (directory.parent / "server.log").open("ab") as log:
        # Isolated: what is on the path of this process is no business of 1.3.12.
        command = [str(commands / "python"), "-I", str(commands / "pserve"), str(moved)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(port, server)
            yield port
        finally:
            server.terminate()
            server.wait(timeout=10)
            moved.unlink()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the server answers."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            ask(port, None, "/health")
            return
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise RuntimeError("1.3.12 does not start; its output is in server.log")


def lay_by_hand(packages: Path) -> None:
    """Put the files of an older tree into the storage directory."""
    for day, (name, content, meta) in enumerate(BY_HAND):
        path, when = packages / name, BY_HAND_TIME + day * 86400
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (when, when))
        if meta is not None:
            path.with_name(path.name + ".meta").write_text(meta, encoding="ascii")


def make(python: str) -> None:
    """Make the fixtures anew."""
    with tempfile.TemporaryDirectory() as scratch:
        commands = make_environment(python, Path(scratch) / "venv")
        work = Path(scratch) / "work"
        packages = work / "packages"
        packages.mkdir(parents=True)
        write_ini(commands, work / "server.ini")
        lay_by_hand(packages)
        with running(commands, work) as port:
            for package in SPECIMENS:
                upload(port, package)
            for caller, name, filename in DELETED:
                ask(port, caller, f"/api/package/{name}/{filename}", method="DELETE")
            answers = question(port)
        (work / "db.sqlite").rename(work / "kept.sqlite")
        with running(commands, work) as port:
            if question(port) != answers:
                # A file is written a moment after its row: now and then the second has changed in between.
                raise RuntimeError("1.3.12 answers otherwise after a rebuild; try again")
        (work / "kept.sqlite").replace(work / "db.sqlite")
        stored = sorted(path for path in packages.rglob("*") if path.is_file())
        expected = {
            "requirements": REQUIREMENTS,
            "passwords": {user: password for user, (password, _, _) in USERS.items()},
            "mtimes": {str(path.relative_to(work)): path.stat().st_mtime_ns for path in stored},
            **answers,
        }
        text = json.dumps(expected, indent=1, ensure_ascii=False)
        (work / "expected.json").write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(work, TARGET)


if __name__ == "__main__":
    make(sys.argv[1])
