"""The responses that let a client have a stored file: sent from here, whole or in part, or a redirect elsewhere."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

from pypicloud.dateutil import utcfromtimestamp
from pypicloud.models import Package
from pypicloud.storage.body import BLOCK, FileBody, can_seek, requested_range, skip

if TYPE_CHECKING:
    from pyramid.response import Response

#: How a storage opens a file, and the bytes ``start`` up to, not including, ``stop`` of it.
Open: TypeAlias = Callable[[Package], AbstractContextManager[BinaryIO]]
OpenRange: TypeAlias = Callable[[Package, int, int], AbstractContextManager[BinaryIO]]

#: A published file never changes under its name (standards.md 1.5).
IMMUTABLE: Final = "max-age=365000000, immutable"


def redirect(location: str) -> Response:
    """The response that sends the client to another address, which is to be asked for each time."""
    from pyramid.response import Response  # The framework stays out of backends that do not answer.

    return Response(status=302, location=location, headerlist=[("Cache-Control", "no-store")])


def local_response(request: Any, package: Package, path: str) -> Response:
    """The response with a file of this machine. Raises :class:`OSError` if it cannot be opened."""
    file = open(path, "rb")  # noqa: SIM115 - the response closes it
    stat = os.fstat(file.fileno())
    response = _file_response(package, stat.st_size, utcfromtimestamp(stat.st_mtime))
    body = FileBody(file, file.close, path=path, stop=stat.st_size)
    wanted = answer_range(request, response, stat.st_size)
    if wanted is not None:
        return _filled(response, body.app_iter_range(*wanted), wanted[1] - wanted[0])
    environ = {} if request is None else request.environ
    wrapper = environ.get("wsgi.file_wrapper")
    return _filled(response, body if wrapper is None else wrapper(file, BLOCK), stat.st_size)


def streamed_response(request: Any, package: Package, opened: Open, opened_range: OpenRange) -> Response:
    """The response with what a storage opens. Raises what the storage raises, before anything is sent."""
    with ExitStack() as stack:
        size: int | None = package.data.get("size")
        stream: BinaryIO | None = None
        if size is None:
            stream = stack.enter_context(opened(package))
            size = _size_of(stream)
        response = _file_response(package, size, package.last_modified)
        wanted = answer_range(request, response, size)
        start, stop = wanted or (0, size)
        if start == stop:
            stream = io.BytesIO()
        elif stream is not None:
            skip(stream, start)
        elif wanted is not None:
            stream = stack.enter_context(opened_range(package, *wanted))
        else:
            stream = stack.enter_context(opened(package))
        body = FileBody(stream, stack.pop_all().close, start=start, stop=stop)
        stored = body.total if wanted is not None else body.total or _size_of(stream)
        if start != stop and stored not in {None, size}:
            # Another server has replaced the file, and these are the facts of the one before.
            body.close()
            return streamed_response(request, _of_size(package, stored), opened, opened_range)
        if request is None or request.method != "HEAD":
            body.begin()
    return _filled(response, body, None if stop is None else stop - start)


def answer_range(request: Any, response: Response, size: int | None) -> tuple[int, int] | None:
    """The range that is to be sent, after saying so in the response; None for the whole file.

    The ``Range`` header is taken out of the request, as WebOb would look at it again: it fails on
    ``bytes=-`` and refuses ``bytes=-n`` for files shorter than n, which some clients ask for. Ranges
    are for GET alone (RFC 9110, 14.2).
    """
    header = None if request is None else request.environ.pop("HTTP_RANGE", None)
    if header is None or size is None or request.method != "GET":
        return None
    wanted = requested_range(header, size)
    if wanted is None or not _is_same(request, response):
        return None
    start, stop = wanted
    if start < stop:
        response.status = 206
        response.content_range = (start, stop, size)
    else:
        response.status = 416
        response.headers["Content-Range"] = f"bytes */{size}"
        response.headers["Cache-Control"] = "no-store"
    return wanted


def _file_response(package: Package, size: int | None, last_modified: datetime) -> Response:
    from pyramid.response import Response

    response = Response(
        content_type="application/octet-stream",
        last_modified=last_modified,
        conditional_response=True,
    )
    response.headers["Cache-Control"] = IMMUTABLE
    if size is not None:
        response.accept_ranges = "bytes"
    digest = package.data.get("hash_sha256")
    if digest:
        response.etag = digest
    return response


def _filled(response: Response, body: Iterable[bytes], length: int | None) -> Response:
    """The response with its body; WebOb forgets the length whenever it is given a body."""
    response.app_iter = body
    response.content_length = length
    return response


def _is_same(request: Any, response: Response) -> bool:
    """Whether what the client has a part of is what is stored now (``If-Range``)."""
    try:
        return bool(response in request.if_range)
    except TypeError:
        # A date that is none.
        return False


def _of_size(package: Package, size: int) -> Package:
    """A package of whose file nothing is known but how long it is."""
    return Package(package.name, package.version, package.filename, size=size, path=package.data.get("path"))


def _size_of(stream: BinaryIO) -> int | None:
    """How many bytes are left in a stream that can seek; None if it cannot."""
    if not can_seek(stream):
        return None
    here = stream.tell()
    size = stream.seek(0, io.SEEK_END) - here
    stream.seek(here)
    return size
