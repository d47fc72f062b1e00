"""The rows of the SQL cache: how they are asked for the short way, and what a database can hold."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from pypicloud.cache.choose import SEARCHED
from pypicloud.cache.sql.tables import LIMITS
from pypicloud.models import Package, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The words of ``PACKAGES``, ``REVISIONS`` and ``NOTES`` for :meth:`pypicloud.database.Database.rows`.
# Rows come with a note, seen at the same moment, that says what it means if there are few or none; of that alone
# there is one row at least.
_ROWS_AND_NOTE: Final = (
    "SELECT filename, name, version, last_modified, summary, data, note "
    "FROM (SELECT (SELECT text FROM package_notes WHERE name = ?) AS note) AS notes LEFT JOIN packages ON "
)
FETCH: Final = f"{_ROWS_AND_NOTE} filename = ?"
PROJECT: Final = f"{_ROWS_AND_NOTE} name = ?"
REVISION_AND_NOTE: Final = (
    "SELECT (SELECT revision FROM package_revisions WHERE name = ?), (SELECT text FROM package_notes WHERE name = ?)"
)
NOTE: Final = "SELECT text FROM package_notes WHERE name = ?"


@functools.cache
def revisions_and_note(count: int) -> str:
    """Asks for the revisions of so many projects, and for a note: the row without a name.

    A column that says which row that is would cost a driver in Python a tenth of the question.
    """
    return (
        f"SELECT name, revision FROM package_revisions WHERE name IN ({', '.join('?' * count)}) "  # noqa: S608
        "UNION ALL SELECT NULL, text FROM package_notes WHERE name = ?"
    )


def newest(rows: Iterable[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Of rows that begin with file name, project and version, that of each project's newest version."""
    best: dict[str, tuple[Any, Sequence[Any]]] = {}
    for row in rows:
        filename, name, version = row[:3]
        key = (parse_version(version), filename)
        if name not in best or best[name][0] < key:
            best[name] = (key, row)
    return {name: row for name, (_, row) in best.items()}


def is_storable(text: str) -> bool:
    """Whether every database can hold a text: none takes half a surrogate pair, PostgreSQL no NUL."""
    if text.isascii():
        return "\0" not in text
    try:
        return "\0" not in text and bool(text.encode())
    except UnicodeEncodeError:
        return False


def misfit(package: Package, is_local: bool) -> str | None:
    """Why a database cannot hold a package's facts, if so; a local one counts no letters."""
    row = row_of(package)
    for column in SEARCHED:
        text = row[column] or ""
        limit = len(text) if is_local else LIMITS.get(column, len(text))
        if not is_storable(text):
            return f"the {column} {text!r:.80} holds a character that no database takes"
        if len(text) > limit:
            return f"the {column} {text!r:.80} has more than the {limit} letters that the database holds"
    return None


def row_of(package: Package) -> dict[str, Any]:
    """A package as a row, by column."""
    return {
        "filename": package.filename,
        "name": package.name,
        "version": package.version,
        "last_modified": package.last_modified,
        # PostgreSQL takes none, and a file is not left out for what nobody sees.
        "summary": package.summary and package.summary.replace("\0", ""),
        "data": package.data,
    }
