"""The cache in memory, under the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pypicloud.testing.cache import CacheContract, MemoryCache, Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.cache.base import ICache


class TestMemoryCache(CacheContract):
    cache_class = MemoryCache
    limits = frozenset({"servers"})

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {}

    @pytest.fixture
    def witness(self, server: Callable[..., ICache]) -> Witness:
        cache = server()
        assert isinstance(cache, MemoryCache)
        return lambda: {filename: vars(package) for filename, package in cache.rows.packages.items()}

    def test_memory_is_local(self, cache: ICache) -> None:
        """The event loop may ask a cache in memory."""
        assert cache.is_local
