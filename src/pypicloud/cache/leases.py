"""Locks among servers: leases of a few seconds, kept alive by a thread for as long as they are needed.

A holder that dies no longer renews its leases, so whoever waits gets them when they end.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pypicloud.errors import BackendUnavailable

LOG: Final = logging.getLogger(__name__)

#: How many seconds a lease lasts that is not renewed; it is renewed three times as often.
LEASE: Final = 10.0

#: The longest pause before a waiter tries again, in seconds; the first is a fiftieth of it.
LONGEST_PAUSE: Final = 0.25


class Leases:
    """The leases that this process holds.

    The service is reached through three functions, of a key and the random token that stands for this holder:
    ``claim`` answers a function that tries once to take the lease for ``LEASE`` seconds, and says whether it did;
    that is called again and again, and may keep in mind what it has seen. ``renew`` makes the lease last
    for another ``LEASE`` seconds and says whether it still is ours; ``release`` ends it if it is ours.
    """

    def __init__(
        self,
        claim: Callable[[str, str], Callable[[], bool]],
        renew: Callable[[str, str], bool],
        release: Callable[[str, str], None],
    ) -> None:
        self._claim = claim
        self._renew = renew
        self._release = release
        self.after_fork()

    def after_fork(self) -> None:
        """Forget what the parent holds and keeps alive."""
        self._guard = threading.Lock()
        self._held: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Waits for the lease of a key, and keeps it as long as the block lasts."""
        token = secrets.token_hex(16)
        self._wait(self._claim(key, token))
        self._keep(key, token)
        try:
            yield
        finally:
            with self._guard:
                self._held.pop(token)
            try:
                self._release(key, token)
            except BackendUnavailable:
                # What it was held for is done; the lease ends by itself.
                LOG.warning("The lock of %s was not given back; it ends in %s seconds", key, LEASE)

    @staticmethod
    def _wait(attempt: Callable[[], bool]) -> None:
        pause = LONGEST_PAUSE / 50
        while not attempt():
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - no secret
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _keep(self, key: str, token: str) -> None:
        with self._guard:
            self._held[token] = key
            # After a fork, it is one that has ended.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(LEASE / 3)
            with self._guard:
                held = list(self._held.items())
                if not held:
                    self._thread = None
                    return
            for token, key in held:
                self._prolong(key, token)

    def _prolong(self, key: str, token: str) -> None:
        """Renew a lease; one that was given back meanwhile is ended again."""
        try:
            is_ours = self._renew(key, token)
            if token not in self._held:
                # It was given back meanwhile, and may just have come to life again.
                self._release(key, token)
                return
        except Exception:
            # Whatever it is, the other leases still have to be renewed, and this one next time.
            LOG.exception("The lock of %s could not be renewed", key)
            return
        if not is_ours:
            LOG.error("The lock of %s was lost to another server, as it could not be renewed in time", key)
