"""A fleet: several server processes that share one storage directory and one cache."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from support.builds import build_sdist, sdist_name
from support.caches import CacheWorld
from support.directories import put
from support.live import (
    LOOPBACK,
    PATIENCE,
    Answer,
    Installation,
    Server,
    clean_environment,
    form,
    free_port,
    launched,
    write_config,
)
from support.witness import Witness
from support.world import basic

JSON: Final = "application/vnd.pypi.simple.v1+json"
HTML: Final = "application/vnd.pypi.simple.v1+html"

_LINK: Final = re.compile(r'href="[^"]*/([^/"]+)#sha256=([0-9a-f]{64})"')
_PROJECT: Final = re.compile(r'href="([^"/]+)/"')

#: The folder of the tests, where the servers find the plug-ins that are made for them.
TESTS: Final = Path(__file__).parents[1]


class Fleet:
    """One ini file for any number of servers, each on a port of its own.

    ``changes`` are as :func:`support.world.settings` takes them.
    """

    def __init__(self, installation: Installation, world: CacheWorld, directory: Path, **changes: str | None) -> None:
        self.installation = installation
        self.world = world
        self.directory = directory
        self.packages = directory / "packages"
        self.witness = Witness(directory)
        storage = {"pypi__storage": "support.witness.WitnessedStorage", "storage__witness": str(directory)}
        self.config = write_config(directory, **{**world.changes, **storage, **changes})
        self.environment = {"PYTHONPATH": str(TESTS)}

    @contextlib.contextmanager
    def started(self, count: int, *options: str) -> Iterator[list[Server]]:
        """So many servers, started at the same time; the block begins before they answer."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.start(*options)) for _ in range(count)]

    @contextlib.contextmanager
    def serving(self, count: int, *options: str) -> Iterator[list[Server]]:
        """So many servers that answer."""
        with self.started(count, *options) as servers:
            for server in servers:
                server.wait()
            yield servers

    def start(self, *options: str) -> contextlib.AbstractContextManager[Server]:
        """One server; the block begins before it answers."""
        port = free_port()
        command = self.command("serve", "--host", LOOPBACK, "--port", str(port), *options)
        return launched(command, port, self.directory, **self.environment)

    def command(self, name: str, *options: str) -> list[str]:
        """The command line of ``pypicloud <name>`` on the ini file."""
        return self.installation.command("pypicloud", name, self.config, *options)

    def run(self, name: str, *options: str) -> subprocess.Popen[str]:
        """``pypicloud <name>`` on the ini file, begun."""
        return subprocess.Popen(
            self.command(name, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=clean_environment(**self.environment),
            start_new_session=True,
        )

    def fill(self, projects: int, files: int = 1) -> dict[str, dict[str, str]]:
        """Put files into the storage behind the servers' backs; their digests by project and name."""
        return {
            name: dict(self.put(name, f"{number + 1}.0") for number in range(files))
            for name in (f"stored-{number:03}" for number in range(projects))
        }

    def put(self, name: str, version: str) -> tuple[str, str]:
        """Put one file into the storage behind the servers' backs; its name and digest."""
        filename, content = sdist_name(name, version), build_sdist(name, version)
        digest = hashlib.sha256(content).hexdigest()
        path = f"{name}/{version}/{filename}"
        put(self.packages, f"{path}.meta", json.dumps({"hash_sha256": digest}).encode())
        put(self.packages, path, content)
        return filename, digest

    def stored(self, beginning: str) -> dict[str, tuple[str, str]]:
        """What lies in the storage of the projects whose names begin so: project and digest by file name."""
        return {
            path.name: (path.parents[1].name, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in self.packages.glob(f"{beginning}*/*/*.tar.gz")
        }


class Client:
    """One user's connection to one server, kept open between requests."""

    def __init__(self, server: Server, user: str = "carol", patience: float = PATIENCE) -> None:
        self.server = server
        self._user = basic(user)
        self._connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=patience)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, and its answer."""
        fresh = self._connection.sock is None
        try:
            return self._ask(path, method, body, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A server may close what was idle at the moment at which it is used again.
            self._connection.close()
            if fresh:
                raise
            return self._ask(path, method, body, headers)

    def _ask(self, path: str, method: str, body: bytes | None, headers: Mapping[str, str] | None) -> Answer:
        try:
            self._connection.request(method, path, body, {**self._user, **(headers or {})})
            response = self._connection.getresponse()
            return Answer(response.status, response.reason, response.headers, response.read())
        except BaseException:
            self._connection.close()
            raise

    def upload(self, filename: str, content: bytes) -> Answer:
        """Upload a distribution."""
        kind, body = form(filename, content)
        return self.ask("/simple/", "POST", body, {"Content-Type": kind})

    def delete(self, name: str, filename: str) -> Answer:
        """Delete a distribution."""
        return self.ask(f"/api/package/{name}/{quote(filename)}", "DELETE")

    def files(self, name: str) -> dict[str, str]:
        """The files on a project's page with their digests; none if there is no such page here."""
        answer = self.ask(f"/simple/{name}/", headers={"Accept": JSON})
        return {} if answer.status in {302, 404} else files_of(answer)

    def projects(self) -> set[str]:
        """The names on the list of projects."""
        return projects_of(self.ask("/simple/", headers={"Accept": JSON}))

    def download(self, name: str, filename: str) -> Answer:
        """The bytes of a file."""
        return self.ask(f"/api/package/{name}/{quote(filename)}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def files_of(answer: Answer) -> dict[str, str]:
    """The files on a page, in either format, with their digests."""
    if answer.status != 200:
        raise AssertionError(f"the page was answered with {answer.status}: {answer.body!r}")
    if answer.headers["Content-Type"].startswith(JSON):
        return {file["filename"]: file["hashes"]["sha256"] for file in json.loads(answer.body)["files"]}
    return dict(_LINK.findall(answer.body.decode()))


def projects_of(answer: Answer) -> set[str]:
    """The names on the list of projects, in either format."""
    if answer.status != 200:
        raise AssertionError(f"the list was answered with {answer.status}: {answer.body!r}")
    if answer.headers["Content-Type"].startswith(JSON):
        return {project["name"] for project in json.loads(answer.body)["projects"]}
    return set(_PROJECT.findall(answer.body.decode()))


def is_healthy(server: Server, patience: float = 20.0) -> bool:
    """Whether a server says that all its backends answer; that must be said in time."""
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, server.port, timeout=patience)) as connection:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body = response.read()
    if response.status == 200:
        return True
    if response.status not in {500, 503} or not any(json.loads(body).values()):
        raise AssertionError(f"/health was answered with {response.status}: {body!r}")
    return False


def wait_for_health(servers: list[Server], *, within: float) -> float:
    """Wait until all servers are healthy; how long it took, in seconds."""
    begun = time.monotonic()
    for server in servers:
        while not is_healthy(server):
            if time.monotonic() - begun > within:
                raise AssertionError(f"not healthy again after {within} s:\n{server.log_tail()}")
            time.sleep(0.1)
    return time.monotonic() - begun
