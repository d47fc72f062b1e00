"""A storage in Google Cloud Storage, and what is to be seen in its bucket without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from pypicloud.settings import EnvironSettings
from pypicloud.storage import GoogleCloudStorage
from support.services.gcs import plain

Settings = dict[str, str]


def storage_of(settings: Mapping[str, str], request: Any = None, **changes: str) -> GoogleCloudStorage:
    """The backend, configured as the server does it; the name of a change is that of a key below ``storage.``."""
    changed = {**settings, **{f"storage.{name}": value for name, value in changes.items()}}
    # What is empty is left out.
    given = EnvironSettings({key: value for key, value in changed.items() if value}, {})
    return GoogleCloudStorage(request, **GoogleCloudStorage.configure(given))


@contextlib.contextmanager
def looking(settings: Mapping[str, str]) -> Iterator[Any]:
    """The bucket of a storage's settings, as anybody's program sees it."""
    with contextlib.closing(plain(settings)) as client:
        yield client.bucket(settings["storage.bucket"])


def everything(settings: Mapping[str, str]) -> dict[str, bytes]:
    """Every object of the bucket with its bytes."""
    with looking(settings) as bucket:
        return {found.name: bucket.blob(found.name).download_as_bytes() for found in bucket.list_blobs()}


def metadata(settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The metadata of every object of the bucket."""
    with looking(settings) as bucket:
        return {found.name: found.metadata or {} for found in bucket.list_blobs()}


def put(settings: Mapping[str, str], key: str, facts: Mapping[str, str] | None = None, content: bytes = b"x") -> None:
    """Make an object, as another program would."""
    with looking(settings) as bucket:
        blob = bucket.blob(key)
        blob.metadata = dict(facts) if facts else None
        blob.upload_from_string(content)
