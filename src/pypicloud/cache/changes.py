"""What is to become of the facts about one file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from pypicloud.models import Package

#: Everything a cache keeps of a file beside its name: project, version, time, summary, data.
Facts: TypeAlias = tuple[str, str, datetime, str | None, dict[str, Any]]


def facts(package: Package) -> Facts:
    """The facts about a package."""
    return (package.name, package.version, package.last_modified, package.summary, package.data)


@dataclass(frozen=True, slots=True)
class Change:
    """The facts about a file as they were read, and as they are to be; None means that there are none.

    ``is_stored``, if there is one, is asked as well, when the facts cannot change any more.
    """

    filename: str
    known: Facts | None
    wanted: Package | None
    is_stored: Callable[[], bool] | None = None

    def is_possible(self, found: Package | None) -> bool:
        """Whether the facts found now still are those that were read."""
        is_known = (None if found is None else facts(found)) == self.known
        return is_known and (self.is_stored is None or self.is_stored())
