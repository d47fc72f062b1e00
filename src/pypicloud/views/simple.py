"""The simple API, the legacy JSON, uploads as clients make them, and XML-RPC search."""

from __future__ import annotations

import xmlrpc.client
from typing import TYPE_CHECKING, Any, Final, Never
from urllib.parse import quote
from xml.parsers import expat

from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

from pypicloud import render
from pypicloud.errors import BadRequest, ProjectNotFound
from pypicloud.form import DIGEST_FIELDS, Form
from pypicloud.models import Redirect, Upload
from pypicloud.views import responses

if TYPE_CHECKING:
    from pypicloud.request import PypicloudRequest
    from pypicloud.route import SimplePackageResource


def simple(request: PypicloudRequest) -> Response:
    """The list of projects that the caller may read."""
    form = render.negotiate(request.headers.get("Accept"), request.query.get("format"))
    return responses.page(request, request.index.rendered_projects(request.caller, form))


def package_versions(context: SimplePackageResource, request: PypicloudRequest) -> Response:
    """A project's page, or the way to the upstream's."""
    form = render.negotiate(request.headers.get("Accept"), request.query.get("format"))
    depth = request.path_info.count("/") - 1
    found = request.index.rendered_project(context.name, request.caller, form, depth)
    return _redirect(found) if isinstance(found, Redirect) else responses.page(request, found)


def package_versions_json(context: SimplePackageResource, request: PypicloudRequest) -> Response:
    """What is known about a project, or one release of it, as JSON (compat.md 5.4)."""
    version = request.matchdict.get("version")
    way = "pypi/{}/json" if version is None else f"pypi/{{}}/{quote(version, safe='+!')}/json"
    found = request.index.project(context.name, request.caller, way)
    if isinstance(found, Redirect):
        return _redirect(found)
    answer = render.legacy_json(found, request.app_url(), version)
    if version is not None and not answer["urls"]:
        raise ProjectNotFound(f"project {found.name!r} has no version {version!r}")
    return responses.json_body(request, answer)


def _redirect(found: Redirect) -> Response:
    """302, and never kept: what is upstream's today may be uploaded here tomorrow (standards.md 4.1)."""
    return HTTPFound(found.location, headerlist=[("Cache-Control", "no-store")])


def upload(request: PypicloudRequest) -> Response:
    """Take an upload as twine, uv, poetry, hatch, pdm and flit send it (standards.md 7)."""
    form = request.form
    action = form.text(":action") or "file_upload"
    if action != "file_upload":
        raise BadRequest(f"Unknown action {action!r}; the only one is 'file_upload'")
    package = request.index.upload(request.caller, read_upload(form))
    return responses.json_body(request, responses.package_facts(request, package))


def read_upload(form: Form, name: str | None = None) -> Upload:
    """The form as an Upload. Raises :class:`BadRequest` for what is missing.

    ``name`` is the project when the URL says it. With neither name nor version in the form both come
    from the file name (compat.md 5.6).
    """
    content = form.files.get("content")
    if content is None:
        hint = "'content' must be a file with a file name" if "content" in form.fields else "send the file in it"
        raise BadRequest(f"Missing argument 'content': {hint}")
    filename = content.filename.rpartition("/")[2]
    if not filename:
        raise BadRequest("the file in 'content' has no file name")
    claimed = {algorithm: text for sent, algorithm in DIGEST_FIELDS.items() if (text := form.text(sent))}
    form_name, version = form.text("name"), form.text("version")
    if name is None and form_name and version:
        name = form_name
    else:
        version = None
    return Upload(
        filename=filename,
        path=str(content.path),
        size=content.size,
        digests={algorithm: content.digest(algorithm) for algorithm in {"sha256", "md5", *claimed}},
        claimed=claimed,
        name=name,
        version=version,
        summary=form.text("summary"),
        requires_python=form.text("requires_python"),
    )


def search(request: PypicloudRequest, criteria: dict[str, list[str]], query_type: str) -> list[dict[str, Any]]:
    """The newest matching package of each project that the caller may read."""
    return [package.search_summary() for package in request.index.search(request.caller, criteria, query_type)]


def xmlrpc_call(request: PypicloudRequest) -> Response:
    """XML-RPC: only ``search``, as ``pip search`` asks (compat.md 5.7)."""
    answer: tuple[Any] | xmlrpc.client.Fault
    try:
        answer = (search(request, *_search_call(request.small_body())),)
    except xmlrpc.client.Fault as fault:
        answer = fault
    text = xmlrpc.client.dumps(answer, methodresponse=True)
    return Response(body=text.encode(), content_type="text/xml", charset="utf-8")


#: The most words that are searched for at once; databases take only so many conditions in one query.
MOST_WORDS: Final = 100

#: What XML that is no call makes its readers raise.
_NO_CALL: Final = (
    expat.ExpatError,
    xmlrpc.client.Error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
)


def _refuse_document_type(*_: Any) -> Never:
    raise BadRequest("the XML has a document type, which is not allowed")


def _search_call(body: bytes) -> tuple[dict[str, list[str]], str]:
    """The arguments of a call. A document type is refused before anything is parsed."""
    try:
        checker = expat.ParserCreate()
        checker.StartDoctypeDeclHandler = _refuse_document_type
        checker.Parse(body, True)
        arguments, method = xmlrpc.client.loads(body)
    except _NO_CALL as error:
        raise BadRequest("the body is not an XML-RPC call") from error
    if method != "search":
        raise xmlrpc.client.Fault(-32601, f"method {method!r} is not known; the only one is 'search'")
    wrong = xmlrpc.client.Fault(-32602, "search takes a struct of lists of words and the operator 'or' or 'and'")
    match arguments:
        case (dict() as given, "or" | "and" as operator):
            pass
        case _:
            raise wrong
    criteria = {}
    for key, words in given.items():
        listed = [words] if isinstance(words, str) else words
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise wrong
        criteria[key] = listed
    if sum(map(len, criteria.values())) > MOST_WORDS:
        raise xmlrpc.client.Fault(-32602, f"search takes no more than {MOST_WORDS} words")
    return criteria, str(operator)
