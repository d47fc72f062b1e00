"""The start on Redis: it is reached, tried out, and what is wrong is said of the setting that it is wrong with."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from redis import Redis, RedisCluster
from redis.exceptions import (
    AuthenticationError,
    ClusterCrossSlotError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
)

from pypicloud.cache.redis_cache.layout import ClusterLayout, Layout
from pypicloud.cache.redis_cache.scripts import CLAIM, DELETE_IF, run
from pypicloud.cache.redis_cache.wire import (
    ClusterWire,
    Wire,
    connect,
    connect_cluster,
    is_refused,
    options_of,
    shown,
    slot_of,
)
from pypicloud.errors import BackendUnavailable, SettingError

if TYPE_CHECKING:
    from pypicloud.settings import EnvironSettings, Setting

LOG: Final = logging.getLogger(__name__)

#: What a Redis user must be allowed to do, and what more in a cluster.
NEEDED: Final = (
    "~pypicloud:* +get +set +del +exists +type +hget +hgetall +hset +sadd +srem +scard +sismember +smembers +scan "
    "+eval +evalsha +select"
)
NEEDED_IN_A_CLUSTER: Final = "+asking +command +cluster|slots"

_NO_CLUSTER: Final = "Cluster mode is not enabled"


def layout_of(client: Redis | RedisCluster) -> Layout:
    """Where things are for this client."""
    if isinstance(client, RedisCluster):
        return ClusterLayout(ClusterWire(client), slot_of)
    return Layout(Wire(client.connection_pool))


def prepare(settings: EnvironSettings, url: Setting[str], *, is_cluster: bool) -> None:
    """Raise :class:`SettingError` for an address that can be of no use, without reaching for it."""
    with _usable(settings, url):
        options_of(url.read(settings), is_cluster=is_cluster)


def reach(settings: EnvironSettings, url: Setting[str], *, is_cluster: bool) -> Redis | RedisCluster:
    """The client, which has been seen to work. Raises :class:`SettingError` with what is wrong."""
    address = url.read(settings)
    with _usable(settings, url):
        client: Redis | RedisCluster = connect_cluster(address) if is_cluster else connect(address)
        layout = layout_of(client)
        try:
            _try_out(layout, is_cluster=is_cluster)
        except BaseException:
            layout.wire.close()
            raise
    return client


def _try_out(layout: Layout, *, is_cluster: bool) -> None:
    """Read as the cache will do, and take a lock."""
    for answer in layout.wire.ask_each(b"INFO"):
        # Some providers do not allow this.
        about = _about(answer) if isinstance(answer, bytes) else {}
        if about.get("redis_mode") == "cluster" and not is_cluster:
            raise ValueError("it is a node of a cluster; set db.clustered = true")
        policy = about.get("maxmemory_policy", "")
        if policy.startswith("allkeys-") and about.get("maxmemory", "0") != "0":
            LOG.warning(
                "Redis drops keys when it is full (maxmemory-policy %s), and with them what the cache knows; "
                "set it to noeviction, or give the cache a Redis of its own",
                policy,
            )
    token = secrets.token_hex(8)
    lock = [layout.lock(f"start:{token}")]
    layout.wire.run(
        [
            run(CLAIM, lock, token.encode(), 1000),
            run(DELETE_IF, lock, token.encode()),
            layout.files_of("start"),
            (b"SCARD", layout.projects),
            (b"GET", layout.projects_revision),
        ]
    )
    next(layout.wire.scan(layout.projects), None)


def _about(answer: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {key: value for key, _, value in lines}


@contextmanager
def _usable(settings: EnvironSettings, url: Setting[str]) -> Iterator[None]:
    try:
        yield
    except (BackendUnavailable, ValueError) as error:
        address = url.read(settings)
        cause = error.__cause__ or error
        if isinstance(cause, RedisClusterException):
            # The cause of that is why the last node of all could not be asked.
            cause = cause.__cause__ or cause
        reason = f"this Redis cannot be used: {_reason(cause)}"
        raise SettingError(url.key, reason, value=shown(address), source=settings.source(url.key)) from error


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, MovedError | ClusterCrossSlotError):
        return "it is a node of a cluster; set db.clustered = true"
    if _NO_CLUSTER in text:
        return "it is no cluster; set db.clustered = false"
    if isinstance(error, AuthenticationError):
        return f"it wants another user or password ({text})"
    if is_refused(error):
        return f"{text.partition(' script:')[0]}; its user needs {NEEDED}, and in a cluster {NEEDED_IN_A_CLUSTER}"
    if isinstance(error, ReadOnlyError):
        return "it is a replica, which cannot be written; name the primary"
    return text
