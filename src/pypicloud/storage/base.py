"""The documented base class of storage backends: where the bytes of package files are kept.

A backend overrides ``list``, ``upload``, ``delete`` and ``open``; nothing more is needed. Every optional
power has a default that works on these four, so a class written for 1.3.12 runs unchanged (compat.md 8.3).
A power is overridden to do the same faster, or safer.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final, cast

from pypicloud.errors import BackendUnavailable, InvalidUpload, NotSupported, PackageNotFound
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings, Finding, Setting
from pypicloud.storage.body import Slice, skip
from pypicloud.storage.response import local_response, redirect, streamed_response
from pypicloud.storage.start import CREATE_MISSING

if TYPE_CHECKING:
    from pyramid.response import Response

LOG = logging.getLogger(__name__)

#: The companions there are, core metadata (PEP 658) and provenance (PEP 740), and the facts that have their sha256.
COMPANION_FACTS: Final = {"metadata": "core_metadata", "provenance": "provenance"}
COMPANION_KINDS: Final = tuple(COMPANION_FACTS)

#: How operating systems say that there is no such file.
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})

#: The facts that tell one file's bytes from another's.
_OF_BYTES: Final = frozenset({"size", "hash_sha256", "hash_md5"})

NO_COMPANIONS: Final[Mapping[str, bytes]] = MappingProxyType({})


class IStorage:
    """A place that keeps package files.

    The class is made once per request, and once without one: ``cls(request, **cls.configure(settings))``.
    What is expensive belongs in ``configure``. Only the names of a package (``name``, ``version``,
    ``filename``) and what the backend itself put into ``package.data`` say which file is meant.
    """

    #: Whether answers come at once, from memory or a local file.
    is_local: bool = False

    #: The settings that ``configure`` reads.
    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (CREATE_MISSING,)

    #: How many stored objects :meth:`list` could not read.
    unreadable_count: int = 0

    def __init__(self, request: Any = None, **kwargs: Any) -> None:
        self.request = request

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """The keyword arguments of the constructor, worked out once at the start."""
        return {}

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Raise :class:`SettingError` for what would stop :meth:`configure`, without reaching for anything.

        ``pypicloud check-config`` asks this. What is wrong with one setting alone is found from ``SETTINGS``.
        """

    @classmethod
    def odd(cls, settings: EnvironSettings) -> Iterable[Finding]:
        """What works, but most likely not as it is meant: :meth:`configure` warns of it, ``check-config`` shows it."""
        return ()

    @property
    def has_own_urls(self) -> bool:
        """Whether :meth:`get_url` gives other links than those to the server's download endpoint."""
        return type(self).get_url is not IStorage.get_url

    def get_url(self, package: Package) -> str:
        """The link that clients download the file from; the server's own download endpoint by default."""
        return package.get_url(self.request)

    def download_response(self, package: Package) -> Response:
        """The HTTP response that lets the client have the file, or the range of it that was asked for.

        Raises :class:`PackageNotFound` if the file is gone (compat.md 2.1).
        """
        location = self.redirect_url(package)
        return self.stream_response(package) if location is None else redirect(location)

    def stream_response(self, package: Package) -> Response:
        """The HTTP response that sends the bytes through this server, wherever they are kept.

        Raises :class:`PackageNotFound` if the file is gone.
        """
        path = self.local_path(package)
        with missing_is_not_found(package):
            if path is not None:
                return local_response(self.request, package, path)
            return streamed_response(self.request, package, self.open, self.open_range)

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """Every stored package, made by ``factory(name, version, filename, last_modified, **facts)``.

        What cannot be read is left out and reported to :meth:`unreadable`.
        """
        raise NotImplementedError

    def upload(self, package: Package, datastream: BinaryIO) -> None:
        """Store a file, replacing what is there under its name."""
        raise NotImplementedError

    def delete(self, package: Package) -> None:
        """Remove a file and all that belongs to it; one that is missing counts as gone."""
        raise NotImplementedError

    def open(self, package: Package) -> AbstractContextManager[BinaryIO]:
        """A context manager that gives the file's bytes as a stream.

        Raises :class:`PackageNotFound`, at the latest on entering, if the file is gone.
        """
        raise NotImplementedError

    def check_health(self) -> tuple[bool, str]:
        """Whether files can be had, and a word for people on what is wrong or odd."""
        return True, ""

    def unreadable(self, where: str, reason: str) -> None:
        """Report a stored object that :meth:`list` leaves out: it is counted and logged."""
        self.unreadable_count += 1
        LOG.warning("Not listed: %r: %s", where, reason)

    # Optional powers

    def stored(self, package: Package, factory: Callable[..., Package] = Package) -> Package | None:
        """What :meth:`list` would give for this file at this moment; None if there is no such file."""
        found = (each for each in self.list(factory) if each.filename == package.filename)
        return next((each for each in found if each.name == package.name), None)

    def publish(
        self,
        package: Package,
        datastream: BinaryIO,
        companions: Mapping[str, bytes] = NO_COMPANIONS,
        *,
        replace: bool = False,
    ) -> None:
        """Store a file with its companions (bytes by kind): all, or nothing.

        Raises :class:`FileExists` if there is a file of this name and ``replace`` is false. The default
        cannot tell and replaces; that no two uploads of one name meet is seen to by the caller.
        """
        self.upload(package, datastream)
        if type(self).upload_companion is not IStorage.upload_companion:
            for kind, data in companions.items():
                self.upload_companion(package, kind, data)

    def spool_directory(self) -> str | None:
        """Where an upload may be spooled so that :meth:`publish` need not copy it; None for anywhere.

        A file that is spooled there is named ``.upload-<hex digits>.meta``.
        """
        return None

    def redirect_url(self, package: Package) -> str | None:
        """Where the client can download the file itself; None if the server has to send it."""
        return None

    def kept_url(self, package: Package) -> str | None:
        """What :meth:`redirect_url` would answer, if memory has it and :meth:`download_response` is no other's."""
        return None

    def local_path(self, package: Package) -> str | None:
        """The file on this machine that holds the bytes; None if there is no such file."""
        return None

    def open_range(self, package: Package, start: int, stop: int) -> AbstractContextManager[BinaryIO]:
        """The bytes ``start`` up to, not including, ``stop`` as a stream."""
        return _part(self.open(package), start, stop)

    def upload_companion(self, package: Package, kind: str, data: bytes) -> None:
        """Keep a small object beside a stored file, replacing one of the same kind.

        The package is as :meth:`list` or :meth:`stored` gave it. Raises :class:`BackendUnavailable`, and changes
        nothing, if the file was replaced since.
        """
        raise NotSupported(f"the configured storage cannot keep {kind} beside {package.filename!r}")

    def open_companion(self, package: Package, kind: str) -> BinaryIO | None:
        """The companion of this kind as a stream, or None if there is none."""
        return None

    def update_metadata(self, package: Package) -> None:
        """Rewrite the facts that are stored with a file, and leave its bytes as they are.

        The package is as :meth:`list` or :meth:`stored` gave it, but for the facts that are new. Raises
        :class:`BackendUnavailable`, and changes nothing, if the file was replaced since.
        """
        raise NotSupported(f"the configured storage cannot change the facts of {package.filename!r}")


@contextlib.contextmanager
def _part(opened: AbstractContextManager[BinaryIO], start: int, stop: int) -> Iterator[BinaryIO]:
    with opened as stream:
        skip(stream, start)
        yield cast("BinaryIO", io.BufferedReader(Slice(stream, stop - start)))


def is_segment(text: str) -> bool:
    """Whether a text can be one part of a path and nothing else.

    What is refused: the empty text, everything with a slash, a backslash, a control character or any other
    character that does not print, and everything that begins with a dot.
    """
    return text != "" and text[0] != "." and "/" not in text and "\\" not in text and text.isprintable()


def check_segments(package: Package) -> None:
    """Raise :class:`InvalidUpload` if the name, the version or the file name is no plain part of a path."""
    for text in (package.name, package.version, package.filename):
        if not is_segment(text):
            raise InvalidUpload(f"{text!r} cannot be part of a path; use letters, digits, '.', '-', '_', '+' and '!'")


def demand_same(package: Package, stored: Mapping[str, Any]) -> None:
    """Raise :class:`BackendUnavailable` if the facts that are stored are of other bytes than those of the package."""
    if any(package.data.get(fact, stored[fact]) != stored[fact] for fact in _OF_BYTES & stored.keys()):
        raise replaced_meanwhile(package)


def replaced_meanwhile(package: Package) -> BackendUnavailable:
    """The error for a file that is not the one any more that was looked at."""
    return BackendUnavailable(f"{package.filename!r} was replaced at the same moment; please try again", retry_after=1)


def not_stored(package: Package) -> PackageNotFound:
    """The error for a file that is not there."""
    return PackageNotFound(f"the file {package.filename!r} is not in the storage")


@contextlib.contextmanager
def missing_is_not_found(package: Package) -> Iterator[None]:
    """Translate what opening a file raises in Python's own words, as backends made for 1.3.12 do."""
    try:
        yield
    except OSError as error:
        if error.errno in _MISSING:
            raise not_stored(package) from None
        raise BackendUnavailable(f"the file {package.filename!r} cannot be read at the moment") from error
