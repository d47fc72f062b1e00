"""Fleets whose files are in an object store, and everybody at work on one while the store is in trouble."""

from __future__ import annotations

import hashlib
import http.client
import io
import random
from pathlib import Path

from pypicloud.models import Package
from pypicloud.storage.buckets import is_package_key
from support.builds import build_sdist, sdist_name
from support.caches import CacheWorld
from support.fleet import Client, Fleet
from support.live import Installation
from support.storages import NO_INTERNET, StorageWorld
from support.trial import Job, Trial

#: How many bytes each of the files has that are there all along: more than a connection holds on its way.
SIZE = 400_000


class BucketFleet(Fleet):
    """A fleet with a bucket in place of a directory; the bytes go through the servers."""

    def __init__(
        self,
        installation: Installation,
        cache: CacheWorld,
        world: StorageWorld,
        directory: Path,
        **changes: str | None,
    ) -> None:
        settings = {**world.changes, "storage__witness": None, "pypi__stream_files": "true", **changes}
        super().__init__(installation, cache, directory, **settings)
        self.environment |= NO_INTERNET
        self.bucket = world
        self._storage = world.storage()

    def put(self, name: str, version: str) -> tuple[str, str]:
        """Put one file into the bucket behind the servers' backs; its name and digest."""
        filename = sdist_name(name, version)
        content = build_sdist(name, version, members={"noise": random.Random(filename).randbytes(SIZE)})
        digest = hashlib.sha256(content).hexdigest()
        self._storage.publish(Package(name, version, filename, hash_sha256=digest), io.BytesIO(content))
        return filename, digest

    def stored(self, beginning: str) -> dict[str, tuple[str, str]]:
        """What lies in the bucket of the projects whose names begin so: project and digest by file name."""
        found = {}
        for key, content in self.bucket.objects().items():
            project, filename = key.split("/")[-2:]
            if project.startswith(beginning) and is_package_key(key):
                found[filename] = (project, hashlib.sha256(content).hexdigest())
        return found


class BucketTrial(Trial):
    """A trial in which files are downloaded, too."""

    @property
    def jobs(self) -> list[Job]:
        """What everybody does, again and again."""
        return [*super().jobs, self._download]

    def _read(self, rng: random.Random, clients: list[Client]) -> None:
        """Look at a page, and leave the processor to others for a while."""
        super()._read(rng, clients)
        self.over.wait(0.01)

    def _download(self, rng: random.Random, clients: list[Client]) -> None:
        """Download a file that is there all along: what arrives whole has to be right."""
        name = rng.choice(list(self.stored))
        filename, digest = rng.choice(list(self.stored[name].items()))
        try:
            answer = self.judged(rng.choice(clients).download(name, filename), "download", 200)
        except (http.client.IncompleteRead, ConnectionError):
            # The answer had begun, and nothing else can be said any more.
            self.counts["download broken"] += 1
            return
        if hashlib.sha256(answer.body).hexdigest() != digest:
            self.wrong.append(f"{filename} arrives with {len(answer.body)} bytes that are not its own")
