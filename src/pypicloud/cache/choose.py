"""Which packages are found, which are the newest, and what a project looks like from afar: one rule for every cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from packaging.version import Version
    from packaging_legacy.version import LegacyVersion

    from pypicloud.models import Package

#: The facts a search may look into (compat.md 3.5); criteria for anything else are ignored.
SEARCHED: Final = ("name", "summary", "version", "filename")


def queries(criteria: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The pieces of text to look for, by column, in lower case.

    Columns that cannot be searched are left out, as are those asked for nothing while others are asked for
    something; when nothing is left, everything matches. Only when each column is asked for nothing do they
    stay: then ``or`` finds nothing, and ``and`` everything (compat.md 3.5).
    """
    found = {}
    for column in SEARCHED:
        if column in criteria:
            pieces = criteria[column]
            found[column] = [piece.lower() for piece in ([pieces] if isinstance(pieces, str) else pieces)]
    return {column: pieces for column, pieces in found.items() if pieces} or found


def matcher(wanted: Mapping[str, Sequence[str]], query_type: str) -> Callable[[Any], bool]:
    """A test whether a package, or a row of the same attributes, matches what :func:`queries` gives."""
    require = any if query_type == "or" else all

    def matches(package: Any) -> bool:
        return not wanted or any(
            require(piece in (getattr(package, column) or "").lower() for piece in pieces)
            for column, pieces in wanted.items()
        )

    return matches


def version_key(package: Package) -> tuple[Version | LegacyVersion, str]:
    """What the files of one project are sorted by: the version, then the file name."""
    return (package.parsed_version, package.filename)


def newest_first(packages: Iterable[Package]) -> list[Package]:
    """The packages of one project by version, newest first, then by file name."""
    return sorted(packages, key=version_key, reverse=True)


def newest(packages: Iterable[Package]) -> list[Package]:
    """The package of the newest version of each project, sorted by name."""
    best: dict[str, Package] = {}
    for package in packages:
        if package.name not in best or best[package.name] < package:
            best[package.name] = package
    return [best[name] for name in sorted(best)]


def summaries(packages: Iterable[Package]) -> list[dict[str, Any]]:
    """For each project, sorted: ``name``, the newest version's ``summary``, the latest file's ``last_modified``."""
    best: dict[str, Package] = {}
    latest: dict[str, datetime] = {}
    for package in packages:
        name = package.name
        if name not in best or best[name] < package:
            best[name] = package
        latest[name] = max(latest.get(name, package.last_modified), package.last_modified)
    return [{"name": name, "summary": best[name].summary, "last_modified": latest[name]} for name in sorted(best)]
