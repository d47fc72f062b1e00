"""Saving from many threads: what comes in while one of them writes goes into the next write, all at once."""

from __future__ import annotations

from collections.abc import Sequence

from pypicloud.cache.base import ICache
from pypicloud.models import Package
from pypicloud.together import Together


class Saver:
    """Saves packages in one cache; all threads of a crew share one."""

    def __init__(self, cache: ICache) -> None:
        self._cache = cache
        self._together = Together(self._save_all)

    def save(self, package: Package) -> None:
        """Save a package; it is saved when this returns. Raises what the cache does."""
        # What it cannot keep is not to fail those that are saved along with it.
        self._cache.check_facts(package)
        self._together(package)

    def _save_all(self, packages: Sequence[Package]) -> Sequence[None]:
        self._cache.save_all(packages)
        return [None] * len(packages)
