"""A storage in S3, what is to be seen in its bucket without it, and trouble on the way there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from botocore.awsrequest import AWSResponse

from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage import S3Storage, get_storage_impl
from pypicloud.storage.s3.wire import Wire
from support.services.s3 import plain

if TYPE_CHECKING:
    from pyramid.response import Response


def s3(settings: Mapping[str, str], **changes: str) -> S3Storage:
    """The storage of these settings; the name of a change is that of a key below ``storage.``."""
    changed = {f"storage.{name}": value for name, value in changes.items()}
    storage = get_storage_impl(EnvironSettings({"pypi.storage": "s3", **settings, **changed}, {}))(None)
    assert isinstance(storage, S3Storage)
    return storage


class StreamedS3(S3Storage):
    """The storage, of a server that sends all files itself (``pypi.stream_files``)."""

    def download_response(self, package: Package) -> Response:
        return self.stream_response(package)


@contextlib.contextmanager
def looking(settings: Mapping[str, str]) -> Iterator[Any]:
    """A client of anybody, for the account of a storage's settings."""
    client = plain(settings)
    try:
        yield client
    finally:
        client.close()


def everything(settings: Mapping[str, str]) -> dict[str, bytes]:
    """Every object of the bucket of a storage's settings with its bytes."""
    bucket = settings["storage.bucket"]
    with looking(settings) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def head(settings: Mapping[str, str], key: str) -> dict[str, Any]:
    """What the store says about an object."""
    with looking(settings) as client:
        found: dict[str, Any] = client.head_object(Bucket=settings["storage.bucket"], Key=key)
        return found


def put(settings: Mapping[str, str], key: str, body: bytes = b"x", **options: Any) -> None:
    """Make an object, as another program would."""
    with looking(settings) as client:
        client.put_object(Bucket=settings["storage.bucket"], Key=key, Body=body, **options)


@contextlib.contextmanager
def by_boto3() -> Iterator[None]:
    """In the block all requests are boto3's."""
    with patch.object(Wire, "_line", lambda *_: None):
        yield


@contextlib.contextmanager
def intercepted(storage: S3Storage, answer: Callable[[str, Any], Any]) -> Iterator[None]:
    """In the block each request, its operation and itself, is asked about first; what is answered is not sent.

    All requests are boto3's.
    """

    def handle(request: Any, event_name: str, **_: Any) -> Any:
        return answer(event_name.rpartition(".")[2], request)

    events = storage.client.meta.events
    events.register_first("before-send.s3", handle)
    try:
        with by_boto3():
            yield
    finally:
        events.unregister("before-send.s3", handle)


class _Raw:
    """The body of an answer, as urllib3 would give it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        """The body in one piece."""
        yield self._body


def refused(status: int, code: str, message: str = "no", **headers: str) -> AWSResponse:
    """The store's word that it does not do something."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return AWSResponse("http://s3", status, {"content-type": "application/xml", **headers}, _Raw(body.encode()))
