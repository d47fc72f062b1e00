"""The health check: each backend in a thread of its own, and nobody waits for ever."""

from __future__ import annotations

import threading

import pytest

from pypicloud.errors import BackendUnavailable
from pypicloud.health import Checkup


def well() -> tuple[bool, str]:
    """A backend in good health."""
    return True, "never better"


def test_every_part_is_asked() -> None:
    """Who is well has nothing to say; who is not says why, and never with nothing."""

    def fails() -> tuple[bool, str]:
        raise BackendUnavailable("the disk is slow")

    found = Checkup().examine({"a": well, "b": lambda: (False, "tired"), "c": lambda: (False, ""), "d": fails})
    assert found == {"a": "", "b": "tired", "c": "is not healthy", "d": "the disk is slow"}


def test_what_went_wrong_inside_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error of a backend goes to the log, and no part of it into the answer."""

    def breaks() -> tuple[bool, str]:
        raise ZeroDivisionError("with a password")

    assert Checkup().examine({"cache": breaks}) == {"cache": "is not healthy; the log says more"}
    assert "with a password" in caplog.text


def test_who_does_not_answer_is_not_waited_for() -> None:
    """A backend that hangs is not well, is asked by one thread only, and is well again once it has answered."""
    going, calls = threading.Event(), []

    def hangs() -> tuple[bool, str]:
        calls.append(threading.current_thread())
        going.wait(30)
        return True, ""

    checkup = Checkup(patience=0.02)
    for _ in range(3):
        assert checkup.examine({"cache": hangs, "storage": well}) == {
            "cache": "the cache does not answer",
            "storage": "",
        }
    assert len(calls) == 1
    going.set()
    calls[0].join(30)
    assert Checkup().examine({"cache": hangs}) == checkup.examine({"cache": hangs}) == {"cache": ""}
