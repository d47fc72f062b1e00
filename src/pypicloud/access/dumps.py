"""The universal format that access control data moves house in (compat.md 4.9)."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pypicloud.access.passwords import MATCHES_NOTHING
from pypicloud.access.rights import BUILT_IN_GROUPS, PERMISSIONS, READ
from pypicloud.errors import BadRequest
from pypicloud.models import normalized
from pypicloud.settings import as_bool

if TYPE_CHECKING:
    from pypicloud.access.base import IAccessBackend, IMutableAccessBackend

LOG: Final = logging.getLogger(__name__)


def dump(access: IAccessBackend) -> dict[str, Any]:
    """Everything an access backend knows, as one object that JSON can express."""
    users = [
        {"username": user["username"], "admin": bool(user["admin"]), "password": _password(access, user["username"])}
        for user in access.user_data()
    ]
    groups = [group for group in access.groups() if group not in BUILT_IN_GROUPS]
    return {
        "allow_register": access.allow_register(),
        "version": importlib.metadata.version("pypicloud"),
        "groups": {group: list(access.group_members(group)) for group in groups},
        "users": users,
        "packages": {
            "users": _by_package((user["username"] for user in users), access.user_package_permissions),
            "groups": _by_package((*groups, *BUILT_IN_GROUPS), access.group_package_permissions),
        },
    }


def _password(access: IAccessBackend, username: str) -> str | None:
    try:
        return access._get_password_hash(username)  # noqa: SLF001 - the documented hook of the class this module serves
    except NotImplementedError:
        # A backend that checks passwords elsewhere has no hashes.
        return None


def _by_package(
    owners: Iterable[str], permissions_of: Callable[[str], list[dict[str, Any]]]
) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for owner in owners:
        try:
            entries = permissions_of(owner)
        except LookupError:
            # A backend may know nothing of the built-in groups.
            continue
        for entry in entries:
            found.setdefault(normalized(entry["package"]), {})[owner] = list(entry["permissions"])
    return found


def load(access: IMutableAccessBackend, data: Any) -> None:
    """Merge dumped data into a backend, in the same order and with the same result however often.

    Existing users keep their passwords, admin flags are set as dumped, everything else is only added.
    Memberships and permissions of users and groups that are in neither the dump nor the backend are left
    out with a warning: whoever registered that name later would inherit them. Raises :class:`BadRequest`
    for data that is no dump.
    """
    check(data)
    _load_users(access, data)
    known = _load_groups(access, data)
    _load_permissions(access, data, known)
    if "allow_register" in data:
        access.set_allow_register(as_bool(data["allow_register"]))


def check(data: Any) -> None:
    """Raise :class:`BadRequest` for data that is no dump of any version."""
    if not isinstance(data, Mapping) or not isinstance(data.get("users"), list):
        raise BadRequest("This is not dumped access control data: it has no list of users")


def _load_users(access: IMutableAccessBackend, data: Mapping[str, Any]) -> None:
    users = {user["username"] for user in access.user_data()}
    pending = set(access.pending_users())
    for user in data["users"]:
        name = user["username"]
        if name not in users:
            if name not in pending:
                access._register(name, user.get("password") or MATCHES_NOTHING)  # noqa: SLF001 - as above: the documented hook
            access.approve_user(name)
        if "admin" in user:
            access.set_user_admin(name, bool(user["admin"]))
        users.add(name)
    for user in data.get("pending_users", ()):
        name = user["username"]
        if name not in users | pending:
            access._register(name, user.get("password") or MATCHES_NOTHING)  # noqa: SLF001 - as above
            pending.add(name)


def _load_groups(access: IMutableAccessBackend, data: Mapping[str, Any]) -> set[str]:
    """Load groups and memberships; return every user and group that may be granted something."""
    users = {user["username"] for user in access.user_data()}
    groups = set(access.groups())
    for group, members in data.get("groups", {}).items():
        if group in BUILT_IN_GROUPS:
            continue
        if group not in groups:
            access.create_group(group)
            groups.add(group)
        present = set(access.group_members(group))
        for member in members:
            if member not in users:
                LOG.warning("User %r is in group %r but unknown; the membership is left out", member, group)
            elif member not in present:
                access.edit_user_group(member, group, True)
    return {*(f"user {name}" for name in users), *(f"group {name}" for name in (*groups, *BUILT_IN_GROUPS))}


def _load_permissions(access: IMutableAccessBackend, data: Mapping[str, Any], known: set[str]) -> None:
    packages = data.get("packages", {})
    for kind, edit in (("user", access.edit_user_permission), ("group", access.edit_group_permission)):
        for package, entries in packages.get(f"{kind}s", {}).items():
            for name, permissions in entries.items():
                if f"{kind} {name}" not in known:
                    LOG.warning(
                        "Project %s has permissions of an unknown %s %r; they are left out", package, kind, name
                    )
                    continue
                for permission in PERMISSIONS:
                    if permission in permissions:
                        edit(normalized(package), name, permission, True)
    entries_of = [*packages.get("users", {}).items(), *packages.get("groups", {}).items()]
    for package in sorted({package for package, entries in entries_of if entries}):
        # The project was closed to all but admins, by an entry that grants nothing or that was left out.
        # It must not fall under the defaults here, so admins get by an entry what they have anyway.
        if not access.has_explicit_permissions(package):
            access.edit_group_permission(normalized(package), "admin", READ, True)
