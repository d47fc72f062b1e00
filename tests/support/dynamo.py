"""A look into the tables of a cache in DynamoDB, a hand in them, and at the requests that the cache makes."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import boto3
import botocore.session
import pytest
import urllib3
from botocore.awsrequest import AWSResponse

from pypicloud.cache.dynamo import DynamoCache
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings

#: Where a cache under test has its files.
STORAGE = {"pypi.storage": "pypicloud.testing.memory_storage.MemoryStorage"}


@contextlib.contextmanager
def one_loader() -> Iterator[None]:
    """All clients are made from one copy of the description of the service, which takes a while to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


def plain(settings: Mapping[str, str]) -> Any:
    """A boto3 client as anybody would make it."""
    return boto3.session.Session().client(
        "dynamodb",
        region_name=settings["db.region_name"],
        endpoint_url=f"http://{settings['db.host']}:{settings['db.port']}",
        aws_access_key_id=settings["db.aws_access_key_id"],
        aws_secret_access_key=settings["db.aws_secret_access_key"],
    )


def value(attribute: Mapping[str, Any]) -> Any:
    """A value as a program of somebody else reads it."""
    ((kind, found),) = attribute.items()
    return {key: value(each) for key, each in found.items()} if kind == "M" else found


class Tables:
    """A look into the tables of a cache, and a hand in them, without the cache."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.client = plain(settings)
        names = settings.get("db.tablenames", "DynamoPackage PackageSummary").split()
        self.packages, self.summaries = (settings["db.namespace"] + name for name in names)

    def items(self, table: str) -> dict[str, dict[str, Any]]:
        """All items of a table by their key."""
        pages = self.client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        key = "filename" if table == self.packages else "name"
        return {item[key]["S"]: item for page in pages for item in page["Items"]}

    def put(self, table: str, item: Mapping[str, Any]) -> None:
        """Write an item whatever was there."""
        self.client.put_item(TableName=table, Item=item)

    def save_like_1_3_12(self, saved: Package) -> None:
        """Write both items of a package, whole, as 1.3.12 does."""
        text = {"summary": {"S": saved.summary}} if saved.summary else {}
        moment = {"last_modified": {"N": f"{saved.last_modified.timestamp():.6f}"}}
        data = {"data": {"M": {key: {"S": each} for key, each in saved.data.items()}}}
        names = {"name": {"S": saved.name}, "version": {"S": saved.version}}
        self.put(self.packages, {"filename": {"S": saved.filename}, **names, **moment, **text, **data})
        self.put(self.summaries, {"name": {"S": saved.name}, **moment, **text})

    def clear_like_1_3_12(self, filename: str) -> None:
        """Delete the item of a package which is not the last of its project, as 1.3.12 does."""
        self.client.delete_item(TableName=self.packages, Key={"filename": {"S": filename}})

    def lose(self) -> None:
        """Delete both tables."""
        for table in (self.packages, self.summaries):
            self.client.delete_table(TableName=table)


@contextlib.contextmanager
def started(settings: dict[str, str], **changes: str) -> Iterator[Callable[..., DynamoCache]]:
    """A server: makes the caches of requests."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    kwargs = DynamoCache.configure(EnvironSettings({**STORAGE, **settings, **changed}, {}))
    yield partial(DynamoCache, **kwargs)
    kwargs["dynamo"].close()


@contextlib.contextmanager
def requests(cache: Any) -> Iterator[list[str]]:
    """The names of the requests that a cache makes in the block, in order."""
    made: list[str] = []
    with intercepted(cache, lambda name, _: made.append(name)):
        yield made


@contextlib.contextmanager
def intercepted(cache: Any, answer: Callable[[str, Any], Any]) -> Iterator[None]:
    """In the block each request, its name and its body, is asked about first; what is answered is not sent.

    What is refused on the short way is asked again, by boto3.
    """
    pool, events = cache.dynamo.wire._pool, cache.dynamo.client.meta.events
    send = pool.urlopen

    def handle(request: Any, **_: Any) -> Any:
        name = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        return answer(name, json.loads(request.body))

    def handle_short(*args: Any, body: bytes, headers: Mapping[str, str], **kwargs: Any) -> Any:
        found = answer(headers["X-Amz-Target"].rpartition(".")[2], json.loads(body))
        if found is None:
            return send(*args, body=body, headers=headers, **kwargs)
        return urllib3.HTTPResponse(found.content, dict(found.headers), found.status_code)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "urlopen", handle_short)
        events.register_first("before-send.dynamodb", handle)
        try:
            yield
        finally:
            events.unregister("before-send.dynamodb", handle)


class _Raw:
    """The body of an answer, as urllib3 would give it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        """The body in one piece."""
        yield self._body


def said(status: int, **words: Any) -> AWSResponse:
    """An answer of DynamoDB."""
    headers = {"content-type": "application/x-amz-json-1.0"}
    return AWSResponse("http://dynamodb", status, headers, _Raw(json.dumps(words).encode()))


def refused(code: str, message: str = "no", **more: Any) -> AWSResponse:
    """DynamoDB's word that it does not do something."""
    return said(400, __type=f"com.amazonaws.dynamodb.v20120810#{code}", message=message, **more)
