"""What to answer for a project: one pure function, the documented table.

The table stands in ``docs/concepts/fallback.md``; the test of this module reads it there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NamedTuple

from pypicloud.errors import SettingError
from pypicloud.outgoing import is_web_address
from pypicloud.settings import BOOLEAN, TEXT, EnvironSettings, Setting, one_of

MODE: Final = Setting(
    "pypi.fallback",
    one_of("redirect", "cache", "none", "mirror"),
    "redirect",
    "What to do for a project that is not stored: redirect the client to the upstream index, cache what it "
    "downloads from there, or none. `mirror` is the older word for cache with pypi.always_show_upstream. This "
    "version cannot cache yet, and does not start with either.",
)
ALWAYS_SHOW_UPSTREAM: Final = Setting(
    "pypi.always_show_upstream",
    BOOLEAN,
    False,
    "Whether the page of a stored project also lists the files that only the upstream index has.",
)
BASE_URL: Final = Setting(
    "pypi.fallback_base_url",
    TEXT,
    None,
    "The upstream index without /simple; the default is PyPI.",
)
URL: Final = Setting(
    "pypi.fallback_url",
    TEXT,
    None,
    "The root of the upstream's simple pages. Used only if pypi.fallback_base_url is not set.",
    deprecated="pypi.fallback_base_url",
)
JSON_SCRAPER: Final = Setting(
    "pypi.use_json_scraper",
    BOOLEAN,
    False,
    "Whether what is upstream is read through its older JSON API, /pypi/<project>/json, as 1.3.12 read PyPI. By "
    "default it is read from the simple pages, in JSON if the upstream has that.",
)
REDIRECT_PRIVATE: Final = Setting(
    "pypi.redirect_private",
    BOOLEAN,
    False,
    "Whether a user who may not read a stored project is sent to the upstream index for it, as 1.3.12 did. "
    "That tells the upstream the private name and lets it answer for it: leave it off.",
)
SETTINGS: Final = (MODE, ALWAYS_SHOW_UPSTREAM, BASE_URL, URL, JSON_SCRAPER, REDIRECT_PRIVATE)


def base_url(settings: EnvironSettings) -> str:
    """The upstream index without ``/simple`` and without a final slash; PyPI if nothing else is said."""
    set_url = BASE_URL.read(settings)
    if set_url is not None:
        return set_url.rstrip("/")
    from distlib.index import DEFAULT_INDEX  # Only servers that use PyPI need its address.

    public: str = DEFAULT_INDEX
    return public.rpartition("/")[0]


def simple_url(settings: EnvironSettings) -> str | None:
    """The root of the upstream's simple pages without a final slash, if it is set and counts (compat.md 1.3)."""
    set_url = None if BASE_URL.is_set(settings) else URL.read(settings)
    return None if set_url is None else set_url.rstrip("/")


def reads_legacy_json(settings: EnvironSettings) -> bool:
    """Whether to read the older JSON API. Raises :class:`SettingError` if nobody says where that is (compat.md 1.3)."""
    wanted = JSON_SCRAPER.read(settings)
    if wanted and simple_url(settings) is not None:
        raise SettingError(
            JSON_SCRAPER.key,
            f"needs {BASE_URL.key}: {URL.key} names the simple pages only",
            value=str(settings[JSON_SCRAPER.key]),
            source=settings.source(JSON_SCRAPER.key),
        )
    return wanted


class Mode(enum.StrEnum):
    """The columns of the table."""

    NONE = "none"
    REDIRECT = "redirect"
    REDIRECT_ALWAYS = "redirect+always"
    CACHE = "cache"
    CACHE_ALWAYS = "cache+always"

    @property
    def is_caching(self) -> bool:
        """Whether files are fetched from the upstream and kept."""
        return self in {Mode.CACHE, Mode.CACHE_ALWAYS}

    @classmethod
    def read(cls, settings: EnvironSettings) -> Mode:
        """The mode that the settings ask for."""
        word = MODE.read(settings)
        if word == "none":
            return cls.NONE
        mirror = word == "mirror"
        always = ALWAYS_SHOW_UPSTREAM.read(settings) if ALWAYS_SHOW_UPSTREAM.is_set(settings) else mirror
        return cls(("cache" if mirror else word) + ("+always" if always else ""))


def check(settings: EnvironSettings) -> None:
    """Raise :class:`SettingError` if this version cannot do what is asked for, or the upstream has no address."""
    mode = Mode.read(settings)
    if mode.is_caching:
        raise SettingError(
            MODE.key,
            "is not available yet in this version, which does not keep what comes from upstream; "
            f"use redirect, perhaps with {ALWAYS_SHOW_UPSTREAM.key} = true, or none",
            value=str(settings[MODE.key]),
            source=settings.source(MODE.key),
        )
    simple = simple_url(settings)
    if mode is not Mode.NONE and not is_web_address(simple or base_url(settings)):
        setting = BASE_URL if simple is None else URL
        raise SettingError(setting.key, "must be an http or https address", source=settings.source(setting.key))
    reads_legacy_json(settings)


class Answer(enum.StrEnum):
    """The cells of the table."""

    LOGIN = "401"
    NOT_FOUND = "404"
    REDIRECT = "302"
    LIST = "list"
    LIST_AND_UPSTREAM = "list+up (direct links)"
    LIST_AND_UPSTREAM_CACHING = "list+up (caching links)"
    UPSTREAM_CACHING = "upstream, caching links"


#: The modes in which the page of a stored project may hold more than what is stored.
_MERGING: Final = frozenset({Mode.REDIRECT_ALWAYS, Mode.CACHE_ALWAYS})


class Situation(NamedTuple):
    """The left side of the table: what is known about the project and the caller.

    ``has_permissions`` says that the project has explicit permissions, stored or not; ``is_disallowed``
    that it is in ``pypi.disallow_fallback``.
    """

    is_stored: bool
    can_read: bool
    can_cache: bool
    is_logged_in: bool
    has_permissions: bool = False
    is_disallowed: bool = False


def decide(mode: Mode, situation: Situation, *, redirect_private: bool = False) -> Answer:
    """The cell of the table for a mode and a situation.

    A private name never leaves the house. A disallowed name gives what the server would say without an
    upstream; a name that is stored or has permissions is not sent upstream for a caller who may not read
    it, unless ``redirect_private`` brings the cells of 1.3.12 back (compat.md 5.11, row 1 0 - 1).
    """
    if situation.is_disallowed:
        mode = Mode.NONE
    if not situation.can_read:
        return _unreadable(mode, situation, redirect_private=redirect_private)
    return _stored(mode, situation) if situation.is_stored else _missing(mode, situation)


def _unreadable(mode: Mode, situation: Situation, *, redirect_private: bool) -> Answer:
    leaves = mode in {Mode.REDIRECT, Mode.REDIRECT_ALWAYS} or (mode is Mode.CACHE_ALWAYS and situation.is_logged_in)
    if situation.is_stored and not situation.is_logged_in:
        leaves = False
    if (situation.is_stored or situation.has_permissions) and not redirect_private:
        leaves = False
    if leaves:
        return Answer.REDIRECT
    return Answer.NOT_FOUND if situation.is_logged_in else Answer.LOGIN


def _stored(mode: Mode, situation: Situation) -> Answer:
    if mode is Mode.REDIRECT_ALWAYS:
        return Answer.LIST_AND_UPSTREAM
    if mode is not Mode.CACHE_ALWAYS:
        return Answer.LIST
    if situation.can_cache:
        return Answer.LIST_AND_UPSTREAM_CACHING
    return Answer.LIST_AND_UPSTREAM if situation.is_logged_in else Answer.LOGIN


def _missing(mode: Mode, situation: Situation) -> Answer:
    if mode is Mode.NONE:
        return Answer.NOT_FOUND
    if not mode.is_caching:
        return Answer.REDIRECT
    if situation.can_cache:
        return Answer.UPSTREAM_CACHING
    if not situation.is_logged_in:
        return Answer.LOGIN
    return Answer.REDIRECT if mode is Mode.CACHE_ALWAYS else Answer.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about fallback: worked out once, at the start.

    ``base_url`` is the upstream index without ``/simple``; ``simple_url`` the root of its simple pages
    (``pypi.fallback_url``), which then takes every redirect (compat.md 1.3). Both are for clients, too, and
    hold no credentials.
    """

    mode: Mode = Mode.NONE
    base_url: str = ""
    simple_url: str | None = None
    disallowed: frozenset[str] = frozenset()
    redirect_private: bool = False
    calculate_hashes: bool = True

    def lists_what_is_stored(self, project: str) -> bool:
        """Whether :func:`decide` gives ``list`` for everybody who may read a project, if it is stored."""
        return self.mode not in _MERGING or project in self.disallowed
