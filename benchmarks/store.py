"""The cache and the storage of a configuration, opened as the server opens them."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pypicloud.cache import get_cache_impl
from pypicloud.settings import EnvironSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pypicloud.cache.base import ICache


def open_cache(config: str, database: Path | None = None) -> ICache:
    """The cache that an ini file describes, in another file if one is given."""
    cache: ICache = cache_factory(config, database)(None)
    return cache


def cache_factory(config: str, database: Path | None = None) -> Callable[..., ICache]:
    """What makes the cache of a request, as an ini file describes it."""
    return get_cache_impl(environ_settings(config, database))


def environ_settings(config: str, database: Path | None = None) -> EnvironSettings:
    """The settings in an ini file, in another SQLite file if one is given, whatever the environment says."""
    settings = read_settings(config)
    if database is not None:
        settings["db.url"] = f"sqlite:///{database}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PPC_")}
    return EnvironSettings(settings, environ)


def read_settings(config: str) -> dict[str, str]:
    """The settings of the application in an ini file."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep the case of keys
    parser.read_string(Path(config).read_text())
    return dict(parser["app:main"])


def boto_options(settings: Mapping[str, str]) -> dict[str, str]:
    """What a client of boto3 is to be told for the storage of some settings."""
    names = ("region_name", "endpoint_url", "aws_access_key_id", "aws_secret_access_key")
    return {name: settings[f"storage.{name}"] for name in names}
