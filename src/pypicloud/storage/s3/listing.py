"""The keys of a bucket, page by page.

boto3 makes a Python object of everything that S3 says about each key, of which only the key is wanted: on a way that is
known (:class:`pypicloud.storage.s3.plan.Plan`) the answers are read here, and whatever is odd is left to boto3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

import urllib3

from pypicloud.storage.s3.errors import translated
from pypicloud.storage.s3.plan import Plan

#: The longest answer that is read, in bytes: a thousand keys of a thousand bytes, three for each, and what goes along.
_LONGEST: Final = 8 << 20

#: How many seconds the URL of a question is good for.
_LIFE: Final = 60


class Page(NamedTuple):
    """Some keys, and the words with which the next page is asked for; None if there is none."""

    keys: list[str]
    more: Mapping[str, str] | None


class Listing:
    """Lists one bucket; as a context manager, it closes its connections."""

    def __init__(self, bucket: Any, plan: Plan | None) -> None:
        self._client = bucket.meta.client
        self._bucket: str = bucket.name
        self._pool = None
        if plan is not None:
            timeout = urllib3.Timeout(connect=plan.patience, read=plan.patience)
            self._pool = urllib3.PoolManager(timeout=timeout, ssl_context=plan.tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.clear()

    def pages(self, prefix: str) -> Iterator[list[str]]:
        """The keys that begin so, as many at a time as the store gives."""
        more: Mapping[str, str] | None = {}
        while more is not None:
            parameters = {"Bucket": self._bucket, "Prefix": prefix, **more}
            keys, more = self._quick(parameters) or self._plain(parameters)
            yield keys

    def _plain(self, parameters: Mapping[str, str]) -> Page:
        with translated():
            if "Marker" in parameters:
                page = self._client.list_objects(**parameters)
            else:
                page = self._client.list_objects_v2(**parameters)
        keys = [each["Key"] for each in page.get("Contents", ())]
        return Page(keys, _following(keys, is_cut=page.get("IsTruncated"), token=page.get("NextContinuationToken")))

    def _quick(self, parameters: Mapping[str, str]) -> Page | None:
        """The same, if all is well."""
        if self._pool is None or "Marker" in parameters:
            return None
        with translated():
            question = {**parameters, "EncodingType": "url"}
            url = self._client.generate_presigned_url("list_objects_v2", Params=question, ExpiresIn=_LIFE)
        try:
            answer = self._pool.request("GET", url, retries=False, redirect=False, preload_content=False)
            try:
                body = answer.read(_LONGEST)
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError:
            return None
        return _read(body) if answer.status == HTTPStatus.OK and len(body) < _LONGEST else None


def _read(body: bytes) -> Page | None:
    """The page that an answer in XML is."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - boto3 reads the answers of the store with the same parser
    except ET.ParseError:
        return None
    keys, said = [], {}
    for element in root:
        name = element.tag.rpartition("}")[2]
        if name == "Contents":
            keys += [each.text or "" for each in element if each.tag.endswith("Key")]
        else:
            said[name] = element.text or ""
    if root.tag.rpartition("}")[2] != "ListBucketResult":
        return None
    if said.get("EncodingType") == "url":
        keys = [unquote_plus(key) for key in keys]
    token = said.get("NextContinuationToken")
    return Page(keys, _following(keys, is_cut=said.get("IsTruncated") == "true", token=token))


def _following(keys: list[str], *, is_cut: bool | None, token: str | None) -> Mapping[str, str] | None:
    """The words for the next page."""
    if not is_cut or not (token or keys):
        return None
    # A store without a token answers as the first version of the question wants it.
    return {"ContinuationToken": token} if token else {"Marker": keys[-1]}
