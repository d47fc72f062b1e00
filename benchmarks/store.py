"""The cache and the storage of a configuration, opened as the server opens them."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pypicloud.cache import get_cache_impl
from pypicloud.settings import EnvironSettings

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache


def open_cache(config: str, database: Path | None = None) -> ICache:
    """The cache that an ini file describes, in another file if one is given."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case of keys
    parser.read_string(Path(config).read_text())
    settings = dict(parser["app:main"])
    if database is not None:
        settings["db.url"] = f"sqlite:///{database}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PPC_")}
    cache: ICache = get_cache_impl(EnvironSettings(settings, environ))(None)
    return cache
