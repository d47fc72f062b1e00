"""The contract that every cache keeps, and a cache in memory that keeps it.

A test file for a cache is a subclass of :class:`CacheContract` with the settings, a raw look into the
database, and what is peculiar to that cache::

    class TestMyCache(CacheContract):
        cache_class = MyCache

        @pytest.fixture
        def settings(self, tmp_path: Path) -> dict[str, str]:
            return {"db.url": f"my://{tmp_path}"}

        @pytest.fixture
        def witness(self, settings: dict[str, str]) -> Witness:
            return lambda: {row["filename"]: row for row in look_into(settings["db.url"])}
"""

from __future__ import annotations

from pypicloud.testing.cache_facts import FactsContract
from pypicloud.testing.cache_fixtures import (
    NOW,
    Interrupted,
    Witness,
    everything,
    facts,
    package,
    put,
    request_of,
    stored,
    until,
)
from pypicloud.testing.cache_rebuild import RebuildContract
from pypicloud.testing.cache_search import SearchContract
from pypicloud.testing.cache_together import TogetherContract
from pypicloud.testing.cache_uploads import UploadContract
from pypicloud.testing.memory_cache import MemoryCache

__all__ = [
    "NOW",
    "CacheContract",
    "Interrupted",
    "MemoryCache",
    "Witness",
    "everything",
    "facts",
    "package",
    "put",
    "request_of",
    "stored",
    "until",
]


class CacheContract(FactsContract, SearchContract, UploadContract, RebuildContract, TogetherContract):
    """What every cache promises.

    ``limits`` names what a cache honestly cannot do (:class:`~pypicloud.testing.cache_fixtures.CacheFixtures`).
    """
