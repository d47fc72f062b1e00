"""Saving from many threads: what comes in while one of them writes goes into the next write, all at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pypicloud.cache.base import ICache
from pypicloud.models import Package


@dataclass(slots=True, eq=False)
class _Waiting:
    package: Package
    is_done: bool = False
    error: Exception | None = None


class Saver:
    """Saves packages in one cache; all threads of a crew share one."""

    def __init__(self, cache: ICache) -> None:
        self._cache = cache
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._waiting: list[_Waiting] = []

    def save(self, package: Package) -> None:
        """Save a package; it is saved when this returns. Raises what the cache does."""
        # What it cannot keep is not to fail those that are saved along with it.
        self._cache.check_facts(package)
        mine = _Waiting(package)
        with self._guard:
            self._waiting.append(mine)
        with self._turn:
            if not mine.is_done:
                self._save_waiting()
        if mine.error is not None:
            raise mine.error

    def _save_waiting(self) -> None:
        with self._guard:
            batch, self._waiting = self._waiting, []
        error = None
        try:
            self._cache.save_all([each.package for each in batch])
        except Exception as caught:  # noqa: BLE001 - each of those who wait has to know
            error = caught
        for each in batch:
            each.is_done, each.error = True, error
