"""The storage in Azure Blob Storage when the service or the settings are not as they should be."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any, BinaryIO, cast

import pytest

from pypicloud.declared import check
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings
from pypicloud.storage.azure_blob import AzureBlobStorage, wire
from pypicloud.storage.azure_blob.refusals import BUSY, AzureUnavailable
from pypicloud.storage.in_pieces import PIECE
from pypicloud.testing.storage_fixtures import make_package
from support.azure import Machine
from support.services.azurite import Azurite
from support.services.web import Question, Reply, Web

Settings = dict[str, str]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are made again at once, and what the developer has of Azure's is no business of tests."""
    monkeypatch.setattr(wire, "PAUSE", 0)
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings(azurite: Azurite) -> Settings:
    """The settings of a new container."""
    return {"pypi.storage": "azure-blob", **azurite.settings()}


def storage_of(settings: Mapping[str, str], **more: str) -> AzureBlobStorage:
    """The backend, configured as the server does it; settings that are empty are left out."""
    given = {key: value for key, value in {**settings, **more}.items() if value}
    return AzureBlobStorage(**AzureBlobStorage.configure(EnvironSettings(given, {})))


def content_of(storage: AzureBlobStorage, package: Package) -> bytes:
    """The bytes of a package."""
    with storage.open(package) as stream:
        return stream.read()


# The start


def test_a_missing_container_is_made(azurite: Azurite) -> None:
    """A container that is missing is made at the start, and one that is there is used."""
    settings = azurite.settings("made-at-the-start")
    assert storage_of(settings).check_health() == (True, "")
    storage_of(settings).publish(make_package(), io.BytesIO(b"x"))
    assert len(list(storage_of(settings).list())) == 1


def test_a_container_that_is_gone(settings: Settings) -> None:
    """That the container is gone is an error, and says nothing about a file."""
    storage = storage_of(settings)
    storage.container.client.delete_container()
    assert storage.check_health() == (False, "the container is missing")
    package = make_package()
    asks: list[Callable[[], Any]] = [
        lambda: storage.stored(package),
        lambda: list(storage.list()),
        lambda: content_of(storage, package),
        lambda: storage.publish(package, io.BytesIO(b"x")),
        lambda: storage.delete(package),
    ]
    for ask in asks:
        with pytest.raises(BackendUnavailable, match="the container is missing"):
            ask()


@pytest.mark.parametrize(
    ("more", "key", "reason"),
    [
        ({"storage.storage_account_name": ""}, "storage.storage_account_name", "is required"),
        ({"storage.storage_container_name": ""}, "storage.storage_container_name", "is required"),
        ({"storage.storage_account_key": "not base64!"}, "storage.storage_account_key", "base64"),
        ({"storage.storage_container_name": "Upper"}, "storage.storage_container_name", "lower-case"),
        ({"storage.storage_container_name": "a--b"}, "storage.storage_container_name", "hyphens"),
        ({"storage.storage_container_name": "ab"}, "storage.storage_container_name", "3 to 63"),
        (
            {"storage.storage_account_url": "", "storage.storage_account_name": "a.b"},
            "storage.storage_account_name",
            "24",
        ),
        ({"storage.storage_account_url": "blobs.example"}, "storage.storage_account_url", "https://blobs.example"),
        ({"storage.storage_account_url": "https://a.example/?sig=x"}, "storage.storage_account_url", "alone"),
        ({"storage.storage_account_url": "https://[a.example"}, "storage.storage_account_url", "alone"),
        ({"storage.storage_account_key": ""}, "storage.storage_account_url", "must begin with https://"),
    ],
)
def test_check(settings: Settings, more: Settings, key: str, reason: str) -> None:
    """What can be seen without Azure stops the start, and `check-config` says it."""
    given = EnvironSettings({name: value for name, value in {**settings, **more}.items() if value}, {})
    found = [error for error in check(given)[1] if error.setting == key]
    assert [reason in error.reason for error in found] == [True]
    with pytest.raises(SettingError, match=key):
        AzureBlobStorage.configure(given)


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("azure.storage.blob", {}),
        ("azure.identity", {"storage.storage_account_key": "", "storage.storage_account_url": ""}),
    ],
)
def test_missing_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch, module: str, more: Settings) -> None:
    """A library that is not installed is said to be missing, with the extra that brings it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingError, match=r"pip install 'pypicloud\[azure-blob\]'"):
        storage_of(settings, **more)


def test_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, key and address may be in the environment, as for Azure's own tools (compat.md 1.4)."""
    names = {"account_name": "ACCOUNT", "account_key": "KEY", "account_url": "SERVICE_ENDPOINT"}
    for setting, variable in names.items():
        monkeypatch.setenv(f"AZURE_STORAGE_{variable}", settings.pop(f"storage.storage_{setting}"))
    assert storage_of(settings).check_health() == (True, "")


def test_nothing_is_imported_early() -> None:
    """The SDK, and what it stands on, is imported when the storage is configured, and not before."""
    words = "import sys, pypicloud.storage.azure_blob; print({'azure', 'requests', 'msal'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", words], text=True).strip() == "set()"


# Identities


@pytest.fixture(scope="module")
def machine(azurite_tls: Azurite) -> Iterator[Machine]:
    """A machine with a managed identity, on which the test runs."""
    with Machine() as machine, machine.here(azurite_tls):
        yield machine


@pytest.fixture
def keyless(azurite_tls: Azurite, machine: Machine) -> Settings:
    """The settings of a new container, without the account's key."""
    return {**azurite_tls.settings(), "storage.storage_account_key": ""}


def test_managed_identity(keyless: Settings, machine: Machine) -> None:
    """Without a key the managed identity is asked for, by its client id if one is set."""
    machine.words.clear()
    storage_of(keyless)
    storage_of(keyless, **{"storage.managed_identity_client_id": "an-identity"})
    assert [words.get("client_id") for words in machine.words] == [None, "an-identity"]
    assert {words["resource"] for words in machine.words} == {"https://storage.azure.com"}


def test_no_identity(keyless: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is neither key nor identity, the start says so."""
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    with pytest.raises(SettingError, match=r"storage\.storage_account_key: is not set, and there is no identity"):
        storage_of(keyless)


def test_keys_for_urls(keyless: Settings, machine: Machine, azurite_tls: Azurite) -> None:
    """A key that signs URLs is asked for once, lives longer than they do, and is renewed before it would not."""
    storage = storage_of(keyless)
    packages = [make_package(f"p{number}") for number in range(3)]
    for package in packages:
        storage.publish(package, io.BytesIO(b"x"))
    before = len(machine.keys)
    assert [machine.fetch(storage.get_uri(package), azurite_tls) for package in packages] == [b"x"] * 3
    (key,) = machine.keys[before:]
    until = datetime.fromisoformat(key.signed_expiry or "")
    assert timedelta(days=1) < until - datetime.now(UTC) <= timedelta(days=7)
    assert storage.container._delegation is not None
    storage.container._delegation = datetime.now(UTC) + timedelta(hours=23), key
    assert machine.fetch(storage.container.signed_url("p1/p1-1.0.tar.gz", 86400), azurite_tls) == b"x"
    assert len(machine.keys) == before + 2


def test_expiry(keyless: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """An identity's URLs live for six days at most, as the key that signs them lives for seven (compat.md 2.4)."""
    storage = storage_of(keyless, **{"storage.expire_after": "999999"})
    assert storage.expire_after == 518400
    assert "storage.expire_after" in caplog.text
    assert "se=" in storage.get_uri(make_package())


# What Azure says


class Refusal(Web):
    """A service that answers everything alike."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__()
        self.reply = Reply(status, headers={"x-ms-error-code": code} if code else {})
        self.questions: list[Question] = []

    def answer(self, question: Question) -> Reply:
        self.questions.append(question)
        return self.reply

    def storage(self, settings: Mapping[str, str], *, has_key: bool = True) -> AzureBlobStorage:
        """A storage there."""
        storage = AzureBlobStorage(
            storage_account_name="acme",
            storage_account_key=settings["storage.storage_account_key"],
            storage_account_url=self.url,
            storage_container_name="packages",
        )
        assert storage.container.client
        if not has_key:
            # Tokens are not sent over plain HTTP, so that the key still signs.
            storage.container.address = dataclasses.replace(storage.container.address, key=None)
        return storage


@pytest.mark.parametrize(
    ("has_key", "status", "code", "setting", "words"),
    [
        (True, 403, "AuthenticationFailed", "account_key", "clock"),
        (True, 403, "KeyBasedAuthenticationNotPermitted", "account_key", "managed identity"),
        (True, 403, "AuthorizationFailure", "account_key", "network rules"),
        (True, 409, "AccountIsDisabled", "account_url", "AccountIsDisabled"),
        (True, 404, "ContainerNotFound", "container_name", "'packages'"),
        (True, 400, "", "account_url", "status 400"),
        (False, 403, "AuthorizationPermissionMismatch", "account_key", "'Storage Blob Data Contributor'"),
        (False, 401, "InvalidAuthenticationInfo", "account_key", "the identity"),
    ],
)
def test_refusals(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    has_key: bool,
    status: int,
    code: str,
    setting: str,
    words: str,
) -> None:
    """What Azure refuses is one error; the log names the setting, the right and the role, the client hears nothing."""
    with Refusal(status, code) as service:
        storage = service.storage(settings, has_key=has_key)
        with pytest.raises(AzureUnavailable) as raised:
            storage.publish(make_package(), io.BytesIO(b"x"))
    assert raised.value.setting == f"storage.storage_{setting}"
    assert words in raised.value.reason
    assert raised.value.reason in caplog.text
    assert not any(word in raised.value.message for word in ("acme", "packages", service.url, "Microsoft"))


def test_another_server(settings: Settings) -> None:
    """Something that answers with a web page is not taken for Azure."""
    with Refusal(200, "") as service:
        service.reply = Reply(200, b"<!doctype html><html><head></head></html>", {"Content-Type": "text/html"})
        with pytest.raises(AzureUnavailable, match="the storage does not answer") as raised:
            list(service.storage(settings).list())
    assert f"no Blob service answers at {service.url}" in raised.value.reason


def test_missing_right(settings: Settings) -> None:
    """The right that an identity lacks is named with the role that has it."""
    with Refusal(403, "AuthorizationPermissionMismatch") as service:
        storage = service.storage(settings, has_key=False)
        found = {}
        asks: dict[str, Callable[[], Any]] = {
            "containers/blobs/read": lambda: list(storage.list()),
            "containers/blobs/write": lambda: storage._write("a", io.BytesIO(b""), 0, {}, "x"),
            "containers/blobs/delete": lambda: storage.delete(make_package()),
        }
        for name, ask in asks.items():
            with pytest.raises(AzureUnavailable) as raised:
                ask()
            found[name] = raised.value.reason
        assert storage.check_health() == (False, "a right in the storage is missing")
        with pytest.raises(AzureUnavailable) as raised:
            storage.container.prepare()
        assert "blobServices/containers/read" in raised.value.reason
    assert all(f"blobServices/{name};" in reason for name, reason in found.items())


@pytest.mark.parametrize(("status", "code", "tries"), [(503, "ServerBusy", 4), (500, "", 4), (429, "", 1)])
def test_busy(settings: Settings, status: int, code: str, tries: int) -> None:
    """A service that is too busy is asked a few times more, and then it is said when to come again."""
    with Refusal(status, code) as service:
        with pytest.raises(BackendUnavailable, match="too busy") as raised:
            service.storage(settings).stored(make_package())
        assert len(service.questions) == tries
    assert raised.value.retry_after == BUSY


def test_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy service is asked again after two, four and eight seconds, up to one more or less."""
    monkeypatch.undo()
    pauses = [wire.retries().get_backoff_time({"count": count}) for count in (1, 2, 3)]
    assert all(abs(pause - wanted) <= 1 for pause, wanted in zip(pauses, (2, 4, 8), strict=True))


# The network


def test_slow_network(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is sent in small pieces: a time-out is for one of them, and not for all that a slow network takes in."""
    sizes = []
    send = HTTPConnection.send

    def record(connection: HTTPConnection, data: bytes) -> None:
        sizes.append(len(data))
        send(connection, data)

    monkeypatch.setattr(HTTPConnection, "send", record)
    content = bytes(1 << 20)
    storage_of(settings).publish(make_package(content=content), io.BytesIO(content))
    assert sum(sizes) > len(content)
    assert max(sizes) == PIECE


def test_memory(settings: Settings) -> None:
    """200 MB go up and down without being in memory."""
    storage = storage_of(settings)
    size = 200 << 20
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        package = make_package()
        tracemalloc.start()
        with contextlib.closing(_Stop()):
            storage.publish(package, cast("BinaryIO", file))
            with storage.open(package) as stream:
                count = sum(len(block) for block in iter(lambda: stream.read(1 << 16), b""))
            peak = tracemalloc.get_traced_memory()[1]
    assert count == size
    assert peak < 48 << 20
    storage.delete(package)


class _Stop:
    def close(self) -> None:
        """Measure no more."""
        tracemalloc.stop()
