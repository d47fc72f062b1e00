"""The base classes of access backends, and what goes with them, in the one place that plug-ins import them from."""

from __future__ import annotations

from pypicloud.access.backend import IAccessBackend
from pypicloud.access.mutable import IMutableAccessBackend
from pypicloud.access.passwords import get_pwd_context
from pypicloud.access.rights import group_to_principal, groups_to_principals

__all__ = ["IAccessBackend", "IMutableAccessBackend", "get_pwd_context", "group_to_principal", "groups_to_principals"]
