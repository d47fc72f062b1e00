"""How requests are sent: over enough connections, and with time-outs that are about silence, not about size.

Whoever has another storage does not import this module, as that takes a while.
"""

from __future__ import annotations

import functools
from typing import Any

from google.auth.transport.requests import AuthorizedSession, Request
from requests import Session

from pypicloud.storage.in_pieces import in_pieces


def authorized(credentials: Any, timeout: tuple[int, int]) -> Any:
    """A session whose requests carry a token of the credentials."""
    return in_pieces(AuthorizedSession(credentials, auth_request=asking(timeout)))


def asking(timeout: tuple[int, int]) -> Any:
    """How Google's libraries are to ask for tokens and signatures: within these time-outs, unless they know better."""
    return functools.partial(Request(in_pieces(Session())), timeout=timeout)
