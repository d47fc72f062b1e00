"""Something done now and then in the background, for as long as a block lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beating(seconds: float, beat: Callable[[], bool], name: str) -> Iterator[None]:
    """Call ``beat`` every so many seconds until the block ends, or it answers that it has nothing more to do."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            if not beat():
                return

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
