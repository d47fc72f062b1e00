"""What 1.3.12 stored and answered, and this server in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compat.successor import FIXTURE, Successor, restore


@pytest.fixture(scope="session")
def old() -> dict[str, Any]:
    """What 1.3.12 answered; ``make_fixtures.py`` says how it was asked."""
    answers: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text("utf-8"))
    return answers


@pytest.fixture(scope="module", params=["with the cache of 1.3.12", "with a new cache"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, old: dict[str, Any]) -> Successor:
    """This server on a copy of what 1.3.12 left; for questions that change nothing."""
    directory = tmp_path_factory.mktemp("served") / "v1_3_12"
    restore(directory, old)
    if request.param == "with a new cache":
        (directory / "db.sqlite").unlink()
    return Successor(directory, old["passwords"])


@pytest.fixture
def successor(tmp_path: Path, old: dict[str, Any]) -> Successor:
    """This server on a copy of its own of what 1.3.12 left."""
    restore(tmp_path / "v1_3_12", old)
    return Successor(tmp_path / "v1_3_12", old["passwords"])


@pytest.fixture(scope="module")
def empty_successor(tmp_path_factory: pytest.TempPathFactory, old: dict[str, Any]) -> Successor:
    """This server with the ini file that 1.3.12 had, and at first nothing else."""
    directory = tmp_path_factory.mktemp("empty")
    (directory / "server.ini").write_bytes((FIXTURE / "server.ini").read_bytes())
    return Successor(directory, old["passwords"])
