"""What every access backend must do, and access backends in memory.

The test of a backend is a class with one fixture::

    class TestMyAccess(AccessContract):
        @pytest.fixture
        def make(self) -> MakeAccess:
            def make(data, settings):
                return configured(MyAccess, {**settings, "auth.mine": ...})

            return make

A mutable backend takes :class:`pypicloud.testing.access_mutable.MutableAccessContract` instead.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import pytest

from pypicloud.access.base import IAccessBackend
from pypicloud.access.base_json import IJsonAccessBackend, IMutableJsonAccessBackend
from pypicloud.models import Caller, normalized
from pypicloud.settings import EnvironSettings, Kind, Setting
from pypicloud.testing.world import EXPLICIT, GROUP_ANSWERS, PRINCIPALS, WORLD, WORLD_SETTINGS, answers

#: Makes a backend for a request, or for none.
AccessFactory = Callable[[Any], IAccessBackend]

#: Makes a backend that holds dumped data, configured with the settings.
MakeAccess = Callable[[Mapping[str, Any], Mapping[str, str]], AccessFactory]

DATA: Final = Setting("auth.data", Kind("JSON", json.loads), {}, "The users, groups and permissions (compat.md 4.2).")


class MemoryAccess(IJsonAccessBackend):
    """Access control data in memory, which nobody can change."""

    is_local = True

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*IAccessBackend.SETTINGS, DATA)

    def __init__(self, request: Any = None, data: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.data = {} if data is None else data

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Read the settings, once at the start; return the keyword arguments of the constructor."""
        return {**super().configure(settings), "data": dict(DATA.read(settings))}

    def _get_db(self) -> dict[str, Any]:
        return self.data

    def revision(self) -> str | None:
        """A constant: nothing changes."""
        return "memory"


class MutableMemoryAccess(MemoryAccess, IMutableJsonAccessBackend):
    """Access control data in memory, shared by all instances that were made with the same ``data``."""

    def _save(self) -> None:
        self.data["changes"] = self.data.get("changes", 0) + 1

    def revision(self) -> str | None:
        """The number of changes."""
        return str(self.data.get("changes", 0))


def configured(cls: type[IAccessBackend], settings: Mapping[str, Any]) -> AccessFactory:
    """A backend, made as the server makes it, with an empty environment."""
    return functools.partial(cls, **cls.configure(EnvironSettings(settings, {})))


def asking(access: IAccessBackend, username: str | None) -> SimpleNamespace:
    """A request of a user, as far as access backends look at it."""
    return SimpleNamespace(caller=access.caller(username), authenticated_userid=username)


def respellings(project: str) -> list[str]:
    """Other spellings of one project's name (PEP 503)."""
    return [project.title().replace("-", "_"), project.replace("-", "."), project.upper().replace("-", "-_.")]


def to_json_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Dumped data in the format of compat.md 4.2."""
    packages: dict[str, Any] = {}
    for kind in ("users", "groups"):
        for project, entries in data["packages"][kind].items():
            packages.setdefault(project, {})[kind] = entries
    return {
        "users": {user["username"]: user["password"] for user in data["users"]},
        "pending_users": {user["username"]: user["password"] for user in data.get("pending_users", ())},
        "admins": [user["username"] for user in data["users"] if user["admin"]],
        "groups": data["groups"],
        "packages": packages,
        "allow_registration": data["allow_register"],
    }


def canonical(data: Mapping[str, Any]) -> dict[str, Any]:
    """Dumped data without what may differ: the order, the version, entries that grant nothing, pending users."""
    packages = {
        (kind, normalized(project), name): sorted(granted)
        for kind, projects in data["packages"].items()
        for project, entries in projects.items()
        for name, granted in entries.items()
        if normalized(project) != "sealed"
    }
    return {
        "allow_register": data["allow_register"],
        "groups": {group: sorted(members) for group, members in data["groups"].items()},
        "users": sorted((user["username"], user["admin"], user["password"]) for user in data["users"]),
        "packages": packages,
    }


def rights(access: IAccessBackend) -> dict[tuple[str | None, str], str]:
    """The backend's answers in the shape of :func:`pypicloud.testing.world.answers`."""
    return {
        (user, project): "".join(
            word[0] for word in ("read", "write") if access.permits(access.caller(user), project, word)
        )
        for user, project in answers()
    }


class AccessContract:
    """What every access backend promises, tried in the world of :mod:`pypicloud.testing.world`.

    What a backend dumps is compared with the world itself, and a mutable backend is filled by loading it:
    so each backend's data arrives in each mutable one.
    """

    @pytest.fixture
    def make(self) -> MakeAccess:
        """To override: how to make a backend that holds given data."""
        raise NotImplementedError

    @pytest.fixture
    def factory(self, make: MakeAccess) -> AccessFactory:
        """The backend under test, holding the world."""
        return make(WORLD, WORLD_SETTINGS)

    @pytest.fixture
    def access(self, factory: AccessFactory) -> IAccessBackend:
        """The backend under test, without a request."""
        return factory(None)

    def test_the_table_of_rights(self, access: IAccessBackend) -> None:
        """Each caller may read and write exactly what the table says."""
        assert rights(access) == answers()

    def test_rights_of_who_asks(self, factory: AccessFactory) -> None:
        """has_permission answers for the request's caller as the table says."""
        for (user, project), letters in answers().items():
            access = factory(asking(factory(None), user))
            assert access.has_permission(project, "read") == ("r" in letters), (user, project)
            assert access.has_permission(project, "write") == ("w" in letters), (user, project)

    def test_rights_of_an_authenticated_userid(self, factory: AccessFactory) -> None:
        """A request without a caller is asked for its authenticated_userid, as in 1.3.12."""
        assert factory(SimpleNamespace(authenticated_userid="alice")).has_permission("private-lib", "write")
        assert not factory(SimpleNamespace(authenticated_userid=None)).has_permission("private-lib", "read")
        assert not factory(None).has_permission("private-lib", "read")

    def test_spelling_makes_no_difference(self, access: IAccessBackend) -> None:
        """A project has the same rights under every spelling of its name."""
        for (user, project), letters in answers().items():
            for name in respellings(project):
                assert access.permits(access.caller(user), name, "read") == ("r" in letters), (user, name)
                assert access.permits(access.caller(user), name, "write") == ("w" in letters), (user, name)

    def test_readable_is_permits_in_bulk(self, access: IAccessBackend) -> None:
        """The bulk question gives, in the same order, what asking for each name gives."""
        projects = list(dict.fromkeys(project for _, project in answers()))
        for names in (projects, [name for project in projects for name in (*respellings(project), project)], []):
            for user in PRINCIPALS:
                caller = access.caller(user)
                expected = [name for name in names if access.permits(caller, name, "read")]
                assert access.readable(iter(names), caller) == expected, user

    def test_default_read_is_for_projects_without_entries(self, make: MakeAccess) -> None:
        """With default_read = everyone all may read what has no entries, and nothing else changes."""
        access = make(WORLD, {**WORLD_SETTINGS, "pypi.default_read": "everyone"})(None)
        expected = dict(answers())
        for project in ("plain-lib", "no-such-lib"):
            expected[None, project] = "r"
        assert rights(access) == expected
        names = [project for user, project in expected if user is None]
        assert access.readable(names, access.caller(None)) == [name for name in names if "r" in expected[None, name]]

    def test_without_defaults_only_admins_are_left(self, make: MakeAccess) -> None:
        """With empty defaults only admins may do anything with a project that has no entries."""
        access = make(WORLD, {**WORLD_SETTINGS, "pypi.default_read": "", "pypi.default_write": ""})(None)
        allowed = {user for (user, project), letters in rights(access).items() if project == "plain-lib" and letters}
        assert allowed == {"root"}

    def test_explicit_permissions(self, access: IAccessBackend) -> None:
        """A project has explicit permissions if it has any entry, even one that grants nothing."""
        for project in {project for _, project in answers()}:
            for name in (project, *respellings(project)):
                assert access.has_explicit_permissions(name) == (project in EXPLICIT), name

    def test_principals(self, access: IAccessBackend) -> None:
        """Each user has the principals of compat.md 4.6, once each."""
        for user, principals in PRINCIPALS.items():
            found = access.user_principals(user)
            assert sorted(found) == sorted(principals)
            assert access.caller(user) == Caller(user, frozenset(principals))

    def test_group_rights(self, factory: AccessFactory) -> None:
        """Caching, overwriting and deleting are for the configured groups; admins are not exempt."""
        for question, allowed in GROUP_ANSWERS.items():
            found = {user for user in PRINCIPALS if getattr(factory(asking(factory(None), user)), question)()}
            assert found == allowed, question
            assert getattr(factory(None), question)() is False

    def test_membership(self, access: IAccessBackend) -> None:
        """Users are in their groups and in the built-in ones; the anonymous caller is in everyone alone."""
        groups = ("everyone", "authenticated", "admin", "devs", "ops", "empty", "no-such-group")
        found = {user: {group for group in groups if access.in_group(user, group)} for user in PRINCIPALS}
        assert found == {
            None: {"everyone"},
            "carol": {"everyone", "authenticated"},
            "alice": {"everyone", "authenticated", "devs"},
            "bob": {"everyone", "authenticated", "devs", "ops"},
            "dotty.smith": {"everyone", "authenticated"},
            "root": {"everyone", "authenticated", "admin"},
        }
        for user, member_of in found.items():
            caller = access.caller(user)
            for group in groups:
                assert access.in_any_group(user, [group, "no-such-group"]) == (group in member_of)
                assert access.is_member(caller, [group, "no-such-group"]) == (group in member_of)
            assert not access.in_any_group(user, [])
            assert not access.is_member(caller, [])

    def test_groups(self, access: IAccessBackend) -> None:
        """Groups are listed without the built-in ones, with their members; unknown ones have none."""
        assert sorted(access.groups()) == ["devs", "empty", "ops"]
        assert sorted(access.groups("bob")) == ["devs", "ops"]
        assert list(access.groups("carol")) == list(access.groups("nobody")) == []
        assert sorted(access.group_members("devs")) == ["alice", "bob"]
        assert list(access.group_members("empty")) == list(access.group_members("no-such-group")) == []

    def test_users(self, access: IAccessBackend) -> None:
        """Users are listed with their admin flag; a single one has groups, too; pending ones are left out."""
        listed = sorted((user["username"], user["admin"]) for user in access.user_data())
        assert listed == sorted((user["username"], user["admin"]) for user in WORLD["users"])
        bob = access.user_data("bob")
        assert {**bob, "groups": sorted(bob["groups"])} == {
            "username": "bob",
            "admin": False,
            "groups": ["devs", "ops"],
        }
        assert access.user_data("root") == {"username": "root", "admin": True, "groups": []}
        assert access.user_data("pat") is None
        assert access.user_data("nobody") is None

    def test_admins(self, access: IAccessBackend) -> None:
        """Only the admin is an admin."""
        assert [user for user in ("root", "alice", "pat", "nobody", "Root", "") if access.is_admin(user)] == ["root"]

    def test_permissions_by_project(self, access: IAccessBackend) -> None:
        """The entries of a project are found under every spelling; a project without any has none."""
        for name in ("team-lib", "Team_Lib"):
            found = {group: sorted(granted) for group, granted in access.group_permissions(name).items()}
            assert found == {"devs": ["read"], "ops": ["read", "write"]}
            assert access.user_permissions(name) == {}
        assert access.group_permissions("open-lib")["everyone"] == ["read"]
        assert access.group_permissions("members-only") == {"authenticated": ["read"]}
        assert access.group_permissions("admins-only") == {"admin": ["read"]}
        for name in ("zope-interface", "Zope.Interface"):
            assert {user: sorted(granted) for user, granted in access.user_permissions(name).items()} == {
                "dotty.smith": ["read", "write"]
            }
        assert access.user_permissions("plain-lib") == access.group_permissions("plain-lib") == {}

    def test_permissions_by_owner(self, access: IAccessBackend) -> None:
        """The projects of a user or a group are listed with their permissions, built-in groups included."""

        def listed(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
            return {entry["package"]: sorted(entry["permissions"]) for entry in entries}

        assert listed(access.user_package_permissions("alice")) == {"private-lib": ["read", "write"]}
        assert listed(access.user_package_permissions("carol")) == {"drop-box": ["write"]}
        assert listed(access.user_package_permissions("dotty.smith")) == {"zope-interface": ["read", "write"]}
        assert listed(access.user_package_permissions("nobody")) == {}
        assert listed(access.group_package_permissions("devs")) == {"open-lib": ["read", "write"], "team-lib": ["read"]}
        assert listed(access.group_package_permissions("everyone")) == {"open-lib": ["read"]}
        assert listed(access.group_package_permissions("authenticated")) == {"members-only": ["read"]}
        assert listed(access.group_package_permissions("no-such-group")) == {}

    def test_allowed_permissions(self, access: IAccessBackend) -> None:
        """All principals of a project are listed with what they may do, the defaults if it has no entries."""
        assert access.allowed_permissions("Open_Lib") == {
            "system.Everyone": ("read", "fallback"),
            "group:devs": ("read", "write", "fallback"),
        }
        assert access.allowed_permissions("drop-box") == {"user:carol": ("write", "fallback")}
        assert access.allowed_permissions("plain-lib") == {
            "system.Authenticated": ("read", "fallback"),
            "group:ops": ("write", "fallback"),
        }
        assert ("Allow", "user:carol", "write") in access.get_acl("drop-box")

    def test_disallow_fallback_holds_for_all(self, access: IAccessBackend) -> None:
        """A project in disallow_fallback has no fallback permission, in any spelling and not even for admins."""
        for name in ("team-lib", "Team_Lib", "TEAM.LIB"):
            assert "fallback" not in {word for words in access.allowed_permissions(name).values() for word in words}
            assert not access.permits(access.caller("root"), name, "fallback")
            assert not access.permits(access.caller("bob"), name, "fallback")
        assert access.permits(access.caller("alice"), "private-lib", "fallback")
        assert access.permits(access.caller("root"), "private-lib", "fallback")
        assert not access.permits(access.caller("bob"), "private-lib", "fallback")

    def test_login(self, access: IAccessBackend) -> None:
        """The right password logs in; a wrong, empty or other user's one does not."""
        for user in ("root", "alice", "bob", "carol", "dotty.smith"):
            assert access.verify_user(user, f"{user}-secret") is True, user
            for password in ("wrong", "", f"{user}-secret\n", "nobody-secret", "\x00", "\ud800", "x" * 5000):
                assert access.verify_user(user, password) is False, (user, password)

    def test_login_of_nobody(self, access: IAccessBackend) -> None:
        """Unknown and pending users and those whose stored password is no hash cannot log in."""
        for user in ("nobody", "", "pat", "ALICE", "alice ", "eve"):
            for password in (f"{user}-secret", "", "in plain text", "!"):
                assert access.verify_user(user, password) is False, (user, password)

    def test_stored_hash(self, access: IAccessBackend) -> None:
        """What a remembered login depends on is the same at each look, and nothing for nobody."""
        assert access.stored_hash("alice") == access.stored_hash("alice")
        assert access.stored_hash("alice") is None or access.stored_hash("alice") != access.stored_hash("bob")
        assert access.stored_hash("nobody") is None
        assert access.stored_hash("pat") is None

    def test_revision_is_steady(self, factory: AccessFactory) -> None:
        """The revision stays the same as long as nothing changes."""
        assert factory(None).revision() == factory(None).revision()

    def test_health(self, access: IAccessBackend) -> None:
        """A backend that works says that it is healthy."""
        healthy, message = access.check_health()
        assert healthy is True
        assert isinstance(message, str)

    def test_registration_is_closed(self, access: IAccessBackend) -> None:
        """Nobody can register, and no admin is needed, in a world that has one."""
        assert access.allow_register() is False
        assert access.need_admin() is False
        assert access.allow_register_token() is access.mutable

    def test_dump_is_the_world(self, access: IAccessBackend) -> None:
        """A dump is plain JSON and holds the whole world, permissions of built-in groups included."""
        dumped = json.loads(json.dumps(access.dump()))
        assert canonical(dumped) == canonical(WORLD)
        assert any("sealed" in entries for entries in dumped["packages"].values())

    def test_dump_arrives(self, access: IAccessBackend) -> None:
        """Loaded into a mutable backend, the dump gives the table's answers there."""
        other = configured(MutableMemoryAccess, WORLD_SETTINGS)
        other(None).load(access.dump())
        assert rights(other(None)) == answers()
        assert other(None).verify_user("alice", "alice-secret")
