"""Google Cloud Storage: an emulator, behind a layer that is as strict as the service."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from google.api_core.client_options import ClientOptions
from google.cloud import storage

from support.live import LOOPBACK
from support.services.gcs_layer import Layer
from support.services.google_accounts import Account, Accounts
from support.services.s3 import fresh_bucket
from support.services.service import ROOT, Process, Service


class _Emulator(Process):
    """The emulator itself. What it keeps outlives :meth:`stop`; :meth:`kill` loses it."""

    name: ClassVar[str] = "GCS"

    def __init__(self) -> None:
        self._python = ROOT / ".make" / "emulators" / "gcs" / "bin" / "python"
        if not self._python.exists():
            raise AssertionError("there is no emulator of Google Cloud Storage here: run `make emulators`")
        super().__init__()

    def command(self) -> list[str]:
        launcher = ROOT / "tests" / "support" / "services" / "quick_gcs.py"
        return [str(self._python), str(launcher), LOOPBACK, str(self.port), str(self.directory / "data")]

    def probe(self) -> None:
        with socket.create_connection((LOOPBACK, self.port), timeout=5):
            pass


class GCS(Service):
    """Google Cloud Storage as its users see it; ``page_size`` is how long a page of a list can be.

    What is done to it is done to the emulator: the layer in front of it stays, and breaks connections off while the
    emulator is away.
    """

    def __init__(self) -> None:
        self._emulator = _Emulator()
        self._accounts = Accounts()
        self._layer = Layer(self._emulator.port, self._accounts)
        self._numbers = itertools.count(1)
        self._root = self._account(None)
        self._patch = pytest.MonkeyPatch()
        # Google's library would ask its home where an account may go.
        asks = (
            "google.auth.credentials.CredentialsWithRegionalAccessBoundary._is_regional_access_boundary_lookup_required"
        )
        self._patch.setattr(asks, lambda credentials: False)
        self._layer.open()

    @property
    def port(self) -> int:
        """The port of the service."""
        return self._layer.port

    @property
    def url(self) -> str:
        """The address of the service, without a final slash."""
        return self._layer.url

    @property
    def page_size(self) -> int:
        """How many objects a page of a list has at most."""
        return self._layer.page_size

    @page_size.setter
    def page_size(self, size: int) -> None:
        self._layer.page_size = size

    def settings(self, bucket: str | None = None) -> dict[str, str]:
        """What the storage of a bucket has in its ini; by default of one that is not there yet."""
        return {
            "storage.bucket": bucket or fresh_bucket(),
            "storage.gcp_api_endpoint": self.url,
            "storage.gcp_service_account_json_filename": str(self._root),
        }

    def user(self, settings: Mapping[str, str], *permissions: str) -> dict[str, str]:
        """The settings with the key of a new account, which has these permissions (``storage.objects.get``)."""
        path = self._account(frozenset(permissions))
        return {**settings, "storage.gcp_service_account_json_filename": str(path)}

    def client(self) -> Any:
        """A client of the account that may do everything."""
        return plain(self.settings())

    def forget_tokens(self) -> None:
        """No token is good any more, as if all had expired."""
        self._accounts.forget_tokens()

    def as_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make Google's library believe that it is on a machine of Google's, and let it sign with IAM here.

        The account of the machine is that of :meth:`settings`.
        """
        host = f"{LOOPBACK}:{self.port}"
        monkeypatch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", host)
        monkeypatch.setenv("GCE_METADATA_IP", host)
        signer = f"{self.url}/v1/projects/-/serviceAccounts/{{}}:signBlob"
        monkeypatch.setattr("google.auth.iam._IAM_SIGN_ENDPOINT", signer)

    def _account(self, permissions: frozenset[str] | None) -> Path:
        account = Account(f"account-{next(self._numbers)}@a-project.iam.gserviceaccount.example", permissions)
        self._accounts.add(account)
        path = self._emulator.directory / f"{account.email}.json"
        path.write_text(account.key_file(f"{self.url}/token"))
        return path

    def start(self) -> None:
        self._emulator.start()

    def stop(self) -> None:
        self._emulator.stop()

    def kill(self) -> None:
        self._emulator.kill()

    def pause(self) -> None:
        self._emulator.pause()

    def resume(self) -> None:
        self._emulator.resume()

    def remove(self) -> None:
        self._layer.close()
        self._emulator.remove()
        self._patch.undo()


def plain(settings: Mapping[str, str]) -> Any:
    """A client as anybody would make it, for the account of a storage's settings; with its usual retries."""
    return storage.Client.from_service_account_json(
        settings["storage.gcp_service_account_json_filename"],
        client_options=ClientOptions(api_endpoint=settings["storage.gcp_api_endpoint"]),
    )
