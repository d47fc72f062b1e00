"""What ``pypicloud serve`` refuses before it serves anything."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypicloud.scripts.main import main
from pypicloud.server import one_line

CONFIG = "[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/packages\ndb.url = sqlite:///%(here)s/db.sqlite\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file that a server would start with."""
    path = tmp_path / "server.ini"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at who would share it, as granian's workers do."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that the command says no with."""
    assert main(["serve", *map(str, words)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_port_is_not_shared(config: Path, taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A second server at one address does not start, rather than take some of the first one's requests."""
    said = refused(capsys, config, "--port", str(taken))
    assert f"localhost:{taken}: Address already in use; choose another" in said


def test_nothing_is_made_for_a_server_that_cannot_listen(
    tmp_path: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data directory, and the password that is shown only once, wait for a start that works."""
    refused(capsys, "--data-dir", tmp_path / "data", "--port", str(taken))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["203.0.113.7", "no host"])
def test_an_address_of_no_use(config: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An address of another machine, and what is no address, are named with the option."""
    said = refused(capsys, config, "--host", host, "--port", "20001")
    assert host in said
    assert "--host" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "0"), ("--port", "65536"), ("--port", "http"), ("--workers", "0"), ("--threads", "-1")],
)
def test_a_number_of_no_use(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no number of the kind is wrong usage, with the value and what it should be."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", f"{option}={value}"])
    assert caught.value.code == 2
    assert f"argument {option}: {value!r} is not a " in capsys.readouterr().err


def test_a_certificate_of_no_use(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing half, a missing file and a file of another kind are each named with their option."""
    assert "give both or neither" in refused(capsys, config, "--tls-cert", config)
    missing = config.with_name("missing.pem")
    assert refused(capsys, config, "--tls-cert", config, "--tls-key", missing).startswith("pypicloud: --tls-key = ")
    assert "PEM" in refused(capsys, config, "--tls-cert", config, "--tls-key", config)


def test_a_client_cannot_write_lines_of_the_log() -> None:
    """A path with line breaks and control characters in it stays on the line of its request."""
    record = logging.LogRecord("granian.access", logging.INFO, "", 0, '"GET %s"', ("/a\nERROR b\x1b[2J\u2028é",), None)
    assert one_line(record)
    assert record.getMessage() == '"GET /a\\nERROR b\\x1b[2J\\u2028é"'
