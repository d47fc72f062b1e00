"""The bucket as boto3 gives it: made from the settings, looked for at the start, created if it is missing."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from pypicloud.errors import SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.storage.object_store import BUCKET, OBJECT_ACL, REGION, ObjectStoreStorage
from pypicloud.storage.s3.errors import S3Unavailable, is_web_page, no_store, translated
from pypicloud.storage.s3.settings import ENDPOINT, SETTINGS, Owner, options, wrong
from pypicloud.storage.start import demand_making, refused

LOG = logging.getLogger(__name__)

#: The event at which boto3 asks whether a request is to be repeated.
_RETRY: Final = "needs-retry.s3"

#: Where a bucket is for which no region is named.
_CLASSIC: Final = "us-east-1"

#: What other servers that start at the same moment may have done.
_MADE_ALREADY: Final = frozenset({"BucketAlreadyOwnedByYou", "OperationAborted"})


def connected(name: str, settings: EnvironSettings) -> Any:
    """The bucket of this name, as a resource of boto3. Raises :class:`SettingError` if that cannot work."""
    return _bucket(name, options(settings))


def found(name: str, settings: EnvironSettings) -> Any:
    """The same after a look at it: it exists, may be used, and is in the region that the settings say.

    Raises :class:`SettingError` for all that is wrong.
    """
    given = options(settings)
    bucket = _bucket(name, given)
    try:
        region = looked_at(bucket)
        if region is None:
            demand_making(settings, BUCKET)
            _create(bucket, settings)
    except S3Unavailable as error:
        declared = (*ObjectStoreStorage.SETTINGS, *SETTINGS)
        raise refused(settings, declared, error.setting, error.reason) from error
    if region is None or region == bucket.meta.client.meta.region_name:
        return bucket
    if REGION.read(settings):
        return _elsewhere(bucket, region, settings)
    # Amazon's own name for "no region" serves requests, but URLs are good in the bucket's own region only.
    bucket.meta.client.close()
    given[Owner.RESOURCE]["region_name"] = region
    return _bucket(name, given)


def _bucket(name: str, given: Mapping[Owner, dict[str, Any]]) -> Any:
    # It takes a while, and whoever keeps files elsewhere never needs it.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    config = {**given[Owner.CONFIG], "s3": given[Owner.S3], "retries": given[Owner.RETRIES]}
    if given[Owner.PROXIES]:
        config["proxies_config"] = given[Owner.PROXIES]
    try:
        session = boto3.session.Session(**given[Owner.SESSION])
        resource = session.resource("s3", config=Config(**config), **given[Owner.RESOURCE])
    except ProfileNotFound as error:
        reason = "there is no such profile in AWS's configuration files"
        raise SettingError("storage.profile_name", reason, value=given[Owner.SESSION]["profile_name"]) from error
    except (BotoCoreError, ValueError, OSError) as error:
        raise SettingError(REGION.key, f"S3 cannot be used: {error}") from error
    resource.meta.client.meta.events.register_first(_RETRY, _no_retry)
    close_after_fork(resource.meta.client)
    return resource.Bucket(name)


def _no_retry(caught_exception: Exception | None, **_: Any) -> bool | None:
    """False for a store that was silent, which is not asked again; None leaves it to the others that are asked."""
    from botocore.exceptions import ReadTimeoutError

    return False if isinstance(caught_exception, ReadTimeoutError) else None


def close_after_fork(connections: Any) -> None:
    """In a process that is forked from this one a client, or whatever it is, makes connections of its own."""
    kept = weakref.ref(connections)

    def close() -> None:
        connections = kept()
        if connections is not None:
            connections.close()

    os.register_at_fork(after_in_child=close)


def looked_at(bucket: Any) -> str | None:
    """The region of a bucket as the store says it, or that of the client; None if there is no such bucket."""
    from botocore.exceptions import ClientError

    client = bucket.meta.client
    with translated(is_logged=False):
        try:
            answer = client.head_bucket(Bucket=bucket.name)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == HTTPStatus.NOT_FOUND:
                return None
            if status == HTTPStatus.FORBIDDEN:
                # The answer to HEAD has no words; this one has.
                client.list_objects_v2(Bucket=bucket.name, MaxKeys=1)
            raise
    if is_web_page(answer):
        raise no_store("HeadBucket")
    region: str = answer.get("BucketRegion") or client.meta.region_name
    return region


def _create(bucket: Any, settings: EnvironSettings) -> None:
    """Make the bucket, in the region of the settings."""
    from botocore.exceptions import ClientError

    region, acl = REGION.read(settings), OBJECT_ACL.read(settings)
    parameters: dict[str, Any] = {}
    if region not in {"", _CLASSIC}:
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": region}
    if acl not in {"", "private"}:
        # Since 2023 a new bucket of Amazon's refuses ACLs otherwise.
        parameters["ObjectOwnership"] = "ObjectWriter"
    with translated(is_logged=False):
        try:
            bucket.create(**parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _MADE_ALREADY:
                raise
    LOG.info("Made the bucket %r", bucket.name)


def _elsewhere(bucket: Any, region: str, settings: EnvironSettings) -> Any:
    """What to do with a bucket that the store says is in another region than the settings."""
    reason = f"the bucket {bucket.name!r} is in {region}"
    if not ENDPOINT.read(settings):
        raise wrong(settings, REGION, reason, REGION.read(settings))
    # Many servers that are not Amazon's do not care.
    LOG.warning("%s = %s: %s", REGION.key, REGION.read(settings), reason)
    return bucket
