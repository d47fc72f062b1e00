"""What an object store holds, read and put without the backends: the buckets of 1.3.12."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from azure.storage.blob import ContainerClient

from compat.contents import line_by_line
from compat.successor import FIXTURE
from support.services import gcs
from support.services.s3 import plain

TARGET: Final = Path(__file__).parent / "fixtures" / "v1_3_12_buckets"
OBJECTS: Final = TARGET / "objects.json"
ANSWERS: Final = TARGET / "answers.json"

#: What 1.3.12's ``storage.prefix`` was: no separator was added to it.
PREFIX: Final = "packages"

_STORAGE: Final = "pypi.storage = file\nstorage.dir = %(here)s/packages\n"


@dataclass(frozen=True)
class Stored:
    """An object; ``state`` changes whenever anything about it does, and is nothing in a dump."""

    metadata: Mapping[str, str]
    content: bytes
    state: str = field(default="", compare=False)
    #: When it was last changed, in seconds.
    moment: int = field(default=0, compare=False)


class Objects(ABC):
    """The objects of one bucket."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The lines of an ini that let a server have the bucket for its storage."""

    @abstractmethod
    def put(self, key: str, stored: Stored) -> None:
        """Make an object as 1.3.12 would."""

    @abstractmethod
    def read(self) -> dict[str, Stored]:
        """All there is, by key."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""


class S3Objects(Objects):
    """A bucket of S3, which is made if it is missing."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._bucket = settings["storage.bucket"]
        self._client = plain(settings)
        self._client.create_bucket(Bucket=self._bucket)

    def settings(self) -> dict[str, str]:
        return {
            "pypi.storage": "s3",
            **self._settings,
            "storage.prefix": PREFIX,
            "storage.signature_version": "s3v4",
        }

    def put(self, key: str, stored: Stored) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=stored.content, Metadata=dict(stored.metadata))

    def read(self) -> dict[str, Stored]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        return {row["Key"]: self._object(row["Key"]) for page in pages for row in page.get("Contents", [])}

    def close(self) -> None:
        self._client.close()

    def _object(self, key: str) -> Stored:
        answer = self._client.get_object(Bucket=self._bucket, Key=key)
        moment = answer["LastModified"]
        state = f"{answer['ETag']} {moment} {answer['ContentType']}"
        return Stored(answer["Metadata"], answer["Body"].read(), state, int(moment.timestamp()))


class GCSObjects(Objects):
    """A bucket of Google Cloud Storage."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings
        self._client = gcs.plain(settings)
        self._bucket = self._client.create_bucket(settings["storage.bucket"])

    def settings(self) -> dict[str, str]:
        return {"pypi.storage": "gcs", **self._settings, "storage.prefix": PREFIX}

    def put(self, key: str, stored: Stored) -> None:
        blob = self._bucket.blob(key)
        blob.metadata = dict(stored.metadata) or None
        blob.upload_from_string(stored.content, content_type="application/octet-stream")

    def read(self) -> dict[str, Stored]:
        return {blob.name: self._object(blob) for blob in self._bucket.list_blobs()}

    def close(self) -> None:
        self._client.close()

    def _object(self, blob: Any) -> Stored:
        state = f"{blob.generation} {blob.metageneration} {blob.updated} {blob.content_type}"
        return Stored(
            blob.metadata or {}, self._bucket.blob(blob.name).download_as_bytes(), state, int(blob.updated.timestamp())
        )


class AzureObjects(Objects):
    """A container of Azure Blob Storage."""

    def __init__(self, settings: Mapping[str, str], client: ContainerClient) -> None:
        self._settings = settings
        self._client = client

    def settings(self) -> dict[str, str]:
        return {"pypi.storage": "azure-blob", **self._settings, "storage.prefix": PREFIX}

    def put(self, key: str, stored: Stored) -> None:
        self._client.upload_blob(key, stored.content, metadata=dict(stored.metadata), overwrite=True)

    def read(self) -> dict[str, Stored]:
        return {blob.name: self._object(blob.name) for blob in self._client.list_blobs()}

    def close(self) -> None:
        self._client.close()

    def _object(self, key: str) -> Stored:
        answer = self._client.download_blob(key)
        facts = answer.properties
        return Stored(dict(facts.metadata), answer.readall(), f"{facts.etag}", int(facts.last_modified.timestamp()))


def dumped(objects: Mapping[str, Stored]) -> str:
    """The text that objects are kept as."""
    return line_by_line(
        {
            key: {"metadata": dict(stored.metadata), "content": base64.b64encode(stored.content).decode()}
            for key, stored in objects.items()
        }
    )


def restored(text: str) -> dict[str, Stored]:
    """The objects that were kept as this text."""
    kept = json.loads(text)
    return {key: Stored(row["metadata"], base64.b64decode(row["content"])) for key, row in kept.items()}


def write_ini(path: Path, settings: Mapping[str, str]) -> None:
    """Write the fixture's ini file for a server with another storage, and an empty cache beside it."""
    lines = "".join(f"{key} = {value.replace('%', '%%')}\n" for key, value in settings.items())
    text = (FIXTURE / "server.ini").read_text("utf-8")
    if _STORAGE not in text:
        raise AssertionError("the fixture's ini file names another storage")
    more = "pypi.allow_overwrite_groups = authenticated\n"
    path.write_text(text.replace(_STORAGE, lines + more), encoding="utf-8")
