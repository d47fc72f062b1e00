"""What pages take from elsewhere: the settings and the errors from the source, figures from the benchmarks.

A page asks for it with a line of its own, ``% generated: settings``. The text is made while the pages are
built, so it cannot fall behind.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pypicloud.declared import all_settings, readers
from pypicloud.errors import PypicloudError
from pypicloud.settings import BOOLEAN, FILE_ONLY_PREFIXES, Required, Setting, environment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_REQUEST: Final = re.compile(r"^% generated: (\w+)$", re.MULTILINE)


def anchor(key: str) -> str:
    """The target of a setting's heading: ``pypi.fallback`` -> ``setting-pypi-fallback``."""
    return "setting-" + re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")


def escaped(text: str) -> str:
    """A sentence of the source as the page has it: ``<name>`` and ``*`` mean nothing outside of backticks."""
    return re.sub(r"(`[^`]*`)|([<*\[])", lambda match: match[1] or f"\\{match[2]}", text)


def settings_text() -> str:
    """Every declared setting, in the order and under the titles of the declarations."""
    parts = []
    for title, settings in all_settings():
        parts.append(f"## {title}\n")
        parts += [_setting_text(setting) for setting in settings]
    return "\n".join(parts)


def _setting_text(setting: Setting[Any]) -> str:
    rows = [("type", f"`{setting.kind.name}`"), ("default", _default(setting))]
    if not setting.key.startswith(FILE_ONLY_PREFIXES):
        rows.append(("environment", f"`{environment_name(setting.key)}`"))
    backends = readers(setting.key)
    if len(backends) > 1:
        rows.append(("read by", ", ".join(f"`{name}`" for name in backends)))
    if setting.was:
        rows.append(("older spellings", ", ".join(f"`{key}`" for key in setting.was) + " (still read, with a warning)"))
    if setting.deprecated:
        rows.append(("deprecated", f"use `{setting.deprecated}`"))
    if setting.secret:
        rows.append(("secret", "masked wherever settings are shown"))
    # A bar inside a cell, as in `none | redirect`, would end the cell.
    lines = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows]
    table = "\n".join(["| | |", "| --- | --- |", *lines])
    return f"({anchor(setting.key)})=\n### `{setting.key}`\n\n{escaped(setting.help)}\n\n{table}\n"


def _default(setting: Setting[Any]) -> str:
    value = setting.default
    if isinstance(value, Required):
        return "none: it is required"
    if setting.kind is BOOLEAN and isinstance(value, bool):
        return "`true`" if value else "`false`"
    if value is None or value in ("", ()):
        return "not set"
    if isinstance(value, tuple | list):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value}`"


def errors_text() -> str:
    """Every error that a client may see: status, key, meaning."""
    lines = ["| status | `error` | meaning |", "| --- | --- | --- |"]
    # A setting error stops the start, so no client ever sees it.
    shown = (kind for kind in _family(PypicloudError) if kind.key != "setting")
    for kind in sorted(shown, key=lambda kind: (kind.status, kind.key)):
        meaning = (kind.__doc__ or "").splitlines()[0].replace("``", "`")
        lines.append(f"| {int(kind.status)} {kind.status.phrase} | `{kind.key}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _family(kind: type[PypicloudError]) -> Iterator[type[PypicloudError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def caches_text() -> str:
    """How fast the caches are beside each other."""
    return measured(_benchmarks(), CACHES)


def storages_text() -> str:
    """How fast the storages in object stores are."""
    return measured(_benchmarks(), STORAGES)


def _benchmarks() -> str:
    return (Path(__file__).parent.parent / "reference" / "benchmarks.md").read_text()


def measured(page: str, heading: str) -> str:
    """A table of the benchmarks page, without its goals; nothing if it was not measured."""
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    goals = [place for place, head in enumerate(rows[0]) if head.strip() in {"must", "aim", "met"}] if rows else []
    shown = ([cell for place, cell in enumerate(row) if place not in goals] for row in rows)
    return "".join(f"|{'|'.join(row)}|\n" for row in shown).replace("**", "")


#: The headings of tables on the benchmarks page.
CACHES: Final = "The caches beside each other"
STORAGES: Final = "The storages in object stores"

TEXTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings_text,
    "errors": errors_text,
    "caches": caches_text,
    "storages": storages_text,
}


def fill(source: str) -> str:
    """A page with every request for generated text answered."""
    return _REQUEST.sub(lambda match: TEXTS[match[1]](), source)


def _source_read(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = fill(source[0])


def _outdated(_app: Sphinx, env: BuildEnvironment, *_changes: set[str]) -> list[str]:
    """The pages that are made anew each time: the declarations may have changed while the page has not."""
    return [page for page in env.found_docs if _REQUEST.search(Path(env.doc2path(page)).read_text())]


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", _source_read)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
