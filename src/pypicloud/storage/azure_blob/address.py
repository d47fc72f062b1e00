"""Where a container in Azure Blob Storage is, and who asks there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

#: How many bytes are sent or fetched in one request, and are in memory meanwhile.
BLOCK: Final = 4 << 20


@dataclass(frozen=True)
class Address:
    """Where a container is, and who asks: who has the account's key, else an identity that Azure knows."""

    url: str
    account: str
    container: str
    key: str | None = field(default=None, repr=False)
    client_id: str | None = None
    connect_timeout: float = 3
    read_timeout: float = 6
