"""The storage in S3: the contract on a real server and on two stand-ins for Amazon's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import pytest

from pypicloud.settings import EnvironSettings
from pypicloud.storage import get_storage_impl
from pypicloud.testing.storage import StorageContract
from pypicloud.testing.storage_downloads import DownloadContract
from pypicloud.testing.storage_fixtures import MakeStorage
from support.dynamo import one_loader
from support.s3 import everything
from support.services.aws import MiniStack, Moto
from support.services.radosgw import RadosGW
from support.services.s3 import S3Service


@pytest.fixture(scope="module", autouse=True)
def quick_clients() -> Iterator[None]:
    """Clients are made quickly."""
    with one_loader():
        yield


@pytest.fixture(scope="module")
def own_radosgw() -> Iterator[S3Service]:
    """A real server of S3, which may be stopped."""
    with RadosGW() as service:
        yield service


@pytest.fixture(scope="module")
def own_ministack() -> Iterator[S3Service]:
    """MiniStack, which may be stopped."""
    with MiniStack() as service:
        yield service


@pytest.fixture(scope="module")
def own_moto() -> Iterator[S3Service]:
    """Moto, which may be stopped."""
    with Moto() as service:
        yield service


class S3Contract(StorageContract):
    limits: ClassVar[frozenset[str]] = frozenset({"redirects"})
    required: ClassVar[tuple[str, ...]] = ("storage.bucket",)

    @pytest.fixture
    def service(self) -> S3Service:
        raise NotImplementedError

    @pytest.fixture
    def settings(self, service: S3Service) -> dict[str, str]:
        self.running = service
        self.bucket = service.settings()
        return {"pypi.storage": "s3", **self.bucket}

    def objects(self, kwargs: Mapping[str, Any]) -> Mapping[str, bytes]:
        return everything(self.bucket)

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        self.running.stop()
        try:
            yield
        finally:
            self.running.start()


class TestRadosGW(S3Contract):
    """The storage contract on a server that others run in earnest."""

    @pytest.fixture
    def service(self, own_radosgw: S3Service) -> S3Service:
        return own_radosgw


class TestMiniStack(S3Contract):
    """The storage contract on MiniStack."""

    @pytest.fixture
    def service(self, own_ministack: S3Service) -> S3Service:
        return own_ministack


class TestMoto(S3Contract):
    """The storage contract on Moto."""

    @pytest.fixture
    def service(self, own_moto: S3Service) -> S3Service:
        return own_moto

    @pytest.fixture
    def settings(self, service: S3Service) -> dict[str, str]:
        self.running = service
        self.bucket = service.settings()
        return {"pypi.storage": "s3", "storage.read_timeout": "1", **self.bucket}

    @contextlib.contextmanager
    def outage(self, kwargs: Mapping[str, Any]) -> Iterator[None]:
        # What it has would be lost if it were stopped.
        self.running.pause()
        try:
            yield
        finally:
            self.running.resume()


class TestStreamed(DownloadContract):
    """Downloads through this server, with ranges, HEAD and ETags."""

    @pytest.fixture
    def make_storage(self, radosgw: S3Service) -> MakeStorage:
        settings = {"pypi.storage": "support.s3.StreamedS3", **radosgw.settings()}
        return cast("MakeStorage", get_storage_impl(EnvironSettings(settings, {})))
