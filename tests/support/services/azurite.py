"""Azurite: Microsoft's emulator of Azure Blob Storage."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from azure.core.credentials import AccessToken
from azure.storage.blob import ContainerClient

from support.certificates import Certificate, make_certificate
from support.live import LOOPBACK
from support.services.s3 import fresh_bucket
from support.services.service import ROOT, Process, find
from support.services.web import Question, Reply, Web

ACCOUNT: Final = "account"
AUDIENCE: Final = "https://storage.azure.com"


class Azurite(Process):
    """An account of Azure Blob Storage. What it keeps outlives :meth:`stop`.

    With ``secure`` it speaks TLS, and takes the tokens of :func:`token`, too.
    """

    name: ClassVar[str] = "Azurite"

    def __init__(self, *, secure: bool = False) -> None:
        self._node = find("node", "nodejs")
        self._program = ROOT / ".make/emulators/azurite/node_modules/azurite/dist/src/blob/main.js"
        if not self._program.exists():
            raise AssertionError("there is no Azurite here: run `make emulators`")
        super().__init__()
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.certificate: Certificate | None = make_certificate(self.directory) if secure else None

    def command(self) -> list[str]:
        where = ["--blobHost", LOOPBACK, "--blobPort", str(self.port), "--location", str(self.directory / "data")]
        # The client is newer than what Azurite knows, and says so in each request.
        options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        if self.certificate is not None:
            options += ["--oauth", "basic", "--cert", str(self.certificate.chain), "--key", str(self.certificate.key)]
        return [self._node, str(self._program), *where, *options]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "AZURITE_ACCOUNTS": f"{ACCOUNT}:{self.key}"}

    def probe(self) -> None:
        with socket.create_connection((LOOPBACK, self.port), timeout=5):
            pass

    @property
    def url(self) -> str:
        """The address of the account, without a final slash."""
        return f"{'http' if self.certificate is None else 'https'}://{LOOPBACK}:{self.port}/{ACCOUNT}"

    def settings(self, container: str | None = None) -> dict[str, str]:
        """What the storage of a container has in its ini; by default of a new and empty one."""
        settings = {
            "storage.storage_account_name": ACCOUNT,
            "storage.storage_account_key": self.key,
            "storage.storage_account_url": self.url,
            "storage.storage_container_name": container or fresh_bucket(),
        }
        if container is None:
            with self.client(settings) as client:
                client.create_container()
        return settings

    def client(self, settings: Mapping[str, str]) -> ContainerClient:
        """A client of a storage's container as anybody would make it; tries everything once."""
        return ContainerClient(
            settings["storage.storage_account_url"],
            settings["storage.storage_container_name"],
            credential=settings["storage.storage_account_key"],
            retry_total=0,
            connection_verify=self.certificate is None or str(self.certificate.authority),
        )


def token(seconds: float = 3600, audience: str = AUDIENCE) -> str:
    """A token of Microsoft's that is good for so long, and for somebody; nobody looks at the signature."""
    now = int(time.time())
    claims = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{uuid.UUID(int=1)}/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + int(seconds),
        "oid": str(uuid.UUID(int=2)),
        "tid": str(uuid.UUID(int=1)),
        "ver": "1.0",
    }
    return ".".join([_encoded({"alg": "RS256", "typ": "JWT"}), _encoded(claims), "signature"])


def _encoded(facts: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(facts).encode()).rstrip(b"=").decode()


class Credential:
    """What azure-core's clients take for an identity."""

    def __init__(self, seconds: float = 3600, audience: str = AUDIENCE) -> None:
        self._token = token(seconds, audience)
        self._expires_on = int(time.time() + seconds)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """The same token for all."""
        return AccessToken(self._token, self._expires_on)


class Identity(Web):
    """What gives a machine of Azure's its tokens; ``environment`` leads the libraries of Azure to it."""

    def __init__(self) -> None:
        super().__init__()
        self._secret = secrets.token_hex()

    @property
    def environment(self) -> dict[str, str]:
        """What a machine of Azure's has in its environment."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/token", "IDENTITY_HEADER": self._secret}

    def answer(self, question: Question) -> Reply:
        if question.headers.get("X-IDENTITY-HEADER") != self._secret:
            return Reply(403)
        words = question.words
        facts = {
            "access_token": token(audience=words["resource"]),
            "expires_on": str(int(time.time()) + 3600),
            "resource": words["resource"],
            "token_type": "Bearer",
        }
        return Reply(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})
