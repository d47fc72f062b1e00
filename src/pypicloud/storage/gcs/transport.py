"""How requests are sent: over enough connections, and with time-outs that are about silence, not about size.

Whoever has another storage does not import this module, as that takes a while.
"""

from __future__ import annotations

import functools
import io
from typing import Any, Final

from google.auth.transport.requests import AuthorizedSession, Request
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

#: More connections than threads that ask for something at the same moment.
CONNECTIONS: Final = 64

#: How many bytes of a request are sent at a time.
PIECE: Final = 1 << 16


def authorized(credentials: Any, timeout: tuple[int, int]) -> Any:
    """A session whose requests carry a token of the credentials."""
    return _ready(AuthorizedSession(credentials, auth_request=asking(timeout)))


def asking(timeout: tuple[int, int]) -> Any:
    """How Google's libraries are to ask for tokens and signatures: within these time-outs, unless they know better."""
    return functools.partial(Request(_ready(Session())), timeout=timeout)


def _ready(session: Any) -> Any:
    for scheme in ("http://", "https://"):
        session.mount(scheme, _InPieces(pool_maxsize=CONNECTIONS))
    return session


class _InPieces(HTTPAdapter):
    """Sends a body piece by piece: the time-out is for what is sent at a time, and a network may be slow."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, blocksize=PIECE)

    def send(self, request: PreparedRequest, *arguments: Any, **options: Any) -> Response:
        if isinstance(request.body, bytes):
            request.body = io.BytesIO(request.body)
        return super().send(request, *arguments, **options)
