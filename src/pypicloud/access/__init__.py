"""Who exists and who may do what: the base classes of access backends, and the backends."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from pypicloud.access.base import IAccessBackend, IMutableAccessBackend, get_pwd_context
from pypicloud.access.config import ConfigAccessBackend
from pypicloud.access.passwords import DEFAULT_ROUNDS, SCHEMES
from pypicloud.plugins import AUTH, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.settings import EnvironSettings

__all__ = [
    "BACKENDS",
    "DEFAULT_ROUNDS",
    "SCHEMES",
    "ConfigAccessBackend",
    "IAccessBackend",
    "IMutableAccessBackend",
    "get_access_impl",
    "get_pwd_context",
]

#: The short names that ``pypi.auth`` takes.
BACKENDS: Final = {"config": "pypicloud.access.config:ConfigAccessBackend"}


def get_access_impl(settings: EnvironSettings) -> Callable[[Any], IAccessBackend]:
    """The configured access backend: called with a request, or None, it gives the backend for that request."""
    backend = resolve(AUTH, settings, BACKENDS, IAccessBackend)
    return functools.partial(backend, **backend.configure(settings))
