"""Fleets: servers that share a cache."""

from __future__ import annotations

import pytest

from support.live import Installation, install


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The installation under test."""
    return install(tmp_path_factory.mktemp("installation"))


@pytest.fixture(autouse=True)
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers whose coverage is not measured are quicker, and what is killed would tell nothing about it anyway."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
