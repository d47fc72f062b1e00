"""The examples in the documentation: config files are sound, marked ones run, targets exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from doc_pages import PAGES, ROOT, Example, examples
from pypicloud.cache import BACKENDS
from pypicloud.declared import check
from pypicloud.ini import load_ini

CONFIG_FILES = [example for example in examples("ini") if "[app:main]" in example.text]
PYTHON = [example for example in examples("python") if example.runs]
CONSOLE = [example for example in examples("console") if example.runs]


@pytest.mark.parametrize("example", CONFIG_FILES, ids=str)
def test_config_files(example: Example, tmp_path: Path) -> None:
    """`pypicloud check-config` finds nothing in a config file of the pages, but a plug-in that is nowhere."""
    file = tmp_path / "server.ini"
    file.write_text(example.text)
    odd, wrong = check(load_ini(str(file)))
    assert odd == []
    assert [error for error in wrong if "acme_index" not in str(error)] == []


def test_cache_examples() -> None:
    """Every built-in cache has a page with a config file for it."""
    named = [re.findall(r"^pypi\.db = (\w+)$", example.text, re.MULTILINE) for example in CONFIG_FILES]
    assert {name for names in named for name in names} == BACKENDS.keys()


def test_examples_are_found() -> None:
    """The pages have examples of every kind that is tested here."""
    assert len(CONFIG_FILES) >= 5
    assert len(PYTHON) >= 2
    assert CONSOLE


@pytest.mark.parametrize("example", PYTHON, ids=str)
def test_python(example: Example) -> None:
    """Python that is marked as running runs, and what it asserts is true."""
    exec(compile(example.text, str(example), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("example", CONSOLE, ids=str)
def test_console(example: Example, tmp_path: Path) -> None:
    """Commands that are marked as running print what the page shows."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shown = re.split(r"^\$ (.*)\n", example.text, flags=re.MULTILINE)[1:]
    for command, output in zip(shown[::2], shown[1::2], strict=True):
        printed = subprocess.check_output(command, shell=True, cwd=tmp_path, env=environment, text=True)
        assert printed == output


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets(path: Path) -> None:
    """Every `make` target that a page names can be made."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^\$ |`)make ([a-z]+)", path.read_text(), re.MULTILINE)) <= targets


def test_readme_links() -> None:
    """Every file that the README links to is there."""
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
