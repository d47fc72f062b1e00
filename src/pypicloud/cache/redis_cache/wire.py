"""The way to Redis: many commands in one round trip, to one server or to the nodes of a cluster.

Every command that is sent may be sent twice: when a connection breaks nobody knows whether the server still
got it. So all of them can be repeated, and after a restart of the server the next request just works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, parse_url
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - no other is meant here
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.retry import Retry
from redis.utils import HIREDIS_AVAILABLE

from pypicloud.cache.redis_cache.scripts import Command, in_full, key_of
from pypicloud.errors import BackendUnavailable

#: Where to send the commands at which places of a list.
Routes: TypeAlias = Iterable[tuple[ConnectionPool, Sequence[int]]]

#: How many commands are sent at once.
BATCH: Final = 1000

#: The pauses before a command is sent again over a new connection, in seconds.
PAUSES: Final = (0.05, 0.15, 0.3)

#: What holds unless the URL says otherwise, in seconds.
TIMEOUTS: Final = {"socket_connect_timeout": 5.0, "socket_timeout": 10.0}


class Wire:
    """The connections to one server."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def run(self, commands: Iterable[Command]) -> list[Any]:
        """The answers, in order; that of a key that holds another kind of value is None.

        Raises :class:`BackendUnavailable`, caused by the error of the library.
        """
        queue = list(commands)
        answers: list[Any] = []
        for start in range(0, len(queue), BATCH):
            answers += self._repeat(partial(self._answers, queue[start : start + BATCH]))
        return answers

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """The keys that match a pattern, some at a time; each at least once, if it is there all the while."""
        for pool in self.pools():
            cursor = b"0"
            while True:
                command = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", BATCH)
                [[cursor, keys]] = self._repeat(partial(self._tell, pool, command))
                yield keys
                if cursor == b"0":
                    break

    def ask_each(self, *command: bytes) -> list[Any]:
        """The answer of each server to a command about the server itself; its error, if it is not allowed."""
        with _meaning():
            return [self._attempt([(pool, [0])], [command])[0] for pool in self.pools()]

    def pools(self) -> Collection[ConnectionPool]:
        """The connections to each server that keys are on."""
        return [self._pool]

    def after_fork(self) -> None:
        """Leave the parent's connections alone."""
        for pool in self.pools():
            pool.reset()

    def close(self) -> None:
        """Close all connections."""
        for pool in self.pools():
            pool.disconnect()

    @staticmethod
    def _repeat(ask: Callable[[], list[Any]]) -> list[Any]:
        """The answers, as soon as there are some."""
        for pause in PAUSES:
            try:
                with _meaning():
                    return ask()
            except BackendUnavailable as error:
                if not _is_passing(error.__cause__):
                    raise
            time.sleep(pause)
        with _meaning():
            return ask()

    def _tell(self, pool: ConnectionPool, command: Command) -> list[Any]:
        return [_checked(answer) for answer in self._attempt([(pool, [0])], [command])]

    def _answers(self, commands: Sequence[Command]) -> list[Any]:
        answers = self._attempt(self._routes(commands), commands)
        forgotten = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            # The server was restarted; with its text a script is known again.
            full = [in_full(commands[place]) for place in forgotten]
            for place, answer in zip(forgotten, self._attempt(self._routes(full), full), strict=True):
                answers[place] = answer
        return [_checked(answer) for answer in answers]

    def _routes(self, commands: Sequence[Command]) -> Routes:
        """Which commands go where."""
        return [(self._pool, range(len(commands)))]

    def _attempt(self, routes: Routes, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors among them; all servers are asked before the first is listened to."""
        answers: list[Any] = [None] * len(commands)
        with ExitStack() as stack:
            talks = []
            for pool, places in routes:
                connection = stack.enter_context(_borrowed(pool))
                connection.send_packed_command(_packed(connection, [commands[place] for place in places]))
                talks.append((connection, places))
            for connection, places in talks:
                for place in places:
                    answers[place] = _answer(connection)
        return answers


class ClusterWire(Wire):
    """The connections to the nodes of a cluster."""

    def __init__(self, client: RedisCluster) -> None:
        self._nodes = client.nodes_manager
        # What the manager itself says looks at its own arguments first, which takes as long as to send a command.
        self._node: Callable[[bytes], Any] = client.get_node_from_key

    def pools(self) -> Collection[ConnectionPool]:
        """The connections to each primary."""
        return [node.redis_connection.connection_pool for node in self._nodes.get_nodes_by_server_type("primary")]

    def is_near(self, key: bytes, other: bytes) -> bool:
        """Whether two keys are on the same node, and so are lost together."""
        with _meaning():
            return bool(self._node(key) == self._node(other))

    def one_on_each(self, keys: Iterable[bytes]) -> Collection[bytes]:
        """Of these keys, one on each node that they are on."""
        with _meaning():
            return {self._node(key).name: key for key in keys}.values()

    def _routes(self, commands: Sequence[Command]) -> Routes:
        found: dict[str, tuple[ConnectionPool, list[int]]] = {}
        for place, command in enumerate(commands):
            node = self._node(key_of(command))
            found.setdefault(node.name, (node.redis_connection.connection_pool, []))[1].append(place)
        return found.values()

    def _answers(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return super()._answers(commands)
        except (RedisError, RedisClusterException) as error:
            if _is_passing(error) or isinstance(error, TimeoutError):
                # A node may have been replaced by another, or have given slots away.
                self._nodes.initialize()
            raise

    def _attempt(self, routes: Routes, commands: Sequence[Command]) -> list[Any]:
        answers = super()._attempt(routes, commands)
        for place, answer in enumerate(answers):
            if isinstance(answer, AskError) and not isinstance(answer, MovedError):
                answers[place] = self._ask(answer, commands[place])
        return answers

    def _ask(self, where: AskError, command: Command) -> Any:
        """The answer of the node to which a slot is just moving."""
        node = self._nodes.get_node(*where.node_addr)
        if node is None:
            return where
        return super()._attempt([(node.redis_connection.connection_pool, [0, 1])], [(b"ASKING",), command])[1]


def connect(url: str) -> Redis:
    """A client of one server, which is not reached for yet. Raises ValueError for a URL of no use."""
    return Redis(connection_pool=ConnectionPool(retry=Retry(NoBackoff(), 0), **options_of(url, is_cluster=False)))


def connect_cluster(url: str) -> RedisCluster:
    """A client of a cluster, of which the URL names one node.

    Raises ValueError for a URL of no use, and :class:`BackendUnavailable` when no node can be reached.
    """
    options = options_of(url, is_cluster=True)
    is_secure = options.pop("connection_class", None) is not None
    with _meaning():
        return RedisCluster(retry=Retry(NoBackoff(), 0), ssl=is_secure, **{"host": "localhost", **options})


def options_of(url: str, *, is_cluster: bool) -> dict[str, Any]:
    """What the URL says of a connection, and what it leaves to us. Raises ValueError for a URL of no use."""
    try:
        given: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # of the library
    except ValueError as error:
        # Other texts may quote a part of a password.
        reason = str(error) if str(error).startswith(("Redis URL", "Invalid value")) else "it is no URL"
        raise ValueError(f"{reason}; write it like redis://user:password@localhost:6379/0") from None
    # How answers are read, and what is tried again, is not for a URL to say.
    fixed = {"decode_responses": False, "protocol": 2, "driver_info": None}
    options = {**TIMEOUTS, **given, **fixed}
    for word in ("retry_on_timeout", "retry_on_error"):
        options.pop(word, None)
    kind = options.get("connection_class", Connection)
    try:
        kind(**{key: value for key, value in options.items() if key not in {"connection_class", "max_connections"}})
    except (TypeError, RedisError) as error:
        reason = str(error).rpartition("unexpected keyword argument ")[2]
        raise ValueError(f"the URL has an option of no use there: {reason}") from None
    if is_cluster and "path" in options:
        raise ValueError("a cluster cannot be reached over a Unix socket")
    if is_cluster and options.pop("db", 0):
        raise ValueError("a cluster has only database 0")
    return {"max_connections": 1 << 16, **options}


def slot_of(key: bytes) -> int:
    """The slot of a key in a cluster."""
    return int(key_slot(key))


def shown(url: str) -> str:
    """The URL without what may be secret in it."""
    try:
        parts = urlsplit(url)
        is_clear = parts.scheme in {"redis", "rediss", "unix"} and (parts.port or True)
    except ValueError:
        is_clear = False
    if not is_clear or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        # Part of a password may stand anywhere, if there is a sign in it that ought to have been quoted.
        return "***"
    user, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user and '***'}{at}{host}{parts.path}"


@contextmanager
def _borrowed(pool: ConnectionPool) -> Iterator[Any]:
    """A connection; one that fails in the middle is closed, as answers may still be under way."""
    # The library does not say what types it takes.
    connection: Any = pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _packed(connection: Any, commands: Sequence[Command]) -> Any:
    """The commands as they are sent. The library would look at every argument, of which there are a great many."""
    if not HIREDIS_AVAILABLE:
        return connection.pack_commands(commands)
    from hiredis import pack_command

    return [b"".join(map(pack_command, commands))]


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ReadOnlyError as error:
        # What was the primary has become a replica; its name may lead to the new primary by now.
        connection.mark_for_reconnect()
        return error
    except ResponseError as error:
        return error


def _checked(answer: Any) -> Any:
    """The answer, if it is no error."""
    if isinstance(answer, ResponseError):
        if str(answer).startswith("WRONGTYPE"):
            return None
        raise answer
    return answer


def is_refused(error: BaseException) -> bool:
    """Whether the user lacks a permission, for a command or for one that a script runs."""
    return isinstance(error, NoPermissionError) or "executing the script can't" in str(error)


def _is_passing(error: BaseException | None) -> bool:
    """Whether it may be over by the time of the next try."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return False
    return isinstance(
        error, ConnectionLost | AskError | TryAgainError | ClusterDownError | RedisClusterException | ReadOnlyError
    )


@contextmanager
def _meaning() -> Iterator[None]:
    """Say what an error of the library means to the client."""
    try:
        yield
    except OutOfMemoryError as error:
        raise BackendUnavailable("the cache is full; ask the administrator of this index") from error
    except (RedisError, RedisClusterException, OSError) as error:
        if is_refused(error):
            raise BackendUnavailable("the cache may not be used; ask the administrator of this index") from error
        raise BackendUnavailable("the cache does not answer; please try again later") from error
