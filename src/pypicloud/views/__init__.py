"""HTTP in, HTTP out. No decisions here: the index takes them.

A view returns 2xx and 3xx and raises an error of ``pypicloud.errors`` for the rest. This module is the
one translator of errors: whatever is raised leaves in one shape, as HTML, JSON or plain text by what the
client accepts (JSON below ``/api/`` and ``/admin/``), with an id under which the cause is in the log.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from http import HTTPStatus
from typing import Any, Final

from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPException, HTTPForbidden, HTTPNotFound
from pyramid.response import Response

from pypicloud.errors import Forbidden, LoginRequired, NotFound, PypicloudError
from pypicloud.request import PypicloudRequest
from pypicloud.views.responses import html, json_body

LOG: Final = logging.getLogger(__name__)

#: Longest part of a message that goes into the status line, which is all that twine shows.
_REASON_LENGTH: Final = 200


def format_exception(context: Exception, request: PypicloudRequest) -> Response:
    """Answer with whatever was raised."""
    if isinstance(context, HTTPException) and not isinstance(context, HTTPForbidden | HTTPNotFound):
        return context
    return error_response(request, _as_error(context, request), cause=context)


def _as_error(context: Exception, request: PypicloudRequest) -> PypicloudError:
    """The error of ours that stands for an exception of anybody's."""
    if isinstance(context, PypicloudError):
        return context
    if isinstance(context, HTTPForbidden):
        if request.caller.user is None:
            return LoginRequired("you need to log in")
        return Forbidden(f"user {request.caller.user!r} is not an administrator of this index")
    if isinstance(context, HTTPNotFound | URLDecodeError):
        return NotFound(f"there is nothing at {request.environ.get('PATH_INFO', '')[:200]!r}")
    return PypicloudError("something went wrong on the server; its log says what, under the id of this answer")


def error_response(request: PypicloudRequest, error: PypicloudError, cause: Exception | None = None) -> Response:
    """An error as a response."""
    reference = secrets.token_hex(4)
    _log(request, error, cause, reference)
    if error.status is HTTPStatus.UNAUTHORIZED:
        # Without a body a client keeps its connection (standards.md 1.7).
        realm = request.app.realm.replace("\\", "\\\\").replace('"', '\\"')
        challenge = f'Basic realm="{realm}"'
        return Response(status=401, headerlist=[("WWW-Authenticate", challenge), ("Content-Length", "0")])
    response = _body(request, error, reference, cause)
    reason = error.message if error.message.isascii() and error.message.isprintable() else error.status.phrase
    response.status = f"{error.status.value} {reason[:_REASON_LENGTH]}"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    response.headers["Cache-Control"] = "no-store"
    return response


def _body(request: PypicloudRequest, error: PypicloudError, reference: str, cause: Exception | None) -> Response:
    form = _wanted(request)
    if form == "json":
        answer = {
            "error": error.key,
            "message": error.message,
            "code": f"{error.status.value} {error.message}",
            "title": error.status.phrase,
            "id": reference,
        }
        if request.app.shows_stacktrace and cause is not None:
            answer["stacktrace"] = "".join(traceback.format_exception(cause))
        return json_body(request, answer)
    if form == "html":
        return html("error.html", title=error.status.phrase, message=error.message, id=reference)
    return Response(text=f"{error.message}\n(error id {reference})\n", content_type="text/plain", charset="utf-8")


def _wanted(request: PypicloudRequest) -> str:
    """JSON for programs' paths or where it is named, HTML where that is named, else plain text."""
    if f"{request.environ.get('PATH_INFO', '')}/".startswith(("/api/", "/admin/")):
        return "json"
    accept = request.headers.get("Accept", "").lower()
    if "text/html" in accept and not accept.startswith("application/"):
        return "html"
    return "json" if "json" in accept else "text"


def _log(request: PypicloudRequest, error: PypicloudError, cause: Exception | None, reference: str) -> None:
    where = f"{request.method} {request.environ.get('PATH_INFO', '')!r}"
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raised = cause or error
        # An error of ours that nothing lies behind says everything itself.
        is_whole = isinstance(raised, PypicloudError) and raised.__cause__ is None
        LOG.error("%s %s: %s: %s", reference, where, error.key, error, exc_info=None if is_whole else raised)
    else:
        LOG.info("%s %s: %d %s: %s", reference, where, error.status, error.key, error)


def _documented() -> dict[str, Any]:
    """The views that are documented as functions of this package."""
    from pypicloud.views.home import get_index, health_endpoint  # Home imports this package.

    return {"get_index": get_index, "health_endpoint": health_endpoint}


def __getattr__(name: str) -> Any:
    try:
        return _documented()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
