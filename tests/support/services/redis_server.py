"""A Redis server, plain or with TLS and users, and a cluster of three."""

from __future__ import annotations

import itertools
import time
from typing import ClassVar, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.certificates import Certificate, make_certificate
from support.live import LOOPBACK, PATIENCE, free_port
from support.services.service import Process, Service, find

PASSWORD: Final = "app-password"

_DATABASES: Final = 512
_SLOTS: Final = 16384


class RedisServer(Process):
    """A Redis server that keeps nothing on disk: started again it is empty.

    With ``secure`` it speaks only TLS and knows only the user ``app``, who needs a password.
    """

    name: ClassVar[str] = "Redis"
    not_yet: ClassVar[tuple[type[Exception], ...]] = (redis.RedisError,)

    def __init__(self, *, secure: bool = False) -> None:
        self._program = find("redis-server", "redis-server")
        super().__init__()
        self.certificate: Certificate | None = make_certificate(self.directory) if secure else None
        self._numbers = itertools.cycle(range(_DATABASES))

    def command(self) -> list[str]:
        common = ["--bind", LOOPBACK, "--save", "", "--appendonly", "no", "--dir", str(self.directory)]
        return [self._program, *common, *self.options()]

    def options(self) -> list[str]:
        """What this kind of server is told beyond what all are."""
        databases = ["--databases", str(_DATABASES)]
        if self.certificate is None:
            return ["--port", str(self.port), *databases]
        made = self.certificate
        files = {"cert": made.chain, "key": made.key, "ca-cert": made.authority}
        tls = [word for kind, path in files.items() for word in (f"--tls-{kind}-file", str(path))]
        ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        users = ["--user", "default", "off", "--user", "app", "on", f">{PASSWORD}", "~*", "&*", "+@all"]
        return [*ports, *tls, *databases, *users]

    def probe(self) -> None:
        with self.connect() as client:
            client.ping()

    def url(self, database: int = 0) -> str:
        """The address of a database, with all that a client has to know."""
        if self.certificate is None:
            return f"redis://{LOOPBACK}:{self.port}/{database}"
        return f"rediss://app:{PASSWORD}@{LOOPBACK}:{self.port}/{database}?ssl_ca_certs={self.certificate.authority}"

    def database(self) -> str:
        """The URL of an empty database; what was in it long ago is gone."""
        number = next(self._numbers)
        with self.connect(number) as client:
            client.flushdb()
        return self.url(number)

    def connect(self, database: int = 0) -> redis.Redis:
        """A client that tries everything once."""
        return redis.Redis.from_url(
            self.url(database), retry=Retry(NoBackoff(), 0), socket_timeout=5, socket_connect_timeout=5
        )


class ClusterNode(RedisServer):
    """A Redis server that is part of a cluster; it remembers which, and nothing else."""

    name: ClassVar[str] = "Redis Cluster"

    def __init__(self) -> None:
        super().__init__()
        self.bus_port = free_port()

    def options(self) -> list[str]:
        cluster = {"enabled": "yes", "config-file": "nodes.conf", "node-timeout": "2000", "port": str(self.bus_port)}
        return [
            "--port",
            str(self.port),
            *(word for key, value in cluster.items() for word in (f"--cluster-{key}", value)),
        ]


class RedisCluster(Service):
    """Three Redis servers that share the slots among them; there are no replicas."""

    def __init__(self) -> None:
        self.nodes = [ClusterNode(), ClusterNode(), ClusterNode()]
        self._joined = False

    @property
    def url(self) -> str:
        """The address of the first node, which tells of the others."""
        return self.nodes[0].url()

    def database(self) -> str:
        """The URL of the cluster, emptied: a cluster has one database."""
        self.flush()
        return self.url

    def flush(self) -> None:
        """Forget every key."""
        for node in self.nodes:
            with node.connect() as client:
                client.flushall()

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        if not self._joined:
            self._join()
        self.wait()

    def wait(self) -> None:
        """Wait until every node takes part: each refuses work in the first two seconds after it was started."""
        deadline = time.monotonic() + PATIENCE
        for node in self.nodes:
            with node.connect() as client:
                while not {b"cluster_state:ok", b"cluster_known_nodes:3"} <= set(_ask(client, "INFO").split()):
                    if time.monotonic() > deadline:
                        raise AssertionError(f"the cluster does not come together:\n{node.log_tail()}")
                    time.sleep(0.02)

    def _join(self) -> None:
        """Give each node its share of the slots, and make them known to each other."""
        share = _SLOTS // len(self.nodes) + 1
        for number, node in enumerate(self.nodes):
            with node.connect() as client:
                first = number * share
                _ask(client, "ADDSLOTSRANGE", first, min(first + share, _SLOTS) - 1)
                _ask(client, "SET-CONFIG-EPOCH", number + 1)
                if number:
                    _ask(client, "MEET", LOOPBACK, self.nodes[0].port, self.nodes[0].bus_port)
        self._joined = True

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def pause(self) -> None:
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        for node in self.nodes:
            node.resume()

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


def _ask(client: redis.Redis, *words: str | int) -> bytes:
    """What a node answers to a CLUSTER command."""
    answer = client.execute_command("CLUSTER", *words)  # type: ignore[no-untyped-call] # untyped in redis-py
    if not isinstance(answer, bytes):
        raise TypeError(f"CLUSTER {words[0]} was answered with {answer!r}")
    return answer
