"""Yanking: installers pass over a stored file unless its very version is asked for (PEP 592).

What is yanked is each file; a version is yanked by yanking all its files. Nothing is taken away, and all of it
can be taken back.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from packaging.version import InvalidVersion, Version

from pypicloud.errors import BadRequest, PackageNotFound
from pypicloud.models import NormalizedName, Package

if TYPE_CHECKING:
    from pypicloud.cache.base import ICache

#: How long a reason may be as JSON: so much is left of the two kilobytes of facts that object stores take.
MAX_REASON: Final = 500

#: Control characters, half characters, and ends of lines; and what turns the direction of text around, so that a
#: terminal shows another sentence than was written.
_NO_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_NO_DIRECTIONS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def yanked_for(reason: Any) -> str | bool:
    """The fact of a file that is yanked for a reason; without one, true. Raises :class:`BadRequest`."""
    if reason is None:
        return True
    if not isinstance(reason, str):
        raise BadRequest(f"the reason must be a text, not {str(reason)[:40]!r}")
    text = reason.strip()
    if len(json.dumps(text)) - 2 > MAX_REASON:
        raise BadRequest(
            f"the reason of {len(text)} characters is too long: it may have {MAX_REASON}; "
            "one that is not ASCII counts as six or twelve"
        )
    for character in text:
        unshown = unicodedata.category(character) in _NO_CATEGORIES
        if unshown or unicodedata.bidirectional(character) in _NO_DIRECTIONS:
            raise BadRequest(f"the reason holds {character!a}, which cannot be shown; write one line of plain text")
    return text or True


def named(cache: ICache, project: NormalizedName, target: str) -> list[Package]:
    """The file of this name, else the files of this version. Raises :class:`PackageNotFound` if there is neither."""
    file = cache.fetch(target)
    return [file] if file is not None and file.name == project else of_version(cache, project, target)


def of_version(cache: ICache, project: NormalizedName, version: str) -> list[Package]:
    """The files of a version, however it is spelled. Raises :class:`PackageNotFound` if there are none."""
    files = [package for package in cache.all(project) if is_version(package.version, version)]
    if not files:
        raise PackageNotFound(f"project {project!r} has nothing of the name or version {version!r}")
    return files


def is_version(stored: str, asked: str) -> bool:
    """Whether two spellings are of one version (PEP 440); those that are none must be the same text."""
    try:
        return stored == asked or Version(stored) == Version(asked)
    except InvalidVersion:
        return False


def mark(cache: ICache, packages: list[Package], yanked: str | bool) -> Iterator[Package]:
    """Yank stored files, or with false take it back; each as it is then.

    Every file is a step of its own, and what is so already is left alone: where one step fails, the same call
    again does the rest. Raises :class:`PackageNotFound` for a file that is gone, :class:`NotSupported` where the
    storage cannot change the facts of a file, and whatever storage and cache have to say.
    """
    for package in packages:
        with cache.lock(package.filename):
            yield _mark_one(cache, package, yanked)


def _mark_one(cache: ICache, package: Package, yanked: str | bool) -> Package:
    """Bytes and their facts first, the cache second: a rebuild after a crash between the two ends the same."""
    known = cache.fetch(package.filename)
    # Each of the two keeps what it knows of the file besides, as it is at this moment.
    stored = None if known is None else cache.storage.stored(known, cache.new_package)
    if known is None or known.name != package.name or stored is None:
        raise PackageNotFound(f"project {package.name!r} has no file {package.filename!r} any more")
    wanted = _marked(known, yanked)
    cache.check_facts(wanted)
    if stored.yanked != yanked:
        told = _marked(stored, yanked)
        cache.storage.update_metadata(told)
        if told.summary != stored.summary:
            # The storage has no room for all of it beside the reason.
            wanted.summary = told.summary
    if known.yanked != yanked:
        cache.save(wanted)
    return wanted


def _marked(package: Package, yanked: str | bool) -> Package:
    """A copy of a package that is yanked, or is not."""
    marked = copy.copy(package)
    marked.data = {key: value for key, value in package.data.items() if key != "yanked"}
    if yanked:
        marked.data["yanked"] = yanked
    return marked
