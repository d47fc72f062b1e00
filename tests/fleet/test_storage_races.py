"""Uploads of one name that race, and servers that are killed while they upload, on every object store."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from pypicloud.storage.buckets import is_package_key
from support.builds import build_wheel, wheel_name
from support.live import Installation, Server, serving, write_config
from support.storages import KINDS, NO_INTERNET, STORAGES, StorageWorld, shared_world
from support.uploaders import NAME, Uploaders, page
from support.world import sha256

WRITERS: Final = 16

KILLS: Final = 6


@pytest.fixture
def world(request: pytest.FixtureRequest) -> StorageWorld:
    """A new bucket on the service that the test is parametrized with."""
    return shared_world(request.param, request)


def configured(world: StorageWorld, directory: Path, **changes: str | None) -> Path:
    """The ini file of a server with this bucket, which sends all bytes itself."""
    settings = {**world.changes, "pypi__stream_files": "true", "pypi__allow_overwrite_groups": None, **changes}
    return write_config(directory, **settings)


def objects_of(world: StorageWorld, filename: str) -> dict[str, bytes]:
    """What is in the bucket of a file: itself, and its companions."""
    found = world.objects().items()
    return {key.rpartition("/")[2]: content for key, content in found if key.rpartition("/")[2].startswith(filename)}


@pytest.mark.parametrize(
    ("world", "caches"), [*((name, 2) for name in STORAGES), *((name, 1) for name in KINDS)], indirect=["world"]
)
def test_one_wins(caches: int, world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """Of 16 writers of one name on two servers one wins, though the servers know of each other by the bucket alone."""
    configs = [configured(world, tmp_path / str(number)) for number in range(caches)]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(installation, configs[number % caches], environment=NO_INTERNET))
            for number in range(2)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(WRITERS))
        winners = {}
        for turn in range(2):
            filename = wheel_name(NAME, f"1.{turn}")
            contents = [wheel(f"1.{turn}", rival) for rival in range(WRITERS)]
            start = threading.Barrier(WRITERS)

            def upload(rival: int, filename: str, content: bytes, start: threading.Barrier = start) -> int:
                start.wait()
                return servers[rival % 2].upload(filename, content).status

            statuses = list(pool.map(upload, range(WRITERS), [filename] * WRITERS, contents))
            assert Counter(statuses) == {200: 1, 409: WRITERS - 1}
            winner = winners[filename] = contents[statuses.index(200)]
            found = objects_of(world, filename)
            assert found[filename] == winner
            assert len(found) == 2, "a companion of another upload was left behind"
        for server in servers:
            check(server, winners)


def wheel(version: str, rival: int) -> bytes:
    """A rival's own wheel, with metadata of its own."""
    noise = {"noise.bin": random.Random(rival).randbytes(50_000)}
    return build_wheel(NAME, version, members=noise, compression=0, summary=f"That of {rival}")


def check(server: Server, contents: dict[str, bytes]) -> None:
    """See that a server shows and gives these files, and no others."""
    server.rebuild()
    assert page(server) == {filename: sha256(content) for filename, content in contents.items()}
    for filename, content in contents.items():
        assert server.ask(f"/api/package/{NAME}/{filename}").body == content
        assert server.ask(f"/api/package/{NAME}/{filename}.metadata").body in content


@pytest.mark.parametrize("world", KINDS, indirect=True)
def test_kill_9(world: StorageWorld, installation: Installation, tmp_path: Path) -> None:
    """After kill -9 in the middle of uploads acknowledged files are there, and what is listed is whole.

    What was cut short can be uploaded again, and then nothing of the first time is left over.
    """
    changes = {"storage__multipart_threshold": "1M"} if world.kind.plugin == "s3" else {}
    config = configured(world, tmp_path, **changes)
    uploaders = Uploaders(random.Random(1))
    for _ in range(KILLS):
        with serving(installation, config, environment=NO_INTERNET) as server:
            listed = page(server)
            assert uploaders.acknowledged <= listed.keys()
            assert listed.items() <= uploaders.sent.items()
            uploaders.repeat(server)
            uploaders.run(server)
            assert uploaders.refused == []
    assert uploaders.interrupted >= KILLS
    with serving(installation, config, environment=NO_INTERNET) as server:
        server.rebuild()
        listed = page(server)
        assert uploaders.acknowledged <= listed.keys()
        assert listed.items() <= uploaders.sent.items()
        uploaders.repeat(server)
        assert page(server) == uploaders.sent
    objects = {key.rpartition("/")[2]: content for key, content in world.objects().items()}
    files = {name: sha256(content) for name, content in objects.items() if is_package_key(name)}
    assert files == uploaders.sent
    assert len(objects) == 2 * len(files), "there are companions of no file"
