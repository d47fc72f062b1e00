"""What is said when there are no credentials for Amazon's services."""

from __future__ import annotations

import pytest
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from pypicloud.aws import missing_credentials


@pytest.mark.parametrize(
    "error",
    [
        CredentialRetrievalError(provider="role", error_msg="no"),
        NoCredentialsError(),
        PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
        TokenRetrievalError(provider="sso", error_msg="no"),
        UnauthorizedSSOTokenError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("section", ["storage", "db"])
def test_missing(error: BotoCoreError, section: str) -> None:
    """Whichever way there are no credentials, it is said where they could be, in settings of that section, too."""
    said = missing_credentials(error, section)
    assert said is not None
    assert "a role, set AWS_ACCESS_KEY_ID" in said
    assert said.endswith(f"{section}.aws_access_key_id and {section}.aws_secret_access_key")


@pytest.mark.parametrize(
    "error", [EndpointConnectionError(endpoint_url="x"), ReadTimeoutError(endpoint_url="x"), ValueError("no")]
)
def test_something_else(error: Exception) -> None:
    """Of other errors nothing is said."""
    assert missing_credentials(error, "db") is None
