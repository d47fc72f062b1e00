"""The index that HTTP tests speak to."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.world import Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """A fresh index."""
    return Index(tmp_path)
