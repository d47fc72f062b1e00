"""A bucket in Google Cloud Storage as the storage speaks to it: the SDK's client, which is bounded in time."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from pypicloud.errors import FileExists, SettingError
from pypicloud.storage.gcs.failures import (
    KEY_FILE_KEY,
    LIST,
    MAKE,
    SIGN,
    Address,
    GCSUnavailable,
    asking,
)

LOG = logging.getLogger(__name__)

#: What tokens are good for; what may be done with them, the rights of the account say.
SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)

#: The pauses before a request is made again, in seconds: the first, and the longest.
PAUSES: Final = (0.2, 2.0)

#: For how many seconds a request is made again, beyond those that the service may be silent.
PATIENCE: Final = 2

#: The settings that errors are about.
EMAIL_KEY: Final = "storage.iam_signer_service_account_email"
PROJECT_KEY: Final = "storage.gcp_project_id"

#: The SDK's bucket and all that comes from it: the SDK has no types.
SDK: TypeAlias = Any


class Bucket:
    """A bucket, shared by all threads; its connections are made anew after a fork.

    ``factory`` gives the SDK's bucket, where that is not to be made from the address.
    """

    def __init__(self, address: Address, factory: Callable[[], SDK] | None = None) -> None:
        self.address = address
        self._factory = factory or self._open
        self._made: tuple[int, SDK] | None = None
        self._signing: tuple[int, SDK] | None = None

    @property
    def sdk(self) -> SDK:
        """The SDK's bucket of this process. To be asked for within :meth:`asking`: it looks for credentials."""
        made = self._made
        if made is None or made[0] != os.getpid():
            # Two threads may both do it once; a lock might be held for ever in a process that was forked.
            made = self._made = (os.getpid(), self._factory())
        return made[1]

    def asking(self, permission: str, *, is_logged: bool = True) -> AbstractContextManager[None]:
        """Translate what the SDK raises, see :func:`pypicloud.storage.gcs.failures.asking`."""
        return asking(self.address, permission, is_logged=is_logged)

    def retry(self) -> SDK:
        """How the SDK is to repeat what failed by accident."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(self.address.read_timeout + PATIENCE).with_delay(*PAUSES, 2)

    @property
    def options(self) -> dict[str, Any]:
        """How the SDK is to make a request that can be repeated."""
        return {"timeout": self.address.timeout, "retry": self.retry()}

    def _open(self) -> SDK:
        # It takes a while, and whoever has another storage never needs it.
        from google.cloud import storage

        from pypicloud.storage.gcs import transport

        # It would ask about the bucket in the background, to which there need be no right.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        address = self.address
        credentials, project = credentials_of(address.key_file)
        client = storage.Client(
            address.project or project,
            credentials,
            _http=transport.authorized(credentials, address.timeout),
            client_options={"api_endpoint": address.endpoint} if address.endpoint else None,
        )
        return client.bucket(address.bucket)

    def prepare(self, location: str | None, storage_class: str | None, may_make: Callable[[], None]) -> None:
        """Make the bucket if it is missing. Raises :class:`GCSUnavailable`, unlogged, if it cannot be used.

        ``may_make`` is called before, and raises if it is not to be made. Raises :class:`SettingError` for a key
        file that cannot be read.
        """
        if not self._is_there():
            may_make()
            self._make(location, storage_class)

    def _is_there(self) -> bool:
        from google.api_core.exceptions import NotFound

        with self.asking(LIST, is_logged=False):
            try:
                self._first(**self.options)
            except NotFound:
                return False
        return True

    def look(self) -> None:
        """Ask for an object, without much patience."""
        with self.asking(LIST):
            self._first(timeout=self.address.timeout, retry=None)

    def _first(self, **options: Any) -> None:
        # That needs no right but those that the storage needs anyway.
        next(iter(self.sdk.list_blobs(max_results=1, fields="items(name)", **options)), None)

    def _make(self, location: str | None, storage_class: str | None) -> None:
        bucket = self.sdk
        if bucket.client.project is None:
            reason = f"is required to make the bucket {self.address.bucket!r}, as the credentials name no project"
            raise GCSUnavailable(PROJECT_KEY, reason)
        if storage_class:
            bucket.storage_class = storage_class
        try:
            with self.asking(MAKE, is_logged=False):
                bucket.create(location=location, **self.options)
            LOG.info("Made the bucket %r", self.address.bucket)
        except FileExists:
            # Another server has made it just now, or somebody else long ago.
            with self.asking(LIST, is_logged=False):
                self._first(**self.options)

    # Links

    def url(self, key: str) -> str:
        """The URL from which everybody can download who may read the object."""
        return f"{self.sdk.client.api_endpoint}/{self.sdk.name}/{quote(key, safe='/~')}"

    def signed_url(self, key: str, seconds: int) -> str:
        """The URL that lets anybody read an object for so many seconds."""
        with self.asking(SIGN):
            url: str = self.sdk.blob(key).generate_signed_url(
                dt.timedelta(seconds=seconds), version="v4", credentials=self._signer()
            )
        return url

    def check_signer(self) -> None:
        """Raise :class:`GCSUnavailable`, unlogged, if there is nobody who could sign URLs."""
        with self.asking(SIGN, is_logged=False):
            self._signer()

    def _signer(self) -> SDK:
        """Credentials that sign: those that ask, if they have a key, else those of an account that IAM signs for."""
        signing = self._signing
        if signing is None or signing[0] != os.getpid():
            signing = self._signing = (os.getpid(), self._make_signer())
        return signing[1]

    def _make_signer(self) -> SDK:
        from google.auth import iam
        from google.auth.credentials import Signing
        from google.oauth2 import service_account

        from pypicloud.storage.gcs import transport

        address, credentials = self.address, self._session().credentials
        if isinstance(credentials, Signing) and not address.use_iam_signer:
            return credentials
        request = transport.asking(address.timeout)
        email = address.signer_email or getattr(credentials, "service_account_email", None)
        if email == "default":
            # The account of a machine has a name from the first token on.
            credentials.refresh(request)
            email = credentials.service_account_email
        if not email:
            reason = "is required: the credentials have no key, and name no service account that could sign URLs"
            raise GCSUnavailable(EMAIL_KEY, reason)
        return service_account.Credentials(iam.Signer(request, credentials, email), email, "")

    # Bytes

    def get(self, key: str, headers: dict[str, str], generation: str | None = None) -> SDK:
        """The answer to a download, of which no more than its head has been read. Raises the SDK's errors."""
        from google.api_core.exceptions import from_http_response

        bucket = self.sdk
        url = f"{bucket.client.api_endpoint}/download/storage/v1/b/{bucket.name}/o/{quote(key, safe='')}"
        query = {"alt": "media", **({"generation": generation} if generation else {})}

        def get() -> SDK:
            # Files that are compressed are sent as they are.
            given = {"Accept-Encoding": "gzip", **headers}
            answer = self._session().get(url, params=query, headers=given, timeout=self.address.timeout, stream=True)
            if not answer.ok:
                with contextlib.closing(answer):
                    raise from_http_response(answer)
            return answer

        return self.retry()(get)()

    def _session(self) -> SDK:
        return self.sdk.client._http  # noqa: SLF001 - the SDK has no other way to read an answer as it comes

    def close(self) -> None:
        """Close all connections."""
        if self._made is not None:
            self._made[1].client.close()
            self._made = self._signing = None


def credentials_of(key_file: str | None) -> tuple[SDK, str | None]:
    """The credentials in a file, else those that Google's libraries find, and their project."""
    import google.auth
    from google.oauth2 import service_account

    if key_file is None:
        credentials, project = google.auth.default(scopes=SCOPES)
        return credentials, project
    try:
        with open(key_file, encoding="utf-8") as file:
            facts = json.load(file)
        # A list or a number has no keys to look for.
        given = facts if isinstance(facts, dict) else {}
        credentials = service_account.Credentials.from_service_account_info(given, scopes=SCOPES)
    except OSError as error:
        reason = f"the file cannot be read: {error.strerror or error}"
        raise SettingError(KEY_FILE_KEY, reason, value=key_file) from error
    except ValueError as error:
        reason = "the file has no JSON key of a service account, as Google's console makes them"
        raise SettingError(KEY_FILE_KEY, reason, value=key_file) from error
    return credentials, credentials.project_id
