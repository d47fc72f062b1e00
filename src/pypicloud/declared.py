"""Every declared setting in one place, and the check of a configuration against them.

A setting is declared beside the code that reads it; here they are gathered for the start of the server,
``pypicloud check-config``, the reference page and the ini file that is made for new servers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pypicloud import access, auth, cache, fallback, index, pages, plugins, request, storage
from pypicloud.access.base import IAccessBackend
from pypicloud.cache.base import ICache
from pypicloud.errors import SettingError
from pypicloud.settings import (
    BOOLEAN,
    FILE_ONLY_PREFIXES,
    TEXT,
    EnvironSettings,
    Finding,
    Setting,
    environment_name,
    findings,
)
from pypicloud.storage.base import IStorage

Settings = tuple[Setting[Any], ...]

#: The login cookie of the web pages (compat.md 1.7). All of it is accepted, so that files keep working.
SESSION: Final[Settings] = (
    Setting(
        "session.encrypt_key",
        TEXT,
        None,
        "The key that encrypts the cookie of the web login, for example 32 random bytes in base64. Like all of "
        "session.*, it is accepted and not used: this version has no web login yet.",
        secret=True,
    ),
    Setting(
        "session.validate_key",
        TEXT,
        None,
        "The key that signs the cookie of the web login, for example 32 random bytes in base64.",
        secret=True,
    ),
    Setting("session.secure", BOOLEAN, False, "Whether browsers send the cookie of the web login over HTTPS only."),
    Setting("session.*", TEXT, "", "Any other option of the cookie, as Beaker names it."),
)

PYRAMID: Final = Setting("pyramid.*", TEXT, "", "Any other option of the framework, Pyramid.")

_EVERYWHERE: Final[tuple[tuple[str, Settings], ...]] = (
    ("Backends", plugins.SETTINGS),
    ("Upstream index", fallback.SETTINGS),
    ("Rights", IAccessBackend.SETTINGS),
    ("Index and pages", (*index.SETTINGS, *pages.SETTINGS, *request.SETTINGS, *auth.SETTINGS)),
    ("Facts about packages", ICache.SETTINGS),
    ("Package files", IStorage.SETTINGS),
)


Backend: TypeAlias = "type[IStorage | ICache | IAccessBackend]"


@dataclass(frozen=True)
class Choice:
    """A kind of backend: the setting that chooses one, what there is, and the prefix of its own settings.

    ``later`` are those of 1.3.12 that this version does not have, by short name.
    """

    word: str
    setting: Setting[str]
    backends: Mapping[str, str]
    base: Backend
    prefix: str
    later: Mapping[str, str]

    def resolve(self, settings: EnvironSettings) -> Backend:
        """The class that is chosen. Raises :class:`SettingError`."""
        spec = self.setting.read(settings)
        missing = self.missing(spec)
        if missing is None:
            found: Backend = plugins.resolve(self.setting, settings, self.backends, self.base)
            return found
        has = ", ".join(sorted(self.backends))
        raise SettingError(
            self.setting.key,
            f"this version does not have the {missing} {self.word} backend yet; it has {has}",
            value=spec,
            source=settings.source(self.setting.spelling(settings)),
        )

    def missing(self, spec: str) -> str | None:
        """The short name of a backend of 1.3.12 that this version does not have, if that is what is meant."""
        name = spec.replace(":", ".").rpartition(".")[2] if spec.startswith("pypicloud.") else spec
        found = (short for short, class_name in self.later.items() if name in (short, class_name))
        return next((short for short in found if short not in self.backends), None)


STORAGE: Final = Choice(
    "storage",
    plugins.STORAGE,
    storage.BACKENDS,
    IStorage,
    "storage.",
    {},
)
ACCESS: Final = Choice(
    "access",
    plugins.AUTH,
    access.BACKENDS,
    IAccessBackend,
    "auth.",
    {
        "sql": "SQLAccessBackend",
        "ldap": "LDAPAccessBackend",
        "aws_secrets_manager": "AWSSecretsManagerAccessBackend",
        "remote": "RemoteAccessBackend",
    },
)
CHOICES: Final = (
    STORAGE,
    Choice("cache", plugins.DB, cache.BACKENDS, ICache, "db.", {}),
    ACCESS,
)

#: The settings of backends of 1.3.12 that this version does not have, by owner (compat.md 1.4 to 1.6).
_LATER: Final = {
    "the sql access backend": "auth.db.*",
    "the ldap access backend": "auth.ldap.*",
    "the aws_secrets_manager access backend": """
        auth.secret_id auth.region_name auth.aws_access_key_id auth.aws_secret_access_key
        auth.aws_session_token auth.profile_name auth.kms_key_id""",
    "the remote access backend": "auth.backend_server auth.user auth.password auth.uri.*",
}

#: What older editions called what, as far as no declaration says it with ``was`` (compat.md 1.10).
_OLDER: Final = {
    "auth.ldap.service_account": "auth.ldap.service_dn",
}
_OLDER_PREFIX: Final = "aws."


def all_settings() -> list[tuple[str, Settings]]:
    """Every declared setting, once, in titled groups."""
    return _grouped(
        (f"{choice.word.capitalize()}: {name}", _class_settings(plugins.load(target, choice.backends, choice.base)))
        for choice in CHOICES
        for name, target in choice.backends.items()
    )


def readers(key: str) -> tuple[str, ...]:
    """The short names of the backends that read a setting of their own kind."""
    return tuple(
        name
        for choice in CHOICES
        for name, target in choice.backends.items()
        if key in {setting.key for setting in _class_settings(plugins.load(target, choice.backends, choice.base))}
    )


def settings_in_use(settings: EnvironSettings) -> list[tuple[str, Settings]]:
    """The groups of those settings that matter for the chosen backends."""
    return _grouped(
        (f"{choice.word.capitalize()}: {choice.setting.read(settings)}", _class_settings(backend))
        for choice, backend in _chosen(settings)[0]
    )


def _grouped(backends: Iterable[tuple[str, Settings]]) -> list[tuple[str, Settings]]:
    """The groups with each setting in the first that has it, the framework's own among the framework's."""
    seen: set[str] = set()
    found, framework = [], []
    for title, some in [*_EVERYWHERE, *backends, ("Web login", SESSION)]:
        new = {setting.key: setting for setting in some if setting.key not in seen}
        seen |= new.keys()
        framework += [setting for key, setting in new.items() if key.startswith("pyramid.")]
        found.append((title, tuple(setting for key, setting in new.items() if not key.startswith("pyramid."))))
    return [(title, some) for title, some in found if some] + [("Framework", (*framework, PYRAMID))]


def _class_settings(backend: type) -> Settings:
    """What a backend declares; one that was written for 1.3.12 declares nothing of its own."""
    declared: Settings = tuple(getattr(backend, "SETTINGS", ()))
    return declared


def _chosen(settings: EnvironSettings) -> tuple[list[tuple[Choice, Backend]], list[SettingError]]:
    found, errors = [], []
    for choice in CHOICES:
        try:
            found.append((choice, choice.resolve(settings)))
        except SettingError as error:
            errors.append(error)
    return found, errors


def check(settings: EnvironSettings) -> tuple[list[Finding], list[SettingError]]:
    """What is odd about a configuration, and everything that stops the server from starting with it.

    Nothing is connected to or written.
    """
    chosen, errors = _chosen(settings)
    in_use = [setting for _, group in settings_in_use(settings) for setting in group]
    for setting in in_use:
        if not setting.key.endswith("*"):
            try:
                setting.read(settings)
            except SettingError as error:
                errors.append(error)
    for look in (fallback.check, *(backend.check for _, backend in chosen)):
        try:
            look(settings)
        except SettingError as error:
            # What a setting says alone was found above.
            if error.setting not in {found.setting for found in errors}:
                errors.append(error)
    # A class of somebody else, or one that cannot be found, may read any key below its prefix.
    closed = {choice.prefix for choice, backend in chosen if backend.__module__.startswith("pypicloud.")}
    open_prefixes = [choice.prefix for choice in CHOICES if choice.prefix not in closed]
    declared = [setting for _, group in all_settings() for setting in group]
    later = _later()
    older = [Setting(key, TEXT, None, new) for key, new in _OLDER.items()]
    found = findings(settings, [*declared, *in_use, *later, *older], open_prefixes)
    found += _foreign(settings, {setting.key for setting in in_use}, declared, tuple(open_prefixes))
    found += _older(settings, {key for setting in [*declared, *in_use] for key in (setting.key, *setting.was)})
    found += _never_from_environment(settings)
    if settings.get(fallback.MODE.key) == "mirror":
        better = f"{fallback.MODE.key} = cache with {fallback.ALWAYS_SHOW_UPSTREAM.key} = true"
        found.append(Finding(fallback.MODE.key, f"is mirror, the older word; please use {better}"))
    return list(dict.fromkeys(found)), errors


def odd(settings: EnvironSettings) -> list[Finding]:
    """What the chosen storage warns of when it is configured, without configuring it."""
    found: list[Finding] = []
    for _, backend in _chosen(settings)[0]:
        if issubclass(backend, IStorage):
            with contextlib.suppress(SettingError):
                found += backend.odd(settings)
    return found


def _later() -> list[Setting[Any]]:
    return [Setting(key, TEXT, None, owner) for owner, keys in _LATER.items() for key in keys.split()]


def _foreign(
    settings: EnvironSettings, in_use: set[str], declared: Iterable[Setting[Any]], open_prefixes: tuple[str, ...]
) -> Iterator[Finding]:
    """A finding for each key that belongs to a backend which is not there, or not the chosen one."""
    here = {setting.key for setting in declared}
    for setting in declared:
        if setting.key not in in_use and setting.is_set(settings) and not setting.key.startswith(open_prefixes):
            yield Finding(setting.spelling(settings), "belongs to a backend that is not in use; it is ignored")
    for setting in _later():
        if setting.key in here or setting.key.startswith(open_prefixes):
            continue
        for key in _spellings(settings, setting.key):
            yield Finding(key, f"belongs to {setting.help}, which this version does not have yet; it is ignored")


def _spellings(settings: EnvironSettings, key: str) -> list[str]:
    """The keys, and variables of the environment, that set a key or are of a family."""
    if not key.endswith("*"):
        return [key] if key in settings else []
    start = environment_name(key[:-1])
    return [
        *(name for name in settings if name.startswith(key[:-1])),
        *(name for name in settings.environment() if name.startswith(start)),
    ]


def _older(settings: EnvironSettings, known: set[str]) -> Iterator[Finding]:
    for old, new in _OLDER.items():
        if old in settings and old not in known:
            yield Finding(old, f"is the older name of {new}; please rename it")
    for key in settings:
        if key.startswith(_OLDER_PREFIX) and key not in known:
            new = f"storage.{key.removeprefix(_OLDER_PREFIX)}"
            yield Finding(key, f"is the older name of {new}; please rename it")


def _never_from_environment(settings: EnvironSettings) -> Iterator[Finding]:
    starts = tuple(environment_name(prefix) for prefix in FILE_ONLY_PREFIXES)
    for name in settings.environment():
        if name.startswith(starts):
            yield Finding(name, "is ignored: users, groups and packages are read from the file only")
