"""``pypicloud s3-sync`` beside a queue and a bucket that fail, and when it is told to end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError

from pypicloud.errors import BackendUnavailable, PypicloudError
from pypicloud.scripts.s3_sync import Follower, Queue
from pypicloud.settings import EnvironSettings
from pypicloud.testing.memory_cache import MemoryCache
from support.bucket import WatchedBucket

KEY = "acme/acme-1.0.tar.gz"


def event(key: str) -> str:
    """What S3 says when there is something new about an object."""
    return json.dumps({"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": key}}}]})


OTHER = event("acme/acme-2.0.tar.gz")

Messages = Sequence[Mapping[str, Any]]


class Script:
    """A queue that gives what a test wants, and writes down what is done to it."""

    url = "https://sqs.example/1/events"

    def __init__(self, *answers: Any) -> None:
        self.answers: Iterator[Any] = iter(answers)
        self.did: list[Any] = []

    def receive(self, wait: int) -> Messages:
        """The next answer; one that can be called is, and an error is raised."""
        answer = next(self.answers)
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return cast("Messages", answer)

    def delete(self, messages: Messages) -> None:
        """Write it down."""
        self.did.append(("delete", len(messages)))

    def give_back(self, messages: Messages, pause: int) -> None:
        """Write it down."""
        self.did.append(("give back", len(messages), pause))


_NUMBERS = itertools.count(1)


def message(body: str = event(KEY), tries: int = 1) -> dict[str, Any]:
    """A message as SQS gives it, for the first time or once more."""
    attributes = {"ApproximateReceiveCount": str(tries)}
    return {"MessageId": f"m{next(_NUMBERS)}", "ReceiptHandle": "r", "Body": body, "Attributes": attributes}


def stop() -> list[Any]:
    """What an init system does."""
    os.kill(os.getpid(), signal.SIGTERM)
    return []


@pytest.fixture
def bucket() -> WatchedBucket:
    """A bucket with two packages in it."""
    bucket = WatchedBucket()
    bucket.put(KEY, name="acme", version="1.0")
    bucket.put("acme/acme-2.0.tar.gz", name="acme", version="2.0")
    return bucket


@pytest.fixture
def cache(bucket: WatchedBucket) -> MemoryCache:
    """An empty cache over that bucket."""
    return MemoryCache(storage=lambda _: bucket)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which take no time here."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def follower(script: Script, cache: MemoryCache) -> Follower:
    """The follower of that queue."""
    return Follower(cast("Queue", script), lambda _: cache)


def test_a_queue_that_is_away(cache: MemoryCache, slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """A queue that does not answer is asked again after longer and longer pauses, and goes on as before then."""
    away = BackendUnavailable("the queue does not answer")
    script = Script(away, away, away, [message()], away, stop)
    follower(script, cache).follow()
    assert cache.distinct() == ["acme"]
    assert slept == [1, 2, 4, 1]
    assert script.did == [("delete", 1)]
    assert "the queue does not answer; the next try is in 4 s" in caplog.text


def test_pauses_have_an_end(cache: MemoryCache, slept: list[float]) -> None:
    """However long a queue is away, it is asked every minute."""
    script = Script(*[BackendUnavailable("away")] * 40, stop)
    follower(script, cache).follow()
    assert max(slept) == 60


def test_a_bucket_that_is_away(cache: MemoryCache, bucket: WatchedBucket, slept: list[float]) -> None:
    """While the bucket does not answer, messages are given back, to come again after the pause; none is deleted."""

    def again() -> Messages:
        bucket.service.is_down = False
        return [message(), message(OTHER)]

    bucket.service.is_down = True
    both = [message(), message(OTHER)]
    script = Script([*both, message("{}")], both, again, stop)
    follower(script, cache).follow()
    assert script.did == [("give back", 2, 1), ("give back", 2, 2), ("delete", 2)]
    assert slept == [1, 2]
    assert cache.distinct() == ["acme"]


def test_a_file_that_fails(
    cache: MemoryCache, bucket: WatchedBucket, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Only the messages of a file that fails come again, later each time; the others are followed without a pause."""

    def fail(key: str) -> None:
        if key == KEY:
            raise BackendUnavailable("no way to acme")

    bucket.hook = fail
    some = [message(tries=1), message(OTHER), message(tries=4), message("{}")]
    script = Script(some, [message(tries=7)], [message(tries=99)], stop)
    follower(script, cache).follow()
    assert script.did == [
        ("delete", 1),
        ("give back", 1, 1),
        ("give back", 1, 8),
        ("delete", 0),
        ("give back", 1, 60),
        ("delete", 0),
        ("give back", 1, 60),
    ]
    assert slept == []
    assert [package.filename for package in cache.everything()] == ["acme-2.0.tar.gz"]
    assert f"Message {some[0]['MessageId']} comes again: no way to acme" in caplog.text


def test_a_file_that_fails_until_the_queue_is_empty(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """Where the queue is to be emptied, what fails is given back at the end, so that there is one, whatever else is."""

    def fail(key: str) -> None:
        if key == KEY:
            raise BackendUnavailable("no way to acme")

    bucket.hook = fail
    script = Script([message() for _ in range(10)], [message(), message(OTHER)], [])
    assert follower(script, cache).empty() is False
    assert script.did == [("delete", 0), ("delete", 1), ("give back", 10, 0), ("give back", 1, 0)]
    away = Script([message()], BackendUnavailable("the queue does not answer"))
    with pytest.raises(BackendUnavailable, match="the queue"):
        follower(away, cache).empty()
    assert away.did == [("delete", 0), ("give back", 1, 0)]


def test_a_file_that_fails_once(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """In a run that lasts, a message that failed may come again by itself; if it is followed then, nothing is left."""
    again = message()

    def recover() -> Messages:
        bucket.hook = lambda _: None
        return [again]

    def fail(_: str) -> None:
        raise BackendUnavailable("no way")

    bucket.hook = fail
    script = Script([again], recover, [])
    assert follower(script, cache).empty() is True
    assert script.did == [("delete", 0), ("delete", 1)]


def test_told_to_end_at_work(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """What was begun when it is told to end is brought to its end, and nothing new is begun."""

    def hook(_: str) -> None:
        bucket.hook = lambda _: None
        stop()

    bucket.hook = hook
    later = [message()]
    script = Script([message()], later)
    follower(script, cache).follow()
    assert cache.distinct() == ["acme"]
    assert script.did == [("delete", 1)]
    assert list(script.answers) == [later]


def test_what_somebody_has_to_put_right(cache: MemoryCache) -> None:
    """A queue that will never answer ends the command."""
    with pytest.raises(PypicloudError, match="no such queue"):
        follower(Script(PypicloudError("there is no such queue")), cache).follow()


def test_signals_are_given_back(cache: MemoryCache) -> None:
    """Afterwards the signals mean again what they meant before."""
    before = signal.getsignal(signal.SIGTERM)
    follower(Script(stop), cache).follow()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123/q", "eu-west-1"),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/123/q", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123/q", "cn-north-1"),
        ("https://eu-central-1.queue.amazonaws.com/123/q", "eu-central-1"),
        ("http://127.0.0.1:9324/queue/q", "ap-south-1"),
    ],
)
def test_region(url: str, region: str) -> None:
    """The region is that of the queue's address, or else of the bucket; what is asked for beats both."""
    settings = EnvironSettings({"storage.region_name": "ap-south-1"}, env={})
    assert Queue(url, settings)._client.meta.region_name == region
    assert Queue(url, settings, "eu-north-1")._client.meta.region_name == "eu-north-1"


def test_credentials() -> None:
    """Credentials of the storage are those for the queue, too."""
    keys = {"storage.aws_access_key_id": "key", "storage.aws_secret_access_key": "secret"}
    queue = Queue("https://sqs.eu-west-1.amazonaws.com/1/q", EnvironSettings(keys, env={}))
    assert queue._client._request_signer._credentials.access_key == "key"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoCredentialsError(), PypicloudError),
        (CredentialRetrievalError(provider="a role", error_msg="away"), BackendUnavailable),
    ],
)
def test_missing_credentials(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[PypicloudError]) -> None:
    """Without credentials it is said where they can stand; it ends there, unless only who gives them out is away."""
    queue = Queue("https://sqs.eu-west-1.amazonaws.com/1/q", EnvironSettings({}, env={}))

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(queue._client, "receive_message", fail)
    with pytest.raises(PypicloudError, match=r"storage\.aws_access_key_id") as caught:
        queue.receive(0)
    assert isinstance(caught.value, BackendUnavailable) == (kind is BackendUnavailable)
