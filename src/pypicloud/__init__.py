"""A private Python package index that a team hosts itself.

Importing the package costs nothing; the application is put together in :mod:`pypicloud.app`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyramid.config import Configurator

__all__ = ["__version__", "includeme", "main", "to_json"]

__version__: Final = "2.0.0a1"


def main(config: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    """The WSGI application of an ini file's ``[app:main]`` section (``paste.app_factory``).

    ``config`` are the file's ``[DEFAULT]`` values, which the section's own beat. Raises
    :class:`pypicloud.errors.SettingError` for a value that cannot be used.
    """
    from pypicloud.app import make_app  # Commands that need no server must start at once.

    return make_app({**(config or {}), **settings})


def includeme(config: Configurator) -> None:
    """Set the index up in a Pyramid application."""
    from pypicloud.app import set_up

    set_up(config)


def to_json(value: Any) -> str:
    """A value as JSON that may stand inside HTML."""
    import json

    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
