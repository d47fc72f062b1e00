"""Every error of the server, with the HTTP status and the key that a client sees.

::

    PypicloudError                  500 internal
    ├── SettingError                    a value in the ini file or the environment; stops the start
    ├── BadRequest                  400 bad-request
    │   ├── InvalidUpload           400 invalid-upload       form, name, version or file name
    │   │   └── InvalidDistribution 400 invalid-distribution the archive itself
    │   └── DigestMismatch          400 digest-mismatch
    ├── LoginRequired               401 login-required
    ├── Forbidden                   403 forbidden
    ├── NotFound                    404 not-found
    │   ├── ProjectNotFound         404 project-not-found
    │   └── PackageNotFound         404 package-not-found
    ├── NotAcceptable               406 not-acceptable
    ├── FileExists                  409 file-exists
    ├── TooLarge                    413 too-large
    ├── TooManyAttempts             429 too-many-attempts
    ├── NotSupported                501 not-supported        the configured backend cannot do this
    ├── BackendUnavailable          503 backend-unavailable  storage, cache or access does not answer
    └── StorageFull                 507 storage-full

A view returns 2xx and 3xx and raises one of these for the rest; ``pypicloud.views`` turns them into
responses in one place. The message is for the client: it says what was wrong, with which value, and
what to do, and never holds a path, a query or a secret. The cause goes to the log.
"""

from __future__ import annotations

import errno
from http import HTTPStatus
from typing import ClassVar, Final


class PypicloudError(Exception):
    """Something the server says no to, or could not do."""

    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    key: ClassVar[str] = "internal"

    #: In how many seconds it is worth trying again; None if nobody knows.
    retry_after: int | None = None

    @property
    def message(self) -> str:
        """The sentence for the client."""
        return str(self)


class SettingError(PypicloudError):
    """A setting has a value that cannot be used; the server does not start with it."""

    key = "setting"

    def __init__(self, setting: str, reason: str, *, value: str | None = None, source: str | None = None) -> None:
        shown = "" if value is None else f" = {value!r}"
        origin = "" if source is None else f" ({source})"
        super().__init__(f"{setting}{shown}{origin}: {reason}")
        self.setting = setting
        self.reason = reason
        self.value = value
        self.source = source


class BadRequest(PypicloudError):
    """The request itself is wrong."""

    status = HTTPStatus.BAD_REQUEST
    key = "bad-request"


class InvalidUpload(BadRequest):
    """The upload form, the name, the version or the file name cannot be accepted."""

    key = "invalid-upload"


class InvalidDistribution(InvalidUpload):
    """The uploaded file is not a sound wheel or source distribution."""

    key = "invalid-distribution"


class DigestMismatch(BadRequest):
    """The bytes that arrived are not those whose digest was sent."""

    key = "digest-mismatch"


class LoginRequired(PypicloudError):
    """Who asks is unknown, and this needs to be known."""

    status = HTTPStatus.UNAUTHORIZED
    key = "login-required"


class Forbidden(PypicloudError):
    """Who asks is known and may not do this."""

    status = HTTPStatus.FORBIDDEN
    key = "forbidden"


class NotFound(PypicloudError):
    """There is nothing here."""

    status = HTTPStatus.NOT_FOUND
    key = "not-found"


class ProjectNotFound(NotFound):
    """No project of this name that the caller may see."""

    key = "project-not-found"


class PackageNotFound(NotFound):
    """No file of this name that the caller may see."""

    key = "package-not-found"


class NotAcceptable(PypicloudError):
    """None of the formats the client accepts can be made (standards: PEP 691)."""

    status = HTTPStatus.NOT_ACCEPTABLE
    key = "not-acceptable"


class FileExists(PypicloudError):
    """A file of this name, with other bytes, is stored already."""

    status = HTTPStatus.CONFLICT
    key = "file-exists"


class TooLarge(PypicloudError):
    """The body is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    key = "too-large"


class TooManyAttempts(PypicloudError):
    """Too many failed logins; the next is looked at in ``retry_after`` seconds."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    key = "too-many-attempts"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotSupported(PypicloudError):
    """The configured backend cannot do this."""

    status = HTTPStatus.NOT_IMPLEMENTED
    key = "not-supported"


class BackendUnavailable(PypicloudError):
    """A backend does not answer, or cannot write."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    key = "backend-unavailable"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StorageFull(PypicloudError):
    """There is no room left for the bytes."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    key = "storage-full"


#: What the operating system calls a lack of room: on the device, in the quota, under the limit of a file's size.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def not_written(error: OSError) -> StorageFull | BackendUnavailable:
    """What it means to the client that the operating system would not write."""
    if error.errno in _FULL:
        return StorageFull("there is no room left to store the file; ask the administrator of this index")
    return BackendUnavailable("the storage cannot be written at the moment; ask the administrator of this index")
