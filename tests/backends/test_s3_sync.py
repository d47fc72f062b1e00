"""Changes in a bucket that others make get into a cache through a queue."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import pytest

from doc_pages import marked
from pypicloud.scripts import s3_sync
from pypicloud.scripts.main import main
from pypicloud.settings import EnvironSettings
from support.live import PATIENCE, clean_environment
from support.notices import FILE, KEY, WAYS, Notices, wait_for
from support.services.s3 import statement

if TYPE_CHECKING:
    from support.services.aws import MiniStack


@pytest.fixture
def notices(ministack: MiniStack, tmp_path: Path) -> Notices:
    """An empty bucket in an account of its own."""
    return Notices(ministack.settings(), tmp_path)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_sync, "LONGEST_PAUSE", 0)
    monkeypatch.setattr(s3_sync, "SHORT_WAIT", 0)


def sync(notices: Notices, queue: str, *more: str) -> int:
    """Follow a queue until it is empty."""
    return main(["s3-sync", str(notices.config), "--queue", queue, "--once", *more])


@pytest.mark.parametrize("way", WAYS)
def test_ways(notices: Notices, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What others put, overwrite and delete is known afterwards, whichever way the events come; the queue is empty."""
    queue = WAYS[way](notices)
    # What S3 and SNS send to try the way.
    assert sync(notices, queue) == 0

    def follow() -> None:
        wait_for(notices.waiting, queue)
        assert sync(notices, queue) == 0
        assert notices.waiting(queue) == 0

    notices.put()
    follow()
    assert notices.known() == [FILE]
    notices.put(name="acme", version="1.0+local", summary="new")
    follow()
    assert [package.summary for package in notices.cache().everything()] == ["new"]
    notices.delete()
    follow()
    assert notices.known() == []
    assert capsys.readouterr().out.splitlines() == [
        "0 saved, 0 forgotten, 0 unchanged",
        "1 saved, 0 forgotten, 0 unchanged",
        "1 saved, 0 forgotten, 0 unchanged",
        "0 saved, 1 forgotten, 0 unchanged",
    ]


def test_many(notices: Notices) -> None:
    """More than fits into a batch is followed, and what is no package is passed over."""
    queue = notices.by_queue()
    for number in range(25):
        notices.put(f"acme/acme-{number}.0.tar.gz", name="acme", version=f"{number}.0")
    notices.put("readme", kind="text")
    assert sync(notices, queue) == 0
    assert len(notices.known()) == 25
    assert notices.waiting(queue) == 0


def test_somebody_elses_message(notices: Notices, caplog: pytest.LogCaptureFixture) -> None:
    """A message that is no event stays in the queue and is told of, and keeps no other from being followed."""
    queue = notices.by_queue()
    notices.send(queue, {"hello": "world"})
    notices.put()
    assert sync(notices, queue) == 1
    assert notices.known() == [FILE]
    assert notices.waiting(queue) == 1
    assert "stays in the queue" in caplog.text


def test_a_cache_that_fails(notices: Notices, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What could not be followed is in the queue again, and the next time it is."""
    queue = notices.by_queue()
    notices.put()
    (tmp_path / "db.sqlite").mkdir()
    assert sync(notices, queue) == 1
    assert "db.url" in capsys.readouterr().err
    (tmp_path / "db.sqlite").rmdir()
    assert notices.waiting(queue)
    assert sync(notices, queue) == 0
    assert notices.known() == [FILE]


def test_a_bucket_that_fails(notices: Notices, ministack: MiniStack, caplog: pytest.LogCaptureFixture) -> None:
    """Events of a bucket that may not be read come again, at once, and the right that is missing is named."""
    queue = notices.by_queue()
    notices.put()
    notices.put("acme/acme-2.0.tar.gz", name="acme", version="2.0")
    wait_for(lambda: notices.waiting(queue) >= 2)
    allowed = statement("sqs:*", "s3:ListBucket", "s3:CreateBucket")
    everything = notices.settings
    notices.settings = ministack.user(everything, allowed)
    assert sync(notices, queue) == 1
    assert "comes again: the store does not let this server" in caplog.text
    assert "s3:GetObject" in caplog.text
    notices.settings = everything
    assert sync(notices, queue) == 0
    assert notices.knows(FILE, "acme-2.0.tar.gz")


def test_a_file_that_fails(notices: Notices, ministack: MiniStack, caplog: pytest.LogCaptureFixture) -> None:
    """Only the event of a file that may not be read comes again; those of others are followed."""
    queue = notices.by_queue()
    names = [f"acme-{number}.0.tar.gz" for number in range(1, 5)]
    for name in names:
        notices.put(f"acme/{name}", name="acme", version="1.0")
    # With what S3 sends to try the way.
    wait_for(lambda: notices.waiting(queue) == len(names) + 1)
    allowed = statement("sqs:*", "s3:*")
    denied = {
        **statement("s3:GetObject"),
        "Effect": "Deny",
        "Resource": f"arn:aws:s3:::{notices.bucket}/acme/{names[1]}",
    }
    everything = notices.settings
    notices.settings = ministack.user(everything, allowed, denied)
    assert sync(notices, queue) == 1
    assert notices.knows(*names[:1], *names[2:])
    assert notices.waiting(queue) == 1
    assert "comes again" in caplog.text
    assert "s3:GetObject" in caplog.text
    notices.settings = everything
    assert sync(notices, queue) == 0
    assert notices.knows(*names)
    assert notices.waiting(queue) == 0


def test_a_message_that_comes_again(notices: Notices) -> None:
    """A queue says how often it has given a message away, by which the pause before the next time grows."""
    url, _ = notices.queue()
    notices.send(url, {"hello": "world"})
    with contextlib.closing(s3_sync.Queue(url, EnvironSettings(notices.settings, {}))) as queue:
        for earlier in range(3):
            (message,) = queue.receive(1)
            assert s3_sync._earlier_tries(message) == earlier
            queue.give_back([message], 0)


@pytest.fixture
def follower(notices: Notices) -> Iterator[subprocess.Popen[str]]:
    """The command while it follows a queue, as a service is run."""
    queue = notices.by_queue()
    program = str(Path(sys.executable).with_name("pypicloud"))
    command = [program, "s3-sync", str(notices.config), "--queue", queue]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean_environment())
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_follows(notices: Notices, follower: subprocess.Popen[str], number: signal.Signals) -> None:
    """It follows until it is told to end; then it ends at once with status 0, having logged what it did."""
    notices.put()
    wait_for(notices.knows, FILE)
    notices.delete()
    wait_for(notices.knows)
    started = time.monotonic()
    follower.send_signal(number)
    assert follower.wait(PATIENCE) == 0
    # It was waiting for a message, which may take 20 seconds.
    assert time.monotonic() - started < 10
    assert follower.stderr is not None
    log = follower.stderr.read()
    assert f"Saved {FILE}" in log
    assert "Ended; 1 saved, 1 forgotten" in log


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        ("acme", "no URL"),
        ("{queue}-other", "there is no such queue"),
    ],
)
def test_wrong_queue(notices: Notices, queue: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A queue that is none ends the command with what is wrong."""
    url, _ = notices.queue()
    assert sync(notices, queue.format(queue=url)) == 1
    assert words in capsys.readouterr().err


def test_missing_right(notices: Notices, ministack: MiniStack, capsys: pytest.CaptureFixture[str]) -> None:
    """A right to the queue that is missing is named."""
    url = notices.by_queue()
    notices.settings = ministack.user(notices.settings, statement("s3:*"))
    assert sync(notices, url) == 1
    assert "sqs:ReceiveMessage" in capsys.readouterr().err


def test_documented_rights(notices: Notices, ministack: MiniStack) -> None:
    """A user with the policy of the page about regions, and no other right, can follow the queue."""
    url, _ = notices.queue("pypicloud-changes")
    notices.send(url, {"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": quote_plus(KEY)}}}]})
    notices.put()
    text = marked("rights: s3-sync").replace("acme-packages", notices.bucket)
    statements = json.loads(text.replace("123456789012", url.split("/")[-2]))["Statement"]
    # To Amazon the right to one message is that to a batch of them, to MiniStack it is another.
    batches = statement("sqs:DeleteMessageBatch", "sqs:ChangeMessageVisibilityBatch")
    notices.settings = ministack.user(notices.settings, *statements, batches)
    assert sync(notices, url) == 0
    assert notices.known() == [FILE]


def test_key() -> None:
    """The key of these tests has everything in it that has to be encoded."""
    assert set("+ é#%") <= set(KEY)
