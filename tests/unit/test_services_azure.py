"""What stands in for Azure Blob Storage in the tests: that it refuses what Azure refuses."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from azure.core import MatchConditions
from azure.core.credentials import TokenCredential
from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential
from azure.storage.blob import ContainerClient, generate_blob_sas

from support.services.azurite import ACCOUNT, Azurite, Credential, Identity
from support.services.s3 import status

KEY = "ab12/name-1.0+a b.whl"


@pytest.fixture
def container(azurite: Azurite) -> Iterator[ContainerClient]:
    """A container with one blob."""
    with azurite.client(azurite.settings()) as client:
        client.upload_blob(KEY, b"content", metadata={"name": "name"})
        yield client


def azure_status(call: Callable[[], object]) -> int:
    """The status that a call to Azure ends with."""
    with pytest.raises(HttpResponseError) as caught:
        call()
    assert caught.value.status_code is not None
    return caught.value.status_code


def test_azure_checks_signed_urls(azurite: Azurite, container: ContainerClient) -> None:
    """A signed URL of Azure's is good for its blob and its method, for its time."""
    now = dt.datetime.now(dt.UTC)
    url = container.get_blob_client(KEY).url

    def signed(name: str = KEY, *, key: str = azurite.key, right: str = "r", minutes: int = 1) -> str:
        expiry = now + dt.timedelta(minutes=minutes)
        words = (ACCOUNT, container.container_name, name)
        return f"{url}?{generate_blob_sas(*words, account_key=key, permission=right, expiry=expiry)}"

    assert status(signed()) == 200
    other_key = base64.b64encode(b"another").decode()
    for refused in (url, signed("other"), signed(key=other_key), signed(right="w"), signed(minutes=-1)):
        assert status(refused) == 403


def test_azure_conditions(container: ContainerClient) -> None:
    """Only one can be the first to write a blob, and only who knows its state changes it."""
    blob = container.get_blob_client(KEY)
    assert azure_status(lambda: container.upload_blob(KEY, b"other")) == 409

    def change() -> None:
        same = MatchConditions.IfNotModified
        blob.set_blob_metadata({"name": "other"}, etag='"another"', match_condition=same)

    assert azure_status(change) == 412
    assert blob.get_blob_properties().metadata == {"name": "name"}


def test_azure_tokens(azurite_tls: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is good for its time and for storage, also one that the identity of a machine got."""
    settings = azurite_tls.settings()
    with azurite_tls.client(settings) as client:
        client.upload_blob(KEY, b"content")

    def read(credential: TokenCredential) -> bytes:
        assert azurite_tls.certificate is not None
        authority = str(azurite_tls.certificate.authority)
        where = (azurite_tls.url, settings["storage.storage_container_name"])
        with ContainerClient(*where, credential, retry_total=0, connection_verify=authority) as container:
            return container.download_blob(KEY).readall()

    assert read(Credential()) == b"content"
    assert azure_status(lambda: read(Credential(-60))) == 403
    assert azure_status(lambda: read(Credential(audience="https://vault.example"))) == 403
    with Identity() as identity:
        for name, value in identity.environment.items():
            monkeypatch.setenv(name, value)
        with ManagedIdentityCredential() as credential:
            assert read(credential) == b"content"
