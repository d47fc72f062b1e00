"""Backend that reads access control rules from config file."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from pypicloud.access import dumps, options, passwords
from pypicloud.access.base import IAccessBackend
from pypicloud.access.base_json import IJsonAccessBackend, Rights
from pypicloud.access.rights import BUILT_IN_GROUPS, PERMISSIONS, READ, WRITE
from pypicloud.models import normalized
from pypicloud.settings import NAMES, TEXT, EnvironSettings, Setting

LOG: Final = logging.getLogger(__name__)

ADMINS: Final = Setting("auth.admins", NAMES, (), "The users who may read and write everything, and administrate.")
USER: Final = Setting("user.*", TEXT, "", "user.<name>: the password hash of a user, made with ppc-gen-password.")
GROUP: Final = Setting("group.*", NAMES, (), "group.<name>: the users in a group.")
PACKAGE: Final = Setting(
    "package.*",
    TEXT,
    "",
    "package.<project>.user.<name>, package.<project>.group.<name>: r, w or rw. Once a project has any of these, "
    "only they count for it.",
)

#: The settings that name groups.
_GROUP_LISTS: Final = (
    options.DEFAULT_READ,
    options.DEFAULT_WRITE,
    options.CACHE_UPDATE,
    options.ALLOW_OVERWRITE_GROUPS,
    options.ALLOW_DELETE_GROUPS,
)

#: The length up to which a permission text is letters and beyond which it is words (compat.md 1.8).
_LETTERS: Final = 2


class ConfigAccessBackend(IJsonAccessBackend):
    """Access Backend that uses values set in the config file."""

    is_local = True

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*IAccessBackend.SETTINGS, ADMINS, USER, GROUP, PACKAGE)

    def __init__(
        self, request: Any = None, data: dict[str, Any] | None = None, rights: Rights | None = None, **kwargs: Any
    ) -> None:
        super().__init__(request, **kwargs)
        self.data = {} if data is None else data
        self._rights = rights

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Read the settings, once at the start; return the keyword arguments of the constructor."""
        kwargs = super().configure(settings)
        data = access_data(settings)
        named = {setting.key: setting.read(settings) for setting in _GROUP_LISTS}
        for sentence in oddities(data, named):
            LOG.warning("%s (%s)", sentence, settings.file or "settings")
        return {**kwargs, "data": data, "rights": Rights(data)}

    def _get_db(self) -> dict[str, Any]:
        return self.data

    def revision(self) -> str | None:
        """A constant: the config file is read once."""
        return "config"

    def load(self, data: Any) -> str:
        """The lines of an ini file that say what was dumped; nothing is stored."""
        dumps.check(data)
        return "\n".join(_ini_lines(data))


def access_data(settings: EnvironSettings) -> dict[str, Any]:
    """The users, groups and permissions of the file, in the JSON format of compat.md 4.2."""
    users: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    packages: dict[str, dict[str, dict[str, list[str]]]] = {}
    for key in settings:
        family, _, rest = key.partition(".")
        if family == "user" and rest:
            users[rest] = str(settings[key]).strip()
        elif family == "group" and rest:
            _read_group(settings, key, rest, groups)
        elif family == "package":
            _read_permission(settings, key, rest, packages)
    return {"users": users, "groups": groups, "admins": list(ADMINS.read(settings)), "packages": packages}


def _read_group(settings: EnvironSettings, key: str, group: str, groups: dict[str, list[str]]) -> None:
    if group in BUILT_IN_GROUPS:
        LOG.warning("%s (%s) is ignored: the group is built in, its members are known", key, settings.source(key))
    else:
        groups[group] = list(dict.fromkeys(Setting(key, NAMES, (), GROUP.help).read(settings)))


def _read_permission(
    settings: EnvironSettings, key: str, rest: str, packages: dict[str, dict[str, dict[str, list[str]]]]
) -> None:
    found = split_package_key(rest)
    if found is None:
        LOG.warning(
            "%s (%s) is ignored: it must be package.<project>.user.<name> or package.<project>.group.<name>",
            key,
            settings.source(key),
        )
        return
    package, kind, name = found
    text = str(settings[key]).strip()
    granted = parse_permissions(text)
    if text and not granted:
        LOG.warning(
            "%s = %s (%s) grants nothing, and closes the project to all who have no entry: use r, w or rw",
            key,
            text,
            settings.source(key),
        )
    entries = packages.setdefault(normalized(package), {"users": {}, "groups": {}})[f"{kind}s"]
    entries[name] = [word for word in PERMISSIONS if word in granted or word in entries.get(name, ())]


def split_package_key(rest: str) -> tuple[str, str, str] | None:
    """Project, ``user`` or ``group``, and name in what follows ``package.``; dots in project and name are fine."""
    found = [(rest.find(f".{kind}.", 1), kind) for kind in ("user", "group")]
    index, kind = min(((index, kind) for index, kind in found if index > 0), default=(0, ""))
    name = rest[index + len(kind) + 2 :]
    return (rest[:index], kind, name) if kind and name else None


def parse_permissions(text: str) -> list[str]:
    """What a permission text grants: up to two letters are ``r`` and ``w``, more are words (compat.md 1.8)."""
    if len(text) <= _LETTERS:
        return [word for word in PERMISSIONS if word[0] in text]
    return [word for word in PERMISSIONS if word in text.split()]


def oddities(data: Mapping[str, Any], named: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """A sentence on each user or group that is named but not defined, and on each hash that cannot be checked.

    ``named`` are the groups that settings name, by key.
    """
    users, groups = data["users"], {*data["groups"], *BUILT_IN_GROUPS}
    for name, stored in users.items():
        if not passwords.is_hash(stored):
            yield f"user.{name} is not a password hash, so {name} cannot log in; make one with ppc-gen-password"
    lists = {"auth.admins": data["admins"], **{f"group.{group}": members for group, members in data["groups"].items()}}
    for key, names in lists.items():
        for name in sorted({*names} - users.keys()):
            yield f"{key} names {name!r}, but there is no user.{name}{_hint(name)}"
    for key, names in named.items():
        for group in sorted({*names} - groups):
            yield f"{key} names {group!r}, but there is no group.{group}{_hint(group)}"
    for project, entries in data["packages"].items():
        strangers = [("user", name) for name in entries["users"] if name not in users]
        strangers += [("group", name) for name in entries["groups"] if name not in groups]
        for kind, name in strangers:
            yield f"package.{project}.{kind}.{name} is there, but there is no {kind}.{name}"


def _hint(name: str) -> str:
    is_other_list = not set(name).isdisjoint(",[]'\"")
    return "; in a list, put spaces between the words, and no commas, brackets or quotes" if is_other_list else ""


def _ini_lines(data: Mapping[str, Any]) -> Iterator[str]:
    for user in data["users"]:
        if user.get("password"):
            yield _line(f"user.{user['username']}", user["password"])
        else:
            LOG.warning("User %r has no password hash in the dump and is left out", user["username"])
    for user in data.get("pending_users", ()):
        LOG.warning("User %r is pending, which a config file cannot express, and is left out", user["username"])
    admins = [user["username"] for user in data["users"] if user.get("admin")]
    if admins:
        yield _line("auth.admins", *admins, is_list=True)
    for group, members in data.get("groups", {}).items():
        yield _line(f"group.{group}", *members, is_list=True)
    packages = data.get("packages", {})
    for kind in ("user", "group"):
        for package, entries in packages.get(f"{kind}s", {}).items():
            for name, granted in entries.items():
                letters = ("r" if READ in granted else "") + ("w" if WRITE in granted else "")
                yield _line(f"package.{normalized(package)}.{kind}.{name}", letters)


def _line(key: str, *values: str, is_list: bool = False) -> str:
    """One entry of an ini file: a percent sign is doubled there, list items stand on indented lines."""
    text = "".join(f"\n    {value}" for value in values) if is_list else f" {' '.join(values)}"
    return f"{key} ={text}".replace("%", "%%").rstrip()
