"""The tour of the source against the source."""

from __future__ import annotations

import re
from pathlib import Path

import pypicloud
from doc_pages import page

PACKAGE = Path(pypicloud.__file__).parent

#: What is there for tools alone.
UNTOLD = {"__pycache__", "py.typed"}


def test_the_tour_shows_the_package() -> None:
    """The tour has a line for each module and folder at the top of the package, and for nothing else."""
    shown = re.search(r"^src/pypicloud/\n((?:  .*\n)+)", page("contribute/tour"), re.MULTILINE)
    assert shown is not None
    on_page = re.findall(r"^  (\S+) +\S", shown[1], re.MULTILINE)
    there = [f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir() if path.name not in UNTOLD]
    assert sorted(on_page) == sorted(there)
