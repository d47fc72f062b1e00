"""The short way to DynamoDB, for reading items by their keys, which every page does; for all else there is boto3.

Most of what boto3 does for a request is the same each time: rules of endpoints, hooks, models of what is asked and
answered. Here a request is signed by botocore's signer, sent over a pool of urllib3 and read as JSON, for less than
half of the work. Whatever is not a plain good answer is left to boto3, which asks again: trouble is told, waited out
and translated there alone.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

_OK: Final = 200

#: boto3 is who tries again.
_ONCE: Final = urllib3.Retry(total=False)

#: What a value of bytes begins with, or a list of such; boto3 decodes them. Inside a text the quotes are escaped.
_BYTES: Final = (b'"B":', b'"BS":')


class Wire:
    """Connections to where a client of boto3 has its DynamoDB; shared by all threads of a process.

    ``credentials`` are those of the client's session, which renews them; ``ca_bundle`` is the file of certificates
    that the session is told to trust, if it is. ``read_timeout`` is in seconds.
    """

    def __init__(self, client: Any, credentials: Any, ca_bundle: str | None, read_timeout: float) -> None:
        config, self._url = client.meta.config, client.meta.endpoint_url
        self._region = client.meta.region_name
        self._credentials = credentials
        parts = urlsplit(self._url)
        self._path = parts.path or "/"
        self._headers = {
            "Host": parts.netloc,
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": "DynamoDB_20120810.BatchGetItem",
            "User-Agent": config.user_agent,
        }
        # The way through a proxy is boto3's, as is the word that there are no credentials.
        self.is_open = credentials is not None and parts.scheme not in get_environ_proxies(self._url)
        self._pool = urllib3.PoolManager(
            maxsize=config.max_pool_connections,
            timeout=urllib3.Timeout(connect=config.connect_timeout, read=read_timeout),
            cert_reqs="CERT_REQUIRED",
            # Trusted is whom botocore trusts.
            ca_certs=get_cert_path(ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True),
        ).connection_from_url(self._url)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def batch_get_item(self, items: Mapping[str, Any]) -> dict[str, Any] | None:
        """What DynamoDB answers to ``RequestItems``, as boto3 would give it; None if boto3 has to ask."""
        if not self.is_open:
            return None
        body = msgspec.json.encode({"RequestItems": items})
        try:
            answer = self._pool.urlopen("POST", self._path, body=body, headers=self._signed(body), retries=_ONCE)
        except (BotoCoreError, urllib3.exceptions.HTTPError):
            return None
        return _read(answer.data, answer.headers.get("x-amz-crc32")) if answer.status == _OK else None

    def _signed(self, body: bytes) -> dict[str, str]:
        request = AWSRequest("POST", self._url, self._headers, body)
        SigV4Auth(self._credentials.get_frozen_credentials(), "dynamodb", self._region).add_auth(request)
        return dict(request.headers.items())


def _read(body: bytes, crc: str | None) -> dict[str, Any] | None:
    """An answer, unless it is no such thing, was damaged on its way, or has bytes in it."""
    if crc not in {None, str(zlib.crc32(body))} or any(each in body for each in _BYTES):
        return None
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    return answer if "Responses" in answer else None
