"""What holds for every test, and the services that any test can ask for.

A service is started by the first test that asks for it, once in each worker of pytest-xdist. It is shared: a test
that stops, kills or pauses one starts its own.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.caches import CacheWorld
    from support.services.aws import MiniStack, Moto
    from support.services.azurite import Azurite
    from support.services.gcs import GCS
    from support.services.mariadb import MariaDB
    from support.services.postgres import Postgres
    from support.services.radosgw import RadosGW
    from support.services.redis_server import RedisCluster, RedisServer

# Applications made by tests have no end at which they would close their files, and there are many.
files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
if files < most_files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))


def pytest_collection_finish() -> None:
    """Let the collector of garbage look neither at the tests again and again, nor every moment at what they make.

    A test process holds many times the objects of a server, and spent a fifth of its time in looking at them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


# The contracts are part of the package, and their failures must be as readable as those of the tests.
pytest.register_assert_rewrite("pypicloud.testing", "support")


@pytest.fixture(scope="session", autouse=True)
def _no_cloud() -> Iterator[None]:
    """What the developer has of a cloud's credentials and settings is no business of tests, nor of their servers."""
    clouds = ("AWS_", "AZURE_", "GOOGLE_", "GCE_", "GCLOUD_", "CLOUDSDK_", "IDENTITY_", "MSI_", "STORAGE_EMULATOR_")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(clouds)]:
            patch.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("CLOUDSDK_CONFIG", os.devnull)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    from support.services.postgres import Postgres

    with Postgres() as service:
        yield service


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server."""
    from support.services.mariadb import MariaDB

    with MariaDB() as service:
        yield service


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis server."""
    from support.services.redis_server import RedisServer

    with RedisServer() as service:
        yield service


@pytest.fixture(scope="session")
def redis_tls() -> Iterator[RedisServer]:
    """A Redis server that speaks TLS and wants a user's name and password."""
    from support.services.redis_server import RedisServer

    with RedisServer(secure=True) as service:
        yield service


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A Redis Cluster of three nodes."""
    from support.services.redis_server import RedisCluster

    with RedisCluster() as service:
        yield service


@pytest.fixture
def cache_world(request: pytest.FixtureRequest, tmp_path: Path) -> CacheWorld:
    """An empty cache of the kind that the test is parametrized with (``support.caches.CACHES``)."""
    from support.caches import shared_world

    return shared_world(request.param, request, tmp_path)


@pytest.fixture
def own_cache_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheWorld]:
    """The same on a service of the test's own, which it may stop, kill and pause."""
    from support.caches import own_world

    with own_world(request.param, tmp_path) as world:
        yield world


@pytest.fixture(scope="session")
def ministack() -> Iterator[MiniStack]:
    """Amazon's services, as MiniStack knows them."""
    from support.services.aws import MiniStack

    with MiniStack() as service:
        yield service


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """Amazon's services, as Moto knows them."""
    from support.services.aws import Moto

    with Moto() as service:
        yield service


@pytest.fixture(scope="session")
def radosgw() -> Iterator[RadosGW]:
    """A real server of S3."""
    from support.services.radosgw import RadosGW

    with RadosGW() as service:
        yield service


@pytest.fixture(scope="session")
def gcs() -> Iterator[GCS]:
    """Google Cloud Storage."""
    from support.services.gcs import GCS

    with GCS() as service:
        yield service


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Azure Blob Storage, as Azurite knows it."""
    from support.services.azurite import Azurite

    with Azurite() as service:
        yield service


@pytest.fixture(scope="session")
def azurite_tls() -> Iterator[Azurite]:
    """The same with TLS, where tokens are good, too."""
    from support.services.azurite import Azurite

    with Azurite(secure=True) as service:
        yield service
