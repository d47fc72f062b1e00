"""pypicloud yank."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pypicloud.cache import SQLCache
from pypicloud.scripts.main import main
from pypicloud.storage.files import FileStorage

CONFIG = "[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/packages\ndb.url = sqlite:///%(here)s/db.sqlite\n"


@pytest.fixture
def config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A file for a server that knows two versions of a project, one of two files."""
    for version, ending in (("1.0", ".zip"), ("1.0", ".tar.gz"), ("2.0", ".zip")):
        folder = tmp_path / "packages" / "my-pkg" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"my-pkg-{version}{ending}").write_bytes(b"bytes")
    path = tmp_path / "server.ini"
    path.write_text(CONFIG)
    assert main(["rebuild", str(path)]) == 0
    capsys.readouterr()
    return path


def facts(config: Path, filename: str, version: str = "1.0") -> dict[str, object]:
    """The facts that are stored with a file."""
    path = config.parent / "packages" / "my-pkg" / version / f"{filename}.meta"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def test_yank_and_undo(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what each file is then; the same again says the same, and a rebuild finds nothing to do."""
    for _ in range(2):
        assert main(["yank", str(config), "My_Pkg", "1", "--reason", "it eats files"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "my-pkg-1.0.zip: yanked: it eats files",
            "my-pkg-1.0.tar.gz: yanked: it eats files",
        ]
    assert facts(config, "my-pkg-1.0.zip")["yanked"] == "it eats files"
    assert main(["rebuild", str(config)]) == 0
    assert capsys.readouterr().out == "0 added, 0 changed, 0 removed, 3 unchanged, 0 unreadable\n"
    assert main(["yank", str(config), "my-pkg", "1.0", "--undo"]) == 0
    assert capsys.readouterr().out == "my-pkg-1.0.zip: not yanked\nmy-pkg-1.0.tar.gz: not yanked\n"
    assert "yanked" not in facts(config, "my-pkg-1.0.zip")


def test_some_files(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --file only those files are yanked; without a reason that is all there is to say."""
    assert main(["yank", str(config), "my-pkg", "1.0", "--file", "my-pkg-1.0.zip", "--file", "my-pkg-1.0.zip"]) == 0
    assert capsys.readouterr().out == "my-pkg-1.0.zip: yanked\n"
    assert facts(config, "my-pkg-1.0.zip")["yanked"] is True
    assert "yanked" not in facts(config, "my-pkg-1.0.tar.gz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["my-pkg", "3.0"], "project 'my-pkg' has nothing of the name or version '3.0'"),
        (["other", "1.0"], "project 'other' has nothing of the name or version '1.0'"),
        (
            ["my-pkg", "1.0", "--file", "my-pkg-1.0.zip", "--file", "my-pkg-2.0.zip"],
            "my-pkg 1.0 has no file 'my-pkg-2.0.zip', but my-pkg-1.0.zip, my-pkg-1.0.tar.gz",
        ),
    ],
)
def test_what_is_not_there(config: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A version or a file that is not there is one line and exit status 1, and nothing is yanked."""
    assert main(["yank", str(config), *words]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"pypicloud: {message}\n")
    assert "yanked" not in facts(config, "my-pkg-1.0.zip")


@pytest.mark.parametrize(
    "words",
    [
        ["my-pkg"],
        ["my-pkg", "1.0", "--reason", "two\nlines"],
        ["my-pkg", "1.0", "--reason", "x" * 501],
        ["my-pkg", "1.0", "--undo", "--reason", "x"],
    ],
)
def test_wrong_usage(config: Path, words: list[str]) -> None:
    """A missing argument, a reason that is none, and a reason with --undo are wrong usage."""
    with pytest.raises(SystemExit) as caught:
        main(["yank", str(config), *words])
    assert caught.value.code == 2
    assert "yanked" not in facts(config, "my-pkg-1.0.zip")


def test_options_anywhere(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options may stand before and after the arguments, and variables of the file after its name."""
    config.write_text(CONFIG.replace("%(here)s/packages", "%(WHERE)s/packages"))
    words = ["yank", "--reason", "x", str(config), f"WHERE={config.parent}", "my-pkg", "2", "--file", "my-pkg-2.0.zip"]
    assert main(words) == 0
    assert capsys.readouterr().out == "my-pkg-2.0.zip: yanked: x\n"


def test_a_failure(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure is one line and exit status 1; with --traceback it comes through."""

    def fail(*_: object) -> None:
        raise OSError("x")

    monkeypatch.setattr(FileStorage, "update_metadata", fail)
    words = ["yank", str(config), "my-pkg", "1.0"]
    assert main(words) == 1
    assert capsys.readouterr().err == "pypicloud: OSError: x\n"
    with pytest.raises(OSError, match="x"):
        main([*words, "--traceback"])


def test_a_bad_setting(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is yanked with a setting that would stop the server; what is odd is a warning."""
    monkeypatch.setattr(SQLCache, "save", None)
    config.write_text(f"{CONFIG}pypi.fallback = yes\npypi.fallbak = x\n")
    assert main(["yank", str(config), "my-pkg", "1.0"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: pypi.fallbak is not a setting")
    assert lines[1].startswith("pypicloud: pypi.fallback = 'yes'")


def test_beside_others(config: Path) -> None:
    """Processes that yank the files of a version at the same time all succeed, and storage and cache agree."""
    code = "import sys; from pypicloud.scripts.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "yank", str(config), "my-pkg", "1.0", "--reason"]
    running = [subprocess.Popen([*command, reason], stdout=subprocess.DEVNULL) for reason in ("one", "two", "three")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert facts(config, "my-pkg-1.0.zip")["yanked"] in {"one", "two", "three"}
    rebuilt = subprocess.run(
        [sys.executable, "-c", code, "rebuild", str(config)], check=True, capture_output=True, text=True
    )
    assert rebuilt.stdout == "0 added, 0 changed, 0 removed, 3 unchanged, 0 unreadable\n"
