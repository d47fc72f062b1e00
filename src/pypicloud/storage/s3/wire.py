"""GET and PUT of one object: signed requests over connections that are kept.

Whatever is not a plain good answer is left to boto3, as :mod:`pypicloud.storage.s3.plan` says.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any, BinaryIO, Final

from pypicloud.storage.s3.line import Line
from pypicloud.storage.s3.plan import NO_BODY, NO_HEADERS, Answer, Plan, plan

#: How many connections wait for their next use, at most.
_KEPT: Final = 16

#: From how many bytes on a store is asked whether it wants them, and how many seconds it has to say so.
_ASKED: Final = 1 << 20
_WORD: Final = 1.0

#: How many seconds boto3 alone is asked after there was no connection.
_CLOSED: Final = 30.0

_GOOD: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})


class Outcome(enum.Enum):
    """What became of an object that was sent: it is stored, or it is not, or nobody knows."""

    STORED = enum.auto()
    REFUSED = enum.auto()
    UNKNOWN = enum.auto()


class Wire:
    """Connections to a bucket, which is a resource of boto3; shared by all threads of a process.

    Parameters of requests have the names that boto3 gives them. A store that is silent is an error at once:
    botocore's ``ReadTimeoutError``.
    """

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket
        self._idle: deque[Line] = deque()
        self._closed_until = 0.0
        weakref.finalize(self, _closed, self._idle)

    @cached_property
    def _plan(self) -> Plan | None:
        return plan(self._bucket)

    @property
    def _config(self) -> Any:
        return self._bucket.meta.client.meta.config

    def close(self) -> None:
        """Close the connections that nobody uses."""
        _closed(self._idle)

    def get(self, parameters: Mapping[str, Any]) -> Body | None:
        """What ``GetObject`` answers; None if boto3 has to ask."""
        way = self._plan
        # What has a checksum is compared with it by boto3, if that is wanted.
        if way is None or self._config.response_checksum_validation == "when_supported":
            return None
        head = self._head(way, "GET", parameters)
        line = None if head is None else self._line(way)
        if line is None or head is None:
            return None
        with _trying(line) as ending:
            line.send(head)
            answer = line.answer()
            size = _length(answer)
            if answer[0] in _GOOD and size is not None:
                ending.pop_all()
                return Body(line, size, answer[1], self._keep)
        return None

    def put(self, parameters: Mapping[str, Any], stream: BinaryIO, size: int, sha256: str) -> Outcome:
        """Make an object of the next ``size`` bytes of a stream (``PutObject``).

        The store refuses them if they do not have this sha256.
        """
        way = self._plan
        if way is None:
            return Outcome.REFUSED
        if self._config.request_checksum_calculation == "when_supported":
            parameters = {**parameters, "ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode()}
        asks = size >= _ASKED
        unsigned = {"content-length": str(size), **({"expect": "100-continue"} if asks else {})}
        head = self._head(way, "PUT", parameters, sha256, unsigned)
        line = None if head is None else self._line(way)
        if line is None or head is None:
            return Outcome.REFUSED
        outcome = Outcome.REFUSED
        with _trying(line) as ending:
            line.send(head)
            if not asks or _is_wanted(line):
                line.send_stream(stream, size)
                outcome = Outcome.UNKNOWN
                answer = _last(line)
                outcome = _outcome(answer[0])
                if outcome is Outcome.STORED and _length(answer) == 0:
                    ending.pop_all()
                    self._keep(line)
        return outcome

    def _line(self, way: Plan) -> Line | None:
        """A connection that nobody else uses; None if nobody answers, which is not tried again for a while."""
        with suppress(IndexError):
            while True:
                line = self._idle.pop()
                if line.is_quiet:
                    return line
                line.close()
        if time.monotonic() >= self._closed_until:
            try:
                return Line(way)
            except OSError:
                self._closed_until = time.monotonic() + _CLOSED
        return None

    def _keep(self, line: Line) -> None:
        """Have a connection wait for its next use."""
        if line.stays_open and len(self._idle) < _KEPT:
            self._idle.append(line)
        else:
            line.close()

    def _head(
        self,
        way: Plan,
        method: str,
        parameters: Mapping[str, Any],
        sha256: str = NO_BODY,
        unsigned: Mapping[str, str] = NO_HEADERS,
    ) -> bytes | None:
        """The head of a request; None if it cannot be one. How boto3 spells its parameters it tells itself."""
        members = self._bucket.meta.client.meta.service_model.operation_model(
            f"{method.title()}Object"
        ).input_shape.members
        headers = {}
        for parameter, value in parameters.items():
            told = members[parameter].serialization
            if told.get("location") == "header":
                headers[told["name"].lower()] = value
            elif told.get("location") == "headers":
                headers |= {f"{told['name']}{name}".lower(): each for name, each in value.items()}
        if any("\n" in value or "\r" in value for value in headers.values()):
            return None
        return way.signer(datetime.now(UTC))(method, parameters["Key"], headers, sha256, unsigned)


class Body:
    """The bytes of an answer with these headers, ``left`` of which are still to come. Raises :class:`OSError`."""

    def __init__(self, line: Line, left: int, headers: Mapping[str, str], keep: Callable[[Line], None]) -> None:
        self.headers = headers
        self._line = line
        self._left = left
        self._keep = keep
        self._is_over = False
        self._took(0)

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer if there are no more."""
        if self._is_over:
            return b""
        try:
            block = self._line.take(min(size, self._left))
        except OSError as error:
            # Nobody knows how much of it has come.
            self._line.close()
            _demand_word(error)
            raise
        self._took(len(block))
        return block

    def pour(self, pipe: int, size: int) -> int | None:
        """Move up to ``size`` bytes into a pipe; how many, or None if they have to be read.

        Raises :class:`BlockingIOError` if the pipe is full, and :class:`BrokenPipeError` if nobody reads it any more.
        """
        if self._is_over:
            return None
        try:
            count = self._line.pour(pipe, min(size, self._left))
        except BlockingIOError:
            raise
        except OSError as error:
            self._line.close()
            _demand_word(error)
            raise
        self._took(count or 0)
        return count

    def close(self) -> None:
        """Let the connection go."""
        if not self._is_over:
            self._is_over = True
            self._line.close()

    def _took(self, count: int) -> None:
        self._left -= count
        if not self._left and not self._is_over:
            self._is_over = True
            self._keep(self._line)


def _closed(lines: deque[Line]) -> None:
    """Close connections, to which others may add."""
    with suppress(IndexError):
        while True:
            lines.pop().close()


@contextlib.contextmanager
def _trying(line: Line) -> Iterator[ExitStack]:
    """Close a connection at the end of the block, or as soon as it fails, unless it is taken off the stack.

    A failure is not raised, but for silence.
    """
    with ExitStack() as stack:
        stack.callback(line.close)
        try:
            yield stack
        except OSError as error:
            _demand_word(error)


def _is_wanted(line: Line) -> bool:
    """Whether the store says that it wants the bytes of a request, or nothing (RFC 9110, 10.1.1)."""
    try:
        status, _ = line.answer(_WORD)
    except TimeoutError:
        return True
    return status == HTTPStatus.CONTINUE


def _last(line: Line) -> Answer:
    """The answer after those that only say that there will be one."""
    while (answer := line.answer())[0] < HTTPStatus.OK:
        pass
    return answer


def _outcome(status: int) -> Outcome:
    """What became of an object that was sent as a whole; after a failure of the store itself it may be there."""
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome.STORED
    return Outcome.REFUSED if status < HTTPStatus.INTERNAL_SERVER_ERROR else Outcome.UNKNOWN


def _length(answer: Answer) -> int | None:
    """How many bytes come after the head of an answer; None if it does not say so in the plain way."""
    length = answer[1].get("content-length", "")
    return int(length) if length.isdecimal() and "transfer-encoding" not in answer[1] else None


def _demand_word(error: OSError) -> None:
    """Raise what botocore has for a store that is silent, if this is it."""
    if isinstance(error, TimeoutError):
        from botocore.exceptions import ReadTimeoutError

        raise ReadTimeoutError(endpoint_url="S3", error=error) from error
