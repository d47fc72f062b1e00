"""A bucket that tells of its changes, as its owner sets that up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import ICache
from pypicloud.settings import EnvironSettings
from support.live import PATIENCE
from support.services.s3 import plain

#: A key that has to be decoded, and what is written there.
KEY: Final = "p q+é#%2B/acme/acme-1.0+local.tar.gz"
FILE: Final = "acme-1.0+local.tar.gz"
FACTS: Final = {"name": "acme", "version": "1.0+local"}

EVENTS: Final = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]


class Notices:
    """A bucket with the settings of a server of it, whose changes others make: with boto3 alone."""

    def __init__(self, settings: Mapping[str, str], directory: Path) -> None:
        self.settings = {
            "pypi.storage": "s3",
            "pypi.fallback": "none",
            "db.url": f"sqlite:///{directory / 'db.sqlite'}",
            **settings,
        }
        self.bucket = self.settings["storage.bucket"]
        self.client = plain(self.settings)
        self.client.create_bucket(Bucket=self.bucket)
        self._directory = directory
        self._sqs = plain(self.settings, "sqs")

    @property
    def config(self) -> Path:
        """The ini file of that server."""
        return self.changed_config({})

    def changed_config(self, changes: Mapping[str, str | None]) -> Path:
        """The same with changes; None takes a key out."""
        values = {key: value for key, value in {**self.settings, **changes}.items() if value is not None}
        lines = [f"{key} = {value.replace('%', '%%')}" for key, value in values.items()]
        file = self._directory / "server.ini"
        file.write_text("\n".join(["[app:main]", "use = egg:pypicloud", *lines]))
        return file

    def put(self, key: str = KEY, **metadata: str) -> None:
        """Make an object, as another server does."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=b"x", Metadata=metadata or FACTS)

    def delete(self, key: str = KEY) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def cache(self) -> ICache:
        """The cache of that server."""
        cache: ICache = get_cache_impl(EnvironSettings(self.settings, env={}))(None)
        return cache

    def known(self) -> list[str]:
        """The files that the cache knows."""
        return sorted(package.filename for package in self.cache().everything())

    def knows(self, *filenames: str) -> bool:
        """Whether the cache knows exactly these files."""
        return self.known() == sorted(filenames)

    def queue(self, name: str = "events") -> tuple[str, str]:
        """A queue that everybody may send to: its URL and ARN."""
        url: str = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        names = ["QueueArn"]
        arn: str = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]["QueueArn"]
        policy = allowing("sqs:SendMessage", arn)
        self._sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return url, arn

    def send(self, url: str, body: Any) -> None:
        """Put a message into a queue."""
        self._sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body))

    def waiting(self, url: str) -> int:
        """How many messages a queue has, taken ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(value) for value in found.values())

    def notify(self, **configuration: Any) -> None:
        """Let the bucket tell of its changes."""
        self.client.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=configuration)

    def by_queue(self) -> str:
        """S3 -> SQS; the queue's URL."""
        url, arn = self.queue()
        self.notify(QueueConfigurations=[{"QueueArn": arn, "Events": EVENTS}])
        return url

    def by_topic(self, *, raw: bool = False) -> str:
        """S3 -> SNS -> SQS; the queue's URL."""
        sns = plain(self.settings, "sns")
        topic = sns.create_topic(Name="events")["TopicArn"]
        policy = allowing("sns:Publish", topic)
        sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
        url, arn = self.queue()
        attributes = {"RawMessageDelivery": "true" if raw else "false"}
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
        self.notify(TopicConfigurations=[{"TopicArn": topic, "Events": EVENTS}])
        return url

    def by_raw_topic(self) -> str:
        """The same without SNS's envelope."""
        return self.by_topic(raw=True)

    def by_event_bridge(self) -> str:
        """S3 -> EventBridge -> SQS; the queue's URL."""
        url, arn = self.queue()
        events = plain(self.settings, "events")
        events.put_rule(Name="changes", EventPattern=json.dumps({"source": ["aws.s3"]}))
        events.put_targets(Rule="changes", Targets=[{"Id": "1", "Arn": arn}])
        self.notify(EventBridgeConfiguration={})
        return url


WAYS: Final[Mapping[str, Callable[[Notices], str]]] = {
    "S3-SQS": Notices.by_queue,
    "S3-SNS-SQS": Notices.by_topic,
    "S3-SNS-SQS, raw": Notices.by_raw_topic,
    "S3-EventBridge-SQS": Notices.by_event_bridge,
}


def wait_for(condition: Callable[..., Any], *arguments: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition(*arguments):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} seconds: {condition.__name__} {arguments}")
        time.sleep(0.05)


def allowing(action: str, resource: str) -> str:
    """The policy of a queue or a topic with which S3 may send to it."""
    statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
