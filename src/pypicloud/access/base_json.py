"""Abstract backends that are backed by simple JSON (the format is in compat.md 4.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pypicloud.access.base import IAccessBackend, IMutableAccessBackend
from pypicloud.access.rights import BUILT_IN_GROUPS, PERMISSIONS, READ, WRITE, group_to_principal, groups_to_principals
from pypicloud.errors import BadRequest, NotFound
from pypicloud.models import Caller, NormalizedName, normalized
from pypicloud.settings import as_bool

#: The methods through which the rights of a project can be changed by a subclass.
_RULES: Final = (
    "permits",
    "has_permission",
    "allowed_permissions",
    "has_explicit_permissions",
    "user_permissions",
    "group_permissions",
    "get_acl",
    "ROOT_ACL",
)

#: The permissions of one kind of owner on one project, by the owner's name.
Entries = dict[str, list[str]]


class Rights:
    """The groups and permissions of the JSON data, compiled for look-ups by normalised name.

    Two spellings of one project are one project, with the permissions of both.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.users: dict[NormalizedName, Entries] = {}
        self.groups: dict[NormalizedName, Entries] = {}
        #: Who has what on the projects with entries of their own, by principal.
        self.explicit: dict[NormalizedName, dict[str, frozenset[str]]] = {}
        self.groups_of: dict[str, list[str]] = {}
        for group, members in (data.get("groups") or {}).items():
            if group not in BUILT_IN_GROUPS:
                for member in dict.fromkeys(members):
                    self.groups_of.setdefault(member, []).append(group)
        for package, entries in (data.get("packages") or {}).items():
            project = normalized(package)
            self._add(self.users, project, entries.get("users") or {})
            self._add(self.groups, project, entries.get("groups") or {})
        for project in self.users.keys() | self.groups.keys():
            by_principal = {f"user:{user}": frozenset(words) for user, words in self.users.get(project, {}).items()}
            for group, words in self.groups.get(project, {}).items():
                by_principal[group_to_principal(group)] = frozenset(words)
            self.explicit[project] = by_principal

    @staticmethod
    def _add(table: dict[NormalizedName, Entries], project: NormalizedName, entries: Mapping[str, list[str]]) -> None:
        for name, granted in entries.items():
            present = table.setdefault(project, {}).get(name, [])
            table[project][name] = [word for word in PERMISSIONS if word in granted or word in present]

    def permit(self, project: NormalizedName, caller: Caller, permission: str) -> bool | None:
        """Whether the project's own entries give the caller a permission; None if it has none."""
        entries = self.explicit.get(project)
        if entries is None:
            return None
        return any(permission in entries[principal] for principal in caller.principals if principal in entries)


class IJsonAccessBackend(IAccessBackend):
    """This backend reads the permissions from anything that can provide JSON data.

    To override: ``_get_db``.
    """

    _db: dict[str, Any] | None = None
    _rights: Rights | None = None

    @property
    def db(self) -> dict[str, Any]:
        """Fetch JSON and cache it for future calls."""
        if self._db is None:
            self._db = self._get_db()
        return self._db

    def _get_db(self) -> dict[str, Any]:
        """The JSON data; asked once per instance, which is once per request."""
        raise NotImplementedError

    @property
    def rights(self) -> Rights:
        """The data compiled for look-ups."""
        if self._rights is None:
            self._rights = Rights(self.db)
        return self._rights

    def _section(self, key: str) -> dict[str, Any]:
        section: dict[str, Any] = self.db.get(key) or {}
        return section

    def _get_password_hash(self, username: str) -> str | None:
        stored = self._section("users").get(username)
        return stored if isinstance(stored, str) else None

    def groups(self, username: str | None = None) -> list[str]:
        """Get a list of all groups, or of those that a user belongs to."""
        if username is not None:
            return list(self.rights.groups_of.get(username, ()))
        return [group for group in self._section("groups") if group not in BUILT_IN_GROUPS]

    def group_members(self, group: str) -> list[str]:
        """Get a list of users that belong to a group."""
        members = self._section("groups").get(group, ())
        return [] if group in BUILT_IN_GROUPS else list(dict.fromkeys(members))

    def is_admin(self, username: str) -> bool:
        """Check if the user is an admin."""
        return username in (self.db.get("admins") or ())

    def group_permissions(self, package: str) -> dict[str, list[str]]:
        """Get a mapping of all groups to their permissions on a package."""
        entries = self.rights.groups.get(normalized(package), {})
        return {group: list(permissions) for group, permissions in entries.items()}

    def user_permissions(self, package: str) -> dict[str, list[str]]:
        """Get a mapping of all users to their permissions for a package."""
        entries = self.rights.users.get(normalized(package), {})
        return {user: list(permissions) for user, permissions in entries.items()}

    def user_package_permissions(self, username: str) -> list[dict[str, Any]]:
        """Get a list of all packages that a user has permissions on."""
        return _packages_of(username, self.rights.users)

    def group_package_permissions(self, group: str) -> list[dict[str, Any]]:
        """Get a list of all packages that a group has permissions on."""
        return _packages_of(group, self.rights.groups)

    def user_data(self, username: str | None = None) -> Any:
        """Get a list of all users, or data for a single user; pending users are left out."""
        if username is None:
            return [{"username": name, "admin": self.is_admin(name)} for name in self._section("users")]
        if username not in self._section("users"):
            return None
        return {"username": username, "admin": self.is_admin(username), "groups": self.groups(username)}

    def dump(self) -> dict[str, Any]:
        """Dump all of the access control data, permissions of users and groups that do not exist included."""
        data = super().dump()
        data["packages"] = {
            "users": {project: dict(entries) for project, entries in sorted(self.rights.users.items())},
            "groups": {project: dict(entries) for project, entries in sorted(self.rights.groups.items())},
        }
        return data

    # -- the rule of the base class, by look-ups instead of calls

    def _decide(self, caller: Caller, project: NormalizedName, permission: str) -> bool:
        if permission not in PERMISSIONS or self._overrides(IJsonAccessBackend, *_RULES):
            return super()._decide(caller, project, permission)
        if caller.is_admin:
            return True
        permitted = self.rights.permit(project, caller, permission)
        return self._permits_by_default(caller, permission) if permitted is None else permitted

    def _permits_by_default(self, caller: Caller, permission: str) -> bool:
        groups = self.default_write if permission == WRITE else self.default_read
        return not caller.principals.isdisjoint(groups_to_principals(groups))

    def has_explicit_permissions(self, package: str) -> bool:
        """Whether the project has entries of its own, so that the defaults do not apply to it."""
        if self._overrides(IJsonAccessBackend, "user_permissions", "group_permissions"):
            return super().has_explicit_permissions(package)
        return normalized(package) in self.rights.explicit

    def readable(self, names: Iterable[str], caller: Caller) -> list[str]:
        """Those of the names that the caller may read: one look at the entries, however many names."""
        if self._overrides(IJsonAccessBackend, *_RULES):
            return super().readable(names, caller)
        names = list(names)
        if caller.is_admin:
            return names
        projects: Iterable[str] = names if _are_normalized(names) else map(normalized, names)
        by_default = self._permits_by_default(caller, READ)
        exceptions = {
            project for project in self.rights.explicit if self.rights.permit(project, caller, READ) is not by_default
        }
        if not exceptions and by_default:
            return names
        return [
            name for name, project in zip(names, projects, strict=True) if (project in exceptions) is not by_default
        ]


class IMutableJsonAccessBackend(IJsonAccessBackend, IMutableAccessBackend):
    """This backend allows you to store all user and package permissions in a backend that is able to store a json file.

    To override: ``_get_db`` and ``_save``. The data has two more keys: ``pending_users`` (name to hash) and
    ``allow_registration``.
    """

    mutable = True

    def _save(self) -> None:
        """Store ``self.db``."""
        raise NotImplementedError

    def _changed(self) -> None:
        self._rights = None
        self._save()

    def _table(self, key: str) -> dict[str, Any]:
        """A top-level object of the data, made if it is missing."""
        if not self.db.get(key):
            self.db[key] = {}
        table: dict[str, Any] = self.db[key]
        return table

    def _get_pending_hash(self, username: str) -> str | None:
        return self._section("pending_users").get(username)

    def _register(self, username: str, password: str) -> None:
        self._table("pending_users")[username] = password
        self._changed()

    def _set_password_hash(self, username: str, password_hash: str) -> None:
        self._require_user(username)
        self._table("users")[username] = password_hash
        self._changed()

    def pending_users(self) -> list[str]:
        """Retrieve a list of all users pending admin approval."""
        return list(self._section("pending_users"))

    def approve_user(self, username: str) -> None:
        """Mark a user as approved by the admin. Raises :class:`NotFound` if there is no such user."""
        if username in self._section("pending_users"):
            self._table("users")[username] = self._table("pending_users").pop(username)
            self._changed()
        else:
            self._require_user(username)

    def delete_user(self, username: str) -> None:
        """Delete a user, with memberships and permissions; a missing one counts as gone."""
        self._section("users").pop(username, None)
        self._section("pending_users").pop(username, None)
        self.db["admins"] = _without(self.db.get("admins"), username)
        for group, members in self._section("groups").items():
            self.db["groups"][group] = _without(members, username)
        self._forget("users", username)
        self._changed()

    def set_user_admin(self, username: str, admin: bool) -> None:
        """Grant or revoke admin permissions for a user. Raises :class:`NotFound` if there is no such user."""
        self._require_user(username)
        self.db["admins"] = _without(self.db.get("admins"), username) + ([username] if admin else [])
        self._changed()

    def edit_user_group(self, username: str, group: str, add: bool) -> None:
        """Add or remove a user to/from a group. Raises :class:`NotFound` if there is nobody or nothing to add to."""
        if add:
            self._require_user(username)
            self._require_group(group)
        if group in self._section("groups"):
            self.db["groups"][group] = _without(self.db["groups"][group], username) + ([username] if add else [])
            self._changed()

    def create_group(self, group: str) -> None:
        """Create a new group. Raises :class:`BadRequest` if it exists, built-in groups included."""
        if not group or group in BUILT_IN_GROUPS or group in self._section("groups"):
            raise BadRequest(f"There is a group {group!r} already; choose another name")
        self._table("groups")[group] = []
        self._changed()

    def delete_group(self, group: str) -> None:
        """Delete a group, with memberships and permissions; a missing one counts as gone."""
        if group in BUILT_IN_GROUPS:
            raise BadRequest(f"The group {group!r} is built in and cannot be deleted")
        self._section("groups").pop(group, None)
        self._forget("groups", group)
        self._changed()

    def edit_user_permission(self, package_name: str, username: str, perm: str, add: bool) -> None:
        """Grant or revoke a permission for a user on a package. Raises :class:`NotFound` for an unknown user."""
        if add:
            self._require_user(username)
        self._edit("users", package_name, username, perm, add=add)

    def edit_group_permission(self, package_name: str, group: str, perm: str, add: bool) -> None:
        """Grant or revoke a permission for a group on a package. Raises :class:`NotFound` for an unknown group."""
        if add and group not in BUILT_IN_GROUPS:
            self._require_group(group)
        self._edit("groups", package_name, group, perm, add=add)

    def allow_register(self) -> bool:
        """Check if the backend allows registration."""
        return as_bool(self.db.get("allow_registration"))

    def set_allow_register(self, allow: bool) -> None:
        """Allow or disallow user registration."""
        self.db["allow_registration"] = allow
        self._changed()

    def _require_user(self, username: str) -> None:
        if username not in self._section("users"):
            raise NotFound(f"There is no user {username!r}")

    def _require_group(self, group: str) -> None:
        if group not in self._section("groups"):
            raise NotFound(f"There is no group {group!r}")

    def _edit(self, kind: str, package_name: str, name: str, perm: str, *, add: bool) -> None:
        """Write one entry under the project's normalised name; one that grants nothing is deleted (compat.md 4.1)."""
        if perm not in PERMISSIONS:
            raise BadRequest(f"{perm!r} is not a permission; it must be one of {', '.join(PERMISSIONS)}")
        project = normalized(package_name)
        granted = set(getattr(self.rights, kind).get(project, {}).get(name, ()))
        if (perm in granted) is add:
            return
        self._gather(project)
        entries = self._table("packages").setdefault(project, {}).setdefault(kind, {})
        granted ^= {perm}
        if granted:
            entries[name] = [word for word in PERMISSIONS if word in granted]
        else:
            del entries[name]
        self._prune()
        self._changed()

    def _gather(self, project: NormalizedName) -> None:
        """Bring the entries of a project under its normalised name, from whatever spelling 1.x stored them under."""
        packages = self._table("packages")
        spellings = [package for package in packages if package != project and normalized(package) == project]
        if spellings:
            entries = {"users": self.user_permissions(project), "groups": self.group_permissions(project)}
            for spelling in spellings:
                del packages[spelling]
            packages[project] = entries

    def _forget(self, kind: str, name: str) -> None:
        for entries in self._section("packages").values():
            (entries.get(kind) or {}).pop(name, None)
        self._prune()

    def _prune(self) -> None:
        """Drop the packages that have no entry left."""
        packages = self._section("packages")
        for package in [package for package, entries in packages.items() if not any(entries.values())]:
            del packages[package]


def _packages_of(name: str, table: Mapping[NormalizedName, Entries]) -> list[dict[str, Any]]:
    return [
        {"package": project, "permissions": list(entries[name])}
        for project, entries in sorted(table.items())
        if name in entries
    ]


def _without(names: Iterable[str] | None, name: str) -> list[str]:
    return [present for present in names or () if present != name]


def _are_normalized(names: list[str]) -> bool:
    """Whether all names are normalised (PEP 503): one look at all of them together is faster than one at each."""
    text = "\n".join(names)
    return not ("_" in text or "." in text or "--" in text or text != text.lower())
