"""The access backends in memory keep the access contract, which other tests rely on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.access.base_json import IJsonAccessBackend, IMutableJsonAccessBackend
from pypicloud.access.rights import ALL_PERMISSIONS
from pypicloud.models import Caller
from pypicloud.testing.access import (
    AccessContract,
    AccessFactory,
    MakeAccess,
    MemoryAccess,
    MutableMemoryAccess,
    configured,
    to_json_data,
)
from pypicloud.testing.access_mutable import MutableAccessContract

if TYPE_CHECKING:
    from collections.abc import Mapping


class TestMemoryAccess(AccessContract):
    @pytest.fixture
    def make(self) -> MakeAccess:
        """Given the world as JSON in its setting."""

        def make(data: Mapping[str, Any], settings: Mapping[str, str]) -> AccessFactory:
            return configured(MemoryAccess, {**settings, "auth.data": json.dumps(to_json_data(data))})

        return make


class TestMutableMemoryAccess(MutableAccessContract):
    @pytest.fixture
    def make(self) -> MakeAccess:
        """Filled by loading the world."""

        def make(data: Mapping[str, Any], settings: Mapping[str, str]) -> AccessFactory:
            factory = configured(MutableMemoryAccess, settings)
            factory(None).load(data)
            return factory

        return make


class TestMutableMemoryAccessFromJson(MutableAccessContract):
    @pytest.fixture
    def make(self) -> MakeAccess:
        """Given the world as JSON of 1.x, with names of projects that are not normalised."""

        def make(data: Mapping[str, Any], settings: Mapping[str, str]) -> AccessFactory:
            return configured(MutableMemoryAccess, {**settings, "auth.data": json.dumps(to_json_data(data))})

        return make


def test_nothing_is_there_without_data() -> None:
    """A backend whose data is empty knows nobody and answers everything."""
    access = MutableMemoryAccess()
    assert access.dump()["users"] == access.groups() == access.pending_users() == []
    assert access.need_admin() is True
    assert access.allow_register() is False
    access.create_group("devs")
    access.set_allow_register(True)
    assert access.data["groups"] == {"devs": []}
    assert access.data["allow_registration"] is True


def test_registration_stored_as_text() -> None:
    """The text "false", which 1.3.12 stored for a form's false, means no (compat.md 4.2)."""
    assert MutableMemoryAccess(data={"allow_registration": "false"}).allow_register() is False
    assert MutableMemoryAccess(data={"allow_registration": "true"}).allow_register() is True


def test_group_that_is_called_admin_makes_no_admins() -> None:
    """Stored groups with the name of a built-in one are nobody's principal and not listed."""
    data = {"users": {"bob": "!"}, "groups": {"admin": ["bob"], "everyone": ["bob"]}}
    access = MemoryAccess(data=data)
    assert access.caller("bob") == Caller("bob", frozenset({"user:bob", Caller.EVERYONE, Caller.AUTHENTICATED}))
    assert access.groups() == access.group_members("admin") == []
    assert not access.in_group("bob", "admin")


def test_two_spellings_are_one_project() -> None:
    """Entries under two spellings of one name are joined, and edited together."""
    data = {
        "users": {"bob": "!", "amy": "!"},
        "packages": {"my_pkg": {"users": {"bob": ["write"]}}, "My-Pkg": {"users": {"bob": ["read"], "amy": ["read"]}}},
    }
    access = MutableMemoryAccess(data=data)
    assert access.user_permissions("my.pkg") == {"bob": ["read", "write"], "amy": ["read"]}
    access.edit_user_permission("my-pkg", "bob", "write", False)
    assert data["packages"] == {"my-pkg": {"users": {"bob": ["read"], "amy": ["read"]}, "groups": {}}}


def test_json_of_older_versions_may_lack_everything() -> None:
    """Missing and null sections count as empty."""
    nothing = {"users": None, "groups": None, "admins": None, "packages": {"p": {"users": None}}}
    access = MemoryAccess(data=nothing)
    assert not access.has_explicit_permissions("p")
    assert access.user_data() == []
    assert not access.is_admin("bob")


def test_password_that_is_no_text() -> None:
    """A user whose stored password is not even text cannot log in."""
    access = MemoryAccess(data={"users": {"bob": 123, "amy": None}})
    for user in ("bob", "amy"):
        assert access.verify_user(user, "123") is False
        assert access.stored_hash(user) is None


def test_what_must_be_overridden_says_so() -> None:
    """The JSON base classes alone cannot read or write."""
    access = IMutableJsonAccessBackend()
    for call in (lambda: access.db, access._save):
        with pytest.raises(NotImplementedError):
            call()


def test_readable_in_bulk_asks_what_a_subclass_overrides() -> None:
    """A subclass with rules of its own is asked for every name, and its entries count."""

    class Mine(MemoryAccess):
        def user_permissions(self, package: str) -> dict[str, list[str]]:
            return {"bob": ["read"]} if package == "mine" else {}

    access = Mine(default_read=["everyone"])
    assert access.readable(["mine", "other"], access.caller(None)) == ["other"]
    assert access.readable(["mine", "other"], access.caller("bob")) == ["mine", "other"]
    assert access.has_explicit_permissions("Mine")


def test_root_acl_is_what_the_framework_understands() -> None:
    """ROOT_ACL equals the documented list made of the framework's own objects."""
    from pyramid.authorization import ALL_PERMISSIONS as EVERYTHING

    assert list(IJsonAccessBackend.ROOT_ACL) == [
        ("Allow", "system.Authenticated", "login"),
        ("Allow", "admin", EVERYTHING),
        ("Deny", "system.Everyone", EVERYTHING),
    ]
    assert "anything" in ALL_PERMISSIONS
    assert list(ALL_PERMISSIONS) == []
    assert ALL_PERMISSIONS != ("read",)
    assert len({ALL_PERMISSIONS, ALL_PERMISSIONS}) == 1
    assert repr(ALL_PERMISSIONS) == "ALL_PERMISSIONS"
