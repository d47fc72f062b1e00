"""The pages of the documentation as the tests read them: text, tables, examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from generated import fill

ROOT: Final = Path(__file__).parent.parent.parent
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE: Final = re.compile(r"^(?:% (?P<mark>[^\n]+)\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW: Final = re.compile(r"^\|(.*)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of code on a page; ``mark`` is what the page says about it in a comment right above."""

    page: str
    line: int
    kind: str
    text: str
    mark: str | None

    @property
    def runs(self) -> bool:
        """Whether the page says that it can be run."""
        return self.mark == "runs"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def examples(kind: str) -> list[Example]:
    """All code blocks of a kind, on all pages."""
    return [example for path in PAGES for example in _examples(path) if example.kind == kind]


def marked(mark: str) -> str:
    """The text of the one code block that a page marks so."""
    (text,) = (example.text for path in PAGES for example in _examples(path) if example.mark == mark)
    return text


def _examples(path: Path) -> Iterator[Example]:
    text = path.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Example(str(path.relative_to(ROOT)), line, match["kind"], match["text"], match["mark"])


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of a page; heads and the rules below them are left out."""
    found = [[cell.strip() for cell in match[1].split(" | ")] for match in _ROW.finditer(text)]
    following = [*found[1:], []]
    return [row for row, after in zip(found, following, strict=True) if not (_is_rule(row) or _is_rule(after))]


def _is_rule(row: list[str]) -> bool:
    return bool(row) and not set("".join(row)) - set("-| ")


def page(name: str) -> str:
    """The text of a page by its name (``reference/settings``), with what is generated filled in."""
    return fill((ROOT / "docs" / f"{name}.md").read_text())
