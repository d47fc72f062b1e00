"""The SDK as it is used here: quiet, with bounds to time, connections and memory.

Whoever has another storage does not import this module, as that takes a while.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient, ExponentialRetry, UserDelegationKey
from requests import Session

from pypicloud.storage.azure_blob.address import BLOCK, Address
from pypicloud.storage.in_pieces import in_pieces

if TYPE_CHECKING:
    from datetime import datetime

    from azure.core.credentials import TokenCredential

#: The pauses before a request is made again are powers of this: 2, 4 and 8 seconds, up to one more or less.
PAUSE: Final = 2


def container_client(address: Address, identity: TokenCredential | None) -> ContainerClient:
    """The SDK's client of a container."""
    credential = identity or {"account_name": address.account, "account_key": address.key or ""}
    return ContainerClient(address.url, address.container, credential, **_options(address))


def delegation_key(
    address: Address, identity: TokenCredential | None, start: datetime, end: datetime
) -> UserDelegationKey:
    """A key that signs URLs in the name of an identity."""
    with BlobServiceClient(address.url, identity, **_options(address)) as service:
        return service.get_user_delegation_key(start, end)


def identity(client_id: str | None) -> TokenCredential:
    """Whoever this process is to Azure: by its machine, its pod, its environment, or the tools of who started it."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(**({"managed_identity_client_id": client_id} if client_id else {}))


def retries() -> ExponentialRetry:
    """When a request that failed is made again."""
    return ExponentialRetry(
        initial_backoff=0,
        increment_base=PAUSE,
        random_jitter_range=PAUSE // 2,
        retry_total=3,
        # When nobody can be reached, when the answer breaks off or does not come, when the service is busy.
        retry_connect=1,
        retry_read=1,
        retry_status=3,
    )


def _options(address: Address) -> dict[str, Any]:
    return {
        "transport": RequestsTransport(
            session=in_pieces(Session()), connection_timeout=address.connect_timeout, read_timeout=address.read_timeout
        ),
        "retry_policy": retries(),
        "max_single_get_size": BLOCK,
        "max_chunk_get_size": BLOCK,
        # Every request and all its headers.
        "http_logging_level": logging.DEBUG,
    }
