"""What stops the start of a server whose storage cannot be used: errors that name the setting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pypicloud.errors import SettingError
from pypicloud.settings import BOOLEAN, EnvironSettings, Setting

CREATE_MISSING: Final = Setting(
    "storage.create_missing",
    BOOLEAN,
    True,
    "Whether a directory, bucket or container that does not exist is made at the start; if not, the start fails.",
)


class PlaceMissing(SettingError):
    """A directory, bucket or container does not exist, and is not to be made."""


def demand_making(settings: EnvironSettings, setting: Setting[str]) -> None:
    """Raise :class:`PlaceMissing` for a place that is missing, and that the settings do not let us make."""
    if not CREATE_MISSING.read(settings):
        reason = "does not exist; look for a slip, or make it"
        raise PlaceMissing(setting.key, reason, value=setting.read(settings), source=settings.source(setting.key))


def refused(settings: EnvironSettings, declared: Iterable[Setting[Any]], key: str, reason: str) -> SettingError:
    """The error for a setting that a service does not accept, with its value, unless that is a secret."""
    setting = next(each for each in declared if each.key == key)
    spelling = setting.spelling(settings)
    value = None if setting.secret or not setting.is_set(settings) else str(setting.read(settings)) or None
    return SettingError(spelling, reason, value=value, source=settings.source(spelling))
