"""Caches: databases of the facts about the stored packages."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, Final

from pypicloud.cache.base import ICache
from pypicloud.plugins import DB, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.cache.redis_cache import RedisCache
    from pypicloud.cache.sql import SQLCache
    from pypicloud.settings import EnvironSettings

__all__ = ["BACKENDS", "ICache", "RedisCache", "SQLCache", "get_cache_impl"]

#: The short names of the built-in caches.
BACKENDS: Final = {
    "sql": "pypicloud.cache.sql:SQLCache",
    "redis": "pypicloud.cache.redis_cache:RedisCache",
    "dynamo": "pypicloud.cache.dynamo:DynamoCache",
}


def get_cache_impl(settings: EnvironSettings) -> Callable[..., ICache]:
    """The configured cache: called with a request, or None, it gives the cache for that request."""
    cache = resolve(DB, settings, BACKENDS, ICache)
    return functools.partial(cache, **cache.configure(settings))


def __getattr__(name: str) -> Any:
    """The documented classes, whose libraries are imported when they are asked for (compat.md 8.1)."""
    for target in BACKENDS.values():
        module, _, class_name = target.partition(":")
        if class_name == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
