"""One connection to S3: requests go out, heads of answers come in, and bytes move without being looked at."""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import ssl
from typing import BinaryIO, Final, Never

from pypicloud.storage.body import BLOCK
from pypicloud.storage.s3.plan import END, LONGEST, Answer, Plan, parsed, stays_open

#: How many bytes are moved into a pipe at a time.
_POURED: Final = 1 << 20

#: What the kernel says where bytes cannot be moved, or may not.
_NO_SPLICE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})


class Line:
    """A connection as a plan has it. Raises :class:`OSError`: :class:`TimeoutError` if the store is silent."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._socket = socket.create_connection((plan.host, plan.port), plan.patience)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._is_plain = plan.tls is None
            self._splices = self._is_plain and hasattr(os, "splice")
            if plan.tls is not None:
                self._socket = plan.tls.wrap_socket(self._socket, server_hostname=plan.host)
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(plan.read_timeout)
        self._rest = b""
        #: Whether more can be asked after the answer that has been read.
        self.stays_open = True

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, the end of the connection above all."""
        is_over = self._rest or self._socket.fileno() < 0
        pending = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return not is_over and not pending and not _is_ready(self._socket, select.POLLIN, 0)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def send_stream(self, stream: BinaryIO, size: int) -> None:
        """Send the next ``size`` bytes of a stream."""
        if size and self._is_plain and isinstance(stream, io.BufferedReader | io.FileIO):
            sent = self._socket.sendfile(stream, stream.tell(), size)
        else:
            sent = 0
            while block := stream.read(min(BLOCK, size - sent)):
                self._socket.sendall(block)
                sent += len(block)
        if sent != size:
            message = f"a file of {size} bytes ends after {sent}"
            raise OSError(message)

    def answer(self, patience: float | None = None) -> Answer:
        """The next answer's status and headers, after at most ``patience`` seconds if it is for them to say.

        An answer that is not there in time can be waited for again. "Go on" (100) is one.
        """
        if patience is not None:
            self._socket.settimeout(patience)
        try:
            while END not in self._rest and len(self._rest) < LONGEST:
                self._rest += self._received(LONGEST)
        finally:
            self._socket.settimeout(self.plan.read_timeout)
        head, _, self._rest = self._rest.partition(END)
        answer = parsed(head)
        if answer is None:
            message = "this is no answer of HTTP"
            raise OSError(message)
        self.stays_open = stays_open(head, answer[1])
        return answer

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        blocks = [self._rest[:size]]
        self._rest = self._rest[size:]
        left = size - len(blocks[0])
        while left:
            block = self._received(left)
            blocks.append(block)
            left -= len(block)
        return b"".join(blocks)

    def pour(self, pipe: int, size: int) -> int | None:
        """Move up to ``size`` bytes into a pipe; how many, or None if they have to be taken.

        Raises :class:`BlockingIOError` if the pipe is full, and :class:`BrokenPipeError` if nobody reads it any more.
        """
        if self._rest or not self._splices:
            return None
        poured, most = 0, min(size, _POURED)
        while poured < most:
            try:
                poured += self._spliced(pipe, most - poured)
            except OSError as error:
                if poured:
                    # What is in the pipe already has to be told; the next call meets the same trouble.
                    break
                if error.errno in _NO_SPLICE:
                    self._splices = False
                    return None
                raise
        return poured

    def _spliced(self, pipe: int, most: int) -> int:
        while True:
            try:
                return os.splice(self._socket.fileno(), pipe, most, flags=os.SPLICE_F_NONBLOCK) or self._ended()
            except BlockingIOError:
                # Either of them may be what has to be waited for.
                if not _is_ready(pipe, select.POLLOUT, 0):
                    raise
                if not _is_ready(self._socket, select.POLLIN, self.plan.read_timeout):
                    raise TimeoutError from None

    def _received(self, most: int) -> bytes:
        return self._socket.recv(most) or self._ended()

    def _ended(self) -> Never:
        message = "the store has ended the connection"
        raise ConnectionError(message)


def _is_ready(file: int | socket.socket, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(seconds * 1000))
