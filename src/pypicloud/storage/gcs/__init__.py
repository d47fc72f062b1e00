"""Package files in a bucket of Google Cloud Storage."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, BinaryIO, ClassVar, Final, cast

from pypicloud.errors import BackendUnavailable, FileExists, PackageNotFound, SettingError
from pypicloud.models import Package
from pypicloud.plugins import STORAGE
from pypicloud.settings import EnvironSettings, Setting
from pypicloud.storage.body import BLOCK
from pypicloud.storage.buckets import BucketStorage, Condition, StoredObject, exists, package_of
from pypicloud.storage.gcs import settings as own
from pypicloud.storage.gcs.bucket import SDK, Bucket, credentials_of
from pypicloud.storage.gcs.content import Content
from pypicloud.storage.gcs.failures import CHANGE, DELETE, LIST, READ, WRITE, Address, GCSUnavailable
from pypicloud.storage.object_facts import FACTS, FIELDS, Notation
from pypicloud.storage.object_store import BUCKET, PUBLIC_URL, REGION, STORAGE_CLASS
from pypicloud.storage.start import demand_making, refused
from pypicloud.util import PackageParseError

LOG = logging.getLogger(__name__)

#: The pieces in which larger files are sent, in bytes; one is kept in memory at a time.
PIECE: Final = 8 << 20

#: What is asked for about an object in a listing.
_LISTED: Final = "items(name,size,updated,metadata,generation),nextPageToken"

#: The names that our metadata has or had, of which those that are not written any more are taken away.
_NAMES: Final = frozenset({FACTS, *FIELDS, *(field.replace("_", "-") for field in FIELDS)})


class GoogleCloudStorage(BucketStorage):
    """Keeps package files in a bucket of Google Cloud Storage."""

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = own.SETTINGS
    notation: ClassVar[Notation] = Notation("_", is_ascii=False, limit=8 << 10)

    #: How many seconds a signed URL can live at most (compat.md 2.4).
    longest_expiry: ClassVar[int | None] = 7 * 24 * 60 * 60

    def __init__(  # noqa: PLR0917 - the documented signature
        self,
        request: Any = None,
        bucket_factory: Callable[[], SDK] | None = None,
        service_account_json_filename: str | None = None,
        project_id: str | None = None,
        use_iam_signer: bool = False,
        iam_signer_service_account_email: str | None = None,
        store: Bucket | None = None,
        kms_key_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(request, **kwargs)
        address = functools.partial(Address, key_file=service_account_json_filename, project=project_id)
        self.store = store or Bucket(
            address("", use_iam_signer=use_iam_signer, signer_email=iam_signer_service_account_email), bucket_factory
        )
        self.kms_key_name = kms_key_name

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """The keyword arguments of the constructor; a bucket that is missing is made."""
        cls.check(settings)
        store = _prepared(settings)
        if not PUBLIC_URL.read(settings):
            with _starting(settings):
                store.check_signer()
        return {
            **super().configure(settings),
            "object_acl": own.acl(settings),
            "kms_key_name": own.kms_key(settings),
            "store": store,
        }

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Raise :class:`SettingError` for what would stop :meth:`configure`, without reaching for Google."""
        _need_sdk()
        address = own.address(settings)
        own.acl(settings)
        own.kms_key(settings)
        if address.key_file:
            credentials_of(address.key_file)

    @classmethod
    def get_bucket(cls, bucket_name: str, settings: EnvironSettings) -> SDK:
        """The SDK's bucket of this name, which is made if it is missing."""
        return _prepared(settings, bucket_name).sdk

    @property
    def bucket(self) -> SDK:
        """The SDK's bucket, opened when it is first asked for."""
        return self.store.sdk

    def check_health(self) -> tuple[bool, str]:
        """Whether the bucket is there and can be listed (compat.md 2.6)."""
        try:
            self.store.look()
        except BackendUnavailable as error:
            return False, error.message
        return True, ""

    # Links

    def get_uri(self, package: Package) -> str:
        """The name of a package's object as Google's tools write it."""
        return f"gs://{self.bucket.name}/{self.get_path(package)}"

    def _generate_url(self, package: Package) -> str:
        key = self.get_path(package)
        return self.store.url(key) if self.public_url else self.store.signed_url(key, self.expire_after)

    @classmethod
    def package_from_object(cls, obj: SDK, factory: Callable[..., Package]) -> Package | None:
        """The package that an object of the SDK is; None if it is none."""
        try:
            return package_of(_stored(obj), factory)
        except PackageParseError as error:
            LOG.warning("No package: %r: %s", obj.name, error)
            return None

    # Primitives

    def _objects(self) -> Iterator[StoredObject]:
        return map(_stored, self._listed(self.bucket_prefix, _LISTED))

    def _keys(self, prefix: str) -> Iterable[str]:
        return (blob.name for blob in self._listed(prefix, "items(name),nextPageToken"))

    def _listed(self, prefix: str, fields: str) -> Iterator[SDK]:
        with self.store.asking(LIST):
            yield from self.bucket.list_blobs(prefix=prefix, fields=fields, **self.store.options)

    def _head(self, key: str) -> StoredObject | None:
        with contextlib.suppress(PackageNotFound), self.store.asking(READ):
            blob = self.bucket.blob(key)
            blob.reload(**self.store.options)
            return _stored(blob)
        return None

    @contextlib.contextmanager
    def _read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        with io.BufferedReader(Content(self.store, key, start, stop), BLOCK) as stream:
            yield cast("BinaryIO", stream)

    def _write(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], condition: Condition | str
    ) -> None:
        failures: list[Exception] = []
        try:
            with self.store.asking(WRITE), _from_start(stream) as source:
                blob = self.bucket.blob(key, PIECE, kms_key_name=self.kms_key_name)
                blob.metadata = dict(metadata)
                if self.storage_class:
                    blob.storage_class = self.storage_class.upper()
                blob.upload_from_file(
                    source,
                    size=size,
                    predefined_acl=self.object_acl,
                    if_generation_match=_generation(condition),
                    timeout=self.store.address.timeout,
                    retry=functools.partial(self.store.retry(), on_error=failures.append),
                )
        except FileExists:
            if not (failures and self._is_written(key, size, metadata)):
                raise exists(key) from None

    def _is_written(self, key: str, size: int, metadata: Mapping[str, str]) -> bool:
        """Whether an object is what was to be written, so that only the answer to that was lost.

        Nobody else writes the same upload time, to the microsecond, and the same digests.
        """
        found = self._head(key)
        return found is not None and (found.size, found.metadata) == (size, metadata)

    def _write_metadata(self, found: StoredObject, metadata: Mapping[str, str]) -> None:
        try:
            with self.store.asking(CHANGE):
                blob = self.bucket.blob(found.key)
                blob.reload(**self.store.options)
                if _stored(blob) != found:
                    raise exists(found.key)
                # What is not named stays as it is: the metadata of others.
                blob.metadata = {**dict.fromkeys(_NAMES), **metadata}
                conditions = {"if_generation_match": blob.generation, "if_metageneration_match": blob.metageneration}
                blob.patch(**conditions, **self.store.options)
        except (FileExists, PackageNotFound):
            if not self._is_written(found.key, found.size, metadata):
                raise exists(found.key) from None

    def _remove(self, key: str) -> None:
        with contextlib.suppress(PackageNotFound), self.store.asking(DELETE):
            self.bucket.blob(key).delete(**self.store.options)


def _prepared(settings: EnvironSettings, bucket: str | None = None) -> Bucket:
    """A bucket that is there."""
    store = Bucket(own.address(settings, bucket))
    may_make = functools.partial(demand_making, settings, BUCKET)
    with _starting(settings):
        store.prepare(REGION.read(settings) or None, STORAGE_CLASS.read(settings).upper() or None, may_make)
    return store


@contextlib.contextmanager
def _starting(settings: EnvironSettings) -> Iterator[None]:
    """Make of what Google refuses an error that stops the start."""
    try:
        yield
    except GCSUnavailable as error:
        raise refused(settings, own.SETTINGS, error.setting, error.reason) from error


def _stored(blob: SDK) -> StoredObject:
    return StoredObject(blob.name, blob.size, blob.updated, blob.metadata or {}, str(blob.generation))


def _generation(condition: Condition | str) -> int | None:
    """The generation that an object must have for the condition to hold; 0 is that of no object."""
    if isinstance(condition, Condition):
        return 0 if condition is Condition.ABSENT else None
    return int(condition)


@contextlib.contextmanager
def _from_start(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The rest of a stream, as one that stands at its start: the SDK takes no other."""
    with ExitStack() as stack:
        if stream.tell():
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, copy, BLOCK)
            copy.seek(0)
            stream = cast("BinaryIO", copy)
        yield stream


def _need_sdk() -> None:
    try:
        is_there = find_spec("google.cloud.storage") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise SettingError(STORAGE.key, "this storage needs more Python packages: pip install 'pypicloud[gcs]'")
