"""A real object store tells running servers of its changes: two regions, each with a cache of its own."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.builds import build_wheel, wheel_name
from support.live import Installation, Server, serving, write_config
from support.notices import EVENTS, FACTS, FILE, KEY, wait_for
from support.services.s3 import plain

if TYPE_CHECKING:
    from support.services.radosgw import RadosGW

SECRET = "a-secret-of-32-characters-or-so!"


class Regions:
    """A bucket, and two servers that are told of what others do there."""

    def __init__(self, settings: dict[str, str], servers: list[Server]) -> None:
        self.bucket = settings["storage.bucket"]
        self.client = plain(settings)
        self.one, self.two = servers
        sns = plain(settings, "sns")
        topics = []
        for server in servers:
            address = f"{server.url}/api/events/s3?token={SECRET}"
            topic = sns.create_topic(Name=f"changes-{secrets.token_hex(4)}", Attributes={"push-endpoint": address})
            topics.append({"Id": topic["TopicArn"][-8:], "TopicArn": topic["TopicArn"], "Events": EVENTS})
        self.client.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"TopicConfigurations": topics}
        )


@pytest.fixture
def regions(radosgw: RadosGW, tmp_path: Path) -> Iterator[Regions]:
    """Two servers of a bucket on a Ceph Object Gateway, which tells both of changes."""
    settings = radosgw.settings()
    plain(settings).create_bucket(Bucket=settings["storage.bucket"])
    spelled: dict[str, Any] = {key.replace(".", "__"): value for key, value in settings.items()}
    with ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            config = write_config(
                tmp_path / name, pypi__storage="s3", storage__dir=None, storage__webhook_secret=SECRET, **spelled
            )
            servers.append(stack.enter_context(serving(Installation(Path(sys.executable)), config)))
        yield Regions(settings, servers)


def shows(server: Server, filename: str) -> bool:
    """Whether a server's page of the project has a file."""
    return f">{filename}<".encode() in server.ask("/simple/acme/").body


def lacks(server: Server, filename: str) -> bool:
    """Whether it has not."""
    return not shows(server, filename)


def test_changes_of_others(regions: Regions) -> None:
    """An object that is put, or deleted, appears on both servers, or leaves them."""
    regions.client.put_object(Bucket=regions.bucket, Key=KEY, Body=b"x", Metadata=FACTS)
    for server in (regions.one, regions.two):
        wait_for(shows, server, FILE)
    regions.client.delete_object(Bucket=regions.bucket, Key=KEY)
    for server in (regions.one, regions.two):
        wait_for(lacks, server, FILE)


def test_uploads(regions: Regions) -> None:
    """What is uploaded to one server is on the other, though the store tells the first while it still uploads."""
    files = {wheel_name("acme", f"{number}.0"): build_wheel("acme", f"{number}.0") for number in range(6)}
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda item: regions.one.upload(*item), files.items()))
    assert [answer.status for answer in answers] == [200] * len(files)
    for filename in files:
        assert shows(regions.one, filename)
        wait_for(shows, regions.two, filename)
