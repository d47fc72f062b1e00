"""Whether the backends are well, asked so that one that does not answer holds nobody up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from typing import Final

from pypicloud.errors import PypicloudError

LOG: Final = logging.getLogger(__name__)

#: How many seconds a backend has to answer.
PATIENCE: Final = 5.0

#: A backend's own answer: whether it is well, and if not, why.
Check = Callable[[], tuple[bool, str]]


class Checkup:
    """Asks each backend in a thread of its own; one that is still being asked is not asked again."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._pending: dict[str, Future[str]] = {}

    def examine(self, checks: Mapping[str, Check]) -> dict[str, str]:
        """For each part the empty string, or what is wrong with it; after so many seconds that it does not answer."""
        asked = {part: self._asked(part, check) for part, check in checks.items()}
        deadline = time.monotonic() + self._patience
        return {part: _answer(part, answer, deadline - time.monotonic()) for part, answer in asked.items()}

    def _asked(self, part: str, check: Check) -> Future[str]:
        with self._lock:
            pending = self._pending.get(part)
            if pending is not None and not pending.done():
                return pending
            answer: Future[str] = Future()
            self._pending[part] = answer
        threading.Thread(target=_ask, args=(check, answer), name=f"health of {part}", daemon=True).start()
        return answer


def _ask(check: Check, answer: Future[str]) -> None:
    try:
        is_healthy, message = check()
    except PypicloudError as error:
        answer.set_result(error.message)
    except Exception:
        # A backend may be anybody's, and raise anything.
        LOG.exception("A health check failed")
        answer.set_result("is not healthy; the log says more")
    else:
        answer.set_result("" if is_healthy else (message or "is not healthy"))


def _answer(part: str, answer: Future[str], seconds: float) -> str:
    try:
        return answer.result(max(seconds, 0))
    except TookTooLong:
        return f"the {part} does not answer"
