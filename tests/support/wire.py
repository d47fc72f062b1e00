"""Requests as they come off the wire: any path, any header, any body; and what every refusal looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from webtest import TestRequest, TestResponse

from support.world import Index, RawRequest, basic

#: The keys of every JSON error.
ERROR_KEYS = {"error", "message", "code", "title", "id"}

BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def send(
    index: Index,
    method: str,
    path: str | bytes,
    body: bytes = b"",
    *,
    user: str | None = "alice",
    headers: Mapping[str, str] | None = None,
    query: str = "",
    **environ: Any,
) -> TestResponse:
    """The answer to a request. ``path`` is what the server makes of the URL, decoded; ``headers`` beat the user's."""
    raw = path if isinstance(path, bytes) else path.encode()
    request: TestRequest = RawRequest.blank("/", method=method)
    request.environ.update(PATH_INFO=raw.decode("latin-1"), QUERY_STRING=query)
    if body:
        request.body = body
    for name, value in {**({} if user is None else basic(user)), **(headers or {})}.items():
        key = name.upper().replace("-", "_")
        request.environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    request.environ.update(environ)
    return index.app.do_request(request, expect_errors=True)


def part(name: str | None, value: str | bytes, filename: str | bytes | None = None, *lines: str) -> bytes:
    """One field of a form; with a file name it is a file. ``lines`` are more headers."""
    header = b"Content-Disposition: form-data"
    if name is not None:
        header += f'; name="{name}"'.encode()
    if filename is not None:
        header += b'; filename="' + (filename if isinstance(filename, bytes) else filename.encode()) + b'"'
    data = value if isinstance(value, bytes) else value.encode()
    return b"\r\n".join([header, *(line.encode() for line in lines), b"", data, b""])


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """A whole form."""
    line = f"--{boundary}".encode()
    return b"".join(line + b"\r\n" + each for each in parts) + line + b"--\r\n"


def upload_form(content: bytes, filename: str | bytes, **fields: str) -> bytes:
    """The form of an upload, its file last."""
    return form(*(part(name, value) for name, value in fields.items()), part("content", content, filename))


def post(index: Index, body: bytes, path: str = "/simple/", **options: Any) -> TestResponse:
    """The answer to a form, as JSON if it is a refusal."""
    headers = {"Content-Type": MULTIPART, "Accept": "application/json", **options.pop("headers", {})}
    return send(index, "POST", path, body, headers=headers, **options)


def refusal(answer: TestResponse) -> tuple[int, str, str]:
    """Status, key and sentence of a JSON error, which must have the one shape."""
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json
    assert set(error) == ERROR_KEYS
    assert error["code"] == f"{answer.status_int} {error['message']}"
    return answer.status_int, error["error"], error["message"]


def stored(index: Index) -> dict[str, tuple[bytes, int]]:
    """Every file of the storage directory, temporary ones included, with its bytes and its time."""
    folder = Path(index.settings["storage.dir"])
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def listed(index: Index, user: str = "root") -> list[str]:
    """The file names of every project, as the API shows them to an administrator."""
    names = send(index, "GET", "/api/package/", user=user).json["packages"]
    found = [send(index, "GET", f"/api/package/{name}/", user=user).json["packages"] for name in names]
    return sorted(row["filename"] for rows in found for row in rows)
