"""What the SDK of Azure raises, as errors of our own that name the setting or the right that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from pypicloud.errors import BackendUnavailable, FileExists, PackageNotFound
from pypicloud.storage.azure_blob.address import Address

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError, DeserializationError

#: In how many seconds it is worth asking a busy service again.
BUSY: Final = 5

_URL: Final = "storage.storage_account_url"
_KEY: Final = "storage.storage_account_key"
_CONTAINER: Final = "storage.storage_container_name"

_GONE: Final = "the container is missing"
_NO_RIGHT: Final = "a right in the storage is missing"
_NOT_ACCEPTED: Final = "the storage does not accept the credentials"

_WITH_BOTH: Final = {
    "ContainerBeingDeleted": (_GONE, _CONTAINER, "the container {container!r} is just being deleted"),
    "ContainerNotFound": (_GONE, _CONTAINER, "there is no container {container!r} at {url}"),
    "KeyBasedAuthenticationNotPermitted": (
        _NOT_ACCEPTED,
        _KEY,
        "the account {account!r} takes no keys; leave the key out to use a managed identity",
    ),
}
_WITH_KEY: Final = {
    "AuthenticationFailed": (
        _NOT_ACCEPTED,
        _KEY,
        "is not a key of the account {account!r}, or the clock of this machine is wrong",
    ),
    "AuthorizationFailure": (
        _NOT_ACCEPTED,
        _KEY,
        "Azure refuses {right}: this is no key of {account!r}, or the account's network rules keep this machine out",
    ),
}
_WITH_IDENTITY: Final = {
    "AuthenticationFailed": (_NOT_ACCEPTED, _KEY, "is not set, and Azure does not accept the identity: {why}"),
    "AuthorizationFailure": (
        _NO_RIGHT,
        _KEY,
        "is not set, and Azure refuses the identity {right}; look at its roles, and at the account's network rules",
    ),
    "AuthorizationPermissionMismatch": (
        _NO_RIGHT,
        _KEY,
        "is not set, and the identity may not do {right}; give it the role {role!r}",
    ),
    "InvalidAuthenticationInfo": (_NOT_ACCEPTED, _KEY, "is not set, and Azure does not accept the identity: {why}"),
}
_NO_IDENTITY: Final = (
    "there are no credentials for the storage",
    _KEY,
    "is not set, and there is no identity in its place: {why}",
)
_OTHER: Final = ("the storage refuses to answer", _URL, "Azure refuses {right}: {why} ({code})")
_BUSY: Final = ("the storage is too busy to answer; please try again", _URL, "Azure is too busy: {status} {code}")
_NOBODY: Final = ("the storage does not answer", _URL, "no Blob service answers at {url} ({kind}); is that the place?")

#: What is answered if a blob is not in the state that the request asks for.
_CONDITION: Final = frozenset({"BlobAlreadyExists", "ConditionNotMet", "InvalidBlockList"})


@dataclass(frozen=True)
class Right:
    """A right of an identity: the action as Azure names it, and a built-in role that has it."""

    action: str
    role: str = "Storage Blob Data Contributor"

    def __str__(self) -> str:
        return f"Microsoft.Storage/storageAccounts/blobServices/{self.action}"


LOOK: Final = Right("containers/read")
CREATE: Final = Right("containers/write")
READ: Final = Right("containers/blobs/read")
WRITE: Final = Right("containers/blobs/write")
DELETE: Final = Right("containers/blobs/delete")
SIGN: Final = Right("generateUserDelegationKey/action", "Storage Blob Delegator")


class AzureUnavailable(BackendUnavailable):
    """Azure does not answer as it should; ``setting`` and ``reason`` are for whoever looks after the server."""

    def __init__(self, message: str, setting: str, reason: str, retry_after: int | None = None) -> None:
        super().__init__(message, retry_after)
        self.setting = setting
        self.reason = reason


def translated(error: AzureError | DeserializationError, right: Right, address: Address) -> Exception:
    """The error that the server raises; an identity needs the right for what was asked."""
    code, status = _code(error), getattr(error, "status_code", None)
    if code in _CONDITION:
        return FileExists("the file is stored already, or was changed at the same moment")
    if code == "BlobNotFound" or (status == HTTPStatus.NOT_FOUND and not code):
        return PackageNotFound("the file is not in the storage")
    if status == HTTPStatus.TOO_MANY_REQUESTS or (status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message, setting, template = _BUSY
        return AzureUnavailable(message, setting, template.format(status=status, code=code).rstrip(), BUSY)
    return _refusal(error, code or (f"status {status}" if status else ""), right, address)


def missing_container(address: Address) -> AzureUnavailable:
    """The error for a container that is not there."""
    message, setting, reason = _WITH_BOTH["ContainerNotFound"]
    return AzureUnavailable(message, setting, reason.format(container=address.container, url=address.url))


def _refusal(error: AzureError | DeserializationError, code: str, right: Right, address: Address) -> AzureUnavailable:
    from azure.core.exceptions import ClientAuthenticationError

    found = (_WITH_IDENTITY if address.key is None else _WITH_KEY).get(code) or _WITH_BOTH.get(code)
    if found is None and isinstance(error, ClientAuthenticationError) and not code:
        found = _NO_IDENTITY
    message, setting, template = found or (_OTHER if code else _NOBODY)
    reason = template.format(
        account=address.account,
        container=address.container,
        url=address.url,
        right=right,
        role=right.role,
        code=code,
        kind=type(error).__name__,
        why=str(error).partition("\n")[0],
    )
    return AzureUnavailable(message, setting, reason)


def _code(error: AzureError | DeserializationError) -> str:
    """What Azure calls an error; nothing if it did not come from there."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")
