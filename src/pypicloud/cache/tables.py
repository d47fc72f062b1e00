"""The tables of the SQL cache: that of 1.3.12 as it was, and the revisions beside it (compat.md 3.2)."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Column, DateTime, Dialect, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

LOG = logging.getLogger(__name__)


class UTCDateTime(TypeDecorator[datetime]):
    """A time, kept as UTC without saying so."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time as it is written."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time with its zone."""
        return None if value is None else value.replace(tzinfo=UTC)


class JSONObject(TypeDecorator[dict[str, Any]]):
    """A mapping, kept as the text of a JSON object."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str:
        """The text as it is written."""
        return json.dumps(value or {})

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any]:
        """The mapping."""
        return json_object(value)


def json_object(text: str | None) -> dict[str, Any]:
    """The mapping that a text holds; empty, and a warning, when it is nothing of the kind."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item}
    LOG.warning("The cache holds facts that are no JSON object and count as none; a rebuild writes them anew")
    return {}


METADATA: Final = MetaData()
PACKAGES: Final = Table(
    "packages",
    METADATA,
    Column("filename", String(255), primary_key=True),
    Column("name", String(255), nullable=False, index=True),
    Column("version", String(1000), nullable=False),
    Column("last_modified", UTCDateTime, nullable=False, index=True),
    Column("summary", Text),
    Column("data", JSONObject, nullable=False),
)
REVISIONS: Final = Table(
    "package_revisions",
    METADATA,
    Column("name", String(255), primary_key=True),
    Column("revision", String(32), nullable=False),
)
