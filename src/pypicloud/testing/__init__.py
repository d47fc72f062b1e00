"""For tests, ours and those of plug-in authors: contracts that every backend must keep, and backends in memory.

The names are imported when they are asked for: the contracts need pytest, the backends in memory do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pypicloud.testing.access import AccessContract, MemoryAccess
    from pypicloud.testing.cache import CacheContract
    from pypicloud.testing.memory_cache import MemoryCache
    from pypicloud.testing.memory_storage import MemoryStorage
    from pypicloud.testing.storage import StorageContract

__all__ = ["AccessContract", "CacheContract", "MemoryAccess", "MemoryCache", "MemoryStorage", "StorageContract"]

_MODULES: Final = {
    "AccessContract": "access",
    "CacheContract": "cache",
    "MemoryAccess": "access",
    "MemoryCache": "memory_cache",
    "MemoryStorage": "memory_storage",
    "StorageContract": "storage",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
