"""ppc-migrate: its arguments, what it prints, and how it ends."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pypicloud.cache import get_cache_impl
from pypicloud.ini import load_ini
from pypicloud.models import Package
from pypicloud.scripts import migrate_packages, progress
from pypicloud.scripts.main import main
from pypicloud.storage.files import FileStorage
from support.directories import configured
from support.moving import MOMENT, contents, fill, put, put_sdist, put_wheel

CONFIG = "[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/{0}\ndb.url = sqlite:///%(here)s/{1}.sqlite\n"


class Files:
    """Two config files, and the storages that they name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.old_file, self.new_file = directory / "old.ini", directory / "new.ini"
        self.old_file.write_text(CONFIG.format("old", "old"))
        self.new_file.write_text(CONFIG.format("new", "new"))
        self.arguments = [str(self.old_file), str(self.new_file)]

    @property
    def old(self) -> FileStorage:
        """The old storage."""
        return configured(self.directory / "old")

    @property
    def new(self) -> FileStorage:
        """The new storage."""
        return configured(self.directory / "new")

    def rebuilt(self) -> str:
        """What a rebuild of the new cache has to do."""
        return str(get_cache_impl(load_ini(str(self.new_file)))(None).rebuild())


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Two files, and nothing stored."""
    return Files(tmp_path)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def test_migrate(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is in the new storage afterwards, and its cache knows it; a second run has nothing to do."""
    fill(files.old)
    assert migrate_packages(files.arguments) == 0
    assert capsys.readouterr() == ("8 copied\n", "")
    assert contents(files.new) == contents(files.old)
    assert files.rebuilt() == "0 added, 0 changed, 0 removed, 8 unchanged, 0 unreadable"
    assert main(["migrate", *files.arguments]) == 0
    assert capsys.readouterr() == ("8 there already\n", "")


def test_nothing_to_move(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A storage with nothing in it is moved at once."""
    (files.directory / "old").mkdir()
    assert migrate_packages(files.arguments) == 0
    assert capsys.readouterr() == ("nothing to move\n", "")


def test_an_old_storage_that_does_not_exist(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip in the old file is an error; nothing is made for it, and nothing counts as moved."""
    assert migrate_packages(files.arguments) == 1
    assert "does not exist; look for a slip" in capsys.readouterr().err
    assert not (files.directory / "old").exists()


def test_what_could_not_be_moved(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file that could not be moved has a line with the reason, and the status is 1; --overwrite moves one more."""
    put_wheel(files.old, "1.0")
    put_wheel(files.old, "1.1", hash_sha256="0" * 64)
    put_sdist(files.old, "1.0")
    put(files.new, Package("acme", "1.0", "acme-1.0.tar.gz", MOMENT), b"other")
    assert migrate_packages(files.arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == "1 copied, 1 different, 1 damaged\n"
    assert sorted(line.partition(":")[0] for line in printed.err.splitlines()) == [
        "acme-1.0.tar.gz",
        "acme-1.1-py3-none-any.whl",
    ]
    assert migrate_packages([*files.arguments, "--overwrite"]) == 1
    assert capsys.readouterr().out == "1 replaced, 1 there already, 1 damaged\n"


def test_what_could_not_be_listed(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that the old storage could not list is not there afterwards, so the status is 1."""
    put_wheel(files.old, "1.0")
    (files.directory / "old" / "acme-2.0.tar.gz").write_bytes(b"x")
    assert migrate_packages(files.arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == "1 copied\n"
    assert printed.err.endswith("1 could not be read when the old storage was listed\n")


def test_dry_run(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says what would be done, and stores nothing, in the cache neither."""
    fill(files.old)
    assert migrate_packages([*files.arguments, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "8 to copy\n"
    assert f"storage.dir = {files.directory / 'new'} does not exist yet" in printed.err
    assert not (files.directory / "new").exists()
    assert not (files.directory / "new.sqlite").exists()


@pytest.mark.parametrize("command", ["ppc-migrate", "pypicloud migrate"])
def test_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Both names of the command say what a second run gives back."""
    with pytest.raises(SystemExit):
        migrate_packages(["--help"]) if command == "ppc-migrate" else main(["migrate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "A second run gives NEW what it lacks" in said
    assert "is yanked again" in said


def test_one_storage(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Two files that name the same storage are wrong usage."""
    files.new_file.write_text(CONFIG.format("old", "new"))
    assert migrate_packages(files.arguments) == 2
    assert "name the same storage" in capsys.readouterr().err


def test_one_cache(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A cache that both files name still serves the old storage; it is left alone, and that is said."""
    files.new_file.write_text(CONFIG.format("new", "old") + "db.pool_recycle = 60\n")
    fill(files.old)
    assert migrate_packages(files.arguments) == 0
    copied, said = capsys.readouterr().out.splitlines()
    assert copied == "8 copied"
    assert said.startswith("Both files name one cache")
    assert files.rebuilt() == "8 added, 0 changed, 0 removed, 0 unchanged, 0 unreadable"


def test_sections_and_variables(files: Files) -> None:
    """Files may name another section, and leave values to the command line, as pserve has it."""
    for path in (files.old_file, files.new_file):
        path.write_text(path.read_text().replace("[app:main]", "[app:index]").replace("%(here)s", "%(base)s"))
    put_wheel(files.old, "1.0")
    assert migrate_packages([*(f"{path}#index" for path in files.arguments), f"base={files.directory}"]) == 0
    assert contents(files.new) == contents(files.old)


@pytest.mark.parametrize("words", [[], ["one.ini"], ["a", "b", "--workers", "0"], ["a", "b", "--workers", "x"]])
def test_wrong_usage(words: list[str]) -> None:
    """Missing files and impossible numbers are wrong usage."""
    with pytest.raises(SystemExit) as caught:
        migrate_packages(words)
    assert caught.value.code == 2


def test_bad_settings(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that cannot be used is told in one line; nothing is moved."""
    files.new_file.write_text("[app:main]\nuse = egg:pypicloud\ndb.url = sqlite://\n")
    assert migrate_packages(files.arguments) == 1
    assert capsys.readouterr().err.startswith("ppc-migrate: storage.dir")


def test_an_old_file_of_an_old_server(files: Files) -> None:
    """Of the old file only the storage counts; whatever else stands there may be out of date."""
    with files.old_file.open("a") as file:
        file.write("pypi.fallback = nonsense\npypi.auth = gone.away\n")
    put_wheel(files.old, "1.0")
    assert migrate_packages(files.arguments) == 0


def test_progress(files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal a plain line says now and then how far it is, how fast it goes, and when it will be done."""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    fill(files.old)
    assert migrate_packages(files.arguments) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("8 of 8 files, ")
    assert "files/s" in last
    assert last.endswith("0:00:00 left")


def test_progress_on_a_terminal(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the line is alive, and problems are told above it."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    put_wheel(files.old, "1.0", hash_sha256="0" * 64)
    assert migrate_packages(files.arguments) == 1
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "1 of 1 files" in shown, shown
    assert "acme-1.0-py3-none-any.whl: the sha256" in terminal.getvalue()


def put_many(directory: Path) -> None:
    """Store 150 files; quickly, as nobody has to find them on the disk after a crash."""
    for number in range(150):
        path = directory / "acme" / f"1.{number}" / f"acme-1.{number}.tar.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(f"{number}".encode())


def _process(files: Files, *, workers: int = 2) -> subprocess.Popen[str]:
    """The command in a process of its own, which has begun to move files."""
    code = "import sys; from pypicloud.scripts import migrate_packages; sys.exit(migrate_packages())"
    command = [sys.executable, "-c", code, *files.arguments, "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (files.directory / "new" / "acme").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    return process


def test_ctrl_c(files: Files) -> None:
    """Ctrl-C ends the command with the shell's status for it, and a word on what was done and how to go on."""
    put_many(files.directory / "old")
    process = _process(files)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("Stopped: ")
    assert "The same command does the rest." in err
    assert migrate_packages(files.arguments) == 0
    assert contents(files.new) == contents(files.old)


def test_killed(files: Files) -> None:
    """A command that is killed leaves nothing half behind, and the next one does the rest."""
    put_many(files.directory / "old")
    process = _process(files, workers=8)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    expected = contents(files.old)
    arrived = contents(files.new)
    assert arrived.items() <= expected.items()
    assert len(arrived) < 150
    assert migrate_packages(files.arguments) == 0
    assert contents(files.new) == expected
    assert files.rebuilt() == "0 added, 0 changed, 0 removed, 150 unchanged, 0 unreadable"
