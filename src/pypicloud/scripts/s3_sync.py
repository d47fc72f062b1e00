"""``pypicloud s3-sync``: follow a queue of S3 events, so that the cache agrees with the bucket (compat.md 7).

For teams that have caches in several regions and no functions: S3 tells a queue in each region, at once or
by way of a topic or EventBridge, and this command runs beside the servers there.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from pypicloud.aws import missing_credentials
from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import ICache
from pypicloud.cache.batches import batches
from pypicloud.errors import BackendUnavailable, BadRequest, PypicloudError
from pypicloud.events import Followed, follow_each, keys
from pypicloud.scripts import config_file
from pypicloud.scripts.failures import explained, in_words
from pypicloud.settings import EnvironSettings
from pypicloud.storage.object_store import REGION
from pypicloud.storage.s3.settings import Owner, options

LOG: Final = logging.getLogger(__name__)

#: A message as SQS gives it.
Message: TypeAlias = Mapping[str, Any]

#: How many messages are taken at a time, which is all that SQS gives.
BATCH: Final = 10

#: How many seconds SQS waits for a message before it says that there is none, which is the longest it does.
WAIT: Final = 20

#: The same where the queue is to be emptied. It is kept on several machines, and only an answer that is waited for
#: is from all of them.
SHORT_WAIT: Final = 1

#: For how many seconds nobody else is given what was taken. Then it is taken for lost, and given out again; that
#: it is followed twice does no harm.
LEASE: Final = 120

#: The longest pause after a failure, in seconds; the first is one second.
LONGEST_PAUSE: Final = 60

#: What SQS calls the number of times that it has given a message to somebody.
_COUNT: Final = "ApproximateReceiveCount"

#: The region in the host of a queue of Amazon's.
_REGION: Final = re.compile(r"(?:sqs|queue)(?:-fips)?\.([a-z0-9-]+)\.|([a-z0-9-]+)\.queue\.")

_DENIED: Final = "its owner may not do {action} on this queue; the documentation has the policy that is needed"

#: What needs somebody to put it right, by SQS's word for it.
_HOPELESS: Final = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AWS.SimpleQueueService.NonExistentQueue": "there is no such queue in region {region}",
    "QueueDoesNotExist": "there is no such queue in region {region}",
    "InvalidAddress": "this is no queue of region {region}",
    "InvalidClientTokenId": "AWS does not know the access key",
    "UnrecognizedClientException": "AWS does not know the access key",
    "InvalidAccessKeyId": "AWS does not know the access key",
    "SignatureDoesNotMatch": "AWS does not accept the secret of the access key",
    "ExpiredToken": "the credentials have expired",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    config_file.add_arguments(parser)
    parser.add_argument("--queue", metavar="URL", required=True, help="the URL of the queue in SQS with S3's events")
    parser.add_argument("--once", action="store_true", help="end when the queue is empty")
    parser.add_argument("--region", help="the AWS region of the queue, where its URL does not say it")
    parser.add_argument("--traceback", action="store_true", help="show where in the program a failure came from")


def run(arguments: argparse.Namespace) -> int:
    """Follow a queue until SIGTERM, or until it is empty; 1 if something had to be left in it."""
    settings = config_file.read_checked(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    with explained(arguments), contextlib.closing(Queue(arguments.queue, settings, arguments.region)) as queue:
        follower = Follower(queue, get_cache_impl(settings))
        if not arguments.once:
            follower.follow()
            return 0
        is_empty = follower.empty()
        print(follower.done)
        return 0 if is_empty else 1


class Queue:
    """A queue of SQS.

    Raises :class:`BackendUnavailable` when it does not answer, and other errors where somebody has to do something.
    """

    def __init__(self, url: str, settings: EnvironSettings, region: str | None = None) -> None:
        import boto3  # Only this command needs it.
        from botocore.exceptions import BotoCoreError, NoRegionError

        self.url = url
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise PypicloudError(f"--queue {url}: this is no URL; that of a queue begins with https://")
        found = _REGION.search(parts.netloc)
        self._region = region or (found and (found[1] or found[2])) or REGION.read(settings)
        try:
            self._client = boto3.session.Session(**options(settings)[Owner.SESSION]).client(
                "sqs", region_name=self._region or None, endpoint_url=f"{parts.scheme}://{parts.netloc}"
            )
        except NoRegionError as error:
            raise PypicloudError(f"--queue {url}: in which region is it? Say it with --region") from error
        except (BotoCoreError, ValueError) as error:
            raise PypicloudError(f"the queue {url} cannot be used: {error}") from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def receive(self, wait: int) -> list[Message]:
        """The next messages; none if none came within ``wait`` seconds."""
        answer = self._call(
            "receive_message",
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=wait,
            VisibilityTimeout=LEASE,
            MessageSystemAttributeNames=[_COUNT],
        )
        messages: list[Message] = answer.get("Messages", [])
        return messages

    def delete(self, messages: Sequence[Message]) -> None:
        """Take messages out of the queue for good. One that stays comes again, which does no harm."""
        if messages:
            answer = self._call("delete_message_batch", Entries=_entries(messages))
            for failure in answer.get("Failed", []):
                LOG.warning("A message stays in the queue: %s", failure.get("Message") or failure.get("Code"))

    def give_back(self, messages: Sequence[Message], pause: int) -> None:
        """Let messages come again, after a pause in seconds."""
        if messages:
            self._call("change_message_visibility_batch", Entries=_entries(messages, VisibilityTimeout=pause))

    def _call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            answer: Mapping[str, Any] = getattr(self._client, operation)(QueueUrl=self.url, **parameters)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _HOPELESS:
                reason = _HOPELESS[code].format(action=_action(operation), region=self._region)
                raise PypicloudError(f"the queue {self.url} cannot be used: {reason}") from error
            raise BackendUnavailable(f"the queue does not do {_action(operation)}: {code}") from error
        except BotoCoreError as error:
            missing = missing_credentials(error, "storage")
            if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
                raise PypicloudError(f"the queue {self.url} cannot be used: {missing}") from error
            # Whoever gives out credentials may just be away, too.
            raise BackendUnavailable(missing or f"the queue does not answer ({type(error).__name__})") from error
        return answer


class Follower:
    """Does what a queue says to a cache, and keeps count of it."""

    def __init__(self, queue: Queue, make_cache: Callable[[Any], ICache]) -> None:
        self.queue = queue
        self.make_cache = make_cache
        self.done = Followed()
        self._is_stopped = False
        self._is_idle = False
        self._failures = 0

    def follow(self) -> None:
        """Follow the queue until SIGTERM or Ctrl-C, after which what was begun is brought to its end."""
        with _on_signals(self._stop), contextlib.suppress(_Stopped):
            LOG.info("Following %s", self.queue.url)
            while not self._is_stopped:
                try:
                    with self._idle():
                        messages = self.queue.receive(WAIT)
                    for message in self._take(_understood(messages)):
                        self.queue.give_back([message], _seconds(_earlier_tries(message)))
                except BackendUnavailable as error:
                    self._pause(error)
                else:
                    self._failures = 0
        LOG.info("Ended; %s", self.done)

    def empty(self) -> bool:
        """Follow the queue until it is empty; whether nothing had to be left in it.

        Raises :class:`BackendUnavailable` when the queue, the cache or the bucket fails.
        """
        is_empty = True
        failed: dict[str, Message] = {}
        try:
            while messages := self.queue.receive(SHORT_WAIT):
                understood = _understood(messages)
                for message, _ in understood:
                    # One that failed may come again in a run that lasts.
                    failed.pop(message["MessageId"], None)
                failed |= {message["MessageId"]: message for message in self._take(understood)}
                is_empty &= len(understood) == len(messages)
        finally:
            # Before the end they would be taken again and again.
            for some in batches(failed.values(), BATCH):
                self.queue.give_back(some, 0)
        return is_empty and not failed

    def _take(self, understood: Sequence[tuple[Message, list[str]]]) -> list[Message]:
        """Do what messages say about some keys; those with a key for which it could not be done.

        The others leave the queue. When the cache fails, or the whole bucket, all come again.
        """
        try:
            cache = self.make_cache(None)
            followed, failures = follow_each(cache, [key for _, wanted in understood for key in wanted])
        except BackendUnavailable:
            self.queue.give_back([message for message, _ in understood], _seconds(self._failures))
            raise
        done: list[Message] = []
        failed: list[Message] = []
        for message, wanted in understood:
            failure = next((failures[key] for key in wanted if key in failures), None)
            (done if failure is None else failed).append(message)
            if failure is not None:
                LOG.error("Message %s comes again: %s", message.get("MessageId"), in_words(failure))
        self.done += followed
        self.queue.delete(done)
        if done:
            LOG.info("%d messages: %s", len(done), followed)
        return failed

    def _pause(self, error: BackendUnavailable) -> None:
        pause = _seconds(self._failures)
        self._failures += 1
        LOG.error("%s; the next try is in %d s", in_words(error), pause)
        with self._idle():
            time.sleep(pause)

    def _stop(self) -> None:
        self._is_stopped = True
        if self._is_idle:
            raise _Stopped

    @contextlib.contextmanager
    def _idle(self) -> Iterator[None]:
        """While nothing is being done that is to be brought to its end."""
        self._is_idle = True
        try:
            if self._is_stopped:
                raise _Stopped
            yield
        finally:
            self._is_idle = False


class _Stopped(BaseException):
    """It was told to end while it waited; botocore would take any Exception for one of the network's."""


def _understood(messages: Sequence[Message]) -> list[tuple[Message, list[str]]]:
    """The messages that are events, with the keys that they are about."""
    understood = []
    for message in messages:
        try:
            understood.append((message, keys(message["Body"])))
        except BadRequest as error:
            # Somebody else's, most likely: it is not ours to delete, and SQS knows what to do with it in the end.
            LOG.warning("Message %s stays in the queue: %s", message.get("MessageId"), error)
    return understood


def _earlier_tries(message: Message) -> int:
    """How often a message was taken before."""
    return int(message.get("Attributes", {}).get(_COUNT, 1)) - 1


def _seconds(failures: int) -> int:
    return int(min(1 << min(failures, 10), LONGEST_PAUSE))


@contextlib.contextmanager
def _on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call this on SIGTERM and Ctrl-C."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _entries(messages: Sequence[Message], **more: Any) -> list[dict[str, Any]]:
    handles = [message["ReceiptHandle"] for message in messages]
    return [{"Id": str(number), "ReceiptHandle": handle, **more} for number, handle in enumerate(handles)]


def _action(operation: str) -> str:
    """The right that something needs; it is that to one message, also for a batch."""
    return "sqs:" + "".join(word.capitalize() for word in operation.removesuffix("_batch").split("_"))
