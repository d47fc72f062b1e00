"""Access control from the config file: the contract, the documented example, and what is odd about a file."""

from __future__ import annotations

import configparser
import logging
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.access import BACKENDS, ConfigAccessBackend, IAccessBackend
from pypicloud.access.base_json import Rights
from pypicloud.access.config import parse_permissions, split_package_key
from pypicloud.errors import BadRequest, NotSupported, SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.testing.access import AccessContract, AccessFactory, MakeAccess, canonical, configured, rights
from pypicloud.testing.world import WORLD, WORLD_SETTINGS, answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pypicloud.models import Caller, NormalizedName

HASH = "$5$rounds=1000$CLsaz0.7l1q3HE87$3fD0/y.OTqRjnR6kK7NvxwKWnFrs.trIfx9V8txNRT2"


def ini(data: Mapping[str, Any]) -> dict[str, str]:
    """Dumped data as somebody would write it into a config file."""
    settings = {f"user.{user['username']}": user["password"] for user in data["users"]}
    settings["auth.admins"] = "\n" + "\n".join(user["username"] for user in data["users"] if user["admin"])
    settings |= {f"group.{group}": "\n" + "\n".join(members) for group, members in data["groups"].items()}
    for kind in ("user", "group"):
        for package, entries in data["packages"][f"{kind}s"].items():
            for name, granted in entries.items():
                settings[f"package.{package}.{kind}.{name}"] = "".join(word[0] for word in granted)
    return settings


class CaseKeeping(configparser.ConfigParser):
    """A parser that keeps the case of keys, as the server's does."""

    def optionxform(self, optionstr: str) -> str:
        """The key as it is written."""
        return optionstr


def parse(text: str) -> dict[str, str]:
    """The keys of a config file's section, read as the server reads them."""
    parser = CaseKeeping(delimiters="=", strict=False)
    parser.read_string(f"[app:main]\n{text}")
    return dict(parser["app:main"])


def backend(settings: Mapping[str, Any], request: Any = None) -> ConfigAccessBackend:
    """The config backend made of some settings."""
    access = configured(ConfigAccessBackend, settings)(request)
    assert isinstance(access, ConfigAccessBackend)
    return access


class TestConfigAccess(AccessContract):
    @pytest.fixture
    def make(self) -> MakeAccess:
        """Given the world as lines of a config file."""

        def make(data: Mapping[str, Any], settings: Mapping[str, str]) -> AccessFactory:
            return configured(ConfigAccessBackend, {**settings, **ini(data)})

        return make

    def test_is_local_and_never_changes(self, factory: AccessFactory) -> None:
        """The backend may be asked on the event loop, and its revision is a constant."""
        assert factory(None).is_local is True
        assert factory(None).revision() == factory(None).revision() is not None


EXAMPLE = """
# USERS
# user: stevearc, pass: gunface
user.stevearc = $5$rounds=80000$yiWi67QBJLDTvbI/$d6qIG/bIoM3hp0lxH8v/vzxg8Qc4CJbxbxiUH4MlnE7
# user: dsa, pass: paranoia
user.dsa = $5$rounds=80000$U/lot7eW6gFvuvna$KDyrQvi40XXWzMRkBq1Z/0odJEXzqUVNaPIArL/W0s6
# user: donlan, pass: osptony
user.donlan = $5$rounds=80000$Qjz9eRNXrybydMz.$PoD.5vAR9Z2IYlOCPYbza1cKvQ.8kuz1cP0zKl314g0

# GROUPS
group.sharkfest =
    stevearc
    dsa
group.brotatos =
    donlan
    dsa

# PACKAGES
package.django_unchained.user.stevearc = rw
package.django_unchained.group.sharkfest = rw

package.polite_requests.user.dsa = rw
package.polite_requests.group.authenticated = r
package.polite_requests.group.brotatos = rw

package.pyramid_head.group.brotatos = rw
package.pyramid_head.group.everyone = r
"""

#: The table of the documentation; the last row is the anonymous caller.
EXAMPLE_TABLE = {
    "stevearc": {"django_unchained": "rw", "polite_requests": "r", "pyramid_head": "r"},
    "dsa": {"django_unchained": "rw", "polite_requests": "rw", "pyramid_head": "rw"},
    "donlan": {"django_unchained": "", "polite_requests": "rw", "pyramid_head": "rw"},
    None: {"django_unchained": "", "polite_requests": "", "pyramid_head": "r"},
}


@pytest.mark.parametrize("spelling", ["{}", "{}-normalised"])
def test_documented_example(spelling: str) -> None:
    """The example of the documentation gives the rights of its table, as written there and as clients ask."""
    access = backend(parse(EXAMPLE))
    found = {
        user: {
            project: "".join(
                word[0]
                for word in ("read", "write")
                if access.permits(
                    access.caller(user), project.replace("_", "-") if "normalised" in spelling else project, word
                )
            )
            for project in row
        }
        for user, row in EXAMPLE_TABLE.items()
    }
    assert found == EXAMPLE_TABLE


def test_documented_example_logs_in(caplog: pytest.LogCaptureFixture) -> None:
    """The passwords of the example work, and nothing about the example is odd."""
    access = backend(parse(EXAMPLE))
    assert caplog.messages == []
    for user, password in (("stevearc", "gunface"), ("dsa", "paranoia"), ("donlan", "osptony")):
        assert access.verify_user(user, password)
        assert not access.verify_user(user, password + "x")


def test_what_load_prints_is_the_same_world() -> None:
    """The lines that load gives for a dump make a backend of the same dump, and nothing is stored."""
    access = backend(WORLD_SETTINGS)
    text = access.load(WORLD)
    assert access.dump()["users"] == []
    again = backend({**WORLD_SETTINGS, **parse(text)})
    assert canonical(again.dump()) == canonical(WORLD)
    assert rights(again) == answers()


def test_lines_that_load_prints(caplog: pytest.LogCaptureFixture) -> None:
    """Users, admins, groups and packages each have the lines of compat.md 4.9."""
    text = backend({}).load(
        {
            "users": [
                {"username": "x", "admin": True, "password": "$5$aa$bb"},
                {"username": "100%", "admin": True, "password": "$5$aa$cc"},
                {"username": "ldap", "password": None},
            ],
            "pending_users": [{"username": "pat", "password": "$5$aa$dd"}],
            "groups": {"g": ["x", "y"], "empty": []},
            "packages": {
                "users": {"My_Pkg": {"x": []}},
                "groups": {"p": {"g": ["read", "write"], "everyone": ["write"]}},
            },
        }
    )
    assert text.splitlines() == [
        "user.x = $5$aa$bb",
        "user.100%% = $5$aa$cc",
        "auth.admins =",
        "    x",
        "    100%%",
        "group.g =",
        "    x",
        "    y",
        "group.empty =",
        "package.my-pkg.user.x =",
        "package.p.group.g = rw",
        "package.p.group.everyone = w",
    ]
    assert backend({}).load({"users": [{"username": "x", "password": "$5$aa$bb"}]}) == "user.x = $5$aa$bb"
    assert ["'ldap'" in message or "'pat'" in message for message in caplog.messages] == [True, True]


def test_load_refuses_what_is_no_dump() -> None:
    """Data that is no dump is refused."""
    with pytest.raises(BadRequest):
        backend({}).load(["users"])
    with pytest.raises(NotSupported, match="IAccessBackend"):
        IAccessBackend().load({"users": []})


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ("r", ["read"]),
        ("w", ["write"]),
        ("rw", ["read", "write"]),
        ("wr", ["read", "write"]),
        ("", []),
        ("x", []),
        ("rx", ["read"]),
        ("read", ["read"]),
        ("read write", ["read", "write"]),
        ("write\nread", ["read", "write"]),
        ("readwrite", []),
        ("read,write", []),
    ],
)
def test_permission_texts(text: str, granted: list[str]) -> None:
    """Up to two characters are letters, more are words (compat.md 1.8)."""
    assert parse_permissions(text) == granted


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("p.user.bob", ("p", "user", "bob")),
        ("p.group.devs", ("p", "group", "devs")),
        ("zope.interface.user.dotty.smith", ("zope.interface", "user", "dotty.smith")),
        ("zope.interface.group.the.devs", ("zope.interface", "group", "the.devs")),
        ("user.user.bob", ("user", "user", "bob")),
        ("group.user.group", ("group", "user", "group")),
        ("p.user.a.group.b", ("p", "user", "a.group.b")),
        ("p.group.a.user.b", ("p", "group", "a.user.b")),
        ("p", None),
        ("p.bob", None),
        ("p.user.", None),
        (".user.bob", None),
        ("p.users.bob", None),
        ("", None),
    ],
)
def test_package_keys(rest: str, found: tuple[str, str, str] | None) -> None:
    """Project and name are found around ``.user.`` or ``.group.``, whatever dots they have (compat.md 1.8, S4)."""
    assert split_package_key(rest) == found


def test_private_projects_stay_private() -> None:
    """Projects and users with underscores, dots and capitals are protected under default_read = everyone (S4)."""
    access = backend(
        {
            "pypi.default_read": "everyone",
            "user.dotty.smith": HASH,
            "package.my_pkg.user.dotty.smith": "r",
            "package.zope.interface.user.dotty.smith": "r",
            "package.Sealed_Pkg.user.dotty.smith": "",
        }
    )
    names = ["my-pkg", "My_Pkg", "zope-interface", "zope.interface", "sealed-pkg", "Sealed_Pkg", "public"]
    assert access.readable(names, access.caller(None)) == ["public"]
    assert access.readable(names, access.caller("dotty.smith")) == [*names[:4], "public"]
    assert [name for name in names if not access.has_explicit_permissions(name)] == ["public"]


def test_user_names_keep_their_case() -> None:
    """User names with dots and capitals are other users than those without."""
    access = backend({"user.Dotty.Smith": HASH})
    assert [user["username"] for user in access.user_data()] == ["Dotty.Smith"]
    assert access.verify_user("Dotty.Smith", "bob-secret")
    assert not access.verify_user("dotty.smith", "bob-secret")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"group.everyone": "bob"}, "group.everyone"),
        ({"group.authenticated": ""}, "group.authenticated"),
        ({"group.admin": "bob"}, "group.admin"),
        ({"auth.admins": "bob ghost"}, "auth.admins names 'ghost'"),
        ({"group.devs": "bob ghost"}, "group.devs names 'ghost'"),
        ({"pypi.default_read": "devs"}, "pypi.default_read names 'devs'"),
        ({"pypi.default_write": "['everyone']"}, "and no commas, brackets or quotes"),
        ({"pypi.allow_overwrite_groups": "devs,"}, "pypi.allow_overwrite_groups names 'devs,'"),
        ({"pypi.allow_delete_groups": "devs"}, "pypi.allow_delete_groups names 'devs'"),
        ({"pypi.cache_update": "devs"}, "pypi.cache_update names 'devs'"),
        ({"package.p.user.ghost": "r"}, "package.p.user.ghost"),
        ({"package.p.group.ghosts": "r"}, "package.p.group.ghosts"),
        ({"package.p.user.bob": "readwrite"}, "package.p.user.bob = readwrite"),
        ({"package.p.bob": "rw"}, "package.p.bob"),
        ({"user.eve": "in plain text"}, "user.eve is not a password hash"),
        ({"user.eve": ""}, "user.eve is not a password hash"),
    ],
)
def test_oddities_are_named(settings: dict[str, str], says: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each oddity of a file is one warning that names the key and the file, and never a hash."""
    backend({"user.bob": HASH, "__file__": "server.ini", **settings})
    assert len(caplog.messages) == 1
    assert says in caplog.messages[0]
    assert "server.ini" in caplog.messages[0]
    assert "plain text" not in caplog.text


def test_built_in_groups_cannot_be_defined() -> None:
    """A file that defines the members of a built-in group changes nothing by it."""
    access = backend({"user.bob": HASH, "group.admin": "bob"})
    assert access.groups() == access.groups("bob") == []
    assert not access.in_group("bob", "admin")
    assert not access.caller("bob").is_admin


def test_admins_from_the_environment() -> None:
    """PPC_AUTH_ADMINS beats the file; users, groups and packages are read from the file alone (compat.md 1.2)."""
    environ = {"PPC_AUTH_ADMINS": "bob", "PPC_USER_BOB": "x", "PPC_GROUP_DEVS": "bob", "PPC_PACKAGE_P_USER_BOB": "r"}
    settings = {"user.bob": HASH, "user.amy": HASH, "auth.admins": "amy", "group.devs": "amy"}
    access = ConfigAccessBackend(**ConfigAccessBackend.configure(EnvironSettings(settings, environ)))
    assert access.is_admin("bob")
    assert not access.is_admin("amy")
    assert access.verify_user("bob", "bob-secret")
    assert access.group_members("devs") == ["amy"]
    assert access.dump()["packages"] == {"users": {}, "groups": {}}


def test_dump_keeps_what_names_nobody() -> None:
    """Entries of users and groups that do not exist are dumped: they close the project to others."""
    access = backend({"package.p.user.ghost": "r", "package.q.group.ghosts": "w", "package.s.group.everyone": ""})
    assert access.dump()["packages"] == {
        "users": {"p": {"ghost": ["read"]}},
        "groups": {"q": {"ghosts": ["write"]}, "s": {"everyone": []}},
    }


@pytest.mark.parametrize("word", ["false", "no", "0", "off", "none", "False", "never"])
@pytest.mark.parametrize("right", ["overwrite", "delete"])
def test_deprecated_booleans_that_mean_no(word: str, right: str, caplog: pytest.LogCaptureFixture) -> None:
    """A word for no means no, and the change of its meaning is logged with file and key (S3, ruling 3)."""
    access = backend({f"pypi.allow_{right}": word, "__file__": "server.ini"})
    assert getattr(access, f"allow_{right}") == []
    assert len(caplog.messages) == 1
    assert f"pypi.allow_{right} = {word}" in caplog.messages[0]
    assert "server.ini" in caplog.messages[0]


@pytest.mark.parametrize(
    ("settings", "overwrite", "delete"),
    [
        ({}, [], ["authenticated"]),
        ({"pypi.allow_overwrite": "true", "pypi.allow_delete": "on"}, ["authenticated"], ["authenticated"]),
        ({"pypi.allow_overwrite": "", "pypi.allow_delete": ""}, [], []),
        ({"pypi.allow_overwrite_groups": "", "pypi.allow_overwrite": "true"}, [], ["authenticated"]),
        (
            {"pypi.allow_overwrite_groups": "devs admin", "pypi.allow_overwrite": "no"},
            ["devs", "admin"],
            ["authenticated"],
        ),
        ({"pypi.allow_delete_groups": "", "pypi.allow_delete": "true"}, [], []),
        ({"pypi.allow_delete_groups": "devs", "pypi.allow_delete": "no"}, [], ["devs"]),
    ],
)
def test_groups_beat_the_deprecated_booleans(
    settings: dict[str, str], overwrite: list[str], delete: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The deprecated booleans count only without the list of groups; what means the same as before is not logged."""
    access = backend({"group.devs": "", **settings})
    assert (access.allow_overwrite, access.allow_delete) == (overwrite, delete)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "settings",
    [
        {"auth.scheme": "md5"},
        {"auth.scheme": "sha512"},
        {"auth.rounds": "many"},
        {"auth.scheme": "bcrypt", "auth.rounds": "20500"},
        {"auth.token_expire": "a week"},
    ],
)
def test_bad_values_stop_the_start(settings: dict[str, str]) -> None:
    """A scheme, rounds or a time that cannot be used stops the start, and key, value and source are named."""
    with pytest.raises(SettingError) as caught:
        backend({**settings, "__file__": "server.ini"})
    key, value = list(settings.items())[-1]
    assert (caught.value.setting, caught.value.value) == (key, value)
    assert "server.ini" in str(caught.value)


def test_settings_reach_the_backend() -> None:
    """Each documented setting arrives as the documented attribute, the secret one in no log line."""
    access = backend(
        {
            "pypi.default_read": "everyone",
            "pypi.default_write": "authenticated",
            "pypi.cache_update": "admin",
            "pypi.disallow_fallback": "My_Pkg other",
            "auth.token_expire": "60",
            "auth.signing_key": "secret",
            "auth.scheme": "pbkdf2",
            "auth.rounds": "0",
        }
    )
    assert list(access.default_read) == ["everyone"]
    assert list(access.default_write) == ["authenticated"]
    assert list(access.cache_update) == ["admin"]
    assert access.disallow_fallback == {"my-pkg", "other"}
    assert (access.token_expiration, access.signing_key) == (60, "secret")
    assert access.pwd_context.hash("x").startswith("$pbkdf2-sha512$10500$")
    assert next(setting for setting in access.SETTINGS if setting.key == "auth.signing_key").secret


def test_defaults() -> None:
    """Without settings users read, admins write, nobody overwrites, users delete what they may write."""
    access = backend({"user.bob": HASH, "user.amy": HASH, "auth.admins": "amy"})
    bob = access.caller("bob")
    assert access.permits(bob, "any", "read")
    assert not access.permits(bob, "any", "write")
    assert not access.permits(access.caller(None), "any", "read")
    assert access.permits(access.caller("amy"), "any", "write")
    assert not access.is_member(access.caller("amy"), access.allow_overwrite)
    assert access.is_member(bob, access.allow_delete)
    assert access.is_member(bob, access.cache_update)
    assert access.readable(["any", "Other_One"], bob) == ["any", "Other_One"]
    assert access.signing_key is None
    assert access.allow_register_token() is False


def test_values_given_from_python() -> None:
    """A program that embeds the server may give lists instead of text."""
    access = backend({"user.bob": HASH, "group.devs": ["bob"], "auth.admins": ["bob"], "pypi.default_write": ["devs"]})
    assert access.group_members("devs") == ["bob"]
    assert access.is_admin("bob")


def test_a_hundred_thousand_names_are_not_walked_by_rule() -> None:
    """A listing asks for the rights of the few projects with entries, not of each name."""
    asked: list[str] = []

    class Counting(Rights):
        def permit(self, project: NormalizedName, caller: Caller, permission: str) -> bool | None:
            asked.append(project)
            return super().permit(project, caller, permission)

    data = {"users": {"bob": HASH}, "packages": {"p500": {"users": {"bob": ["read"]}}}}
    access = ConfigAccessBackend(data=data, rights=Counting(data), default_read=["everyone"])
    names = [f"p{number}" for number in range(100_000)]
    assert len(access.readable(names, access.caller(None))) == 99_999
    assert asked == ["p500"]


def test_login_at_what_is_no_hash(caplog: pytest.LogCaptureFixture) -> None:
    """A login of a user whose stored password is no hash fails and is logged by user name alone."""
    access = backend({"user.eve": "in plain text"})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert not access.verify_user("eve", "in plain text")
    assert "'eve'" in caplog.text
    assert "plain text" not in caplog.text


def test_short_name() -> None:
    """The short name ``config`` names this backend."""
    assert BACKENDS["config"] == f"{ConfigAccessBackend.__module__}:{ConfigAccessBackend.__name__}"
