"""Sessions of requests, the library that Google's and Microsoft's SDKs send with, for bodies of any size.

Whoever has another storage does not import this module, as that takes a while.
"""

from __future__ import annotations

import io
from typing import Any, Final, TypeVar

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

S = TypeVar("S", bound=Session)

#: More connections than threads that ask for something at the same moment.
CONNECTIONS: Final = 64

#: How many bytes of a request are sent at a time.
PIECE: Final = 1 << 16


def in_pieces(session: S) -> S:
    """The session, which sends bodies piece by piece: a time-out is about silence then, and not about size."""
    for scheme in ("http://", "https://"):
        session.mount(scheme, _InPieces(pool_maxsize=CONNECTIONS))
    return session


class _InPieces(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, blocksize=PIECE)

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        if isinstance(request.body, bytes):
            request.body = io.BytesIO(request.body)
        return super().send(request, *arguments, **options)
