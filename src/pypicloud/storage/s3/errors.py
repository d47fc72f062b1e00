"""What S3 says when it does not do something, as errors of our own that name the setting or the right to look at."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from pypicloud.aws import missing_credentials
from pypicloud.errors import BackendUnavailable, FileExists, PypicloudError

LOG = logging.getLogger(__name__)

#: The rights that an operation needs, by the name that botocore has for it.
_RIGHTS: Final = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjects": "s3:ListBucket",
    "CreateBucket": "s3:CreateBucket",
    "HeadObject": "s3:GetObject (and s3:ListBucket, without which a missing object looks forbidden)",
    "GetObject": "s3:GetObject (and s3:ListBucket, without which a missing object looks forbidden)",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:GetObject and s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
}

_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})
_CONDITION: Final = frozenset({"412", "PreconditionFailed"})
_CONFLICT: Final = frozenset({"409", "ConditionalRequestConflict", "OperationAborted"})


@dataclass(frozen=True)
class _Trouble:
    """What some of the codes of S3 mean: for clients, and with the setting to look at for whoever runs the server.

    ``reason`` may have the ``{code}``, the ``{operation}``, the ``{right}`` that it needs, and ``{more}`` words of S3.
    """

    codes: frozenset[str]
    message: str
    setting: str
    reason: str
    retry_after: int | None = None


_NOT_ALLOWED: Final = _Trouble(
    frozenset({"403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"}),
    "the store does not let this server do what is asked",
    "storage.aws_access_key_id",
    "its owner may not do {right} on this bucket; the documentation has the policy that is needed{more}",
)
_BUSY: Final = _Trouble(
    frozenset(
        {
            "429",
            "500",
            "502",
            "503",
            "504",
            "BandwidthLimitExceeded",
            "InternalError",
            "RequestLimitExceeded",
            "RequestTimeout",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
        }
    ),
    "the store is too busy to answer; please try again",
    "storage.bucket",
    "S3 is too busy for {operation} ({code})",
    retry_after=5,
)
_UNABLE: Final = _Trouble(
    frozenset({"501", "NotImplemented"}),
    "the store cannot do what the settings of this server ask for",
    "storage.conditional_writes",
    "the store does not know something that {operation} asks for, most likely conditions; set this to false{more}",
)
_OTHER: Final = _Trouble(
    frozenset(), "the store refuses to do this", "storage.bucket", "S3 refuses {operation}: {code}{more}"
)
_WEBSITE: Final = _Trouble(
    frozenset(),
    "the store does not answer",
    "storage.endpoint_url",
    "a web page answers {operation} ({code}): this is the address of something else than S3, or of its console",
    retry_after=5,
)

#: What a proxy says in a web page of its own while the store behind it is away.
_GATEWAY: Final = frozenset({"502", "503", "504"})


def _disliked(setting: str, reason: str, *codes: str) -> _Trouble:
    """A value of a setting that the store does not like."""
    message = "the store cannot do what the settings of this server ask for"
    return _Trouble(frozenset(codes), message, setting, reason)


_TROUBLES: Final = (
    _NOT_ALLOWED,
    _BUSY,
    _UNABLE,
    _Trouble(frozenset({"NoSuchBucket"}), "the store has no bucket", "storage.bucket", "there is no such bucket"),
    _Trouble(
        frozenset({"301", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}),
        "the bucket is in another region",
        "storage.region_name",
        "the bucket is in another region{region}",
    ),
    _Trouble(
        frozenset(
            {
                "ExpiredToken",
                "ExpiredTokenException",
                "InvalidAccessKeyId",
                "InvalidClientTokenId",
                "InvalidSecurity",
                "InvalidToken",
                "SignatureDoesNotMatch",
                "TokenRefreshRequired",
                "UnrecognizedClientException",
            }
        ),
        "the store does not accept the credentials",
        "storage.aws_access_key_id",
        "S3 does not accept the credentials ({code})",
    ),
    _Trouble(
        frozenset({"RequestTimeTooSkewed", "RequestExpired"}),
        "the store does not accept the credentials",
        "storage.aws_access_key_id",
        "S3 does not accept the time of this machine's clock ({code})",
    ),
    _disliked(
        "storage.region_name",
        "the store makes no bucket in this region ({code})",
        "IllegalLocationConstraintException",
        "InvalidLocationConstraint",
    ),
    _disliked("storage.bucket", "a bucket cannot have this name", "InvalidBucketName"),
    _disliked("storage.bucket", "somebody else has a bucket of this name", "BucketAlreadyExists"),
    _disliked("storage.object_acl", "the bucket has no ACLs; leave it out", "AccessControlListNotSupported"),
    _disliked("storage.storage_class", "the store has no such storage class", "InvalidStorageClass"),
    _disliked(
        "storage.server_side_encryption",
        "the store has no such encryption",
        "InvalidEncryptionAlgorithmError",
        "ServerSideEncryptionConfigurationNotFoundError",
    ),
    _disliked(
        "storage.sse_kms_key_id",
        "the key cannot be used ({code})",
        "KMS.DisabledException",
        "KMS.KMSInvalidStateException",
        "KMS.NotFoundException",
    ),
)


class S3Unavailable(BackendUnavailable):
    """S3 does not do what it is asked; ``setting`` and ``reason`` are for whoever runs the server."""

    def __init__(self, message: str, setting: str, reason: str, retry_after: int | None = None) -> None:
        super().__init__(message, retry_after)
        self.setting = setting
        self.reason = reason


class ObjectMissing(PypicloudError):
    """There is no object of this key."""


class ObjectChanged(FileExists):
    """The condition of a request does not hold."""


class Conflict(BackendUnavailable):
    """Somebody else does something with the same object; it is worth trying again at once."""


@contextlib.contextmanager
def translated(*, is_logged: bool = True) -> Iterator[None]:
    """Turn what botocore raises in the block into errors of our own, and log what only this server's people may know.

    Raises :class:`ObjectMissing`, :class:`ObjectChanged`, :class:`Conflict`, and :class:`S3Unavailable` for
    everything else.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        translation = refusal(error) if isinstance(error, ClientError) else unreachable(error)
        if is_logged:
            _log(translation)
        raise translation from error


def _log(error: PypicloudError) -> None:
    if isinstance(error, S3Unavailable):
        LOG.error("%s: %s", error.setting, error.reason)


def refusal(error: Any) -> PypicloudError:
    """What a refusal of S3 is for the rest of the server; ``error`` is a ``ClientError``."""
    said, status = error.response.get("Error", {}), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, operation = str(said.get("Code", "")), error.operation_name
    is_page = is_web_page(error.response) and code not in _GATEWAY
    if code in _MISSING and (operation.startswith("Head") or not is_page):
        return ObjectMissing("there is no such object")
    if code in _CONDITION:
        return ObjectChanged("there is another object already")
    if code in _CONFLICT:
        return Conflict("somebody else changes the same file at this moment; please try again", 1)
    trouble = _WEBSITE if is_page else _trouble(code) or _trouble(str(status)) or _OTHER
    reason = trouble.reason.format(
        code=code,
        operation=operation,
        right=_RIGHTS.get(operation, f"s3:{operation}"),
        region=f", {said['Region']}" if said.get("Region") else "",
        more=f": {said['Message']}" if said.get("Message") and code not in {"403", "Forbidden"} else "",
    )
    return S3Unavailable(trouble.message, trouble.setting, reason, trouble.retry_after)


def is_web_page(answer: Mapping[str, Any]) -> bool:
    """Whether an answer, as boto3 gives it, is a page for people, which no S3 sends."""
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    # Google calls what is empty by this type, too.
    return headers.get("content-type", "").startswith("text/html") and headers.get("content-length") != "0"


def no_store(operation: str) -> S3Unavailable:
    """The error for a web page in place of what an operation should give."""
    reason = _WEBSITE.reason.format(operation=operation, code=HTTPStatus.OK.value)
    return S3Unavailable(_WEBSITE.message, _WEBSITE.setting, reason, _WEBSITE.retry_after)


def _trouble(code: str) -> _Trouble | None:
    return next((each for each in _TROUBLES if code in each.codes), None)


def unreachable(error: Exception) -> S3Unavailable:
    """What it means that no answer came, or nothing could be asked; ``error`` is a ``BotoCoreError``."""
    missing = missing_credentials(error, "storage")
    if missing is not None:
        return S3Unavailable("there are no credentials for the store", "storage.aws_access_key_id", missing)
    reason = f"S3 does not answer ({type(error).__name__}); are region and address right?"
    return S3Unavailable("the store does not answer", "storage.endpoint_url", reason, _BUSY.retry_after)
