"""IAccessBackend: who exists, who may do what.

A backend answers a few questions about users, groups and permissions; this class makes the rules of
compat.md 4.6 out of them. A plug-in overrides the methods that raise ``NotImplementedError`` here, and may
override any other documented one: whatever it overrides is asked. The names of projects that reach a
backend's methods through this class are normalised.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar

from pypicloud.access import dumps, options, passwords
from pypicloud.access.rights import (
    ALL_PERMISSIONS,
    FALLBACK,
    PERMISSIONS,
    READ,
    WRITE,
    AccessControlEntry,
    acl_permits,
    group_to_principal,
    groups_to_principals,
)
from pypicloud.errors import NotSupported
from pypicloud.models import Caller, NormalizedName, normalized
from pypicloud.settings import EnvironSettings, Setting


class IAccessBackend:
    """Base class for retrieving user and package permission data.

    To override: ``_get_password_hash`` (or ``verify_user``), ``groups``, ``group_members``, ``is_admin``,
    ``group_permissions``, ``user_permissions``, ``user_package_permissions``, ``group_package_permissions``,
    ``user_data``.
    """

    #: Whether users, groups and permissions can be changed through the backend.
    mutable: bool = False

    #: Whether every answer comes at once from memory or a local file, so that it may be asked on the event loop.
    is_local: bool = False

    #: The settings a backend reads; a subclass adds its own.
    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = options.SETTINGS

    ROOT_ACL: ClassVar[Sequence[AccessControlEntry]] = [
        ("Allow", Caller.AUTHENTICATED, "login"),
        ("Allow", Caller.ADMIN, ALL_PERMISSIONS),
        ("Deny", Caller.EVERYONE, ALL_PERMISSIONS),
    ]

    def __init__(  # noqa: PLR0917 - the documented parameters, in their documented order
        self,
        request: Any = None,
        default_read: Sequence[str] | None = None,
        default_write: Sequence[str] | None = None,
        disallow_fallback: Collection[str] = (),
        cache_update: Sequence[str] | None = None,
        allow_overwrite: Sequence[str] | None = None,
        allow_delete: Sequence[str] | None = None,
        pwd_context: Any = None,
        token_expiration: int = 604800,
        signing_key: str | None = None,
    ) -> None:
        self.request = request
        self.default_read = default_read or []
        self.default_write = default_write or []
        self.disallow_fallback = _projects(tuple(disallow_fallback))
        self.cache_update = cache_update or []
        self.allow_overwrite = allow_overwrite or []
        self.allow_delete = allow_delete or []
        self.pwd_context = passwords.default_context() if pwd_context is None else pwd_context
        self.token_expiration = token_expiration
        self.signing_key = signing_key

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Read the settings, once at the start; return the keyword arguments of the constructor."""
        return options.read(settings)

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Raise :class:`SettingError` for what would stop :meth:`configure`, without reaching for anything.

        ``pypicloud check-config`` asks this. What is wrong with one setting alone is found from ``SETTINGS``.
        """

    @classmethod
    def postfork(cls, **kwargs: Any) -> None:
        """Make anew what a fork must not share; called in each worker with what ``configure`` returned."""

    def _overrides(self, since: type, *names: str) -> bool:
        """Whether this class has its own idea of one of the names that the class ``since`` defines."""
        cls: Any = type(self)
        return _differ(cls, since, names)

    # -- who asks

    def caller(self, username: str | None) -> Caller:
        """The caller of this user name, None being the anonymous one."""
        return Caller(username, frozenset(self.user_principals(username)))

    def user_principals(self, username: str | None) -> list[str]:
        """Get a list of principals for a user (compat.md 4.6)."""
        if username is None:
            return [Caller.EVERYONE]
        principals = [f"user:{username}", Caller.EVERYONE, Caller.AUTHENTICATED]
        if self.is_admin(username):
            principals.append(Caller.ADMIN)
        # Never through group_to_principal: a stored group that is called "admin" makes nobody an admin.
        return [*principals, *(f"group:{group}" for group in self.groups(username))]

    def in_group(self, username: str | None, group: str) -> bool:
        """Find out if a user is in a group; ``everyone``, ``authenticated`` and ``admin`` are groups, too."""
        if group == "everyone":
            return True
        if username is None:
            return False
        if group == "authenticated":
            return True
        if group == "admin":
            return self.is_admin(username)
        return group in self.groups(username)

    def in_any_group(self, username: str | None, groups: Iterable[str]) -> bool:
        """Find out if a user is in any of a set of groups."""
        return any(self.in_group(username, group) for group in groups)

    def is_member(self, caller: Caller, groups: Iterable[str]) -> bool:
        """Whether a caller is in any of the groups: from the principals, without asking the backend again."""
        if self._overrides(IAccessBackend, "in_group", "in_any_group"):
            return self.in_any_group(caller.user, groups)
        return not caller.principals.isdisjoint(groups_to_principals(groups))

    def can_update_cache(self) -> bool:
        """Return True if the user has permissions to update the pypi cache."""
        return self.is_member(self._asking(), self.cache_update)

    def can_overwrite_package(self) -> bool:
        """Return True if the user has permissions to overwrite existing packages."""
        return self.is_member(self._asking(), self.allow_overwrite)

    def can_delete_package(self) -> bool:
        """Return True if the user has permissions to delete packages."""
        return self.is_member(self._asking(), self.allow_delete)

    def _asking(self) -> Caller:
        """Who makes the request; nobody known if there is none."""
        caller = getattr(self.request, "caller", None)
        return (
            caller if isinstance(caller, Caller) else self.caller(getattr(self.request, "authenticated_userid", None))
        )

    # -- what a caller may do

    def permits(self, caller: Caller, package: str, permission: str) -> bool:
        """Whether a caller has ``read`` or ``write`` on a project.

        Entries of the project's own, if it has any, are all that counts; else the defaults do. An admin may
        do everything. A class that overrides ``has_permission`` is asked through it when it has a request,
        and so answers for who makes that.
        """
        if self.request is not None and self._overrides(IAccessBackend, "has_permission"):
            return bool(self.has_permission(normalized(package), permission))
        return self._decide(caller, normalized(package), permission)

    def may_write_something(self, caller: Caller) -> bool:
        """Whether there may be a project that the caller can write; the bytes of who cannot are not even kept.

        A user who is known may; the anonymous caller only where ``everyone`` has the right, by default or on
        some project. A class with rules of its own is not second-guessed.
        """
        own_rules = ("permits", "has_permission", "allowed_permissions", "get_acl", "ROOT_ACL")
        if caller.user is not None or self._overrides(IAccessBackend, *own_rules):
            return True
        return "everyone" in self.default_write or any(
            WRITE in row["permissions"] for row in self.group_package_permissions("everyone")
        )

    def has_permission(self, package: str, perm: str) -> bool:
        """Check if this user has a permission for a package."""
        return self._decide(self._asking(), normalized(package), perm)

    def readable(self, names: Iterable[str], caller: Caller) -> list[str]:
        """Those of the names that the caller may read, in the order given."""
        return [name for name in names if self.permits(caller, name, READ)]

    def has_explicit_permissions(self, package: str) -> bool:
        """Whether the project has entries of its own, so that the defaults do not apply to it."""
        project = normalized(package)
        return bool(self.user_permissions(project) or self.group_permissions(project))

    def allowed_permissions(self, package: str) -> dict[str, tuple[str, ...]]:
        """Get all allowed permissions for all principals on a package: a mapping of principal to permissions."""
        project = normalized(package)
        users, groups = self.user_permissions(project), self.group_permissions(project)
        if users or groups:
            granted = {f"user:{user}": set(allowed) for user, allowed in users.items()}
            for group, allowed in groups.items():
                granted.setdefault(group_to_principal(group), set()).update(allowed)
        else:
            granted = {principal: {READ} for principal in groups_to_principals(self.default_read)}
            for principal in groups_to_principals(self.default_write):
                granted.setdefault(principal, set()).add(WRITE)
        extra = () if project in self.disallow_fallback else (FALLBACK,)
        return {
            principal: (*(word for word in PERMISSIONS if word in allowed), *extra)
            for principal, allowed in granted.items()
            if allowed
        }

    def get_acl(self, package: str) -> Sequence[AccessControlEntry]:
        """Construct an ACL for a package; ``ROOT_ACL`` follows it."""
        allowed = self.allowed_permissions(package)
        return [("Allow", principal, word) for principal, words in allowed.items() for word in words]

    def _decide(self, caller: Caller, project: NormalizedName, permission: str) -> bool:
        """The rule of compat.md 4.6, for a name that is normalised already."""
        if permission == FALLBACK and project in self.disallow_fallback:
            return False
        if self._overrides(IAccessBackend, "get_acl", "ROOT_ACL"):
            return acl_permits([*self.get_acl(project), *self.ROOT_ACL], caller.principals, permission)
        if caller.is_admin:
            return True
        allowed = self.allowed_permissions(project)
        return any(permission in allowed[principal] for principal in caller.principals if principal in allowed)

    def revision(self) -> str | None:
        """A token that changes whenever any right changes, or None if the backend keeps none."""
        return None

    # -- users, groups and permissions, which a backend knows

    def verify_user(self, username: str, password: str) -> bool:
        """Check the login credentials of a user. Pending users of mutable backends must fail."""
        return passwords.verify(password, self._get_password_hash(username), user=username, context=self.pwd_context)

    def stored_hash(self, username: str) -> str | None:
        """What a remembered login depends on: when it changes or is None, the password is checked again."""
        if self._overrides(IAccessBackend, "verify_user"):
            return None
        return self._get_password_hash(username)

    def _get_password_hash(self, username: str) -> str | None:
        """The password hash of a user, or None if there is no such user or it is pending."""
        raise NotImplementedError

    def groups(self, username: str | None = None) -> list[str]:
        """Get a list of all groups, or of those that a user belongs to."""
        raise NotImplementedError

    def group_members(self, group: str) -> list[str]:
        """Get a list of users that belong to a group."""
        raise NotImplementedError

    def is_admin(self, username: str) -> bool:
        """Check if the user is an admin."""
        raise NotImplementedError

    def group_permissions(self, package: str) -> dict[str, list[str]]:
        """Get a mapping of all groups to their permissions on a package (``read``, ``write``)."""
        raise NotImplementedError

    def user_permissions(self, package: str) -> dict[str, list[str]]:
        """Get a mapping of all users to their permissions for a package (``read``, ``write``)."""
        raise NotImplementedError

    def user_package_permissions(self, username: str) -> list[dict[str, Any]]:
        """Get a list of all packages that a user has permissions on.

        Each is a dict with ``package`` (str) and ``permissions`` (list).
        """
        raise NotImplementedError

    def group_package_permissions(self, group: str) -> list[dict[str, Any]]:
        """Get a list of all packages that a group has permissions on; built-in groups included.

        Each is a dict with ``package`` (str) and ``permissions`` (list).
        """
        raise NotImplementedError

    def user_data(self, username: str | None = None) -> Any:
        """Get a list of all users, or data for a single user.

        Each user is a dict with ``username`` (str) and ``admin`` (bool); a single one has ``groups`` (list)
        as well, and is None if there is no such user. Pending users are left out.
        """
        raise NotImplementedError

    # -- registration, health, moving house

    def need_admin(self) -> bool:
        """Find out if there are any admin users: True if there is none and the backend is mutable."""
        return False

    def allow_register(self) -> bool:
        """Check if the backend allows registration."""
        return False

    def allow_register_token(self) -> bool:
        """Check if the backend allows registration via tokens."""
        return False

    def check_health(self) -> tuple[bool, str]:
        """Check the health of the access backend: whether it is healthy, and a message about it."""
        return True, ""

    def dump(self) -> dict[str, Any]:
        """Dump all of the access control data to a universal format (compat.md 4.9)."""
        return dumps.dump(self)

    def load(self, data: Any) -> Any:
        """Idempotently load universal access control data: nothing is ever taken away by it.

        Raises :class:`NotSupported` on immutable backends that do not override it.
        """
        raise NotSupported(f"{type(self).__name__} cannot store access control data; load it into another backend")


@functools.lru_cache(maxsize=64)
def _projects(names: tuple[str, ...]) -> frozenset[NormalizedName]:
    return frozenset(normalized(name) for name in names)


@functools.cache
def _differ(cls: type, since: type, names: tuple[str, ...]) -> bool:
    return any(getattr(cls, name) is not getattr(since, name) for name in names)
