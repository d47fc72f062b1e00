"""Servers of several processes: what one has connected to before it forked is not shared by the others."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from support.builds import build_sdist, sdist_name
from support.caches import KINDS, CacheWorld
from support.fleet import Client, Fleet
from support.live import LOOPBACK, Answer, Installation, Server, free_port, running

Command = Callable[[Installation, Path, int], list[str]]

COMMANDS: Final[dict[str, Command]] = {
    "gunicorn": lambda installation, config, port: installation.command(
        "gunicorn", "--paste", config, "--preload", "--bind", f"{LOOPBACK}:{port}", "--workers", "2", "--threads", "2"
    ),
    "uwsgi": lambda installation, config, port: installation.command("uwsgi", "--ini-paste-logged", config),
    "serve": lambda installation, config, port: installation.command(
        "pypicloud", "serve", config, "--host", LOOPBACK, "--port", str(port), "--workers", "2"
    ),
}

UWSGI: Final = f"""
[uwsgi]
http-socket = {LOOPBACK}:%s
master = true
processes = 2
enable-threads = true
threads = 2
"""

CLIENTS: Final = 4
ROUNDS: Final = 10


#: gunicorn forks after the cache was used; each kind of connection is tried there, and the others by two of them.
TRIED: Final = [("gunicorn", name) for name in KINDS if name != "sqlite"] + [
    (command, name) for command in ("uwsgi", "serve") for name in ("postgres", "redis")
]


@pytest.mark.parametrize(("name", "cache_world"), TRIED, indirect=["cache_world"])
def test_two_processes(name: str, cache_world: CacheWorld, installation: Installation, tmp_path: Path) -> None:
    """Two hundred requests of all kinds, by several clients at once, are answered as they must be."""
    port = free_port()
    fleet = Fleet(installation, cache_world, tmp_path, pypi__allow_delete="true", pypi__storage="file")
    fleet.fill(10)
    with fleet.config.open("a") as config:
        config.write(UWSGI % port)
    with running(COMMANDS[name](installation, fleet.config, port), port, tmp_path) as server:
        with ThreadPoolExecutor(CLIENTS) as pool:
            statuses = sum(pool.map(partial(use, server), range(CLIENTS)), Counter())
        assert statuses == {200: CLIENTS * ROUNDS * 5}, server.log_tail()


def use(server: Server, number: int) -> Counter[int]:
    """Make requests of all kinds, each over a connection of its own, so that each process gets some; their statuses."""
    filename, content = sdist_name("foo", f"{number}.0"), build_sdist("foo", f"{number}.0")
    requests: list[Callable[[Client], Answer]] = [
        lambda client: client.upload(filename, content),
        lambda client: client.ask(f"/simple/stored-{number:03}/"),
        lambda client: client.ask("/simple/"),
        lambda client: client.download("foo", filename),
        lambda client: client.delete("foo", filename),
    ]
    statuses: Counter[int] = Counter()
    for request in requests * ROUNDS:
        with contextlib.closing(Client(server, patience=30)) as client:
            statuses[request(client).status] += 1
    return statuses
