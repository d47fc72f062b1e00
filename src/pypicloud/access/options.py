"""The settings that all access backends have in common."""

from __future__ import annotations

import logging
from typing import Any, Final

from pypicloud.access import passwords
from pypicloud.errors import SettingError
from pypicloud.settings import BOOLEAN, INTEGER, NAMES, SECONDS, TEXT, EnvironSettings, Setting, one_of

LOG: Final = logging.getLogger(__name__)

DEFAULT_READ: Final = Setting(
    "pypi.default_read",
    NAMES,
    ("authenticated",),
    "The groups that may read projects that have no user or group permissions of their own.",
)
DEFAULT_WRITE: Final = Setting(
    "pypi.default_write",
    NAMES,
    (),
    "The groups that may write projects that have no user or group permissions of their own; by default only admins.",
)
DISALLOW_FALLBACK: Final = Setting(
    "pypi.disallow_fallback",
    NAMES,
    (),
    "The projects that are never looked up on, or redirected to, the upstream index.",
)
CACHE_UPDATE: Final = Setting(
    "pypi.cache_update",
    NAMES,
    ("authenticated",),
    "With pypi.fallback = cache, which this version does not have yet, the groups whose downloads are fetched from "
    "the upstream index and kept.",
)
ALLOW_OVERWRITE_GROUPS: Final = Setting(
    "pypi.allow_overwrite_groups",
    NAMES,
    (),
    "The groups that may replace a stored file. Admins are not exempt: name `admin` to include them.",
)
ALLOW_OVERWRITE: Final = Setting(
    "pypi.allow_overwrite",
    BOOLEAN,
    False,
    "Whether every user may replace a stored file. Used only if pypi.allow_overwrite_groups is not set.",
    deprecated=ALLOW_OVERWRITE_GROUPS.key,
)
ALLOW_DELETE_GROUPS: Final = Setting(
    "pypi.allow_delete_groups",
    NAMES,
    ("authenticated",),
    "The groups that may delete a stored file, if they may write the project. Admins are not exempt.",
)
ALLOW_DELETE: Final = Setting(
    "pypi.allow_delete",
    BOOLEAN,
    True,
    "Whether users may delete files of projects they may write. Used only if pypi.allow_delete_groups is not set.",
    deprecated=ALLOW_DELETE_GROUPS.key,
)
SCHEME: Final = Setting(
    "auth.scheme",
    one_of(*passwords.SCHEMES, *passwords.SCHEME_ALIASES),
    passwords.DEFAULT_SCHEME,
    "The format of new password hashes, for access backends whose passwords can be changed; all formats can be "
    "checked, whatever this says. ppc-gen-password has an option of its own.",
)
ROUNDS: Final = Setting(
    "auth.rounds",
    INTEGER,
    0,
    "The rounds of these new password hashes; 0 means what suits the scheme. More is slower, for attackers too.",
)
SIGNING_KEY: Final = Setting(
    "auth.signing_key",
    TEXT,
    "",
    "The key that signs signup tokens, for access backends where users can sign up; without one there are none.",
    secret=True,
)
TOKEN_EXPIRE: Final = Setting(
    "auth.token_expire", SECONDS, 7 * 24 * 3600, "How long a signup token is valid, in seconds."
)

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    DEFAULT_READ,
    DEFAULT_WRITE,
    DISALLOW_FALLBACK,
    CACHE_UPDATE,
    ALLOW_OVERWRITE_GROUPS,
    ALLOW_OVERWRITE,
    ALLOW_DELETE_GROUPS,
    ALLOW_DELETE,
    SCHEME,
    ROUNDS,
    SIGNING_KEY,
    TOKEN_EXPIRE,
)


def read(settings: EnvironSettings) -> dict[str, Any]:
    """The keyword arguments of every access backend."""
    return {
        "default_read": list(DEFAULT_READ.read(settings)),
        "default_write": list(DEFAULT_WRITE.read(settings)),
        "disallow_fallback": list(DISALLOW_FALLBACK.read(settings)),
        "cache_update": list(CACHE_UPDATE.read(settings)),
        "allow_overwrite": _allowed_groups(settings, ALLOW_OVERWRITE_GROUPS, ALLOW_OVERWRITE),
        "allow_delete": _allowed_groups(settings, ALLOW_DELETE_GROUPS, ALLOW_DELETE),
        "pwd_context": _password_context(settings),
        "token_expiration": TOKEN_EXPIRE.read(settings),
        "signing_key": SIGNING_KEY.read(settings) or None,
    }


def _allowed_groups(settings: EnvironSettings, groups: Setting[tuple[str, ...]], older: Setting[bool]) -> list[str]:
    """The groups that a pair of settings allows: the list, or else the deprecated yes or no for every user."""
    if groups.is_set(settings) or not older.is_set(settings):
        return list(groups.read(settings))
    allowed = older.read(settings)
    text = str(settings[older.key])
    if text and not allowed:
        LOG.warning(
            "%s = %s (%s) now means no. PyPICloud 1.x took any text there for yes. To allow it, set %s = authenticated",
            older.key,
            text,
            settings.source(older.key),
            groups.key,
        )
    return ["authenticated"] if allowed else []


def _password_context(settings: EnvironSettings) -> passwords.PasswordContext:
    """What hashes passwords; a scheme or a number of rounds that cannot be used stops the start."""
    scheme, rounds = SCHEME.read(settings), ROUNDS.read(settings)
    try:
        return passwords.get_pwd_context(scheme, rounds)
    except ValueError as error:
        raise SettingError(ROUNDS.key, str(error), value=str(rounds), source=settings.source(ROUNDS.key)) from error
