"""The words of access control: permissions, built-in groups, principals, access control lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from pypicloud.models import Caller

READ: Final = "read"
WRITE: Final = "write"
#: Whether the upstream's files are shown beside the stored ones (compat.md 4.6).
FALLBACK: Final = "fallback"

#: What can be granted on a project, in the order it is listed.
PERMISSIONS: Final = (READ, WRITE)

_PRINCIPALS: Final = {
    "everyone": Caller.EVERYONE,
    "authenticated": Caller.AUTHENTICATED,
    "admin": Caller.ADMIN,
}

#: The groups that nobody defines: membership is automatic.
BUILT_IN_GROUPS: Final = tuple(_PRINCIPALS)


def group_to_principal(group: str) -> str:
    """Convert a group to its corresponding principal."""
    return _PRINCIPALS.get(group) or f"group:{group}"


def groups_to_principals(groups: Iterable[str]) -> list[str]:
    """Convert a list of groups to a list of principals."""
    return [group_to_principal(group) for group in groups]


class AllPermissions:
    """Every permission there is; equal to the framework's own object of that meaning, which stays at the edge."""

    def __contains__(self, permission: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __eq__(self, other: object) -> bool:
        return type(other).__name__ in {"AllPermissions", "AllPermissionsList"}

    def __hash__(self) -> int:
        return hash("AllPermissions")

    def __repr__(self) -> str:
        return "ALL_PERMISSIONS"


ALL_PERMISSIONS: Final = AllPermissions()

#: One row: Allow or Deny, principal, a permission or several.
AccessControlEntry = tuple[str, str, Any]


def acl_permits(acl: Iterable[AccessControlEntry], principals: frozenset[str], permission: str) -> bool:
    """Whether the first row of an access control list that speaks of the principals and the permission allows it."""
    for action, principal, granted in acl:
        if principal in principals and (granted == permission if isinstance(granted, str) else permission in granted):
            return action == "Allow"
    return False
