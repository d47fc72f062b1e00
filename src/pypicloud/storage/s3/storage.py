"""Package files in a bucket of S3, Amazon's or another's (compat.md 2.2 to 2.6)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar, Final, cast
from urllib.parse import quote, urlsplit

from pypicloud.models import Package
from pypicloud.settings import EnvironSettings, Finding, Setting
from pypicloud.storage.buckets import BucketStorage, Condition, StoredObject, package_of
from pypicloud.storage.object_facts import Notation
from pypicloud.storage.object_store import BUCKET, CENTURY, PUBLIC_URL, ObjectStoreStorage
from pypicloud.storage.s3 import connection
from pypicloud.storage.s3 import settings as s3_settings
from pypicloud.storage.s3.content import Content
from pypicloud.storage.s3.errors import ObjectMissing, S3Unavailable, translated
from pypicloud.storage.s3.wire import Wire
from pypicloud.storage.s3.writing import Sizes, Writer
from pypicloud.util import PackageParseError

LOG = logging.getLogger(__name__)

#: How long S3 lets a signed URL live (SigV4), in seconds.
_WEEK: Final = 7 * 86400

#: The signatures of old, whose URLs may live as long as one likes.
_UNBOUNDED: Final = frozenset({"s3", "s3-query"})


class S3Storage(BucketStorage):
    """Keeps package files in a bucket of S3. ``bucket`` is a resource of boto3."""

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*ObjectStoreStorage.SETTINGS, *s3_settings.SETTINGS)
    notation: ClassVar[Notation] = Notation("-", is_ascii=True, limit=2048)
    longest_expiry: ClassVar[int | None] = _WEEK

    def __init__(
        self,
        request: Any = None,
        bucket: Any = None,
        *,
        sse_kms_key_id: str | None = None,
        conditional_writes: bool = True,
        sizes: Sizes | None = None,
        listing_threads: int = 32,
        wire: Wire | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(request, **kwargs)
        self.bucket = bucket
        self.client: Any = None if bucket is None else bucket.meta.client
        self.listing_threads = listing_threads
        self._wire = wire
        options = {
            "ACL": self.object_acl,
            "ServerSideEncryption": self.sse,
            "SSEKMSKeyId": sse_kms_key_id,
            "StorageClass": self.storage_class,
        }
        given = {name: value for name, value in options.items() if value}
        if bucket is not None:
            self._writer = Writer(
                bucket, self._head, given, sizes or Sizes(), conditional=conditional_writes, wire=wire
            )

    @classmethod
    def _subclass_specific_config(cls, settings: EnvironSettings, common_config: dict[str, Any]) -> dict[str, Any]:
        """Reach the bucket, which is made if it is missing."""
        s3_settings.check(settings)
        sizes = Sizes(
            s3_settings.threshold(settings),
            s3_settings.PART_SIZE.read(settings),
            s3_settings.PARTS_AT_ONCE.read(settings),
        )
        bucket = cls.get_bucket(BUCKET.read(settings), settings)
        wire = Wire(bucket)
        connection.close_after_fork(wire)
        return {
            "bucket": bucket,
            "wire": wire,
            "sse_kms_key_id": s3_settings.KMS_KEY.read(settings) or None,
            "conditional_writes": s3_settings.CONDITIONS.read(settings),
            "sizes": sizes,
            "listing_threads": s3_settings.LISTING_THREADS.read(settings),
        }

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Look at the names, keys and bounds."""
        s3_settings.check(settings)

    @classmethod
    def odd(cls, settings: EnvironSettings) -> Iterator[Finding]:
        """What S3 most likely does not do as it is asked."""
        yield from super().odd(settings)
        yield from s3_settings.odd(settings)

    @classmethod
    def _longest_expiry(cls, settings: EnvironSettings) -> int:
        is_unbounded = PUBLIC_URL.read(settings) or s3_settings.SIGNATURE.read(settings) in _UNBOUNDED
        return CENTURY if is_unbounded else super()._longest_expiry(settings)

    @classmethod
    def get_bucket(cls, bucket_name: str, settings: EnvironSettings) -> Any:
        """The bucket of this name as a resource of boto3, made if it is missing. Raises :class:`SettingError`."""
        return connection.found(bucket_name, settings)

    # What and where

    @classmethod
    def package_from_object(cls, obj: Any, factory: Callable[..., Package] = Package) -> Package | None:
        """The package that an object of boto3 is; None if it is none."""
        etag, size, moment = obj.e_tag.strip('"'), obj.content_length, obj.last_modified
        try:
            return package_of(StoredObject(obj.key, size, moment, obj.metadata, etag), factory)
        except PackageParseError as error:
            LOG.warning("Not a package: %r: %s", obj.key, error)
            return None

    def get_uri(self, package: Package) -> str:
        """Where a package's file is, as AWS's own tools say it."""
        return f"s3://{self.bucket.name}/{self.get_path(package)}"

    def _generate_url(self, package: Package) -> str:
        key = self.get_path(package)
        if self.public_url:
            return self._public_base() + quote(key, safe="/~")
        return self._signed(key)

    def _signed(self, key: str) -> str:
        with translated():
            url: str = self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket.name, "Key": key}, ExpiresIn=self.expire_after
            )
        return url

    def _public_base(self) -> str:
        """The URL of everybody's bucket (compat.md 2.4)."""
        host = urlsplit(self.client.meta.endpoint_url).hostname or ""
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) and not self.client.meta.config.s3:
            suffix = ".cn" if host.endswith(".cn") else ""
            if self.region_name:
                return f"https://s3.{self.region_name}.amazonaws.com{suffix}/{self.bucket.name}/"
            return f"https://{self.bucket.name}.s3.amazonaws.com{suffix}/"
        return self._signed("x").partition("?")[0].removesuffix("x")

    def check_health(self) -> tuple[bool, str]:
        """Whether the bucket is there and may be looked at."""
        try:
            is_there = connection.looked_at(self.bucket) is not None
        except S3Unavailable as error:
            return False, error.message
        return is_there, "" if is_there else "there is no such bucket"

    # The primitives

    def _objects(self) -> Iterator[StoredObject]:
        from pypicloud.storage.s3.heads import Heads  # With all that speaks HTTP.

        with Heads(self.bucket, self.listing_threads) as heads:
            yield from heads.objects(self.bucket_prefix, self._head)

    def _head(self, key: str) -> StoredObject | None:
        try:
            with translated():
                answer = self.client.head_object(Bucket=self.bucket.name, Key=key)
        except ObjectMissing:
            return None
        etag = answer["ETag"].strip('"')
        return StoredObject(key, answer["ContentLength"], answer["LastModified"], answer["Metadata"], etag)

    @contextlib.contextmanager
    def _read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        with Content(self.client, self.bucket.name, key, start, stop, wire=self._wire) as stream:
            yield cast("BinaryIO", stream)

    def _write(
        self, key: str, stream: BinaryIO, size: int, metadata: Mapping[str, str], condition: Condition | str
    ) -> None:
        self._writer.write(key, stream, size, metadata, condition)

    def _write_metadata(self, found: StoredObject, metadata: Mapping[str, str]) -> None:
        self._writer.rewrite(found, metadata)

    def _remove(self, key: str) -> None:
        with contextlib.suppress(ObjectMissing), translated():
            self.client.delete_object(Bucket=self.bucket.name, Key=key)

    def _keys(self, prefix: str) -> Iterable[str]:
        from pypicloud.storage.s3.listing import Listing

        with Listing(self.bucket, None) as listing:
            return [key for page in listing.pages(prefix) for key in page]
