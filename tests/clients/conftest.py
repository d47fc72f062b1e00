"""A server that runs for all the tests of a process, and a user's machine for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live import Installation, Server, install, serving, write_config
from support.recorder import Recorder, recording
from support.tools import Tools


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The installation under test."""
    return install(tmp_path_factory.mktemp("installation"))


@pytest.fixture(scope="session")
def server(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server; tests keep out of each other's way by the names of their projects.

    Nobody may overwrite a file here, so what is published never changes.
    """
    config = write_config(tmp_path_factory.mktemp("server"), pypi__allow_overwrite_groups=None)
    with serving(installation, config) as running:
        yield running


@pytest.fixture
def recorder(server: Server) -> Iterator[Recorder]:
    """The server, seen through a proxy that writes down every request."""
    with recording(server.port) as proxy:
        yield proxy


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """The clients on a machine where nothing was ever configured or cached."""
    return Tools(tmp_path / "home")


@pytest.fixture
def project() -> str:
    """The name of a project that no other test uses, and that no index in the world has."""
    return f"nowhere-{secrets.token_hex(6)}"
