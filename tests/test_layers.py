"""The shape of the whole: imports point down, the wheel holds what the source holds, commands exist."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pypicloud"
COMMANDS = [
    *importlib.metadata.distribution("pypicloud").entry_points.select(group="console_scripts"),
    *importlib.metadata.distribution("pypicloud").entry_points.select(group="paste.app_factory"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is tested: the one that was built already, or a new one."""
    if built := os.environ.get("PYPICLOUD_WHEEL"):
        return Path(built)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_imports_point_down() -> None:
    """No module imports one of a higher layer, and the framework stays at the edge."""
    # Apart: in this process it would configure logging anew, and silence the loggers that other tests listen to.
    code = f"from importlinter import cli; raise SystemExit(cli.lint_imports({str(ROOT / 'pyproject.toml')!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_wheel_holds_the_package(wheel: Path) -> None:
    """The wheel has every file of the source package, templates and type marker included, and no other."""
    source = {
        f"pypicloud/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == source
    assert {"pypicloud/py.typed", "pypicloud/templates/error.html"} <= source


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    """The wheel names the Python it needs, its licence, and what egg:pypicloud starts."""
    archive = zipfile.ZipFile(wheel)
    folder = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert "[paste.app_factory]\nmain = pypicloud:main" in archive.read(f"{folder}/entry_points.txt").decode()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_commands_exist(command: importlib.metadata.EntryPoint) -> None:
    """Whatever the package installs as a command or application can be imported and called."""
    assert callable(command.load())
