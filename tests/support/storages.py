"""Every storage in an object store as it is configured on its service: one table, and worlds made from it.

A test that is to hold for several storages is parametrized over names of ``STORAGES``, and asks :func:`shared_world`
for a new and empty bucket on the service that all tests of the worker share, or :func:`own_world` for a service
that it may stop, kill and pause.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from pypicloud.settings import EnvironSettings
from pypicloud.storage import get_storage_impl
from pypicloud.storage.base import IStorage
from support import gcs, s3
from support.services.proxy import AZURE_BUSY, GCS_BUSY, S3_BUSY, Proxy

#: What a server is given that may speak to nobody beyond this machine: Google's library would ask its home where
#: an account may go, and does so over HTTPS, which no service of the tests speaks to a server.
NO_INTERNET: Final = {"HTTPS_PROXY": "http://127.0.0.1:9"}


@dataclass(frozen=True)
class StorageKind:
    """A storage on a service.

    ``plugin`` is what ``pypi.storage`` says, ``fixture`` the session fixture that gives the service, and ``service``
    its class, as ``module.Class`` below ``support.services``. ``objects`` gives all that is in a bucket, asked
    without the backend, and ``busy`` is what the service says when it wants less to do. ``is_lasting`` says whether
    the service still has everything after it was killed and started again.
    """

    plugin: str
    fixture: str
    service: str
    objects: Callable[[Any, Mapping[str, str]], dict[str, bytes]]
    busy: bytes
    is_lasting: bool = True


@dataclass(frozen=True)
class StorageWorld:
    """A new and empty bucket of one test's own: its settings (``storage.*``), and the service it is on."""

    name: str
    kind: StorageKind
    settings: dict[str, str]
    service: Any

    @property
    def changes(self) -> dict[str, str | None]:
        """The settings, spelled for :func:`support.world.settings`."""
        spelled = {key.replace(".", "__"): value for key, value in self.settings.items()}
        return {"pypi__storage": self.kind.plugin, "storage__dir": None, **spelled}

    def fresh(self) -> StorageWorld:
        """Another bucket on the same service."""
        return replace(self, settings=self.service.settings())

    def through(self, proxy: Proxy) -> StorageWorld:
        """The same bucket, over a network."""
        direct = f"127.0.0.1:{proxy.target}"
        changed = {key: proxy.through(value) if direct in value else value for key, value in self.settings.items()}
        return replace(self, settings=changed)

    def storage(self, request: Any = None, **changes: str) -> IStorage:
        """The backend, configured as the server does it; the name of a change is that of a key below ``storage.``."""
        changed = {f"storage.{name}": value for name, value in changes.items()}
        settings = {"pypi.storage": self.kind.plugin, **self.settings, **changed}
        return get_storage_impl(EnvironSettings(settings, {}))(request)

    def objects(self) -> dict[str, bytes]:
        """Every object of the bucket with its bytes, as anybody's program sees it."""
        return self.kind.objects(self.service, self.settings)


def _blobs(service: Any, settings: Mapping[str, str]) -> dict[str, bytes]:
    with service.client(settings) as client:
        return {name: client.download_blob(name).readall() for name in client.list_blob_names()}


def _s3(fixture: str, service: str) -> StorageKind:
    return StorageKind("s3", fixture, service, lambda _, settings: s3.everything(settings), S3_BUSY)


#: Every object store, by name.
STORAGES: Final[dict[str, StorageKind]] = {
    "radosgw": _s3("radosgw", "radosgw.RadosGW"),
    "ministack": replace(_s3("ministack", "aws.MiniStack"), is_lasting=False),
    "moto": replace(_s3("moto", "aws.Moto"), is_lasting=False),
    "gcs": StorageKind(
        "gcs", "gcs", "gcs.GCS", lambda _, settings: gcs.everything(settings), GCS_BUSY, is_lasting=False
    ),
    "azurite": StorageKind("azure-blob", "azurite", "azurite.Azurite", _blobs, AZURE_BUSY, is_lasting=False),
}

#: One of each kind: a second opinion on S3 is left out.
KINDS: Final = ("radosgw", "gcs", "azurite")


def shared_world(name: str, request: pytest.FixtureRequest) -> StorageWorld:
    """A new bucket on the service that all tests share."""
    kind = STORAGES[name]
    service = request.getfixturevalue(kind.fixture)
    return StorageWorld(name, kind, service.settings(), service)


@contextlib.contextmanager
def own_world(name: str) -> Iterator[StorageWorld]:
    """A new bucket on a service of its own, which runs until the end of the block."""
    kind = STORAGES[name]
    module, _, class_name = kind.service.partition(".")
    with getattr(importlib.import_module(f"support.services.{module}"), class_name)() as service:
        yield StorageWorld(name, kind, service.settings(), service)
