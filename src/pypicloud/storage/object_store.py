"""What storages in an object store have in common: their settings, keys and URLs (compat.md 1.4, 2.2, 2.4).

:class:`ObjectStoreStorage` is the documented base class. The stores that come with the server are
:class:`pypicloud.storage.buckets.BucketStorage`, which does the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any, BinaryIO, ClassVar, Final, cast

from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package
from pypicloud.settings import BOOLEAN, REQUIRED, SECONDS, TEXT, EnvironSettings, Finding, Kind, Setting
from pypicloud.storage.base import IStorage, check_segments, not_stored

LOG = logging.getLogger(__name__)

#: How many seconds a signed URL can be used unless the settings say otherwise.
DAY: Final = 86400

#: How many seconds a signed URL can live where the service sets no bound: its end has to be a date.
CENTURY: Final = 100 * 365 * DAY

BUCKET: Final = Setting(
    "storage.bucket", TEXT, REQUIRED, "The bucket; one that does not exist is made.", was=("aws.bucket",)
)
REGION: Final = Setting(
    "storage.region_name",
    TEXT,
    "",
    "The region of the bucket, for example eu-west-1; a bucket that is missing is made there.",
    was=("storage.region", "aws.region"),
)
PREFIX: Final = Setting(
    "storage.prefix", TEXT, "", "What the keys of all objects begin with, as it stands, for example packages/."
)
PREPEND_HASH: Final = Setting(
    "storage.prepend_hash",
    BOOLEAN,
    True,
    "Whether the keys of new objects begin with four hexadecimal digits that spread the load.",
    was=("pypi.prepend_hash",),
)


def _life(text: str) -> int:
    seconds = SECONDS.parse(text)
    if not seconds:
        raise ValueError("must be at least 1: a URL would be expired when it is made")
    return seconds


EXPIRE_AFTER: Final = Setting(
    "storage.expire_after", Kind(SECONDS.name, _life), DAY, "How many seconds a signed URL can be used, at least 1."
)
REDIRECT_URLS: Final = Setting(
    "storage.redirect_urls",
    BOOLEAN,
    True,
    "Whether pages link to this server, which redirects to the store; if not, they hold its own URLs, which expire.",
)
ENCRYPTION: Final = Setting(
    "storage.server_side_encryption", TEXT, "", "How the store encrypts new objects: AES256 or aws:kms."
)
OBJECT_ACL: Final = Setting("storage.object_acl", TEXT, "", "The canned ACL of new objects, for example public-read.")
STORAGE_CLASS: Final = Setting("storage.storage_class", TEXT, "", "The storage class of new objects.")
PUBLIC_URL: Final = Setting(
    "storage.public_url", BOOLEAN, False, "Whether URLs are unsigned, because everybody may read the bucket."
)

CONNECT_TIMEOUT: Final = Setting(
    "storage.connect_timeout", SECONDS, 5, "How many seconds it may take to reach the object store."
)
READ_TIMEOUT: Final[Setting[int | None]] = Setting(
    "storage.read_timeout",
    SECONDS,
    None,
    "How many seconds the object store may be silent. Unless this says so, 15 with S3, and 6 with Google and Azure, "
    "which are asked once more then.",
)

#: How many seconds a store may be silent that is asked once more then.
SILENCE: Final = 6

#: A secret that is shorter could be guessed.
SHORTEST_SECRET: Final = 16


def _secret(text: str) -> str:
    if len(text) < SHORTEST_SECRET or not (text.isascii() and text.isprintable()):
        raise ValueError(f"must be at least {SHORTEST_SECRET} plain characters, for example 32 random hex digits")
    return text


WEBHOOK_SECRET: Final = Setting(
    "storage.webhook_secret",
    Kind("text", _secret),
    None,
    "The secret with which an object store may tell of changes in the bucket at /api/events/s3; without it, "
    "there is no such address.",
    secret=True,
)

#: How many signed URLs are kept, and for how many seconds at most. With temporary credentials a URL ends with
#: them, and the SDKs renew those ten minutes before the end.
URLS_KEPT: Final = 20000
URL_KEPT: Final = 300

#: How many seconds a store may be silent while a file is downloaded.
TIMEOUT: Final = 60


class URLMemory:
    """The URLs that were signed a moment ago, by key; safe for threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._changing = threading.Lock()

    def kept(self, key: str) -> str | None:
        """The URL of a key, if it is kept and still fresh."""
        kept = self._kept.get(key)
        return kept[1] if kept is not None and time.monotonic() < kept[0] else None

    def get(self, key: str, make: Callable[[], str]) -> str:
        """The URL of a key, made anew unless it is kept and still fresh."""
        until = time.monotonic() + self._seconds
        url = self.kept(key)
        if url is not None:
            return url
        url = make()
        with self._changing:
            self._kept[key] = (until, url)
            self._kept.move_to_end(key)
            while len(self._kept) > URLS_KEPT:
                self._kept.popitem(last=False)
        return url


class ObjectStoreStorage(IStorage):
    """Keeps package files in an object store; the documented base class of such storages.

    A subclass gives ``list``, ``upload`` and ``delete``, the URL of an object (``_generate_url``), and in
    ``_subclass_specific_config`` what its constructor takes beyond what is here.
    """

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (
        *IStorage.SETTINGS,
        REGION,
        PREFIX,
        PREPEND_HASH,
        EXPIRE_AFTER,
        REDIRECT_URLS,
        ENCRYPTION,
        OBJECT_ACL,
        STORAGE_CLASS,
        PUBLIC_URL,
    )

    #: How many seconds the service lets a signed URL live at most; None for as long as one likes.
    longest_expiry: ClassVar[int | None] = None

    def __init__(  # noqa: PLR0917 - the documented signature
        self,
        request: Any = None,
        expire_after: int | None = None,
        bucket_prefix: str | None = None,
        prepend_hash: bool | None = None,
        redirect_urls: bool | None = None,
        sse: str | None = None,
        object_acl: str | None = None,
        storage_class: str | None = None,
        region_name: str | None = None,
        public_url: bool = False,
        urls: URLMemory | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(request, **kwargs)
        self.expire_after = DAY if expire_after is None else expire_after
        self.bucket_prefix = bucket_prefix or ""
        self.prepend_hash = prepend_hash is not False
        self.redirect_urls = redirect_urls is not False
        self.sse = sse or None
        self.object_acl = object_acl or None
        self.storage_class = storage_class or None
        self.region_name = region_name or None
        self.public_url = public_url
        self.urls = urls or URLMemory(0)

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """The keyword arguments of the constructor."""
        for finding in cls.odd(settings):
            LOG.warning("%s %s", finding.key, finding.message)
        expire_after = min(EXPIRE_AFTER.read(settings), cls._longest_expiry(settings))
        common = {
            "expire_after": expire_after,
            "bucket_prefix": PREFIX.read(settings),
            "prepend_hash": PREPEND_HASH.read(settings),
            "redirect_urls": REDIRECT_URLS.read(settings),
            "sse": ENCRYPTION.read(settings) or None,
            "object_acl": OBJECT_ACL.read(settings) or None,
            "storage_class": STORAGE_CLASS.read(settings) or None,
            "region_name": REGION.read(settings) or None,
            "public_url": PUBLIC_URL.read(settings),
            # A URL that is given away has at least half of its life before it.
            "urls": URLMemory(min(expire_after / 2, URL_KEPT)),
        }
        return {**super().configure(settings), **common, **cls._subclass_specific_config(settings, common)}

    @classmethod
    def odd(cls, settings: EnvironSettings) -> Iterator[Finding]:
        """URLs that would live too long are cut to what the service allows (compat.md 2.4)."""
        wanted, longest = EXPIRE_AFTER.read(settings), cls._longest_expiry(settings)
        if wanted > longest:
            message = f"= {wanted} is more than the service allows; URLs expire after {longest} seconds"
            yield Finding(EXPIRE_AFTER.key, message)

    @classmethod
    def _longest_expiry(cls, settings: EnvironSettings) -> int:
        """How many seconds a signed URL lives at most."""
        return cls.longest_expiry or CENTURY

    @classmethod
    def _subclass_specific_config(cls, settings: EnvironSettings, common_config: dict[str, Any]) -> dict[str, Any]:
        """More keyword arguments of the constructor, and other values for those in ``common_config``."""
        return {}

    # Keys

    def calculate_path(self, package: Package) -> str:
        """The key that a new object gets (compat.md 2.2).

        Raises :class:`InvalidUpload` if the name, the version or the file name is no plain part of a path.
        """
        check_segments(package)
        path = f"{package.name}/{package.filename}"
        if self.prepend_hash:
            digest = hashlib.md5(package.filename.encode(), usedforsecurity=False).hexdigest()
            path = f"{digest[:4]}/{path}"
        return self.bucket_prefix + path

    def get_path(self, package: Package) -> str:
        """The key of a package's object: the one it was found under, else the one it would get."""
        path: str | None = package.data.get("path")
        return path or self.calculate_path(package)

    # Links

    @property
    def has_own_urls(self) -> bool:
        """Whether pages link to the store itself (``storage.redirect_urls = false``)."""
        return not self.redirect_urls

    def get_url(self, package: Package) -> str:
        """The link that pages show: to this server, which redirects, unless the store's own is wanted."""
        if self.redirect_urls:
            return super().get_url(package)
        digest = package.data.get("hash_sha256")
        url = self.redirect_url(package)
        return f"{url}#sha256={digest}" if digest else url

    def redirect_url(self, package: Package) -> str:
        """The store's own URL of a package's object."""
        return self.urls.get(self.get_path(package), lambda: self._generate_url(package))

    def kept_url(self, package: Package) -> str | None:
        """The store's own URL of a package's object, if it was made a moment ago."""
        own, ours = type(self), ObjectStoreStorage
        is_ours = own.download_response is ours.download_response and own.redirect_url is ours.redirect_url
        return self.urls.kept(self.get_path(package)) if is_ours else None

    def _generate_url(self, package: Package) -> str:
        """The store's own URL of a package's object, signed unless everybody may read it."""
        raise NotImplementedError

    def open(self, package: Package) -> AbstractContextManager[BinaryIO]:
        """The file's bytes as a stream, downloaded from its URL."""
        return _downloaded(self.redirect_url(package), package)

    @classmethod
    def package_from_object(cls, obj: Any, factory: Callable[..., Package]) -> Package | None:
        """The package that an object of the SDK is; None if it is none."""
        raise NotImplementedError


@contextlib.contextmanager
def _downloaded(url: str, package: Package) -> Iterator[BinaryIO]:
    import urllib3

    headers = {"Accept-Encoding": "identity"}
    try:
        response = urllib3.request("GET", url, preload_content=False, timeout=TIMEOUT, headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise BackendUnavailable(f"the file {package.filename!r} cannot be read at the moment") from error
    with contextlib.closing(response):
        if response.status == HTTPStatus.NOT_FOUND:
            raise not_stored(package)
        if response.status != HTTPStatus.OK:
            LOG.error("The store answers %d for %r", response.status, package.filename)
            raise BackendUnavailable(f"the file {package.filename!r} cannot be read at the moment")
        yield cast("BinaryIO", response)
