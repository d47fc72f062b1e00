"""The rights that the pages about caches give to the server's user: enough for all that it does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, LiteralString

import boto3
from psycopg import sql

from doc_pages import marked
from pypicloud.cache import ICache, get_cache_impl
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache_fixtures import package, put
from support.live import LOOPBACK
from support.services.s3 import REGION

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.services.aws import MiniStack
    from support.services.mariadb import MariaDB
    from support.services.postgres import Postgres
    from support.services.redis_server import RedisCluster, RedisServer

#: Who gets the rights on the pages, and the password there.
USER = "pypicloud"
PASSWORD = "secret"


@contextlib.contextmanager
def started(**settings: str) -> Iterator[Callable[..., ICache]]:
    """A server's cache, made as at its start; a key is spelled with ``__`` for the dot."""
    spelled = {key.replace("__", "."): value for key, value in settings.items()}
    storage = "pypicloud.testing.storage:MemoryStorage"
    make = get_cache_impl(EnvironSettings({"pypi.storage": storage, **spelled}, env={}))
    assert isinstance(make, functools.partial)
    with contextlib.ExitStack() as stack:
        for value in make.keywords.values():
            if hasattr(value, "close"):
                stack.callback(value.close)
        yield make


def live(make: Callable[..., ICache]) -> None:
    """All that a server does with its cache: pages, uploads, deletions, searches, rebuilds, locks, notes."""
    cache = make(None)
    cache.reload_if_needed()
    one, two, other = package("foo", "1.0"), package("foo", "2.0"), package("bar", "1.0")
    with cache.lock(one.filename):
        cache.save_all([one, two, other])
    assert cache.fetch(one.filename) == one
    assert [found.version for found in cache.all("foo")] == ["2.0", "1.0"]
    assert cache.distinct() == ["bar", "foo"]
    assert [row["name"] for row in cache.summary()] == ["bar", "foo"]
    assert [found.name for found in cache.search({"name": ["FO"]}, "and")] == ["foo"]
    assert None not in cache.revisions([None, "foo", "nothing"]).values()
    put(cache, two)
    rebuilt = cache.rebuild()
    assert (rebuilt.unchanged + rebuilt.changed, rebuilt.removed) == (1, 2)
    cache.clear_many(cache.all("foo"))
    assert cache.is_empty()
    assert cache.check_health() == (True, "")


def test_postgresql(postgres: Postgres) -> None:
    """The user of the PostgreSQL page can do all that a server does: as owner, and with rights to the tables alone."""
    for statement in statements(marked("rights: postgresql")):
        postgres.execute(sql.SQL(statement).format())
    with started(db__url=f"postgresql://{USER}:{PASSWORD}@{LOOPBACK}:{postgres.port}/{USER}") as make:
        live(make)
    somebody_elses = postgres.database()
    name = somebody_elses.rpartition("/")[2]
    with started(db__url=somebody_elses):
        (statement,) = statements(marked("rights: postgresql reader"))
        postgres.execute(sql.SQL(statement).format(), name)
    with started(db__url=f"postgresql://{USER}:{PASSWORD}@{LOOPBACK}:{postgres.port}/{name}") as make:
        live(make)


def statements(block: str) -> list[LiteralString]:
    """The SQL statements of a block, which are as good as spelled out here."""
    return [statement.strip() for statement in block.split(";") if statement.strip()]


def test_mariadb(mariadb: MariaDB) -> None:
    """The user of the MariaDB page can do all that a server does: with all rights at first, and then with fewer."""
    for rights in ("rights: mariadb", "rights: mariadb afterwards"):
        for statement in statements(marked(rights)):
            mariadb.execute(statement)
        with started(db__url=f"mysql://{USER}:{PASSWORD}@{LOOPBACK}:{mariadb.port}/{USER}") as make:
            live(make)


def test_dynamodb(ministack: MiniStack) -> None:
    """An IAM user with the policy of the DynamoDB page, and no other right, can do all that a server does."""
    account = ministack.access_key()
    policy = marked("rights: dynamodb").replace("eu-west-1:123456789012", f"{REGION}:{account}")
    iam = boto3.client(
        "iam", REGION, endpoint_url=ministack.url, aws_access_key_id=account, aws_secret_access_key="test"
    )
    iam.create_user(UserName=USER)
    iam.put_user_policy(UserName=USER, PolicyName="cache", PolicyDocument=policy)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    iam.close()
    where = {"db__host": LOOPBACK, "db__port": str(ministack.port), "db__region_name": REGION}
    who = {"db__aws_access_key_id": key["AccessKeyId"], "db__aws_secret_access_key": key["SecretAccessKey"]}
    with started(pypi__db="dynamo", db__namespace="pypicloud-", **where, **who) as make:
        live(make)


def test_redis(redis: RedisServer) -> None:
    """A Redis user with the rights of the Redis page, and no other, can do all that a server does."""
    with as_redis_user(redis, marked("rights: redis")):
        number = redis.database().rpartition("/")[2]
        with started(pypi__db="redis", db__url=f"redis://{USER}:{PASSWORD}@{LOOPBACK}:{redis.port}/{number}") as make:
            live(make)


def test_redis_cluster(redis_cluster: RedisCluster) -> None:
    """A user of every node with the rights of the Redis Cluster page, and no other, can do all that a server does."""
    redis_cluster.flush()
    with contextlib.ExitStack() as stack:
        for node in redis_cluster.nodes:
            stack.enter_context(as_redis_user(node, marked("rights: redis cluster")))
        url = f"redis://{USER}:{PASSWORD}@{LOOPBACK}:{redis_cluster.nodes[0].port}"
        with started(pypi__db="redis", db__clustered="true", db__url=url) as make:
            live(make)


@contextlib.contextmanager
def as_redis_user(server: RedisServer, line: str) -> Iterator[None]:
    """The user that a line of an ACL file is about exists until the end of the block."""
    _, name, *rules = line.split()
    assert name == USER
    with server.connect() as client:
        client.execute_command("ACL", "SETUSER", name, *rules)
        # As on a server that was started just now: the scripts have to be sent, too.
        client.script_flush()
        try:
            yield
        finally:
            client.execute_command("ACL", "DELUSER", name)
