"""``/api/events/``: what an object store tells of the bucket's changes."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from pypicloud import events
from pypicloud.auth import get_basicauth_credentials
from pypicloud.errors import Forbidden, NotFound
from pypicloud.storage.object_store import WEBHOOK_SECRET
from pypicloud.views import responses

if TYPE_CHECKING:
    from pyramid.response import Response

    from pypicloud.request import PypicloudRequest

_BEARER = "bearer "


def follow_s3(request: PypicloudRequest) -> Response:
    """Apply the events in the body; 200 is said when that is done, so that whoever sent them need not again."""
    secret = WEBHOOK_SECRET.read(request.app.settings)
    if secret is None:
        raise NotFound(f"there is nothing here: {WEBHOOK_SECRET.key} is not set")
    if not hmac.compare_digest(_sent(request).encode(errors="surrogatepass"), secret.encode()):
        raise Forbidden(f"the secret is missing or wrong; it is what {WEBHOOK_SECRET.key} says")
    events.follow(request.db, events.keys(request.small_body()))
    return responses.nothing()


def _sent(request: PypicloudRequest) -> str:
    """The secret as the sender can send it: as a token, as a Basic password, or in the query."""
    header: str = request.headers.get("Authorization", "")
    if header.lower().startswith(_BEARER):
        return header[len(_BEARER) :].strip()
    credentials = get_basicauth_credentials(request)
    if credentials is not None:
        return credentials["password"]
    return request.query.get("token", "")
