"""The storages that are measured, and the services behind them, on which the tests run, too.

S3 is a Ceph Object Gateway that keeps everything in memory; the others are emulators.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.result import BenchError

from support.services.azurite import Azurite
from support.services.gcs import GCS
from support.services.proxy import Proxy
from support.services.radosgw import RadosGW
from support.services.s3 import fresh_bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: How long it takes to a service and back where one is made to be far, in seconds.
DISTANCE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Storage:
    """A kind of storage beside that in a folder."""

    name: str
    title: str
    service: Callable[[], RadosGW | GCS | Azurite]


S3: Final = Storage("s3", "S3", RadosGW)

#: Those that are measured beside a folder.
OTHERS: Final = (
    S3,
    Storage("gcs", "Google Cloud Storage", GCS),
    Storage("azure-blob", "Azure Blob Storage", Azurite),
)


@contextmanager
def bucket(storage: Storage) -> Iterator[dict[str, str]]:
    """The settings of the storage in a new bucket of a service that runs until the end of the block."""
    try:
        with storage.service() as service:
            yield {"pypi.storage": storage.name, **service.settings()}
    except AssertionError as error:
        # In these words the services say that they cannot run here.
        raise BenchError(f"{storage.title}: {error}") from error


def another(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings of a bucket in the same place that is not there yet."""
    return {**settings, "storage.bucket": fresh_bucket()}


@contextmanager
def far(settings: dict[str, str]) -> Iterator[dict[str, str]]:
    """The settings of S3 behind a way there and back of ten milliseconds."""
    address = "storage.endpoint_url"
    with Proxy(int(settings[address].rpartition(":")[2])) as proxy:
        proxy.latency = DISTANCE / 2
        yield {**settings, address: proxy.through(settings[address])}
