"""How Sphinx builds these pages; ``make docs`` calls it with warnings as errors."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "PyPICloud"
author = "The PyPICloud team"
project_copyright = "The PyPICloud team"
release = importlib.metadata.version("pypicloud")
version = ".".join(release.split(".")[:2])

extensions = ["myst_parser", "generated"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"PyPICloud {release}"
html_show_sphinx = False
html_copy_source = False
