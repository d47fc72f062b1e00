"""The pypicloud command, and its rebuild."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pypicloud import __version__, scripts
from pypicloud.cache import SQLCache
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.errors import BackendUnavailable
from pypicloud.scripts import progress
from pypicloud.scripts.failures import told
from pypicloud.scripts.main import COMMANDS, main

CONFIG = "[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/packages\ndb.url = sqlite:///%(here)s/db.sqlite\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file for a server that has stored two packages and knows none."""
    for version in ("1.0", "2.0"):
        folder = tmp_path / "packages" / "pkg" / version
        folder.mkdir(parents=True)
        (folder / f"pkg-{version}.tar.gz").write_bytes(b"bytes")
    path = tmp_path / "server.ini"
    path.write_text(CONFIG)
    return path


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_the_documented_names_are_functions() -> None:
    """Each name documented for pypicloud.scripts is a function, not the module of the same name."""
    names = ["bucket_validate", "gen_password", "make_config", "migrate_packages", "prompt", "prompt_option"]
    names += ["promptyn", "storage_account_name_validate", "wrapped_input"]
    assert set(names) == set(scripts.__all__)
    assert all(callable(getattr(scripts, name)) for name in names)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every subcommand, exit status 0."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^ +{name}\b", printed, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each subcommand describes its arguments."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "config" in capsys.readouterr().out.lower()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version says which this is."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pypicloud {__version__}\n"


@pytest.mark.parametrize("words", [[], ["nonsense"], ["rebuild"], ["check-config", "x", "--nonsense"]])
def test_wrong_usage(words: list[str]) -> None:
    """A missing or unknown command, argument or option is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_help_imports_no_backend() -> None:
    """The commands' help needs neither the framework nor a database nor a server."""
    code = (
        "import sys\n"
        "from pypicloud.scripts.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pyramid', 'sqlalchemy', 'granian', 'rich', 'jinja2', 'passlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a command with the shell's status for it."""

    @told("name")
    def command(_: object) -> int:
        raise KeyboardInterrupt

    assert command([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_has_enough(config: Path) -> None:
    """When the reader of the output goes away there is no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from pypicloud.scripts.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "check-config", str(config)], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 1


def test_rebuild(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rebuild says what it did, and the next one finds nothing to do."""
    assert main(["rebuild", str(config)]) == 0
    assert capsys.readouterr().out == "2 added, 0 changed, 0 removed, 0 unchanged, 0 unreadable\n"
    (config.parent / "packages" / "pkg" / "1.0" / "pkg-1.0.tar.gz").unlink()
    assert main(["rebuild", str(config)]) == 0
    assert capsys.readouterr().out == "0 added, 0 changed, 1 removed, 1 unchanged, 0 unreadable\n"


def test_rebuild_with_a_bad_setting(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is rebuilt with a setting that would stop the server; what is odd is a warning."""
    config.write_text(f"{CONFIG}pypi.fallback = yes\npypi.fallbak = x\n")
    assert main(["rebuild", str(config)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: pypi.fallbak is not a setting")
    assert lines[1].startswith("pypicloud: pypi.fallback = 'yes'")
    assert not (config.parent / "db.sqlite").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendUnavailable("the database does not answer"), "the database does not answer"),
        (OSError("x"), "OSError: x"),
    ],
)
def test_rebuild_that_fails(
    error: Exception,
    reason: str,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A failure is one line and exit status 1; with --traceback it is the whole trace."""

    def fail(*_: object, **__: object) -> Rebuilt:
        raise error

    monkeypatch.setattr(SQLCache, "rebuild", fail)
    assert main(["rebuild", str(config)]) == 1
    assert capsys.readouterr().err == f"pypicloud: the rebuild failed: {reason}\n"


def test_rebuild_with_a_trace(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --traceback the failure itself comes through."""

    def fail(*_: object, **__: object) -> Rebuilt:
        raise ZeroDivisionError

    monkeypatch.setattr(SQLCache, "rebuild", fail)
    with pytest.raises(ZeroDivisionError):
        main(["rebuild", str(config), "--traceback"])


def test_progress_without_a_terminal(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a plain line says now and then how far the rebuild is."""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    assert main(["rebuild", str(config)]) == 0
    assert capsys.readouterr().err == "2 files so far\n"


def test_progress_is_not_chatty(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A quick rebuild prints its result only."""
    assert main(["rebuild", str(config)]) == 0
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a live line counts the files."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["rebuild", str(config)]) == 0
    assert "2 files" in terminal.getvalue()
