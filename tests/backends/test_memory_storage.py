"""The storage in memory keeps the contract, so that other tests may stand on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from pypicloud.testing.storage import StorageContract


class TestMemoryStorage(StorageContract):
    limits: ClassVar[frozenset[str]] = frozenset({"unbreakable"})

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        """A dotted path; there is nothing to set."""
        return {"pypi.storage": "pypicloud.testing.storage.MemoryStorage"}

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        """The dictionary."""
        return {"/".join(key): stored.content for key, stored in kwargs["files"].items()}
