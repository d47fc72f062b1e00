"""What every server of S3 has in common for the tests."""

from __future__ import annotations

import functools
import itertools
import json
import threading
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Final

import boto3
import botocore.config

from support.live import LOOPBACK
from support.services.service import Service

REGION: Final = "us-east-1"

_numbers = itertools.count(1)

#: Held while a client is made: threads must not share a session of boto3.
_making = threading.Lock()


def fresh_bucket() -> str:
    """A name that no bucket or container of this test process has yet."""
    return f"bucket-{next(_numbers)}"


def fetch(url: str) -> bytes:
    """What is answered to a plain GET request, which goes through nobody's proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        body: bytes = answer.read()
    return body


def status(url: str, method: str = "GET", **headers: str) -> int:
    """The status of the answer to a plain request."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method=method, headers=headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def forged(url: str) -> str:
    """A signed URL, changed in the last character of its signature."""
    return url[:-1] + ("a" if url[-1] != "a" else "b")


@functools.cache
def _session() -> boto3.session.Session:
    """What all clients are made from: to make it takes as long as to make a client."""
    return boto3.session.Session()


def plain(settings: Mapping[str, str], service: str = "s3", **options: Any) -> Any:
    """A boto3 client as anybody would make it, for the account of a storage's settings; tries everything once."""
    with _making:
        return _session().client(
            service,
            region_name=settings["storage.region_name"],
            endpoint_url=settings["storage.endpoint_url"],
            aws_access_key_id=settings["storage.aws_access_key_id"],
            aws_secret_access_key=settings["storage.aws_secret_access_key"],
            config=botocore.config.Config(retries={"total_max_attempts": 1}, max_pool_connections=50, **options),
        )


def statement(*actions: str, effect: str = "Allow", resource: str = "*") -> dict[str, Any]:
    """A statement of a policy: these actions are allowed, or denied, on what a pattern of ARNs names."""
    return {"Effect": effect, "Action": list(actions), "Resource": resource}


def policy(*statements: Mapping[str, Any]) -> str:
    """A policy document with such statements."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


class S3Service(Service):
    """A server of S3 at a port of the loopback address."""

    port: int

    @property
    def url(self) -> str:
        """The address of the server, without a final slash."""
        return f"http://{LOOPBACK}:{self.port}"

    @abstractmethod
    def credentials(self) -> tuple[str, str]:
        """The access key and the secret of somebody who may do everything."""

    def settings(self, bucket: str | None = None) -> dict[str, str]:
        """What the storage of a bucket has in its ini; by default of one that is not there yet."""
        access_key, secret = self.credentials()
        return {
            "storage.bucket": bucket or fresh_bucket(),
            "storage.region_name": REGION,
            "storage.endpoint_url": self.url,
            "storage.aws_access_key_id": access_key,
            "storage.aws_secret_access_key": secret,
        }
