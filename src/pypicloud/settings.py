"""Settings: declared once, read from the ini file and the environment, checked, described.

A setting is declared beside the code that reads it::

    DIRECTORY = Setting("storage.dir", PATH, REQUIRED, "The directory that holds the package files.")

and read with ``DIRECTORY.read(settings)``. Everything else follows from the declaration: the conversion,
the error that names key, value and source, ``pypicloud check-config``, the reference page, the comments
of the ini file that ``pypicloud serve`` writes.

The rules of conversion and of the environment are those of 1.3.12 (compat.md 1.1, 1.2).
"""

from __future__ import annotations

import difflib
import enum
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pypicloud.errors import SettingError

#: Covariant, so that a kind of text serves for a setting whose default is None.
T_co = TypeVar("T_co", covariant=True)

#: The words that mean yes; every other word means no (compat.md 1.1).
TRUE_WORDS: Final = frozenset({"t", "true", "y", "yes", "on", "1"})
FALSE_WORDS: Final = frozenset({"f", "false", "n", "no", "off", "0", "none", ""})

#: Keys that are read by walking the file, and so never from the environment (compat.md 1.2).
FILE_ONLY_PREFIXES: Final = ("user.", "group.", "package.")

#: The prefixes of which every environment variable is taken in, known or not (compat.md 1.2).
OPEN_PREFIXES: Final = ("db.", "auth.db.", "session.")

#: The prefixes that are ours: a key below them that nobody declared is most likely a slip.
OUR_PREFIXES: Final = ("pypi.", "storage.", "db.", "auth.", "session.", *FILE_ONLY_PREFIXES)

#: The default of a call that was given none.
_NOTHING: Final = object()


def environment_name(key: str) -> str:
    """The variable that overrides a key: ``pypi.fallback`` -> ``PPC_PYPI_FALLBACK`` (compat.md 1.2)."""
    return "PPC_" + key.upper().replace(".", "_")


class EnvironSettings:
    """A mapping of the ini file's ``[app:main]`` section, in which the environment beats the file.

    A key read by its full name may come from ``PPC_<KEY>`` even if the file lacks it. Walking
    (``keys``, ``items``) sees the file's keys only, with their effective values, until
    :meth:`read_prefix_from_environ` takes in a prefix.
    """

    def __init__(self, settings: Mapping[str, Any], env: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings)
        environ = os.environ if env is None else env
        self._env = {name: value for name, value in environ.items() if name.startswith("PPC_")}

    @property
    def file(self) -> str | None:
        """The ini file these settings were read from, if they were."""
        return self._settings.get("__file__")

    def source(self, key: str) -> str | None:
        """Where the key's value comes from, in words for people, or None if it is not set."""
        name = self._variable(key)
        if name is not None:
            return f"environment variable {name}"
        if key in self._settings:
            return f"file {self.file}" if self.file else "settings"
        return None

    def _variable(self, key: str) -> str | None:
        if key.startswith(FILE_ONLY_PREFIXES):
            return None
        name = environment_name(key)
        return name if name in self._env else None

    def __getitem__(self, key: str) -> Any:
        name = self._variable(key)
        return self._env[name] if name is not None else self._settings[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._env.pop(environment_name(key), None)
        self._settings[key] = value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and (key in self._settings or self._variable(key) is not None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def get(self, key: str, default: Any | None = None) -> Any:
        """The effective value of a key, or the default."""
        return self[key] if key in self else default  # noqa: SIM401 - this is the get of a mapping

    def pop(self, key: str, default: Any = _NOTHING) -> Any:
        """Take a key out, wherever it is set, and return its effective value, or the default if there is one."""
        if key not in self:
            if default is _NOTHING:
                raise KeyError(key)
            return default
        value = self[key]
        self._settings.pop(key, None)
        self._env.pop(environment_name(key), None)
        return value

    def setdefault(self, key: str, value: Any) -> Any:
        """The effective value of a key, which is set to ``value`` first if it is not set at all."""
        if key not in self:
            self._settings[key] = value
        return self[key]

    def keys(self) -> KeysView[str]:
        """The file's keys."""
        return self._settings.keys()

    def items(self) -> ItemsView[str, Any]:
        """The file's keys with their effective values."""
        return {key: self[key] for key in self._settings}.items()

    def clone(self) -> EnvironSettings:
        """An independent copy."""
        return EnvironSettings(self._settings, self._env)

    def read_prefix_from_environ(self, prefix: str) -> None:
        """Take in every variable below a prefix: ``PPC_DB_POOL_SIZE`` sets ``db.pool_size``.

        The rest of the variable's name is lower-cased and keeps its underscores (compat.md 1.2).
        """
        start = environment_name(prefix)
        for name, value in list(self._env.items()):
            if name.startswith(start):
                self._settings[prefix + name[len(start) :].lower()] = value

    def get_as_dict(self, prefix: str, **kwargs: Callable[[Any], Any]) -> dict[str, Any]:
        """The named keys below a prefix that are set, each put through its conversion."""
        return {name: convert(self[prefix + name]) for name, convert in kwargs.items() if prefix + name in self}

    def environment(self) -> Mapping[str, str]:
        """The ``PPC_`` variables as they were at the start."""
        return dict(self._env)


@dataclass(frozen=True)
class Kind(Generic[T_co]):
    """How a setting's text becomes a value, and what to call it in the reference."""

    name: str
    parse: Callable[[str], T_co]


def as_bool(text: Any) -> bool:
    """Whether a word means yes: one of ``t true y yes on 1`` in any case (compat.md 1.1)."""
    return str(text).strip().lower() in TRUE_WORDS


def as_list(text: Any) -> tuple[str, ...]:
    """Words apart by spaces or line ends; no commas, no brackets (compat.md 1.1)."""
    return tuple(str(text).split())


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number, for example 3600") from None


def _natural(text: str) -> int:
    number = _whole(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of plain text")
    return text


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    # resolve() would follow links.
    return os.path.abspath(text)  # noqa: PTH100


_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(text: str) -> int:
    number, unit = text.strip().lower().removesuffix("b"), ""
    if number and number[-1] in _UNITS:
        number, unit = number[:-1], number[-1]
    try:
        size = int(number) * _UNITS[unit]
    except ValueError:
        raise ValueError("must be a number of bytes, for example 1073741824, 64M or 1G") from None
    if size < 0:
        raise ValueError("must not be negative")
    return size


TEXT: Final = Kind("text", str)
LINE: Final = Kind("one line of text", _line)
BOOLEAN: Final = Kind("boolean", as_bool)
NAMES: Final = Kind("list of names", as_list)
INTEGER: Final = Kind("integer", _whole)
SECONDS: Final = Kind("seconds", _natural)
SIZE: Final = Kind("bytes", _size)
PATH: Final = Kind("path", _path)
CLASS: Final = Kind("short name or dotted path", str)


def one_of(*words: str) -> Kind[str]:
    """A kind that allows exactly these words."""

    def parse(text: str) -> str:
        if text not in words:
            near = difflib.get_close_matches(text, words, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"must be one of {', '.join(words)}{hint}")
        return text

    return Kind(" | ".join(words), parse)


class Required(enum.Enum):
    """The default of a setting that has none."""

    REQUIRED = enum.auto()


REQUIRED: Final = Required.REQUIRED


@dataclass(frozen=True)
class Setting(Generic[T_co]):
    """One key of the ini file.

    ``was`` are older spellings that still work and warn; ``deprecated`` names the key to use instead of
    this one; a ``secret`` is masked wherever settings are shown. A key ending in ``*`` declares a whole
    family (``user.*``) that is documented here and read elsewhere.
    """

    key: str
    kind: Kind[T_co]
    default: T_co | Required
    help: str
    was: tuple[str, ...] = ()
    deprecated: str | None = None
    secret: bool = False

    def spelling(self, settings: EnvironSettings) -> str:
        """The spelling of the key that is in use: the key itself, or an older one that is set."""
        for key in (self.key, *self.was):
            if key in settings:
                return key
        return self.key

    def is_set(self, settings: EnvironSettings) -> bool:
        """Whether the file or the environment gives a value."""
        return self.spelling(settings) in settings

    def read(self, settings: EnvironSettings) -> T_co:
        """The effective value.

        Raises :class:`SettingError`, naming key, value and source, if it is missing or cannot be used.
        """
        key = self.spelling(settings)
        if key not in settings:
            if isinstance(self.default, Required):
                raise SettingError(self.key, f"is required: {self.help}", source=settings.file)
            return self.default
        value = settings[key]
        try:
            return self.kind.parse(value if isinstance(value, str) else _as_text(value))
        except ValueError as error:
            shown = "***" if self.secret else str(value)
            raise SettingError(key, str(error), value=shown, source=settings.source(key)) from error


def _as_text(value: Any) -> str:
    """A value given from Python (a test, an embedding program) as the ini file would spell it."""
    if isinstance(value, list | tuple | set | frozenset):
        return "\n".join(str(item) for item in value)
    return str(value)


@dataclass(frozen=True)
class Finding:
    """What is odd about a key: an older spelling, an unknown key, a word that is no yes or no."""

    key: str
    message: str


def findings(
    settings: EnvironSettings, declared: Iterable[Setting[Any]], open_prefixes: Iterable[str] = ()
) -> list[Finding]:
    """Everything worth a warning: deprecated and unknown keys, odd booleans.

    ``open_prefixes`` are those below which a third-party backend may read keys we know nothing of.
    """
    declared = list(declared)
    found: list[Finding] = []
    known: dict[str, Setting[Any]] = {}
    for setting in declared:
        known[setting.key] = setting
        for older in setting.was:
            known[older] = setting
            if older in settings:
                found.append(Finding(older, f"is the older name of {setting.key}; please rename it"))
        if setting.deprecated and setting.key in settings:
            found.append(Finding(setting.key, f"is deprecated; please use {setting.deprecated}"))
        if setting.kind is BOOLEAN and setting.key in settings:
            word = str(settings[setting.key]).strip().lower()
            if word not in TRUE_WORDS | FALSE_WORDS:
                found.append(Finding(setting.key, f"{word!r} is neither yes nor no and counts as no"))
    return found + _unknown(settings, known, tuple(open_prefixes))


def _unknown(
    settings: EnvironSettings, known: Mapping[str, Setting[Any]], open_prefixes: tuple[str, ...]
) -> list[Finding]:
    families = tuple(key[:-1] for key in known if key.endswith("*"))
    found = []
    for key in settings:
        if not key.startswith(OUR_PREFIXES) or key in known or key.startswith((*families, *open_prefixes)):
            continue
        found.append(Finding(key, f"is not a setting and is ignored{nearest(key, known)}"))
    variables = {environment_name(key) for key in known}
    starts = tuple(environment_name(prefix) for prefix in (*families, *open_prefixes, *OPEN_PREFIXES))
    for name in settings.environment():
        if name not in variables and not name.startswith(starts):
            near = difflib.get_close_matches(name, variables, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            found.append(Finding(name, f"is no setting's environment variable and is ignored{hint}"))
    return found


def nearest(key: str, known: Iterable[str]) -> str:
    """``"; did you mean pypi.fallback?"``, or nothing if no known key is near."""
    near = difflib.get_close_matches(key, [word for word in known if not word.endswith("*")], n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
