"""A pipe to a server's own sender of files, which reads a file no faster than the client reads the answer.

What granian is given in pieces it takes at once, however slowly the client reads, so that a large file would be in
memory as a whole. A pipe is a file for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import select
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: How many bytes a pipe holds at most: once more are written, somebody reads.
HELD: Final = 1 << 19

#: The request to the kernel for a pipe that holds as many; where there is none, a pipe holds fewer.
_SET_SIZE: Final = getattr(fcntl, "F_SETPIPE_SZ", None)

#: After how many bytes a thread may be wanted for something else.
TURN: Final = 4 << 20

#: How many milliseconds a thread waits for a reader before it does something else.
_PATIENCE: Final = 2

#: How many seconds may pass before somebody reads.
_OPENING: Final = 60


def _nothing(_: int) -> None:
    """No bytes come but in pieces."""


class Pipe:
    """A named pipe with the pieces of a body, of which there are more bytes than it holds.

    ``pour`` is asked first for what comes next: it moves bytes into the pipe itself, and answers how many, or None if
    they come as a piece.

    The name goes as soon as the sender has opened it; it is used once, so that whoever comes too late finds nothing.
    """

    def __init__(self, pieces: Iterator[bytes], pour: Callable[[int], int | None] = _nothing) -> None:
        self._pieces = filter(None, pieces)
        self._pour = pour
        self._rest = memoryview(b"")
        self._written = 0
        self._using = threading.Lock()
        self.path = str(Path(tempfile.gettempdir(), f"pypicloud-{secrets.token_hex(16)}.pipe"))
        os.mkfifo(self.path, 0o600)
        # Without a reader a pipe cannot be opened for writing; without a writer the sender would take it for empty.
        self._reader: int | None = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer: int | None = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        if _SET_SIZE is not None:
            # The system bounds what all pipes of a user hold; beyond that this one stays as it is.
            with suppress(OSError):
                fcntl.fcntl(self._writer, _SET_SIZE, HELD)

    def pump(self) -> bool:
        """Write pieces until the pipe stays full, or others have waited long enough; False once there are no more.

        Raises :class:`BrokenPipeError` if the sender has stopped reading.
        """
        with self._using:
            until = self._written + TURN
            while self._writer is not None and self._written < until:
                try:
                    count = self._write(self._writer)
                except BlockingIOError:
                    room = select.poll()
                    room.register(self._writer, select.POLLOUT)
                    if not room.poll(_PATIENCE):
                        return True
                    continue
                if not count:
                    return False
                self._written += count
                if self._written > HELD:
                    self._let_go()
        return self._writer is not None

    def _write(self, writer: int) -> int:
        """Write what comes next; how many bytes, 0 at the end. Raises :class:`BlockingIOError` if the pipe is full."""
        # What is poured may be more than the pipe is said to hold: somebody has to be reading already.
        poured = self._pour(writer) if not self._rest and self._reader is None else None
        if poured is not None:
            return poured
        self._rest = self._rest or memoryview(next(self._pieces, b""))
        count = os.write(writer, self._rest)
        self._rest = self._rest[count:]
        return count

    async def wait(self) -> None:
        """Return when something can be written. Raises :class:`BrokenPipeError` if nobody ever reads."""
        if self._writer is None:
            return
        loop = asyncio.get_running_loop()
        has_room = asyncio.Event()
        loop.add_writer(self._writer, has_room.set)
        try:
            async with asyncio.timeout(_OPENING if self._reader is not None else None):
                await has_room.wait()
        except TimeoutError as error:
            raise BrokenPipeError("nobody has opened the pipe") from error
        finally:
            loop.remove_writer(self._writer)

    def close(self) -> None:
        """End the body; what is in the pipe is still read."""
        with self._using:
            self._let_go()
            if self._writer is not None:
                os.close(self._writer)
                self._writer = None

    def _let_go(self) -> None:
        """Leave the reading end to the sender, so that its end is seen here."""
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None
            with suppress(FileNotFoundError):
                Path(self.path).unlink()


def beginning(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The first pieces together, and whether they are more than a pipe holds; if not, they are all."""
    taken = bytearray()
    for piece in pieces:
        taken += piece
        if len(taken) > HELD:
            return bytes(taken), True
    return bytes(taken), False
