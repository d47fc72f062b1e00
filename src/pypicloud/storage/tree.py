"""The layout of the directory that holds package files (compat.md 2.1), and reading all of it.

::

    <name>/<version>/<filename>                  the file; its mtime is the upload time
    <name>/<version>/<filename>.meta             its facts, as JSON
    <name>/<version>/<filename>.<kind>.meta      a companion, with the mtime of its file
    <name>/<version>/.<filename>.next.meta       the facts of a file that is just being replaced
    .upload-<hex>.meta                           a file on its way in

Everything but the files themselves ends in ``.meta``, which 1.3.12 takes for no package. It knows nothing
of companions, and leaves them behind when it replaces or deletes a file: one whose mtime is not the
file's counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from pypicloud.dateutil import utcfromtimestamp
from pypicloud.errors import BackendUnavailable
from pypicloud.models import METADATA_FIELDS, Package
from pypicloud.storage import disk
from pypicloud.storage.base import COMPANION_FACTS, COMPANION_KINDS, is_segment
from pypicloud.util import ALL_EXTENSIONS

LOG = logging.getLogger(__name__)

FACTS_END: Final = ".meta"
COMPANION_ENDS: Final = {kind: f".{kind}{FACTS_END}" for kind in COMPANION_KINDS}

#: The ends of file names that would be taken for something else.
TAKEN_ENDS: Final = (FACTS_END, *(f".{kind}" for kind in COMPANION_KINDS))

#: The facts that are texts, in the order 1.3.12 wrote them.
TEXTS: Final = (*(field for field in METADATA_FIELDS if field != "summary"), "summary")

#: Keys that say which file, where, or how big: path and bytes tell, whatever somebody wrote down.
NOT_FACTS: Final = frozenset(
    {"self", "name", "version", "filename", "last_modified", "size", "path", *COMPANION_FACTS.values()}
)


def next_facts(path: str) -> str:
    """The path of the facts that come with the file that is about to replace the one at ``path``."""
    directory, filename = os.path.split(path)
    return os.path.join(directory, f".{filename}.next{FACTS_END}")


def facts_text(package: Package) -> bytes:
    """What is written beside a file: byte for byte what 1.3.12 wrote, and then what it knew nothing of."""
    facts = {**package.data, "summary": package.summary}
    others = [key for key in package.data if key not in METADATA_FIELDS and key not in NOT_FACTS]
    return json.dumps({key: facts[key] for key in (*TEXTS, *others) if facts.get(key)}).encode("ascii")


def read_facts(path: str) -> dict[str, Any]:
    """The facts in a file, without those that are not what they should be."""
    try:
        facts = json.loads(disk.read(path))
    except (OSError, ValueError, RecursionError) as error:
        LOG.warning("Ignored the facts in %r, which cannot be read: %s", path, error)
        return {}
    if not isinstance(facts, dict):
        LOG.warning("Ignored the facts in %r, which are no JSON object", path)
        return {}
    return {key: _clean(value) for key, value in facts.items() if _is_fact(key, value, path)}


def _is_fact(key: str, value: Any, path: str) -> bool:
    if key in NOT_FACTS or not value:
        return False
    if key in METADATA_FIELDS and not isinstance(value, str):
        LOG.warning("Ignored %s in %r: this is no text", key, path)
        return False
    return True


def _clean(value: Any) -> Any:
    """A text without the lone halves of surrogate pairs, which JSON can spell and no database takes."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


class Reading:
    """One walk through the whole tree.

    Packages are made by ``factory(name, version, filename, last_modified, **facts)``; ``unreadable`` is
    told the path, relative to the tree, of what is left out, and why.
    """

    def __init__(self, directory: str, factory: Callable[..., Package], unreadable: Callable[[str, str], None]) -> None:
        self._directory = directory
        self._factory = factory
        self._unreadable = unreadable

    def packages(self) -> Iterator[Package]:
        """Every package in the tree, one project after the other."""
        try:
            with os.scandir(self._directory) as entries:
                projects = list(entries)
        except OSError as error:
            raise BackendUnavailable("the storage directory cannot be read") from error
        for project in projects:
            if project.name == "lost+found" or project.name.startswith("."):
                continue
            if project.is_dir(follow_symlinks=False):
                yield from self._project(project)
            else:
                self._stray(project.path)

    def package(self, path: str) -> Package | None:
        """The package at a path; None if there is no file."""
        directory, filename = os.path.split(path)
        project, version = os.path.split(directory)
        try:
            with disk.locked(project, shared=True), os.scandir(directory) as found:
                entries = {entry.name: entry for entry in found if filename in entry.name}
                is_there = filename in entries and entries[filename].is_file()
                return (
                    self._package(os.path.basename(project), version, entries[filename], entries) if is_there else None
                )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BackendUnavailable(f"the file {filename!r} cannot be read at the moment") from error

    def _project(self, project: os.DirEntry[str]) -> list[Package]:
        """The packages of one project, read while nobody changes it."""
        found: list[Package] = []
        if not self._has_sound_name(project):
            return found
        try:
            with disk.locked(project.path, shared=True), os.scandir(project.path) as versions:
                for version in versions:
                    if version.name.startswith("."):
                        continue
                    if not version.is_dir(follow_symlinks=False):
                        self._stray(version.path)
                    elif self._has_sound_name(version):
                        found.extend(self._version(project.name, version))
        except FileNotFoundError:
            # Its last package was deleted since the walk began.
            return []
        except OSError as error:
            self._report(project.path, error.strerror or str(error))
        return found

    def _version(self, name: str, version: os.DirEntry[str]) -> Iterator[Package]:
        with os.scandir(version.path) as found:
            entries = {entry.name: entry for entry in found}
        for filename, entry in entries.items():
            if filename.endswith(FACTS_END) or filename.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                self._nested(entry.path)
            elif not entry.is_file():
                self._stray(entry.path)
            elif self._has_sound_name(entry):
                try:
                    yield self._package(name, version.name, entry, entries)
                except (OSError, ValueError, OverflowError) as error:
                    self._report(entry.path, str(error))

    def _package(
        self, name: str, version: str, entry: os.DirEntry[str], beside: dict[str, os.DirEntry[str]]
    ) -> Package:
        stat = entry.stat()
        facts: dict[str, Any] = {}
        after = f".{entry.name}.next{FACTS_END}"
        if after in beside and beside[after].stat().st_mtime_ns == stat.st_mtime_ns:
            # The server was killed between replacing the file and replacing its facts.
            facts = read_facts(beside[after].path)
        elif entry.name + FACTS_END in beside:
            facts = read_facts(entry.path + FACTS_END)
        for kind, fact in COMPANION_FACTS.items():
            companion = beside.get(entry.name + COMPANION_ENDS[kind])
            if companion is not None and companion.stat().st_mtime_ns == stat.st_mtime_ns:
                facts[fact] = hashlib.sha256(disk.read(companion.path)).hexdigest()
        return self._factory(name, version, entry.name, utcfromtimestamp(stat.st_mtime), size=stat.st_size, **facts)

    def _has_sound_name(self, entry: os.DirEntry[str]) -> bool:
        if is_segment(entry.name):
            return True
        self._report(entry.path, "its name has characters that cannot be served")
        return False

    def _nested(self, directory: str) -> None:
        for folder, _, filenames in os.walk(directory):
            for filename in filenames:
                self._stray(os.path.join(folder, filename))

    def _stray(self, path: str) -> None:
        """Leave out a file that does not lie in a version's directory; tell if it could be a package."""
        if path.lower().endswith(ALL_EXTENSIONS):
            self._report(path, "it does not lie in <name>/<version>/")
        elif not path.endswith(FACTS_END):
            LOG.info("Not a package: %r", os.path.relpath(path, self._directory))

    def _report(self, path: str, reason: str) -> None:
        self._unreadable(os.path.relpath(path, self._directory), reason)
