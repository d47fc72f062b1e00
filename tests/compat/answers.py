"""What is compared of the answers of 1.3.12 and of this server."""

from __future__ import annotations

import html
import re
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin

Facts = dict[str, Any]

#: A link of a page with its attributes and its text.
ANCHOR: Final = re.compile(r"<a\b([^>]*)>(.*?)</a>", re.DOTALL)
ATTRIBUTE: Final = re.compile(r'([\w-]+)="([^"]*)"')


def links(page: str, base: str = "http://localhost/") -> list[tuple[str, str, str, str | None]]:
    """The links of a page: text, absolute address without fragment, fragment, required Python."""
    rows = []
    for attributes, text in ANCHOR.findall(page):
        values = {name: html.unescape(value) for name, value in ATTRIBUTE.findall(attributes)}
        address, fragment = urldefrag(urljoin(base, values["href"]))
        rows.append((html.unescape(text), unquote(address), fragment, values.get("data-requires-python")))
    return rows


def by_filename(packages: list[Facts]) -> dict[str, Facts]:
    """Packages by file name; the order within one version is nobody's promise (compat.md 3.1)."""
    return {package["filename"]: package for package in packages}


def contains(now: Facts, then: Facts) -> bool:
    """Whether every key has the value it had; an empty text says nothing and may be filled."""
    return all(now[key] == value or value == "" for key, value in then.items())


def newest_summary(old: Facts, name: str) -> str | None:
    """The summary of a project's newest version, which the API of 1.3.12 has first."""
    summary: str | None = old["projects"][name]["api"]["packages"][0]["summary"]
    return summary
