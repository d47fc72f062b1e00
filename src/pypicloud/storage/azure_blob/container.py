"""A container in Azure Blob Storage as the storage speaks to it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pypicloud.storage.azure_blob.address import Address
from pypicloud.storage.azure_blob.refusals import (
    CREATE,
    LOOK,
    SIGN,
    AzureUnavailable,
    Right,
    missing_container,
    translated,
)

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobClient, ContainerClient, UserDelegationKey

LOG = logging.getLogger(__name__)

#: How long a delegation key may live, and how much longer than the URLs it lives.
KEY_LIFE: Final = timedelta(days=7)
KEY_SPARE: Final = timedelta(days=1)

#: How far Azure's clock may be from ours.
CLOCK: Final = timedelta(minutes=15)

#: The longest that a URL may live which is signed with a delegation key, in seconds.
LONGEST_DELEGATION: Final = int((KEY_LIFE - KEY_SPARE).total_seconds())


class Container:
    """A container, shared by all threads; its connections are made anew after a fork."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._made: tuple[int, ContainerClient, TokenCredential | None] | None = None
        self._delegation: tuple[datetime, UserDelegationKey] | None = None

    @property
    def client(self) -> ContainerClient:
        """The SDK's client of this process."""
        return self._connected()[1]

    def blob(self, key: str) -> BlobClient:
        """The SDK's client of one blob."""
        return self.client.get_blob_client(key)

    def _connected(self) -> tuple[int, ContainerClient, TokenCredential | None]:
        from pypicloud.storage.azure_blob import wire

        made = self._made
        if made is None or made[0] != os.getpid():
            # Two threads may both do it; a lock might be held for ever in a process that was forked.
            identity = None if self.address.key else wire.identity(self.address.client_id)
            made = self._made = (os.getpid(), wire.container_client(self.address, identity), identity)
        return made

    def prepare(self, may_make: Callable[[], None] = lambda: None) -> None:
        """Make the container if it is missing. Raises :class:`AzureUnavailable`, unlogged, if it cannot be used.

        ``may_make`` is called before, and raises if it is not to be made.
        """
        from azure.core.exceptions import ResourceExistsError

        if self._is_there(is_logged=False):
            return
        may_make()
        with self.asking(CREATE, is_logged=False), contextlib.suppress(ResourceExistsError):
            self.client.create_container()
            LOG.info("Made the container %r", self.address.container)
        # It may have been there already, or not be there yet, while an older one of its name is deleted.
        if not self._is_there(is_logged=False):
            raise missing_container(self.address)

    def look(self) -> None:
        """Raise :class:`BackendUnavailable` if the container is missing or cannot be looked at."""
        if not self._is_there():
            raise missing_container(self.address)

    def _is_there(self, *, is_logged: bool = True) -> bool:
        with self.asking(LOOK, is_logged=is_logged):
            return self.client.exists()

    def signed_url(self, key: str, seconds: int) -> str:
        """The URL that lets anybody read a blob for so many seconds."""
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        address = self.address
        now = datetime.now(UTC)
        signature = generate_blob_sas(
            address.account,
            address.container,
            key,
            account_key=address.key,
            user_delegation_key=None if address.key else self._delegation_key(now, timedelta(seconds=seconds)),
            permission=BlobSasPermissions(read=True),
            expiry=now + timedelta(seconds=seconds),
            # Only emulators speak plain HTTP.
            protocol="https,http" if address.url.startswith("http:") else "https",
        )
        return f"{address.url}/{address.container}/{quote(key, safe='/~')}?{signature}"

    def _delegation_key(self, now: datetime, life: timedelta) -> UserDelegationKey:
        """A key that signs URLs in the name of the identity; one is kept as long as it outlives them."""
        from pypicloud.storage.azure_blob import wire

        if self._delegation is not None and now + life < self._delegation[0]:
            return self._delegation[1]
        until = now + min(life + KEY_SPARE, KEY_LIFE - CLOCK)
        with self.asking(SIGN):
            key = wire.delegation_key(self.address, self._connected()[2], now - CLOCK, until)
        self._delegation = until, key
        return key

    @contextlib.contextmanager
    def asking(self, right: Right, *, is_logged: bool = True) -> Iterator[None]:
        """Translate what the SDK raises, and log what only this server's people may know.

        The right is what an identity needs for what is asked.

        Raises :class:`FileExists` if the condition of a request does not hold, :class:`PackageNotFound` if
        there is no such blob, and :class:`BackendUnavailable` for everything else.
        """
        from azure.core.exceptions import AzureError, DeserializationError

        try:
            yield
        except (AzureError, DeserializationError) as error:
            translation = translated(error, right, self.address)
            if is_logged:
                _log(translation)
            raise translation from error


def _log(error: Exception) -> None:
    if isinstance(error, AzureUnavailable):
        LOG.error("%s: %s", error.setting, error.reason)
