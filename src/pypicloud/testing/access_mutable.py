"""What every mutable access backend must do besides what every access backend does."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.access import tokens
from pypicloud.access.base import IMutableAccessBackend
from pypicloud.errors import BadRequest, NotFound
from pypicloud.testing.access import AccessContract, AccessFactory, MakeAccess, canonical, rights
from pypicloud.testing.world import WORLD, WORLD_SETTINGS, answers

if TYPE_CHECKING:
    from collections.abc import Callable

EMPTY: dict[str, Any] = {
    "allow_register": False,
    "users": [],
    "groups": {},
    "packages": {"users": {}, "groups": {}},
}


class MutableAccessContract(AccessContract):
    """What every mutable access backend promises.

    Each step is taken with an instance of its own, as the server takes each request: what one instance
    changes, the next one finds.
    """

    @pytest.fixture
    def fresh(self, factory: AccessFactory) -> Callable[[], IMutableAccessBackend]:
        """Makes another instance of the backend under test."""

        def fresh() -> IMutableAccessBackend:
            access = factory(None)
            assert isinstance(access, IMutableAccessBackend)
            return access

        return fresh

    def test_is_mutable(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """The backend says that it is mutable."""
        assert fresh().mutable is True

    def test_registered_users_wait(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A new user is pending, and a user like any other once approved."""
        fresh().register("new", "new-secret")
        assert sorted(fresh().pending_users()) == ["new", "pat"]
        assert not fresh().verify_user("new", "new-secret")
        assert fresh().user_data("new") is None
        fresh().approve_user("new")
        assert fresh().pending_users() == ["pat"]
        assert fresh().verify_user("new", "new-secret")
        assert fresh().user_data("new") == {"username": "new", "admin": False, "groups": []}
        fresh().approve_user("new")
        assert fresh().verify_user("new", "new-secret")

    def test_pending_users_keep_their_password(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A pending user of a loaded dump can log in once approved."""
        fresh().approve_user("pat")
        assert fresh().verify_user("pat", "pat-secret")

    def test_taken_and_unusable_names(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Names that exist, are pending, are empty or have a colon are refused, and unusable passwords are, too."""
        before = canonical(fresh().dump())
        taken = (("alice", "x"), ("pat", "x"), ("", "x"), ("a:b", "x"))
        for name, password in (*taken, *(("new", password) for password in ("", "\x00", "\ud800", "x" * 5000))):
            with pytest.raises(BadRequest):
                fresh().register(name, password)
        assert canonical(fresh().dump()) == before
        assert fresh().pending_users() == ["pat"]
        assert fresh().verify_user("alice", "alice-secret")

    def test_change_of_password(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A changed password holds at once, the old one no longer; an empty one is refused."""
        before = fresh().stored_hash("alice")
        fresh().edit_user_password("alice", "other")
        assert fresh().verify_user("alice", "other")
        assert not fresh().verify_user("alice", "alice-secret")
        assert fresh().stored_hash("alice") != before
        with pytest.raises(BadRequest):
            fresh().edit_user_password("alice", "")
        with pytest.raises(NotFound):
            fresh().edit_user_password("nobody", "other")
        assert fresh().verify_user("alice", "other")

    def test_deleted_users_leave_nothing(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A deleted user is gone from everywhere, and whoever registers the name next inherits nothing."""
        fresh().set_user_admin("alice", True)
        for name in ("alice", "alice", "pat", "nobody"):
            fresh().delete_user(name)
        assert not fresh().verify_user("alice", "alice-secret")
        assert fresh().pending_users() == []
        assert fresh().group_members("devs") == ["bob"]
        assert fresh().user_permissions("private-lib") == {}
        fresh().register("alice", "new-secret")
        fresh().approve_user("alice")
        assert fresh().user_data("alice") == {"username": "alice", "admin": False, "groups": []}
        assert fresh().user_package_permissions("alice") == []

    def test_admin_flag(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Made an admin twice and unmade once, a user is no admin; unknown users cannot be made one."""
        fresh().set_user_admin("alice", True)
        fresh().set_user_admin("alice", True)
        assert fresh().is_admin("alice")
        fresh().set_user_admin("alice", False)
        assert not fresh().is_admin("alice")
        with pytest.raises(NotFound):
            fresh().set_user_admin("nobody", True)
        with pytest.raises(NotFound):
            fresh().approve_user("nobody")

    def test_need_of_an_admin(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """An admin is needed exactly when there is none."""
        fresh().set_user_admin("root", False)
        assert fresh().need_admin() is True
        fresh().set_user_admin("carol", True)
        assert fresh().need_admin() is False

    def test_groups_come_and_go(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A group has the members it was given, and leaves no permissions behind when it is deleted."""
        fresh().create_group("new")
        for _ in range(2):
            fresh().edit_user_group("alice", "new", True)
        assert fresh().group_members("new") == ["alice"]
        fresh().edit_group_permission("drop-box", "new", "read", True)
        assert fresh().permits(fresh().caller("alice"), "drop-box", "read")
        for _ in range(2):
            fresh().delete_group("new")
        assert "new" not in fresh().groups()
        assert sorted(fresh().groups("alice")) == ["devs"]
        fresh().create_group("new")
        assert fresh().group_members("new") == []
        assert fresh().group_package_permissions("new") == []

    def test_leaving_a_group(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A user leaves one group and stays in the others; leaving a group one is not in changes nothing."""
        fresh().edit_user_group("bob", "ops", False)
        assert fresh().groups("bob") == ["devs"]
        before = canonical(fresh().dump())
        for user, group in (("bob", "ops"), ("nobody", "ops"), ("bob", "no-such-group")):
            fresh().edit_user_group(user, group, False)
        assert canonical(fresh().dump()) == before

    def test_unusable_groups(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Groups that exist or are built in cannot be created, nor built-in ones deleted, nor missing ones joined."""
        before = canonical(fresh().dump())
        for group in ("devs", "everyone", "authenticated", "admin", ""):
            with pytest.raises(BadRequest):
                fresh().create_group(group)
        with pytest.raises(BadRequest):
            fresh().delete_group("everyone")
        for user, group in (("alice", "no-such-group"), ("nobody", "devs"), ("alice", "admin")):
            with pytest.raises(NotFound):
                fresh().edit_user_group(user, group, True)
        assert canonical(fresh().dump()) == before

    def test_permissions_come_and_go(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Permissions are given and taken one by one, under any spelling; without the last the defaults apply."""
        for _ in range(2):
            fresh().edit_user_permission("Plain.Lib", "carol", "write", True)
        assert fresh().user_permissions("plain-lib") == {"carol": ["write"]}
        assert not fresh().permits(fresh().caller("alice"), "plain-lib", "read")
        fresh().edit_user_permission("plain_lib", "carol", "read", True)
        assert fresh().user_permissions("plain-lib") == {"carol": ["read", "write"]}
        for perm in ("write", "write", "read"):
            fresh().edit_user_permission("plain-lib", "carol", perm, False)
        assert fresh().user_permissions("plain-lib") == {}
        assert not fresh().has_explicit_permissions("plain-lib")
        assert rights(fresh()) == answers()

    def test_permissions_under_an_older_spelling(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """What was granted under one spelling can be taken away under another."""
        fresh().edit_user_permission("zope.interface", "dotty.smith", "write", False)
        assert fresh().user_permissions("zope-interface") == {"dotty.smith": ["read"]}
        fresh().edit_user_permission("Zope_Interface", "dotty.smith", "read", False)
        assert not fresh().has_explicit_permissions("zope-interface")

    def test_permissions_of_groups(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Groups, built-in ones included, are given and taken permissions."""
        for group in ("everyone", "authenticated", "admin", "devs"):
            fresh().edit_group_permission("plain-lib", group, "read", True)
            fresh().edit_group_permission("plain-lib", group, "read", True)
            assert fresh().group_permissions("plain-lib") == {group: ["read"]}
            assert sorted(fresh().groups()) == ["devs", "empty", "ops"]
            fresh().edit_group_permission("plain-lib", group, "read", False)
            assert fresh().group_permissions("plain-lib") == {}

    def test_unusable_permissions(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Nothing can be granted to nobody, nor a permission that there is not; taking away nothing is fine."""
        with pytest.raises(NotFound):
            fresh().edit_user_permission("plain-lib", "nobody", "read", True)
        with pytest.raises(NotFound):
            fresh().edit_group_permission("plain-lib", "no-such-group", "read", True)
        with pytest.raises(BadRequest):
            fresh().edit_user_permission("plain-lib", "alice", "admin", True)
        with pytest.raises(BadRequest):
            fresh().edit_group_permission("plain-lib", "devs", "fallback", True)
        fresh().edit_user_permission("plain-lib", "nobody", "read", False)
        fresh().edit_group_permission("plain-lib", "no-such-group", "read", False)
        assert rights(fresh()) == answers()

    def test_revision_changes(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A backend that keeps a revision changes it with each right."""
        if fresh().revision() is None:
            assert fresh().revision() is None
            return
        seen = [fresh().revision()]
        steps: tuple[Callable[[], None], ...] = (
            lambda: fresh().edit_user_permission("plain-lib", "carol", "read", True),
            lambda: fresh().edit_group_permission("plain-lib", "everyone", "read", True),
            lambda: fresh().edit_user_group("carol", "devs", True),
            lambda: fresh().set_user_admin("carol", True),
            lambda: fresh().delete_group("ops"),
            lambda: fresh().delete_user("carol"),
        )
        for step in steps:
            step()
            seen.append(fresh().revision())
        assert len(set(seen)) == len(seen)

    def test_registration_is_opened_and_closed(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """The registration switch keeps what it was set to."""
        fresh().set_allow_register(True)
        assert fresh().allow_register() is True
        assert fresh().dump()["allow_register"] is True
        fresh().set_allow_register(False)
        assert fresh().allow_register() is False

    def test_signup_tokens(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """A token gives back its user name until it expires, and only if nothing in it was changed."""
        token = fresh().get_signup_token("newbie")
        assert fresh().validate_signup_token(token) == "newbie"
        old = tokens.issue("abc123", "newbie", now=time.time() - fresh().token_expiration - 60)
        foreign = tokens.issue("other key", "newbie")
        for bad in (
            old,
            foreign,
            f"x{token}",
            f"{token}0",
            token[:-1],
            "",
            ":",
            "::",
            "a:b:c",
            "\ud800:1:2",
            f"{token}:x",
        ):
            assert fresh().validate_signup_token(bad) is None
        for name in ("a:b", ""):
            with pytest.raises(BadRequest):
                fresh().get_signup_token(name)

    def test_no_tokens_without_a_key(self, make: MakeAccess) -> None:
        """Without a signing key there are no tokens, and none is valid."""
        access = make(EMPTY, {**WORLD_SETTINGS, "auth.signing_key": ""})(None)
        assert isinstance(access, IMutableAccessBackend)
        assert access.allow_register_token() is False
        assert access.validate_signup_token(tokens.issue("", "newbie")) is None
        with pytest.raises(BadRequest):
            access.get_signup_token("newbie")

    def test_dump_has_pending_users(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """The dump of a mutable backend has the pending users with their hashes."""
        assert fresh().dump()["pending_users"] == WORLD["pending_users"]

    def test_load_twice(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Loading the same data again, empty groups included, changes nothing."""
        before = json.loads(json.dumps(fresh().dump()))
        fresh().load(before)
        fresh().load(WORLD)
        assert canonical(fresh().dump()) == canonical(before) == canonical(WORLD)
        assert fresh().pending_users() == ["pat"]

    def test_load_merges(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Loading keeps passwords, sets admin flags, adds the rest and takes nothing away."""
        fresh().load(
            {
                "version": "0.5.0",
                "users": [
                    {"username": "alice", "password": "!", "admin": True},
                    {"username": "root", "password": "!", "admin": False},
                    {"username": "bob", "password": None},
                    {"username": "zoe", "password": None, "admin": False},
                    {"username": "pat", "password": "!"},
                ],
                "groups": {"devs": ["carol"], "more": ["zoe"], "everyone": ["alice"]},
                "packages": {
                    "users": {"private-lib": {"carol": ["read"]}},
                    "groups": {"Plain_Lib": {"more": ["write"]}},
                },
            }
        )
        access = fresh()
        assert access.is_admin("alice")
        assert not access.is_admin("root")
        assert access.verify_user("alice", "alice-secret")
        assert access.verify_user("bob", "bob-secret")
        assert access.verify_user("pat", "pat-secret")
        assert not access.verify_user("zoe", "!")
        assert sorted(access.group_members("devs")) == ["alice", "bob", "carol"]
        assert access.group_members("more") == ["zoe"]
        assert access.user_permissions("private-lib") == {"alice": ["read", "write"], "carol": ["read"]}
        assert access.group_permissions("plain-lib") == {"more": ["write"]}
        assert access.pending_users() == []
        assert access.allow_register() is False

    def test_load_opens_nothing(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Entries of unknown users and groups are left out, and the projects they closed stay closed."""
        fresh().load(
            {
                "users": [],
                "groups": {"devs": ["ghost"]},
                "packages": {
                    "users": {"Secret_One": {"ghost": ["read"]}, "no-entries": {}},
                    "groups": {"secret-two": {"ghosts": ["read"]}, "secret-three": {"devs": []}},
                },
            }
        )
        access = fresh()
        assert sorted(access.group_members("devs")) == ["alice", "bob"]
        for project in ("secret-one", "secret-two", "secret-three"):
            assert access.has_explicit_permissions(project)
            assert not access.permits(access.caller("alice"), project, "read")
            assert access.permits(access.caller("root"), project, "read")
        assert not access.has_explicit_permissions("no-entries")

    def test_load_refuses_what_is_no_dump(self, fresh: Callable[[], IMutableAccessBackend]) -> None:
        """Data that is no dump is refused, and nothing changes."""
        refused: tuple[Any, ...] = (None, [], {}, {"users": {}})
        for data in refused:
            with pytest.raises(BadRequest):
                fresh().load(data)
        assert canonical(fresh().dump()) == canonical(WORLD)
