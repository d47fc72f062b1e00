"""What a database may leave out before the rows are searched in Python.

What "in any case" means is Python's word (``str.lower``): no two databases agree on it. A database only leaves
out what cannot match: texts of ASCII alone that do not hold an ASCII piece.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Text, and_, cast, collate, false, func, or_, true
from sqlalchemy.dialects import mysql

from pypicloud.cache.sql.tables import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def candidates(wanted: Mapping[str, Iterable[str]], query_type: str, dialect: str) -> ColumnElement[bool]:
    """Whether a row may match pieces of text, by column, in lower case."""
    columns = [
        _joined([_may_hold(PACKAGES.c[column], piece, dialect) for piece in wanted[column]], query_type)
        for column in wanted
    ]
    return or_(*columns) if columns else true()


def _joined(pieces: list[ColumnElement[bool]], query_type: str) -> ColumnElement[bool]:
    return or_(false(), *pieces) if query_type == "or" else and_(true(), *pieces)


def _may_hold(column: ColumnElement[Any], piece: str, dialect: str) -> ColumnElement[bool]:
    text: ColumnElement[Any] = func.coalesce(column, "", type_=Text)
    if dialect == "sqlite":
        # Here lower() is Python's own.
        return func.lower(text).contains(piece, autoescape=True)
    if "\0" in piece:
        return false()
    if dialect == "postgresql":
        is_wide = text.regexp_match(r"[^\x01-\x7f]")
        # What its lower() makes of a letter depends on the language that the database was created for.
        text = func.translate(text, _UPPER, _UPPER.lower())
    else:
        text = collate(cast(text, mysql.CHAR(charset="utf8mb4")), "utf8mb4_general_ci")
        is_wide = func.length(text) != func.char_length(text)
    return or_(is_wide, text.contains(piece, autoescape=True)) if piece.isascii() else is_wide
