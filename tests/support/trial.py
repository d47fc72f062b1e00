"""A fleet at work while its cache is in trouble: uploads, deletes, reads and rebuilds, each answer looked at."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from support.builds import build_sdist, sdist_name
from support.fleet import JSON, Client, Fleet, files_of, projects_of
from support.freshness import History, ListRead, Read
from support.live import Answer, Server

#: What no answer may have in it: what our programs, their libraries and their queries are made of.
INTERNALS: Final = (
    b"Traceback",
    b'File "',
    b"Error:",
    b"SELECT ",
    b"INSERT ",
    b"psycopg",
    b"pymysql",
    b"sqlalchemy",
    b"botocore",
    b"redis.",
    b"app-password",
    b"127.0.0.1",
    b"localhost",
    b"Errno",
)

#: How long a request may take while the cache is away, in seconds.
PATIENCE: Final = 40.0

UPLOADERS: Final = 2
READERS: Final = 2


#: One turn of a worker, with a client for each server.
Job: TypeAlias = Callable[[random.Random, list[Client]], None]


class Refused(Exception):
    """A request was answered properly, but with 503."""


class Trial:
    """Everybody at work on random servers of a fleet, until the end of a block.

    ``stored`` are the files that are there all along. ``wrong`` are the answers that nobody should get, in words.
    """

    def __init__(self, fleet: Fleet, servers: list[Server], stored: dict[str, dict[str, str]]) -> None:
        self.fleet = fleet
        self.servers = servers
        self.stored = stored
        self.history = History()
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.over = threading.Event()

    @property
    def jobs(self) -> list[Job]:
        """What everybody does, again and again."""
        return [*[self._change] * UPLOADERS, *[self._read] * READERS, self._rebuild]

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """They work as long as the block lasts."""
        jobs = self.jobs
        with ThreadPoolExecutor(len(jobs)) as pool:
            done = [pool.submit(self._work, job, number) for number, job in enumerate(jobs)]
            try:
                yield
            finally:
                self.over.set()
            for each in done:
                each.result()

    def wait_for(self, word: str, more: int = 10, within: float = 60) -> None:
        """Wait until something has happened so many times more."""
        enough, deadline = self.counts[word] + more, time.monotonic() + within
        while self.counts[word] < enough:
            if time.monotonic() > deadline or self.over.is_set():
                raise AssertionError(f"no {more} {word} in {within} s: {self.counts} {self.wrong[:3]}")
            time.sleep(0.02)

    def _work(self, job: Job, number: int) -> None:
        rng = random.Random(number)
        user = "root" if job == self._rebuild else "carol"
        clients = [Client(server, user, PATIENCE) for server in self.servers]
        try:
            while not self.over.is_set():
                with contextlib.suppress(Refused):
                    job(rng, clients)
        except BaseException as error:
            self.wrong.append(f"{job.__name__}: {error!r}")
            raise
        finally:
            for client in clients:
                client.close()

    def judged(self, answer: Answer, what: str, *expected: int) -> Answer:
        """An answer that is as it must be. Raises :class:`Refused` if the cache is away, which is no mistake."""
        self.counts[f"{what} {answer.status}"] += 1
        if answer.status not in {*expected, 503}:
            self.wrong.append(f"{what}: {answer.status} {answer.reason} {answer.body[:300]!r} {dict(answer.headers)}")
        text = answer.reason.encode() + b"\n" + answer.body
        if answer.status >= 400 and (found := [word for word in INTERNALS if word in text]):
            self.wrong.append(f"{what}: {answer.status} with {found}: {text[:300]!r}")
        if answer.status not in expected:
            time.sleep(0.05)
            raise Refused
        return answer

    def _change(self, rng: random.Random, clients: list[Client]) -> None:
        """Upload a file; now and then delete one that was uploaded before."""
        version = f"{self.counts['file']}.{threading.get_ident()}"
        self.counts["file"] += 1
        name = f"new-{rng.randrange(5)}"
        filename, content = sdist_name(name, version), build_sdist(name, version)
        with self.history.writing(name, filename, hashlib.sha256(content).hexdigest()):
            self.judged(rng.choice(clients).upload(filename, content), "upload", 200)
        if rng.random() < 0.3:
            with self.history.writing(name, filename, None):
                self.judged(rng.choice(clients).delete(name, filename), "delete", 200)

    def _read(self, rng: random.Random, clients: list[Client]) -> None:
        """Look at a page: of a project that is there all along, of one that is changing, or of all."""
        client = rng.choice(clients)
        kind = rng.choice(["stored", "new", "list"])
        if kind == "stored":
            name = rng.choice(list(self.stored))
            # Neither 404 nor a redirect to the upstream index is right for what is stored.
            answer = self.judged(client.ask(f"/simple/{name}/", headers={"Accept": JSON}), "page", 200)
            if files_of(answer) != self.stored[name]:
                self.wrong.append(f"{name} shows {files_of(answer)}")
            return
        name = f"new-{rng.randrange(5)}"
        path = "/simple/" if kind == "list" else f"/simple/{name}/"
        asked = time.monotonic()
        answer = self.judged(
            client.ask(path, headers={"Accept": JSON}), kind, *((200,) if kind == "list" else (200, 302))
        )
        answered = time.monotonic()
        what = f"{path} of port {client.server.port}"
        if kind == "list":
            found = projects_of(answer)
            if not self.stored.keys() <= found:
                self.wrong.append(f"the list lacks {self.stored.keys() - found}")
            self.history.lists.append(ListRead(found - self.stored.keys(), asked, answered, what))
        else:
            files = files_of(answer) if answer.status == 200 else {}
            self.history.reads.append(Read(name, files, asked, answered, what))

    def _rebuild(self, rng: random.Random, clients: list[Client]) -> None:
        """Rebuild the cache, and rest a little."""
        answer = rng.choice(clients).ask("/admin/rebuild", "POST")
        self.over.wait(0.3)
        self.judged(answer, "rebuild", 200)

    def check(self) -> None:
        """See that every answer was right, that nothing acknowledged is lost, and that a rebuild makes all right."""
        assert self.wrong == []
        assert self.history.violations() == []
        lost = [name for name in self._expected() if not self._is_listed(name)]
        assert lost == [], f"lost of {len(self._expected())}"
        self.servers[0].rebuild()
        self._compare()

    def _expected(self) -> dict[tuple[str, str], str]:
        """The files whose upload was acknowledged and whose deletion was never begun."""
        return {
            (project, filename): writes[0].digest
            for project, files in self.history.writes.items()
            for filename, writes in files.items()
            if len(writes) == 1 and writes[0].acknowledged is not None and writes[0].digest is not None
        }

    def _is_listed(self, name: tuple[str, str]) -> bool:
        project, filename = name
        with contextlib.closing(Client(self.servers[-1])) as client:
            return client.files(project).get(filename) == self._expected()[name]

    def _compare(self) -> None:
        """See that after a rebuild every server shows what is stored, and that all of it can be downloaded."""
        stored = self.fleet.stored("new-")
        for server in self.servers:
            with contextlib.closing(Client(server)) as client:
                names = {project for project, _ in stored.values()}
                assert client.projects() == names | self.stored.keys()
                listed = {
                    filename: (project, digest)
                    for project in names
                    for filename, digest in client.files(project).items()
                }
                assert listed == stored
        for (project, filename), digest in self._expected().items():
            assert stored[filename] == (project, digest)
        with contextlib.closing(Client(self.servers[0])) as client:
            for filename, (project, digest) in stored.items():
                assert hashlib.sha256(client.download(project, filename).body).hexdigest() == digest
        for project, files in self.history.writes.items():
            for filename, writes in files.items():
                if writes[-1].digest is None and writes[-1].acknowledged is not None:
                    assert filename not in stored, f"{project} still has {filename}"
