"""pypicloud backfill: its arguments, what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from pypicloud.backfill import Backfill
from pypicloud.models import Package
from pypicloud.scripts import progress
from pypicloud.scripts.main import main
from support.directories import configured
from support.moving import MOMENT, contents, put, put_wheel

CONFIG = "[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/packages\ndb.url = sqlite:///%(here)s/db.sqlite\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file of a server that 1.3.12 has left behind with three wheels, of which one has everything."""
    storage = configured(tmp_path / "packages")
    put_wheel(storage, "1.0")
    put_wheel(storage, "1.1", new=False)
    put_wheel(storage, "1.2", new=False, hash_sha256="", hash_md5="")
    path = tmp_path / "server.ini"
    path.write_text(CONFIG)
    return path


def test_backfill(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is added once, and the cache agrees with the storage afterwards."""
    assert main(["backfill", str(config)]) == 0
    assert capsys.readouterr() == ("2 completed\n", "")
    found = contents(configured(config.parent / "packages"))
    assert all(facts["core_metadata"] for _, _, _, _, facts, _, _ in found.values())
    assert main(["backfill", str(config)]) == 0
    assert capsys.readouterr() == ("nothing to complete\n", "")
    assert main(["rebuild", str(config)]) == 0
    assert capsys.readouterr().out == "0 added, 0 changed, 0 removed, 3 unchanged, 0 unreadable\n"


def test_dry_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says what is missing, and makes no cache."""
    assert main(["backfill", str(config), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("2 to complete: 2 without core metadata, 1 without digests")
    assert not (config.parent / "db.sqlite").exists()


@pytest.mark.parametrize("how", ["option", "setting"])
def test_no_hashes(config: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Digests are not worked out if that is said here, or in the file."""
    options = ["--no-hashes"] if how == "option" else []
    if how == "setting":
        config.write_text(f"{CONFIG}pypi.calculate_package_hashes = false\n")
    assert main(["backfill", str(config), *options]) == 0
    assert capsys.readouterr().out == "2 completed\n"
    packages = configured(config.parent / "packages").list()
    assert sum("hash_sha256" in package.data for package in packages) == 2


def test_wheels_that_tell_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wheel that cannot be read is told of, and is no failure; damaged bytes are."""
    storage = configured(config.parent / "packages")
    put(storage, Package("acme", "3.0", "acme-3.0-py3-none-any.whl", MOMENT), b"no wheel")
    assert main(["backfill", str(config), "--workers", "1", "--rate", "1000"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "2 completed, 1 without metadata that can be read\n"
    assert printed.err.startswith("acme-3.0-py3-none-any.whl: ")
    put(storage, Package("acme", "4.0", "acme-4.0.tar.gz", MOMENT, hash_md5="0" * 32), b"x")
    assert main(["backfill", str(config)]) == 1
    assert "1 damaged" in capsys.readouterr().out


@pytest.mark.parametrize("rate", ["0", "-1", "x", "inf", "nan"])
def test_wrong_rates(config: Path, rate: str) -> None:
    """A rate that is no number above 0 is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["backfill", str(config), f"--rate={rate}"])
    assert caught.value.code == 2


def test_ctrl_c(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the command with the shell's status for it, and a word on how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Backfill, "run", interrupt)
        assert main(["backfill", str(config)]) == 130
    assert capsys.readouterr().err == "Stopped: nothing to complete. The same command does the rest.\n"
    assert main(["backfill", str(config)]) == 0


def test_progress(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal plain lines say how far the listing is, and then the work."""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    assert main(["backfill", str(config)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "3 files so far"
    assert lines[-1].startswith("2 of 2 files, ")
