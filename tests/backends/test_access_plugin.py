"""Access backends that third parties wrote for 1.3.12, against its documented base classes alone.

They know nothing of callers, bulk questions and revisions, and are given a request that 1.3.12 would have given them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.access import IAccessBackend, IMutableAccessBackend
from pypicloud.access.base import get_pwd_context, group_to_principal, groups_to_principals
from pypicloud.errors import BadRequest, NotFound, NotSupported
from pypicloud.models import Caller
from pypicloud.testing.access import AccessContract, AccessFactory, MakeAccess, asking, configured
from pypicloud.testing.access_mutable import MutableAccessContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pypicloud.settings import EnvironSettings

#: The databases of the plug-in by name: what its server would be.
DATABASES: dict[str, dict[str, Any]] = {}


def open_database(data: Mapping[str, Any] | None = None) -> str:
    """The name of a new database that holds dumped data."""
    database: dict[str, Any] = {"users": {}, "groups": {}, "permissions": {}, "flags": {}}
    name = f"database{len(DATABASES)}"
    DATABASES[name] = database
    if data is not None:
        for user in data["users"]:
            database["users"][user["username"]] = {**user, "pending": False}
        database["groups"].update({group: list(members) for group, members in data["groups"].items()})
        for kind in ("users", "groups"):
            for project, entries in data["packages"][kind].items():
                for name_, granted in entries.items():
                    key = (kind, project.lower().replace("_", "-").replace(".", "-"), name_)
                    database["permissions"][key] = set(granted)
    return name


class Plugin(IAccessBackend):
    """An immutable backend with exactly the methods that the documentation says to override."""

    def __init__(self, request: Any = None, database: str = "", **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.database = DATABASES[database]

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        kwargs = super().configure(settings)
        kwargs["database"] = settings["auth.database"]
        return kwargs

    def _get_password_hash(self, username: str) -> str | None:
        user = self.database["users"].get(username)
        return None if user is None or user["pending"] else user["password"]

    def groups(self, username: str | None = None) -> list[str]:
        groups = self.database["groups"]
        return [group for group, members in groups.items() if username is None or username in members]

    def group_members(self, group: str) -> list[str]:
        return list(self.database["groups"].get(group, ()))

    def is_admin(self, username: str) -> bool:
        return bool(self.database["users"].get(username, {}).get("admin"))

    def _permissions(self, kind: str, package: str) -> dict[str, list[str]]:
        entries = self.database["permissions"].items()
        return {name: sorted(granted) for (of, project, name), granted in entries if (of, project) == (kind, package)}

    def group_permissions(self, package: str) -> dict[str, list[str]]:
        return self._permissions("groups", package.lower().replace("_", "-").replace(".", "-"))

    def user_permissions(self, package: str) -> dict[str, list[str]]:
        return self._permissions("users", package.lower().replace("_", "-").replace(".", "-"))

    def _packages(self, kind: str, owner: str) -> list[dict[str, Any]]:
        entries = self.database["permissions"].items()
        return [
            {"package": project, "permissions": sorted(granted)}
            for (of, project, name), granted in entries
            if (of, name) == (kind, owner)
        ]

    def user_package_permissions(self, username: str) -> list[dict[str, Any]]:
        return self._packages("users", username)

    def group_package_permissions(self, group: str) -> list[dict[str, Any]]:
        return self._packages("groups", group)

    def user_data(self, username: str | None = None) -> Any:
        users = [user for user in self.database["users"].values() if not user["pending"]]
        if username is None:
            return [{"username": user["username"], "admin": user["admin"]} for user in users]
        for user in users:
            if user["username"] == username:
                return {"username": username, "admin": user["admin"], "groups": self.groups(username)}
        return None


class MutablePlugin(Plugin, IMutableAccessBackend):
    """A mutable backend with exactly the methods that the documentation says to override."""

    def _get_pending_hash(self, username: str) -> str | None:
        password: str = self.database["users"][username]["password"]
        return password

    def _register(self, username: str, password: str) -> None:
        user = {"username": username, "password": password, "admin": False, "pending": True}
        self.database["users"][username] = user

    def _user(self, username: str) -> dict[str, Any]:
        user: dict[str, Any] | None = self.database["users"].get(username)
        if user is None:
            raise NotFound(f"no {username}")
        return user

    def _set_password_hash(self, username: str, password_hash: str) -> None:
        self._user(username)["password"] = password_hash

    def pending_users(self) -> list[str]:
        return [name for name, user in self.database["users"].items() if user["pending"]]

    def approve_user(self, username: str) -> None:
        self._user(username)["pending"] = False

    def delete_user(self, username: str) -> None:
        self.database["users"].pop(username, None)
        for members in self.database["groups"].values():
            if username in members:
                members.remove(username)
        self._forget("users", username)

    def _forget(self, kind: str, name: str) -> None:
        permissions = self.database["permissions"]
        for key in [key for key in permissions if (key[0], key[2]) == (kind, name)]:
            del permissions[key]

    def set_user_admin(self, username: str, admin: bool) -> None:
        self._user(username)["admin"] = admin

    def edit_user_group(self, username: str, group: str, add: bool) -> None:
        members = self.database["groups"].get(group, [])
        if not add:
            members[:] = [member for member in members if member != username]
            return
        self._user(username)
        if group not in self.database["groups"]:
            raise NotFound(f"no {group}")
        if username not in members:
            members.append(username)

    def create_group(self, group: str) -> None:
        if group in {"", "everyone", "authenticated", "admin", *self.database["groups"]}:
            raise BadRequest(f"not {group}")
        self.database["groups"][group] = []

    def delete_group(self, group: str) -> None:
        if group in {"everyone", "authenticated", "admin"}:
            raise BadRequest(f"not {group}")
        self.database["groups"].pop(group, None)
        self._forget("groups", group)

    def _edit(self, key: tuple[str, str, str], perm: str, add: bool) -> None:
        if perm not in {"read", "write"}:
            raise BadRequest(f"not {perm}")
        granted = self.database["permissions"].setdefault(key, set())
        (granted.add if add else granted.discard)(perm)
        if not granted:
            del self.database["permissions"][key]

    def edit_user_permission(self, package_name: str, username: str, perm: str, add: bool) -> None:
        if add:
            self._user(username)
        self._edit(("users", package_name.lower().replace("_", "-").replace(".", "-"), username), perm, add)

    def edit_group_permission(self, package_name: str, group: str, perm: str, add: bool) -> None:
        if add and group not in {"everyone", "authenticated", "admin", *self.database["groups"]}:
            raise NotFound(f"no {group}")
        self._edit(("groups", package_name.lower().replace("_", "-").replace(".", "-"), group), perm, add)

    def allow_register(self) -> bool:
        return bool(self.database["flags"].get("allow_register"))

    def set_allow_register(self, allow: bool) -> None:
        self.database["flags"]["allow_register"] = allow


class TestPlugin(AccessContract):
    @pytest.fixture
    def make(self) -> MakeAccess:
        """Its own database holds the world."""

        def make(data: Mapping[str, Any], settings: Mapping[str, str]) -> AccessFactory:
            return configured(Plugin, {**settings, "auth.database": open_database(data)})

        return make


class TestMutablePlugin(MutableAccessContract):
    @pytest.fixture
    def make(self) -> MakeAccess:
        """Its own database is filled by loading the world."""

        def make(data: Mapping[str, Any], settings: Mapping[str, str]) -> AccessFactory:
            factory = configured(MutablePlugin, {**settings, "auth.database": open_database()})
            factory(None).load(data)
            return factory

        return make


class Small(IAccessBackend):
    """As little as a backend can be: one user, one group, one entry."""

    def __init__(self, request: Any = None, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)

    def _get_password_hash(self, username: str) -> str | None:
        return get_pwd_context("pbkdf2_sha256", 1).hash("secret") if username == "amy" else None

    def groups(self, username: str | None = None) -> list[str]:
        return ["devs"] if username in {None, "amy"} else []

    def group_members(self, group: str) -> list[str]:
        return {"devs": ["amy"]}[group]

    def is_admin(self, username: str) -> bool:
        return username == "root"

    def group_permissions(self, package: str) -> dict[str, list[str]]:
        return {"devs": ["read"]} if package == "my-pkg" else {}

    def user_permissions(self, package: str) -> dict[str, list[str]]:
        return {}

    def user_package_permissions(self, username: str) -> list[dict[str, Any]]:
        return []

    def group_package_permissions(self, group: str) -> list[dict[str, Any]]:
        return {"devs": [{"package": "my-pkg", "permissions": ["read"]}]}[group]

    def user_data(self, username: str | None = None) -> Any:
        return [{"username": "amy", "admin": False}]


def test_names_reach_a_plugin_normalised() -> None:
    """A plug-in that compares names as they are is asked for normalised ones, however the question is spelled."""
    access = Small(default_read=["everyone"])
    for name in ("my-pkg", "My_Pkg", "my.pkg"):
        assert access.permits(access.caller("amy"), name, "read")
        assert not access.permits(access.caller(None), name, "read")
        assert not access.has_permission(name, "read")
        assert access.has_explicit_permissions(name)
        assert access.get_acl(name) == [("Allow", "group:devs", "read"), ("Allow", "group:devs", "fallback")]


def test_dump_of_a_plugin_that_knows_no_built_in_groups() -> None:
    """A plug-in that raises KeyError for the built-in groups can be dumped."""
    dumped = Small().dump()
    assert dumped["packages"] == {"users": {}, "groups": {"my-pkg": {"devs": ["read"]}}}
    assert dumped["users"][0]["username"] == "amy"


def test_overridden_has_permission_is_asked() -> None:
    """A plug-in that overrides has_permission, super() included, decides whenever there is a request."""

    class Curfew(Small):
        def has_permission(self, package: str, perm: str) -> bool:
            return package != "forbidden" and super().has_permission(package, perm)

    caller = Curfew().caller("amy")
    access = Curfew(SimpleNamespace(caller=caller), default_read=["everyone"])
    assert access.permits(caller, "open", "read")
    assert not access.permits(caller, "For.bidden".replace(".", ""), "read")
    assert access.readable(["open", "forbidden", "my-pkg"], caller) == ["open", "my-pkg"]
    assert not access.permits(caller, "open", "write")


@pytest.mark.parametrize(
    "change",
    [
        {"allowed_permissions": lambda self, package: {"user:amy": ("read",)} if package == "special" else {}},
        {"get_acl": lambda self, package: [("Allow", "user:amy", ("read", "x"))] if package == "special" else []},
        {"get_acl": lambda self, package: [("Deny", Caller.EVERYONE, "read")] if package != "special" else []}
        | {"ROOT_ACL": [("Allow", "user:amy", "read")]},
        {"user_permissions": lambda self, package: {"amy": ["read"]} if package == "special" else {"bob": []}},
    ],
)
def test_overridden_rules_count(change: dict[str, Callable[..., Any]]) -> None:
    """A plug-in that overrides how permissions become rights is followed, with and without a request."""
    cls = type("Changed", (Small,), change)
    for request in (None, SimpleNamespace(caller=cls().caller("amy"))):
        access = cls(request, default_read=["everyone"])
        assert access.readable(["special", "other"], access.caller("amy")) == ["special"]
        assert access.readable(["special", "other"], access.caller("bob")) == []


def test_overridden_acl_leaves_admins_their_rights() -> None:
    """With an access control list of its own a plug-in's admins still get theirs from ROOT_ACL."""

    class Acl(Small):
        def get_acl(self, package: str) -> list[tuple[str, str, Any]]:
            return [("Allow", "user:amy", "read")]

    access = Acl()
    assert access.permits(access.caller("root"), "any", "write")
    assert not access.permits(access.caller("amy"), "any", "write")


def test_overridden_membership_counts() -> None:
    """A plug-in that overrides in_group, or the principals, is asked for the group rights."""

    class Members(Small):
        def in_group(self, username: str | None, group: str) -> bool:
            return username == "bob" and group == "owners"

    class Principals(Small):
        def user_principals(self, username: str | None) -> list[str]:
            return [*super().user_principals(username), "group:owners"]

    for cls, allowed in ((Members, {"bob"}), (Principals, {"amy", "bob"})):
        found = {
            user
            for user in ("amy", "bob")
            if cls(asking(cls(), user), allow_overwrite=["owners"]).can_overwrite_package()
        }
        assert found == allowed


def test_overridden_verify_user_is_never_remembered() -> None:
    """A plug-in that checks passwords in its own way gives no hash that a remembered login could hang on."""

    class Elsewhere(Small):
        def verify_user(self, username: str, password: str) -> bool:
            return password == "elsewhere"

        def _get_password_hash(self, username: str) -> str | None:
            raise NotImplementedError

    access = Elsewhere()
    assert access.verify_user("amy", "elsewhere")
    assert access.stored_hash("amy") is None
    assert access.dump()["users"] == [{"username": "amy", "admin": False, "password": None}]


def test_a_context_of_its_own_checks_passwords() -> None:
    """A plug-in may hand the base class a password context of its own."""
    access = Small(pwd_context=get_pwd_context("sha256_crypt", 1000))
    assert access.verify_user("amy", "secret") is True
    assert access.verify_user("amy", "Secret") is False


def test_defaults_of_the_documented_class() -> None:
    """The base class alone has the documented attributes and answers, and cannot be loaded into."""
    access = IAccessBackend()
    assert (access.request, access.mutable, access.is_local, access.token_expiration) == (None, False, False, 604800)
    assert (access.allow_register(), access.allow_register_token(), access.need_admin()) == (False, False, False)
    assert access.check_health() == (True, "")
    assert access.revision() is None
    IAccessBackend.postfork(anything=1)
    with pytest.raises(NotSupported):
        access.load({})


def test_what_must_be_overridden_says_so() -> None:
    """Every method that a plug-in has to provide raises NotImplementedError until it does."""
    access = IMutableAccessBackend()
    calls: list[Callable[[], Any]] = [
        lambda: access.verify_user("amy", "secret"),
        access.groups,
        lambda: access.group_members("devs"),
        lambda: access.is_admin("amy"),
        lambda: access.group_permissions("p"),
        lambda: access.user_permissions("p"),
        lambda: access.user_package_permissions("amy"),
        lambda: access.group_package_permissions("devs"),
        access.user_data,
        access.pending_users,
        access.allow_register,
        lambda: access.edit_user_password("amy", "secret"),
        lambda: access._register("amy", "hash"),
        lambda: access._get_pending_hash("amy"),
        lambda: access.approve_user("amy"),
        lambda: access.delete_user("amy"),
        lambda: access.set_user_admin("amy", True),
        lambda: access.edit_user_group("amy", "devs", True),
        lambda: access.create_group("devs"),
        lambda: access.delete_group("devs"),
        lambda: access.edit_user_permission("p", "amy", "read", True),
        lambda: access.edit_group_permission("p", "devs", "read", True),
        lambda: access.set_allow_register(True),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError):
            call()


def test_documented_functions() -> None:
    """Groups become principals: the built-in ones by their own name, the others with a prefix."""
    assert group_to_principal("devs") == "group:devs"
    assert groups_to_principals(["everyone", "authenticated", "admin"]) == [
        "system.Everyone",
        "system.Authenticated",
        "admin",
    ]


def test_token_of_the_original() -> None:
    """A token that 1.3.12 signed is valid here, for as long as the server says (compat.md 4.8)."""
    token = "newbie:1795159535:de8d9bd1a32dda218c50392f0ff772428e830096669226def003122b48e5c4ed"
    assert IMutableAccessBackend(signing_key="abc123", token_expiration=10**10).validate_signup_token(token) == "newbie"
    assert IMutableAccessBackend(signing_key="abc124", token_expiration=10**10).validate_signup_token(token) is None
    assert IMutableAccessBackend(signing_key="abc123", token_expiration=-(10**10)).validate_signup_token(token) is None
    assert IMutableAccessBackend(token_expiration=10**10).validate_signup_token(token) is None
