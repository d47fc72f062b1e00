"""Fleets: servers that share a cache."""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest

from support.live import Installation, install


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The installation under test."""
    return install(tmp_path_factory.mktemp("installation"))


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers whose coverage is not measured are quicker, and what is killed would tell nothing about it anyway.

    The clients in this process run next to nothing of the package, and are as quick as the servers without it.
    """
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    measuring = coverage.Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()
