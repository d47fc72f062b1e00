"""What Google refuses or fails to do, in words for clients and for whoever starts the server."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pypicloud.errors import BackendUnavailable, FileExists, PackageNotFound

LOG = logging.getLogger(__name__)

#: In how many seconds it is worth asking a busy service again.
BUSY: Final = 5

#: The settings that errors are about.
BUCKET_KEY: Final = "storage.bucket"
REGION_KEY: Final = "storage.region_name"
ACL_KEY: Final = "storage.object_acl"
CLASS_KEY: Final = "storage.storage_class"
KEY_FILE_KEY: Final = "storage.gcp_service_account_json_filename"
ENDPOINT_KEY: Final = "storage.gcp_api_endpoint"
KMS_KEY: Final = "storage.gcp_kms_key_name"

#: The permissions that are needed.
LIST: Final = "storage.objects.list"
READ: Final = "storage.objects.get"
WRITE: Final = "storage.objects.create"
CHANGE: Final = "storage.objects.update"
DELETE: Final = "storage.objects.delete"
MAKE: Final = "storage.buckets.create"
SIGN: Final = "iam.serviceAccounts.signBlob"

#: The roles that have a permission, and the one that has all others.
_ROLES: Final = {
    MAKE: "Storage Admin",
    SIGN: "Service Account Token Creator",
    "storage.objects.setIamPolicy": "Storage Object Admin",
}
_ROLE: Final = "Storage Object User"

_PERMISSION: Final = re.compile(r"\b(?:storage\.(?:objects|buckets)|iam\.serviceAccounts)\.\w+\b")

#: What Google says if it is the bucket that is missing.
_NO_BUCKET: Final = "bucket does not exist"

#: What Google answers when the same request may succeed a moment later, beside all its own failures.
_BUSY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT})

#: The setting that is refused, by a word of the refusal.
_REFUSED: Final = {
    "uniform bucket-level access": ACL_KEY,
    "location": REGION_KEY,
    "storage class": CLASS_KEY,
    "kms": KMS_KEY,
}


#: What clients are told.
_REFUSES: Final = "the storage refuses to answer; ask the administrator of this index"
_SILENT: Final = "the storage does not answer; ask the administrator of this index"
_IS_BUSY: Final = "the storage is too busy to answer; please try again"


class GCSUnavailable(BackendUnavailable):
    """Google does not answer as it should; ``setting`` and ``reason`` are for whoever starts the server."""

    def __init__(self, setting: str, reason: str, message: str = _REFUSES, retry_after: int | None = None) -> None:
        super().__init__(message, retry_after)
        self.setting = setting
        self.reason = reason


@dataclass(frozen=True)
class Address:
    """Where a bucket is, and who asks: whose key is in the file, else whoever Google's libraries find."""

    bucket: str
    endpoint: str | None = None
    key_file: str | None = None
    project: str | None = None
    use_iam_signer: bool = False
    signer_email: str | None = None
    connect_timeout: int = 3
    read_timeout: int = 6

    @property
    def timeout(self) -> tuple[int, int]:
        """The time-outs of a request as the SDK takes them."""
        return self.connect_timeout, self.read_timeout


@contextlib.contextmanager
def asking(address: Address, permission: str, *, is_logged: bool = True) -> Iterator[None]:
    """Translate what the SDK raises, and log what only this server's people may know.

    The permission is what is needed for what is asked.

    Raises :class:`FileExists` if the condition of a request does not hold, :class:`PackageNotFound` if
    there is no such object, and :class:`BackendUnavailable` for everything else.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        try:
            yield
        except DataCorruption as error:
            raise BackendUnavailable("the file was damaged on its way to the storage; please try again", 1) from error
        except (GoogleAPIError, GoogleAuthError, InvalidResponse, RequestException, HTTPError) as error:
            # After the last try the SDK raises an error about that.
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, GoogleAuthError):
                raise _of_credentials(cause, address) from error
            raise _translated(cause, address, permission) from error
    except GCSUnavailable as error:
        if is_logged:
            _log(error)
        raise


def _log(error: GCSUnavailable) -> None:
    LOG.error("%s: %s", error.setting, error.reason)


def _translated(error: Any, address: Address, permission: str) -> Exception:
    status: int = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None) or 0
    said = _said(error)
    found: Exception
    if status in {HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT}:
        found = FileExists("the file is stored already, or was changed at the same moment")
    elif status == HTTPStatus.NOT_FOUND and permission in {READ, CHANGE, DELETE} and _NO_BUCKET not in said:
        found = PackageNotFound("the file is not in the storage")
    elif status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        found = GCSUnavailable(BUCKET_KEY, f"Google is too busy: {status} {said}", _IS_BUSY, BUSY)
    elif not status:
        found = silent(error, address)
    else:
        found = _refusal(status, said, address, permission)
    return found


def _refusal(status: int, said: str, address: Address, permission: str) -> GCSUnavailable:
    if status == HTTPStatus.NOT_FOUND and (permission == LIST or _NO_BUCKET in said):
        return GCSUnavailable(BUCKET_KEY, f"there is no bucket {address.bucket!r} in Google Cloud Storage")
    if status == HTTPStatus.UNAUTHORIZED:
        return GCSUnavailable(KEY_FILE_KEY, f"Google does not accept the credentials: {said}")
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(said, address, permission)
    setting = next((key for word, key in _REFUSED.items() if word in said.lower()), BUCKET_KEY)
    return GCSUnavailable(setting, f"Google refuses what needs {permission}: {said}")


def _said(error: Any) -> str:
    """What Google says about an error, without the address that the SDK puts in front."""
    details = getattr(error, "errors", None) or ()
    texts = [detail["message"] for detail in details if isinstance(detail, dict) and "message" in detail]
    text = " ".join(texts) or getattr(getattr(error, "response", None), "text", None) or str(error)
    return " ".join(text.split())


def _forbidden(said: str, address: Address, permission: str) -> GCSUnavailable:
    """The error for a permission that is missing, which may be another one than that for the plain request."""
    named = _PERMISSION.search(said)
    needed = named[0] if named else permission
    place = "the project" if needed == MAKE else f"the bucket {address.bucket!r}"
    if needed == SIGN:
        place = "the service account that signs URLs"
    reason = f"the account lacks {needed} on {place}; give it the role {_ROLES.get(needed, _ROLE)!r}"
    return GCSUnavailable(KEY_FILE_KEY, reason if named else f"{reason} ({said})")


def _of_credentials(error: Any, address: Address) -> Exception:
    """The error that a failure to get a token or a signature is."""
    from google.auth.exceptions import DefaultCredentialsError, TransportError

    said = " ".join(str(error.args[0] if error.args else error).split())
    if isinstance(error, DefaultCredentialsError):
        return GCSUnavailable(KEY_FILE_KEY, f"is not set, and there are no other credentials: {said}")
    if "signBlob API" in said:
        return _forbidden(said, address, SIGN)
    if isinstance(error, TransportError) or any(isinstance(each, TransportError) for each in error.args):
        reason = f"nobody answers who could give a token: {said}"
        return GCSUnavailable(KEY_FILE_KEY, reason, _SILENT)
    return GCSUnavailable(KEY_FILE_KEY, f"Google does not accept the credentials: {said}")


def silent(error: Exception, address: Address) -> GCSUnavailable:
    """What it means that no answer came, or broke off."""
    where = f" at {address.endpoint}" if address.endpoint else ""
    reason = f"Google Cloud Storage does not answer{where} ({type(error).__name__}); is that the right place?"
    return GCSUnavailable(ENDPOINT_KEY, reason, _SILENT)
