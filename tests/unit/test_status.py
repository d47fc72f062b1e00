"""How far a rebuild is, as servers with other clocks and strangers leave it."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial

import pytest

from pypicloud.cache import status
from pypicloud.cache.base import ICache
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.dateutil import utcnow
from pypicloud.testing.cache import until
from pypicloud.testing.storage import MemoryStorage


def cache_with(note: str) -> ICache:
    """A cache whose note about the last rebuild is this."""
    cache = ICache()
    # What a cache of its own is told from others by.
    cache.make_storage = partial(MemoryStorage)
    cache.write_note(status.REBUILD, note)
    return cache


@pytest.mark.parametrize(
    "note", ["", "{", "[]", '{"state": 1}', '{"state": "running", "updated": "2020-01-01T00:00:00"}']
)
def test_a_note_of_no_use_counts_as_none(note: str, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read is logged, and stops neither the question nor the next rebuild."""
    assert status.read(cache_with(note)) == status.Status("never")
    assert "of no use" in caplog.text


@pytest.mark.parametrize(
    ("minutes", "state"), [(0, "running"), (-1, "running"), (-3, "interrupted"), (1, "running"), (3, "interrupted")]
)
def test_a_rebuild_without_a_sign_of_life_was_broken_off(minutes: int, state: str) -> None:
    """Neither a server that was killed nor one whose clock is fast keeps the others from rebuilding."""
    updated = (utcnow() + timedelta(minutes=minutes)).isoformat()
    cache = cache_with(f'{{"state": "running", "updated": "{updated}"}}')
    assert status.read(cache).state == state


def test_a_slow_rebuild_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a storage takes long for one file, the note is renewed; after the end it is left alone."""
    monkeypatch.setattr(status, "BEAT", 0.001)
    cache = cache_with("")
    with status.reported(cache, None) as report:
        first = status.read(cache).updated
        until(lambda: status.read(cache).updated != first)
        report.done(Rebuilt(added=1))
    last = status.read(cache)
    assert last.state == "done"
    time.sleep(0.01)
    assert status.read(cache) == last
