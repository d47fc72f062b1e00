"""The services of the test suite: what the tests of faults rest on."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis as redis_client
from sqlalchemy import create_engine, text

from support.live import LOOPBACK
from support.services.mariadb import MariaDB
from support.services.postgres import Postgres
from support.services.proxy import Proxy
from support.services.redis_server import RedisServer
from support.services.service import find

TESTS = Path(__file__).parents[1]


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis server of this test alone."""
    with RedisServer() as service:
        yield service


@pytest.mark.parametrize("kind", [Postgres, MariaDB])
def test_kill_keeps_commits(kind: type[Postgres | MariaDB]) -> None:
    """What a killed database had acknowledged is there when it was started again, at the same address."""
    with kind() as service:
        engine = create_engine(service.database())
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE facts (name VARCHAR(10))"))
            connection.execute(text("INSERT INTO facts VALUES ('kept')"))
        service.kill()
        engine.dispose()
        service.start()
        with engine.begin() as connection:
            assert connection.execute(text("SELECT name FROM facts")).scalars().all() == ["kept"]
        engine.dispose()


def test_passwords_matter(postgres: Postgres) -> None:
    """A wrong password is refused."""
    url = postgres.database().replace("+psycopg", "").replace("app-password", "other")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_pause_stops_everything(postgres: Postgres) -> None:
    """A paused server leaves even a connection it has long had without an answer; resumed it gives one."""
    connection = psycopg.pq.PGconn.connect(postgres.database().replace("+psycopg", "").encode())
    postgres.pause()
    try:
        connection.send_query(b"SELECT 1")
        connection.flush()
        assert not has_answer(connection.socket, 0.3)
    finally:
        postgres.resume()
    assert has_answer(connection.socket, 10)
    connection.finish()


def has_answer(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read within so many seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_killed_redis_is_empty(own_redis: RedisServer) -> None:
    """A Redis that was killed comes back at the same address and knows nothing."""
    client = redis_client.Redis.from_url(own_redis.database())
    client.set("key", "value")
    own_redis.kill()
    own_redis.start()
    assert client.get("key") is None
    client.close()


def test_databases_are_empty(redis: RedisServer) -> None:
    """Every caller gets a Redis database of its own."""
    first, second = redis.database(), redis.database()
    redis_client.Redis.from_url(first).set("key", "value")
    assert first != second
    assert redis_client.Redis.from_url(second).dbsize() == 0


def test_round_trips(redis: RedisServer) -> None:
    """The proxy counts connections, and a pipeline as one round trip."""
    with Proxy(redis.port) as proxy:
        client = redis_client.Redis.from_url(proxy.through(redis.database()))
        client.ping()
        before = proxy.round_trips
        with client.pipeline() as pipeline:
            for number in range(100):
                pipeline.set(f"key{number}", number)
            pipeline.execute()
        client.ping()
        assert (proxy.connections, proxy.round_trips - before) == (1, 2)
        client.close()


def talk(proxy: Proxy) -> socket.socket:
    """A connection to the proxy that gives up after a third of a second."""
    return socket.create_connection((LOOPBACK, proxy.port), timeout=0.3)


def test_cut_after_bytes(redis: RedisServer) -> None:
    """The proxy passes on as many bytes as it was told, then resets the connection; the next one is whole."""
    with Proxy(redis.port) as proxy:
        proxy.cut_after(3, "answers")
        with talk(proxy) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(3, socket.MSG_WAITALL) == b"+PO"
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with talk(proxy) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(7, socket.MSG_WAITALL) == b"+PONG\r\n"
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(1)


def test_hang_and_resume(redis: RedisServer) -> None:
    """A hanging proxy keeps what is sent, and passes it on when it is told to go on."""
    with Proxy(redis.port) as proxy, talk(proxy) as connection:
        proxy.hang()
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.resume()
        assert connection.recv(7, socket.MSG_WAITALL) == b"+PONG\r\n"


def test_refuses_for_dead_service(own_redis: RedisServer) -> None:
    """A connection through the proxy to a service that is away is reset."""
    with Proxy(own_redis.port) as proxy:
        own_redis.kill()
        with pytest.raises(ConnectionResetError), talk(proxy) as connection:
            connection.recv(1)


def test_nothing_is_left(tmp_path: Path) -> None:
    """The services of a process that was killed end with it, and their directories go."""
    code = (
        "import time; from support.services.redis_server import RedisServer; service = RedisServer(); service.start();"
        "print(service.port, service.directory, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, directory = process.stdout.readline().split()
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (answers(int(port)) or Path(directory).exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not answers(int(port))
    assert not Path(directory).exists()


def answers(port: int) -> bool:
    """Whether somebody listens at a port."""
    with socket.socket() as connection:
        return connection.connect_ex((LOOPBACK, port)) == 0


def test_missing_program() -> None:
    """A missing server is an error that says how to get it."""
    with pytest.raises(AssertionError, match=r"make debian.*Debian's package some-server"):
        find("no-such-server", "some-server")
