"""Amazon's services as a command asks them: with the credentials of whoever runs it, and refusals in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pypicloud.aws import missing_credentials
from pypicloud.errors import PypicloudError

#: Refusals that name no right.
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})

#: The rights that are not called as the operation is.
_ACTIONS: Final = {
    "head_bucket": "s3:ListBucket",
    "get_bucket_notification_configuration": "s3:GetBucketNotification",
    "put_bucket_notification_configuration": "s3:PutBucketNotification",
}


class Refused(PypicloudError):
    """AWS does not do something; ``code`` is its word for why, and ``headers`` are those of its answer."""

    def __init__(self, message: str, code: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers


class Amazon:
    """Amazon's services in one region. Raises :class:`PypicloudError` with what to do if they cannot be asked."""

    def __init__(self, region: str) -> None:
        import boto3  # Few commands need it.

        self._session = boto3.session.Session(region_name=region)
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """The client of a service, made when it is first wanted."""
        from botocore.exceptions import BotoCoreError

        if service not in self._clients:
            try:
                self._clients[service] = self._session.client(service)
            except (BotoCoreError, ValueError) as error:
                raise PypicloudError(f"AWS cannot be asked: {error}") from error
        return self._clients[service]

    def call(self, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """What a service answers. Raises :class:`Refused` if it does not do it."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client(service)
        try:
            answer: Mapping[str, Any] = getattr(client, operation)(**parameters)
        except ClientError as error:
            raise _translated(error, service, operation) from error
        except BotoCoreError as error:
            raise PypicloudError(f"AWS cannot be asked: {missing_credentials(error, 'storage') or error}") from error
        return answer

    def wait(self, service: str, state: str, **parameters: Any) -> None:
        """Wait until something is in a state that boto3 has a waiter for."""
        from botocore.exceptions import BotoCoreError, WaiterError

        try:
            self.client(service).get_waiter(state).wait(**parameters)
        except (WaiterError, BotoCoreError) as error:
            raise PypicloudError(f"AWS is not done with it: {error}") from error


def _translated(error: Any, service: str, operation: str) -> Refused:
    code = str(error.response["Error"].get("Code", ""))
    words = error.response["Error"].get("Message", "")
    action = _ACTIONS.get(operation) or f"{service}:{''.join(word.capitalize() for word in operation.split('_'))}"
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if code in _DENIED:
        return Refused(f"AWS does not let you do {action}; give yourself that right: {words}", code, headers)
    return Refused(f"AWS refuses {action}: {code}: {words}", code, headers)
