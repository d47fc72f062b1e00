"""Events of S3: which keys they say are to be looked at, and what becomes of these in a cache."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pypicloud.errors import BackendUnavailable, BadRequest, InvalidUpload, NotSupported
from pypicloud.events import Followed, follow, follow_each, keys
from pypicloud.models import Package
from pypicloud.testing.memory_cache import MemoryCache
from pypicloud.testing.memory_storage import MemoryStorage
from support.bucket import WatchedBucket

KEY = "fc81/foo/foo-1.0.tar.gz"
ODD = "p q/foo/foo-1.0+l#1é%2B.tar.gz"


def s3(*names: str, source: str = "aws:s3", name: str = "ObjectCreated:Put", encode: bool = True) -> dict[str, Any]:
    """An event as S3 makes it."""
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": source,
                "eventName": name,
                "s3": {"bucket": {"name": "bucket"}, "object": {"key": quote_plus(key) if encode else key, "size": 3}},
            }
            for key in names
        ]
    }


def sns(event: Any) -> dict[str, Any]:
    """What SNS makes of an event on its way to a queue or an address."""
    return {"Type": "Notification", "MessageId": "1", "TopicArn": "arn", "Message": json.dumps(event)}


WRAPPED = {
    "s3": s3(ODD),
    "sns": sns(s3(ODD)),
    "sns to lambda": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(s3(ODD)), "Type": "N"}}]},
    "sqs to lambda": {"Records": [{"eventSource": "aws:sqs", "messageId": "1", "body": json.dumps(s3(ODD))}]},
    "sns to sqs to lambda": {"Records": [{"eventSource": "aws:sqs", "body": json.dumps(sns(s3(ODD)))}]},
}


@pytest.mark.parametrize("event", WRAPPED.values(), ids=WRAPPED)
def test_wrappings(event: dict[str, Any]) -> None:
    """The key is found and decoded in every wrapping, as a mapping, as text and as bytes."""
    assert keys(event) == [ODD]
    assert keys(json.dumps(event)) == [ODD]
    assert keys(json.dumps(event).encode()) == [ODD]


def test_event_bridge() -> None:
    """EventBridge does not encode keys; what the key would be if it did is looked at, too."""
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": {"key": "foo-1.0+l.zip"}}}
    assert keys(event) == ["foo-1.0+l.zip", "foo-1.0 l.zip"]


@pytest.mark.parametrize("encode", [True, False])
def test_other_stores(encode: bool) -> None:
    """Of a server that is not Amazon's, the key is among those looked at whether it encodes them or not."""
    assert ODD in keys(s3(ODD, source="ceph:s3", encode=encode))
    assert keys(s3(KEY, source="minio:s3", encode=False)) == [KEY]


def test_many_records() -> None:
    """Every record counts, and a key that is named twice is looked at once, in the order of the events."""
    assert keys(s3("b", "a", "b")) == ["b", "a"]


def test_test_event() -> None:
    """What S3 sends to try the way names no key, wrapped or not."""
    event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"}
    assert keys(event) == []
    assert keys(sns(event)) == []
    assert keys({"Records": []}) == []


def test_subscription(caplog: pytest.LogCaptureFixture) -> None:
    """That SNS wants to be allowed to send events is told to the operator."""
    caplog.set_level(logging.WARNING)
    assert keys({"Type": "SubscriptionConfirmation", "Message": "x", "SubscribeURL": "https://sns.example/"}) == []
    assert "https://sns.example/" in caplog.text


NESTED = s3(KEY)
for _ in range(9):
    NESTED = sns(NESTED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"Records": 1}',
        b'{"Records": [{}]}',
        b'{"Records": [{"s3": {"object": {"key": 1}}}]}',
        b'{"Type": "Notification", "Message": "hello"}',
        b'{"detail": {"instance": "i-1"}}',
        b"[" * 100000,
        json.dumps(NESTED).encode(),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_no_events(body: bytes) -> None:
    """What is no event of S3 is refused."""
    with pytest.raises(BadRequest, match="no event of S3"):
        keys(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(json.dumps(s3(KEY))),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Records", "s3", "object", "key", "Sns", "Message", "body", "detail", "Type", "Event"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_anything(value: Any) -> None:
    """Whatever JSON comes, keys are texts, or it is refused."""
    with contextlib.suppress(BadRequest):
        assert all(isinstance(key, str) for key in keys(json.dumps(value)))


@pytest.fixture
def bucket() -> WatchedBucket:
    """A bucket with one package in it."""
    bucket = WatchedBucket()
    bucket.put(KEY, name="foo", version="1.0", hash_sha256="ab" * 32)
    return bucket


@pytest.fixture
def cache(bucket: WatchedBucket) -> MemoryCache:
    """An empty cache over that bucket."""
    return MemoryCache(storage=lambda _: bucket)


def known(cache: MemoryCache) -> dict[str, str]:
    """The keys of all files that the cache knows."""
    return {package.filename: package.data["path"] for package in cache.everything()}


def test_appears(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """A new object is known with what a rebuild would know of it, and its project has a new revision."""
    before = cache.revision("foo")
    assert follow(cache, [KEY]) == Followed(saved=1)
    found = cache.fetch("foo-1.0.tar.gz")
    assert found is not None
    assert found.data == {"hash_sha256": "ab" * 32, "size": 3, "path": KEY}
    assert cache.rebuild().unchanged == 1
    assert cache.revision("foo") != before


def test_again(cache: MemoryCache) -> None:
    """An event that comes twice changes nothing the second time, the revision neither."""
    follow(cache, [KEY])
    before = cache.revision("foo")
    assert follow(cache, [KEY]) == Followed(unchanged=1)
    assert cache.revision("foo") == before


def test_overwritten(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """An object that was overwritten is known with its new facts."""
    follow(cache, [KEY])
    bucket.put(KEY, "2026-02-03", name="foo", version="1.0", hash_sha256="cd" * 32)
    assert follow(cache, [KEY]) == Followed(saved=1)
    found = cache.fetch("foo-1.0.tar.gz")
    assert found is not None
    assert found.data["hash_sha256"] == "cd" * 32


def test_vanishes(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """A deleted object is forgotten, and that nobody knew of it is no error."""
    follow(cache, [KEY])
    del bucket.service.objects[KEY]
    assert follow(cache, [KEY]) == Followed(forgotten=1)
    assert known(cache) == {}
    assert follow(cache, [KEY]) == Followed()


def test_out_of_order(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """What an event says happened does not count: the bucket does, whatever order they come in."""
    created, removed = keys(s3(KEY)), keys(s3(KEY, name="ObjectRemoved:Delete"))
    follow(cache, removed)
    assert known(cache) == {"foo-1.0.tar.gz": KEY}
    del bucket.service.objects[KEY]
    follow(cache, created)
    assert known(cache) == {}


def test_moved(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """A file whose object gets another key stays known, in whatever order the two events come."""
    follow(cache, [KEY])
    bucket.put("foo/foo-1.0.tar.gz", "2026-02-03", name="foo", version="1.0")
    assert follow(cache, ["foo/foo-1.0.tar.gz"]) == Followed(saved=1)
    assert follow(cache, [KEY]) == Followed(unchanged=1)
    del bucket.service.objects[KEY]
    assert follow(cache, [KEY]) == Followed(unchanged=1)
    assert known(cache) == {"foo-1.0.tar.gz": "foo/foo-1.0.tar.gz"}


def test_facts_without_a_key(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """A row that does not say which object it is of is that of the key which the file would get."""
    key = bucket.calculate_path(Package("foo", "1.0", "foo-1.0.tar.gz"))
    cache.save(Package("foo", "1.0", "foo-1.0.tar.gz"))
    assert follow(cache, ["other/foo-1.0.tar.gz"]) == Followed(forgotten=key not in bucket.service.objects)


def test_foreign_objects(cache: MemoryCache, bucket: WatchedBucket, caplog: pytest.LogCaptureFixture) -> None:
    """Companions, marks of folders and names that cannot be served are not even looked at; no package is left out."""
    companion = f"{KEY}.{'a' * 32}.metadata"
    for key in (companion, "folder/", "a/\x00-1.0.zip", "a/.hidden", "readme"):
        bucket.put(key)
    assert follow(cache, [companion, "folder/", "a/\x00-1.0.zip", "a/.hidden", "readme", ""]) == Followed()
    assert set(bucket.asked) == {"readme"}
    assert known(cache) == {}
    assert caplog.text.count("Not listed") == 1


def test_prefix() -> None:
    """What is outside of the prefix is not looked at."""
    bucket = WatchedBucket(bucket_prefix="pre/")
    bucket.put(KEY, name="foo", version="1.0")
    bucket.put(f"pre/{KEY}", name="foo", version="1.0")
    cache = MemoryCache(storage=lambda _: bucket)
    assert follow(cache, [KEY]) == Followed()
    assert follow(cache, [KEY, f"pre/{KEY}"]) == Followed(saved=1)
    assert known(cache) == {"foo-1.0.tar.gz": f"pre/{KEY}"}


def test_many(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """Many keys are followed at once, and the sums are right."""
    names = [f"foo/foo-{number}.0.tar.gz" for number in range(30)]
    for name in names[:20]:
        bucket.put(name, name="foo", version="1.0")
    assert follow(cache, names) == Followed(saved=20)
    assert len(known(cache)) == 20


def test_a_bucket_that_fails(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """A bucket that does not answer fails the whole batch, and nothing is forgotten."""
    follow(cache, [KEY])
    bucket.service.is_down = True
    with pytest.raises(BackendUnavailable):
        follow(cache, [KEY, "foo/foo-2.0.tar.gz"])
    assert known(cache) == {"foo-1.0.tar.gz": KEY}


def failing(*keys: str) -> Callable[[str], None]:
    """What a bucket does that fails for some keys."""

    def fail(key: str) -> None:
        if key in keys:
            raise BackendUnavailable(f"no way to {key}")

    return fail


OTHERS = [f"foo/foo-{number}.0.tar.gz" for number in range(2, 6)]


@pytest.fixture
def others(bucket: WatchedBucket) -> list[str]:
    """The keys of more packages in the bucket."""
    for key in OTHERS:
        bucket.put(key, name="foo", version="1.0")
    return OTHERS


def test_a_file_that_fails(cache: MemoryCache, bucket: WatchedBucket, others: list[str]) -> None:
    """One file for which the bucket fails is told of, is not forgotten, and keeps no other from being followed."""
    follow(cache, [KEY])
    del bucket.service.objects[KEY]
    bucket.hook = failing(KEY)
    followed, failures = follow_each(cache, [others[0], KEY, *others[1:]])
    assert followed == Followed(saved=4)
    assert {key: error.message for key, error in failures.items()} == {KEY: f"no way to {KEY}"}
    assert len(known(cache)) == 5
    bucket.hook = failing()
    assert follow_each(cache, [KEY]) == (Followed(forgotten=1), {})


def test_a_file_that_fails_is_raised(cache: MemoryCache, bucket: WatchedBucket, others: list[str]) -> None:
    """Who has to say one thing of all files is told of the failure when the others are followed."""
    bucket.hook = failing(others[1])
    with pytest.raises(BackendUnavailable, match="no way to"):
        follow(cache, [KEY, *others])
    assert len(known(cache)) == 4


def test_all_keys_of_a_file_fail_together(cache: MemoryCache, bucket: WatchedBucket, others: list[str]) -> None:
    """As long as one of a file's keys cannot be looked at, nobody knows which is the newest: both are to come again."""
    moved = f"new/{KEY}"
    bucket.put(moved, "2026-02-03", name="foo", version="1.0")
    bucket.hook = failing(moved)
    followed, failures = follow_each(cache, [KEY, moved, *others])
    assert followed == Followed(saved=4)
    assert set(failures) == {KEY, moved}
    assert "foo-1.0.tar.gz" not in known(cache)


def test_a_bucket_that_fails_for_each_file(cache: MemoryCache, bucket: WatchedBucket, others: list[str]) -> None:
    """If the bucket fails for all of several files, and is not well, it is not about the files."""
    bucket.hook = failing(*others)
    assert set(follow_each(cache, others)[1]) == set(others)
    bucket.service.is_down = True
    with pytest.raises(BackendUnavailable):
        follow_each(cache, others)
    assert set(follow_each(cache, others[:1])[1]) == set(others[:1])


def test_a_file_that_fails_at_last(cache: MemoryCache, bucket: WatchedBucket, others: list[str]) -> None:
    """A bucket that fails for one file when its facts are already being written leaves the other files alone."""

    def fail(key: str) -> None:
        if key == KEY and bucket.asked.count(KEY) > 1:
            raise BackendUnavailable("no way")

    bucket.hook = fail
    followed, failures = follow_each(cache, [KEY, *others])
    assert followed == Followed(saved=4)
    assert set(failures) == {KEY}
    assert bucket.asked.count(KEY) == 2
    assert len(known(cache)) == 4


def test_one_that_is_never_still(cache: MemoryCache, bucket: WatchedBucket, others: list[str]) -> None:
    """A file whose facts change all the time is given up alone."""
    count = iter(range(1, 1000))

    def change(key: str) -> None:
        if key == KEY:
            cache.save(Package("foo", "1.0", "foo-1.0.tar.gz", size=next(count), path=key))

    bucket.hook = change
    followed, failures = follow_each(cache, [KEY, *others])
    assert followed == Followed(saved=4)
    assert "again and again" in failures[KEY].message


def test_changed_meanwhile(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """Facts that somebody else writes while the bucket is asked are not lost, and all is looked at once more."""

    def write(key: str) -> None:
        bucket.hook = lambda _: None
        cache.save(Package("foo", "1.0", "foo-1.0.tar.gz", size=1, path=key))

    bucket.hook = write
    assert follow(cache, [KEY]) == Followed(saved=1)
    assert bucket.asked == [KEY, KEY]


def test_uploaded_and_deleted_meanwhile(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """A file that was deleted after it was looked at is not known afterwards."""
    bucket.hook = bucket._remove
    assert follow(cache, [KEY]) == Followed()
    assert known(cache) == {}


def test_never_still(cache: MemoryCache, bucket: WatchedBucket) -> None:
    """Facts that change all the time are given up, so that the event comes again later."""
    count = iter(range(1, 1000))
    bucket.hook = lambda key: cache.save(Package("foo", "1.0", "foo-1.0.tar.gz", size=next(count), path=key))
    with pytest.raises(BackendUnavailable, match="again and again"):
        follow(cache, [KEY])


def test_under_the_lock_of_an_upload(cache: MemoryCache) -> None:
    """A file is followed while another thread holds its lock, as a store may wait for that during an upload."""
    with cache.lock("foo-1.0.tar.gz"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(follow, cache, [KEY]).result(10) == Followed(saved=1)


def test_facts_that_cannot_be_kept(
    cache: MemoryCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file whose facts the cache cannot keep is left out and told of, and not tried for ever."""

    def check(_: Package) -> None:
        raise InvalidUpload("its name is too long")

    monkeypatch.setattr(cache, "check_facts", check)
    assert follow(cache, [KEY]) == Followed(unchanged=1)
    assert "its name is too long" in caplog.text


def test_no_bucket() -> None:
    """A storage that is no bucket has no events, and says so."""
    cache = MemoryCache(storage=lambda _: MemoryStorage(files={}))
    with pytest.raises(NotSupported, match="no bucket"):
        follow(cache, [KEY])


def test_words() -> None:
    """What was done reads as a sentence."""
    assert str(Followed(1, 2) + Followed(unchanged=3)) == "1 saved, 2 forgotten, 3 unchanged"
