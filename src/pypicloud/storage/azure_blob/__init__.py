"""Package files in a container of Azure Blob Storage."""

from __future__ import annotations

import contextlib
import functools
import io
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final, cast

from pypicloud.errors import BackendUnavailable, FileExists, PackageNotFound, SettingError
from pypicloud.models import Package
from pypicloud.plugins import STORAGE
from pypicloud.settings import EnvironSettings, Setting
from pypicloud.storage.azure_blob import settings as own
from pypicloud.storage.azure_blob.address import BLOCK, Address
from pypicloud.storage.azure_blob.container import LONGEST_DELEGATION, Container
from pypicloud.storage.azure_blob.refusals import DELETE, READ, WRITE, AzureUnavailable
from pypicloud.storage.buckets import BucketStorage, Condition, StoredObject, exists
from pypicloud.storage.download import replaced_while_read
from pypicloud.storage.object_facts import Notation
from pypicloud.storage.start import demand_making, refused

if TYPE_CHECKING:
    from azure.storage.blob import BlobBlock, BlobProperties, StorageStreamDownloader

#: The most blocks that make a blob, and how many of them are on their way at a time.
MOST_BLOCKS: Final = 50_000
WORKERS: Final = 4

#: What marks a directory, where the account has a hierarchical namespace.
_DIRECTORY: Final = "hdi_isfolder"


class AzureBlobStorage(BucketStorage):
    """Keeps package files in a container of Azure Blob Storage."""

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = own.SETTINGS
    notation: ClassVar[Notation] = Notation("_", is_ascii=True, limit=8 << 10)

    #: How many blobs are listed at a time; None for as many as the service gives.
    page_size: ClassVar[int | None] = None

    def __init__(  # noqa: PLR0917 - the documented signature
        self,
        request: Any = None,
        expire_after: int | None = None,
        path_prefix: str | None = None,
        redirect_urls: bool | None = None,
        storage_account_name: str | None = None,
        storage_account_key: str | None = None,
        storage_account_url: str | None = None,
        storage_container_name: str | None = None,
        container: Container | None = None,
        **kwargs: Any,
    ) -> None:
        # The keys never had a hash (compat.md 2.2).
        super().__init__(request, expire_after, path_prefix, False, redirect_urls, **kwargs)
        account = storage_account_name or ""
        url = storage_account_url or own.own_url(account)
        self.container = container or Container(
            Address(url, account, storage_container_name or "", storage_account_key)
        )

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """The keyword arguments of the constructor; a container that is missing is made."""
        cls.check(settings)
        common = super().configure(settings)
        container = Container(own.address(settings))
        try:
            container.prepare(functools.partial(demand_making, settings, own.CONTAINER))
        except AzureUnavailable as error:
            raise refused(settings, cls.SETTINGS, error.setting, error.reason) from error
        return {
            **{name: common[name] for name in ("expire_after", "redirect_urls", "urls")},
            "path_prefix": common["bucket_prefix"],
            "container": container,
        }

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Raise :class:`SettingError` for what would stop :meth:`configure`, without reaching for Azure."""
        _need("azure.storage.blob", STORAGE.key, "this storage")
        if own.address(settings).key is None:
            _need("azure.identity", own.KEY.key, "is not set, and an identity in its place")

    @classmethod
    def _longest_expiry(cls, settings: EnvironSettings) -> int:
        return super()._longest_expiry(settings) if own.account_key(settings) else LONGEST_DELEGATION

    def check_health(self) -> tuple[bool, str]:
        """Whether the container is there and can be looked at."""
        try:
            self.container.look()
        except BackendUnavailable as error:
            return False, error.message
        return True, ""

    # Links

    def get_uri(self, package: Package) -> str:
        """The URL that lets anybody download a package's file for a while."""
        return self.redirect_url(package)

    def _generate_url(self, package: Package) -> str:
        return self.container.signed_url(self.get_path(package), self.expire_after)

    # Primitives

    def _objects(self) -> Iterator[StoredObject]:
        with self.container.asking(READ):
            pages = self.container.client.list_blobs(
                self.bucket_prefix, include=["metadata"], results_per_page=self.page_size
            )
            yield from (_stored(blob) for blob in pages if _DIRECTORY not in (blob.metadata or {}))

    def _head(self, key: str) -> StoredObject | None:
        with contextlib.suppress(PackageNotFound), self.container.asking(READ):
            return _stored(self.container.blob(key).get_blob_properties())
        return None

    @contextlib.contextmanager
    def _read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        # A range that begins with the first byte is refused where there is none.
        part = (start, stop - start) if stop is not None else (start or None, None)
        with self.container.asking(READ):
            answer = self.container.blob(key).download_blob(*part, decompress=False)
        with io.BufferedReader(_Content(answer, self.container)) as stream:
            yield cast("BinaryIO", stream)

    def _write(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], condition: Condition | str
    ) -> None:
        blob, wanted = self.container.blob(key), {"metadata": dict(metadata), **_conditions(condition)}
        try:
            with self.container.asking(WRITE):
                if size <= BLOCK:
                    blob.upload_blob(stream.read(size), length=size, overwrite=True, **wanted)
                else:
                    blob.commit_block_list(self._stage(key, stream, size), **wanted)
        except FileExists:
            self._demand_written(key, metadata)

    def _stage(self, key: str, stream: BinaryIO, size: int) -> list[BlobBlock]:
        """Send the blocks of a blob that is to be, under names that no other upload has."""
        from azure.storage.blob import BlobBlock

        blob, upload = self.container.blob(key), secrets.token_hex(8)
        length = max(BLOCK, -(-size // MOST_BLOCKS))
        names = [f"{upload}-{number:05}" for number in range(-(-size // length))]
        sent: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(WORKERS) as pool:
            for name in names:
                if len(sent) == WORKERS:
                    sent.popleft().result()
                sent.append(pool.submit(blob.stage_block, name, stream.read(length)))
            for each in sent:
                each.result()
        return [BlobBlock(name) for name in names]

    def _write_metadata(self, found: StoredObject, metadata: Mapping[str, str]) -> None:
        try:
            with self.container.asking(WRITE):
                self.container.blob(found.key).set_blob_metadata(dict(metadata), **_conditions(found.state))
        except PackageNotFound as error:
            raise exists(found.key) from error
        except FileExists:
            self._demand_written(found.key, metadata)

    def _demand_written(self, key: str, metadata: Mapping[str, str]) -> None:
        """Raise :class:`FileExists` unless the blob is what was to be written: the answer to that may be lost.

        Nobody else writes the same upload time, to the microsecond, and the same digests.
        """
        found = self._head(key)
        if found is None or found.metadata != metadata:
            raise exists(key)

    def _remove(self, key: str) -> None:
        with contextlib.suppress(PackageNotFound), self.container.asking(DELETE):
            self.container.blob(key).delete_blob(delete_snapshots="include")

    def _keys(self, prefix: str) -> Iterable[str]:
        with self.container.asking(READ):
            yield from self.container.client.list_blob_names(name_starts_with=prefix)

    def _companion_metadata(self, package: Package) -> Mapping[str, str]:
        """What keeps the listing of 1.3.12 from failing, which wants it of every blob (compat.md 2.3)."""
        return {field: self.notation.value(getattr(package, field)) for field in ("name", "version")}


class _Content(io.RawIOBase):
    """The bytes of a blob, fetched a block at a time, so that a slow reader keeps no connection."""

    def __init__(self, answer: StorageStreamDownloader[bytes], container: Container) -> None:
        super().__init__()
        self._answer = answer
        self._container = container
        # The SDK has a size, too, which is that of the part.
        self.total = int(str(answer.properties.content_range).rpartition("/")[2])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            with self._container.asking(READ):
                block = self._answer.read(len(buffer))
        except (FileExists, PackageNotFound) as error:
            raise replaced_while_read() from error
        buffer[: len(block)] = block
        return len(block)


def _stored(blob: BlobProperties) -> StoredObject:
    return StoredObject(blob.name, blob.size, blob.last_modified, blob.metadata or {}, blob.etag.strip('"'))


def _conditions(condition: Condition | str) -> dict[str, Any]:
    """What the SDK is told of the state in which a blob must be."""
    from azure.core import MatchConditions

    if condition is Condition.ANYTHING:
        return {}
    if condition is Condition.ABSENT:
        return {"match_condition": MatchConditions.IfMissing}
    return {"match_condition": MatchConditions.IfNotModified, "etag": f'"{condition}"'}


def _need(module: str, key: str, what: str) -> None:
    try:
        is_there = find_spec(module) is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise SettingError(key, f"{what} needs more Python packages: pip install 'pypicloud[azure-blob]'")
