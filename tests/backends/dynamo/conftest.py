"""A cache in DynamoDB, as the tests of its service, its start and its processes want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

import botocore.endpoint
import pytest

from pypicloud.cache.dynamo import DynamoCache
from support.dynamo import Tables, one_loader, started

if TYPE_CHECKING:
    from support.services.aws import MiniStack


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boto does not wait before it tries again."""
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))


@pytest.fixture
def settings(ministack: MiniStack) -> dict[str, str]:
    """The settings of a cache without tables."""
    return ministack.cache_settings()


@pytest.fixture
def tables(settings: dict[str, str]) -> Iterator[Tables]:
    """A look into its tables."""
    tables = Tables(settings)
    yield tables
    tables.client.close()


@pytest.fixture
def server(settings: dict[str, str]) -> Iterator[Callable[..., DynamoCache]]:
    """A server that has started."""
    with started(settings) as server:
        yield server


@pytest.fixture
def cache(server: Callable[..., DynamoCache]) -> DynamoCache:
    """The cache of a request."""
    return server()
