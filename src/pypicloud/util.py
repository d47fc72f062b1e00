"""The documented helpers (compat.md 8.1); closed for new ones."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, Final
from urllib.parse import unquote

from pypicloud.settings import EnvironSettings

__all__ = [
    "ALL_EXTENSIONS",
    "EnvironSettings",
    "PackageParseError",
    "TimedCache",
    "create_matcher",
    "get_packagetype",
    "normalize_metadata",
    "normalize_metadata_value",
    "normalize_name",
    "parse_filename",
    "stream_file",
]

_SDIST_EXTENSIONS: Final = (".tar.gz", ".tar.bz2", ".tar", ".zip", ".tgz", ".tbz")

#: The endings of a file whose name says what it is; their case counts (compat.md 5.9).
ALL_EXTENSIONS: Final = (*_SDIST_EXTENSIONS, ".egg", ".exe", ".whl")

#: What a file is by its ending. These also know source distributions that can only be stored with name and version.
_PACKAGETYPES: Final = {
    **dict.fromkeys((*_SDIST_EXTENSIONS, ".tar.xz", ".tar.Z", ".tbz2"), "sdist"),
    ".egg": "bdist_egg",
    ".whl": "bdist_wheel",
}

_SEPARATORS: Final = re.compile(r"[-_.]+")

#: PEP 427: name, version, perhaps a build tag, which starts with a digit, and three tags.
_WHEEL: Final = re.compile(r"(?P<name>[^-]+)-(?P<version>\d[^-]*)(-\d[^-]*)?-[^-\d][^-]*-[^-]+-[^-]+")

#: A name goes on over a separator as long as a letter follows, if something is left for the version (compat.md 5.9).
_NAME_THEN_VERSION: Final = re.compile(
    r"(?P<name>\w+([.-][a-z_]\w*)*)-(?P<version>[\w.+!~-]+)", re.ASCII | re.IGNORECASE
)

_PYTHON_TAG: Final = re.compile(r"-py\d.*")


class PackageParseError(ValueError):
    """A file name does not say which package and version the file is of."""


def normalize_name(name: str) -> str:
    """The one spelling of a project's name: runs of ``-``, ``_``, ``.`` become ``-``, in lower case (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def parse_filename(filename: str, name: str | None = None) -> tuple[str, str]:
    """The name and the version that a file name says the file is of (compat.md 5.9).

    A wheel's name is given as it is spelled there, every other is normalised. A ``name`` that is known
    already tells where the version starts; a wheel needs no telling. Raises :class:`PackageParseError`.
    """
    extension = next((ending for ending in ALL_EXTENSIONS if filename.endswith(ending)), None)
    if extension is None or any(char in filename for char in "/\\\0\n"):
        raise PackageParseError(f"Cannot parse package file {filename!r}")
    stem = filename.removesuffix(extension)
    parsed = _parse_wheel(stem) if extension == ".whl" else _parse_other(unquote(stem).replace(" ", "-"), name)
    if parsed is None:
        raise PackageParseError(f"Cannot parse package file {filename!r}")
    return parsed


def _parse_wheel(stem: str) -> tuple[str, str] | None:
    match = _WHEEL.fullmatch(stem)
    return match and (match["name"], match["version"])


def _parse_other(stem: str, name: str | None) -> tuple[str, str] | None:
    if name:
        spelling = r"[-_.]+".join(re.escape(word) for word in _SEPARATORS.split(name))
        known = re.match(rf"{spelling}-(?P<version>.+)", _without_python_tag(stem, name), re.IGNORECASE)
        if known is not None:
            return normalize_name(name), known["version"]
    match = _NAME_THEN_VERSION.fullmatch(_PYTHON_TAG.sub("", stem))
    return match and (normalize_name(name or match["name"]), match["version"])


def _without_python_tag(stem: str, name: str) -> str:
    """The stem up to ``-py3`` or the like, which does not count where the name itself has it."""
    return stem[: len(name)] + _PYTHON_TAG.sub("", stem[len(name) :])


def get_packagetype(name: str) -> str:
    """What a file is by its name: ``sdist``, ``bdist_egg``, ``bdist_wheel``, or "" if it is something else."""
    return next((kind for ending, kind in _PACKAGETYPES.items() if name.endswith(ending)), "")


def normalize_metadata_value(value: str | bytes) -> str:
    """A text in ASCII on one line, as object stores keep it: letters lose their accents, others go (compat.md 2.3)."""
    text = value.decode("utf-8", "ignore") if isinstance(value, bytes) else value
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"\s+", " ", ascii_only)


def normalize_metadata(metadata: Mapping[str, str | bytes]) -> dict[str, str]:
    """Facts as object stores keep them: ``-`` for ``_`` in the keys, ASCII values on one line (compat.md 2.3)."""
    return {key.replace("_", "-"): normalize_metadata_value(value) for key, value in metadata.items()}


def create_matcher(queries: Iterable[str], query_type: str) -> Callable[[str], bool]:
    """A test whether a text holds all queries (``query_type`` is ``"and"``) or any (``"or"``), in any case."""
    words = [query.lower() for query in queries]
    combine = all if query_type == "and" else any

    def matches(text: str) -> bool:
        lowered = text.lower()
        return combine(word in lowered for word in words)

    return matches


def stream_file(fp: IO[bytes], chunk_size: int = 1 << 20) -> Iterator[bytes]:
    """The rest of an open file in chunks of ``chunk_size`` bytes."""
    while chunk := fp.read(chunk_size):
        yield chunk


class TimedCache(dict[Any, Any]):
    """A dict that forgets each entry ``cache_time`` seconds after it was set; 0 keeps nothing, None keeps for ever.

    A value that is not there is asked of ``factory(key)``, if there is one, and kept; None means that
    there is none. Asking with ``in`` does not call the factory.
    """

    def __init__(self, cache_time: int | None, factory: Callable[[Any], Any] | None = None) -> None:
        if cache_time is not None and cache_time < 0:
            raise ValueError("cache_time cannot be negative")
        super().__init__()
        self._cache_time = cache_time
        self._factory = factory
        self._deadlines: dict[Any, float] = {}

    def set_expire(self, key: Any, value: Any, expiration: float | None) -> None:
        """Keep a value for ``expiration`` seconds, or for ever if that is None."""
        self._forget(key)
        if expiration is None:
            super().__setitem__(key, value)
        elif expiration > 0:
            self._deadlines[key] = time.monotonic() + expiration
            super().__setitem__(key, value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set_expire(key, value, self._cache_time)

    def __getitem__(self, key: Any) -> Any:
        self._evict(key)
        return super().__getitem__(key)

    def __missing__(self, key: Any) -> Any:
        value = None if self._factory is None else self._factory(key)
        if value is None:
            raise KeyError(key)
        self[key] = value
        return value

    def __contains__(self, key: object) -> bool:
        self._evict(key)
        return super().__contains__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, from the factory if need be, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def _evict(self, key: object) -> None:
        if self._deadlines.get(key, float("inf")) <= time.monotonic():
            self._forget(key)

    def _forget(self, key: object) -> None:
        self._deadlines.pop(key, None)
        self.pop(key, None)
