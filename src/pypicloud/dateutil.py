"""Times that always know their zone."""

from __future__ import annotations

import datetime as dt
from typing import Final

#: The zone of every time the server keeps.
UTC: Final = dt.UTC


def utcnow() -> dt.datetime:
    """The time now, in UTC, with its zone."""
    return dt.datetime.now(UTC)


def utcfromtimestamp(t: float) -> dt.datetime:
    """The moment ``t`` seconds after the epoch, in UTC, with its zone."""
    return dt.datetime.fromtimestamp(t, UTC)
