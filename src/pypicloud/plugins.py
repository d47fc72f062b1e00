"""Short name or dotted path -> class -> configured backend: the life cycle of a plug-in, in one place.

A backend, built in or third-party, lives like this (compat.md 8.2):

1. ``cls.configure(settings)`` once, at the start: reads settings, makes what is expensive (engine, client,
   pool), returns the keyword arguments of the constructor. Access is configured first, then the cache,
   which configures the storage.
2. ``cls(request, **kwargs)`` once per request that needs it, lazily; and ``cls(None, **kwargs)`` once
   without a request, for the work at the start and for answers from memory.
3. ``cls.postfork(**kwargs)`` after a fork, for access and cache.

New optional powers have a working default in the base class, so a class written for 1.3.12 runs unchanged.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pypicloud.errors import SettingError
from pypicloud.settings import CLASS, EnvironSettings, Setting, nearest

T = TypeVar("T")

STORAGE: Final = Setting(
    "pypi.storage",
    CLASS,
    "file",
    "Where package files are kept: a short name, or the dotted path of a subclass of IStorage.",
    was=("pypi.s3",),
)
DB: Final = Setting(
    "pypi.db",
    CLASS,
    "sql",
    "Where facts about packages are kept: a short name, or the dotted path of a subclass of ICache.",
)
AUTH: Final = Setting(
    "pypi.auth",
    CLASS,
    "config",
    "Who may do what: a short name, or the dotted path of a subclass of IAccessBackend.",
)
SETTINGS: Final = (STORAGE, DB, AUTH)


def resolve(setting: Setting[str], settings: EnvironSettings, backends: Mapping[str, str], kind: type[T]) -> type[T]:
    """The class that a setting names.

    ``backends`` maps short names to ``module:Class``. Raises :class:`SettingError` naming key, value and
    source when nothing of that name can be imported, or what is there is not a subclass of ``kind``.
    """
    spec = setting.read(settings)
    source = settings.source(setting.spelling(settings))
    try:
        return load(spec, backends, kind)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingError(setting.key, str(error), value=spec, source=source) from error


def load(spec: str, backends: Mapping[str, str], kind: type[T]) -> type[T]:
    """The class behind a short name, ``package.module.Class`` or ``package.module:Class``.

    Raises ImportError, AttributeError, TypeError or ValueError, each with a message for people.
    """
    target = backends.get(spec, spec)
    module_name, _, name = target.replace(":", ".").rpartition(".")
    if not module_name:
        known = ", ".join(sorted(backends))
        raise ValueError(f"must be {known} or a dotted path{nearest(spec, backends)}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise ImportError(f"{target} needs the Python package {error.name!r}, which is not installed") from error
        raise ImportError(f"there is no module {error.name!r} to import") from error
    found: Any = getattr(module, name, None)
    if found is None:
        raise AttributeError(f"module {module_name!r} has no class {name!r}")
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise TypeError(f"{target} is not a subclass of {kind.__name__}")
    return found
