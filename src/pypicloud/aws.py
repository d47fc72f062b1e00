"""What is said, for any of Amazon's services, when there are no credentials for it."""

from __future__ import annotations


def missing_credentials(error: Exception, section: str) -> str | None:
    """What to do about an error of botocore, if it is that there are no credentials; None if it is another one.

    ``section`` is what those settings begin with in which credentials can stand: ``storage`` or ``db``.
    """
    from botocore.exceptions import (  # Whoever has nothing at Amazon never needs it.
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
        TokenRetrievalError,
        UnauthorizedSSOTokenError,
    )

    credentials = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
    if not isinstance(error, (*credentials, TokenRetrievalError, UnauthorizedSSOTokenError)):
        return None
    return (
        "there are no AWS credentials: give the machine or container a role, set AWS_ACCESS_KEY_ID and "
        f"AWS_SECRET_ACCESS_KEY, or {section}.aws_access_key_id and {section}.aws_secret_access_key"
    )
