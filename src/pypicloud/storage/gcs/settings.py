"""The settings of the storage in Google Cloud Storage (compat.md 1.4)."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from pypicloud.errors import SettingError
from pypicloud.settings import BOOLEAN, TEXT, EnvironSettings, Setting
from pypicloud.storage.gcs.failures import Address
from pypicloud.storage.object_store import (
    BUCKET,
    CONNECT_TIMEOUT,
    EXPIRE_AFTER,
    OBJECT_ACL,
    PREFIX,
    PREPEND_HASH,
    PUBLIC_URL,
    READ_TIMEOUT,
    REDIRECT_URLS,
    REGION,
    SILENCE,
    STORAGE_CLASS,
)
from pypicloud.storage.start import CREATE_MISSING

KEY_FILE: Final = Setting(
    "storage.gcp_service_account_json_filename",
    TEXT,
    "",
    "The file with the JSON key of a service account. Without it the server asks as whoever Google's application "
    "default credentials name: GOOGLE_APPLICATION_CREDENTIALS, or the service account of the machine.",
)
PROJECT: Final = Setting(
    "storage.gcp_project_id",
    TEXT,
    "",
    "The project in which a bucket that does not exist is made; that of the credentials if it is not set.",
)
IAM_SIGNER: Final = Setting(
    "storage.gcp_use_iam_signer",
    BOOLEAN,
    False,
    "Whether Google's IAM service signs URLs, which it does anyway for credentials without a key.",
)
SIGNER_EMAIL: Final = Setting(
    "storage.iam_signer_service_account_email",
    TEXT,
    "",
    "The service account in whose name the IAM service signs URLs; that of the credentials if it is not set.",
)
ENDPOINT: Final = Setting(
    "storage.gcp_api_endpoint", TEXT, "", "The address of the storage's API; Google's own if it is not set."
)
KMS_KEY: Final = Setting(
    "storage.gcp_kms_key_name",
    TEXT,
    "",
    "The key in Cloud KMS that encrypts new objects, projects/.../cryptoKeys/...; the bucket's own if it is not set.",
)

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    CREATE_MISSING,
    BUCKET,
    REGION,
    PREFIX,
    PREPEND_HASH,
    EXPIRE_AFTER,
    REDIRECT_URLS,
    OBJECT_ACL,
    STORAGE_CLASS,
    PUBLIC_URL,
    KEY_FILE,
    PROJECT,
    IAM_SIGNER,
    SIGNER_EMAIL,
    ENDPOINT,
    KMS_KEY,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
)

#: The words for who may read new objects, by the names that Google's older API has for them.
ACLS: Final = {
    "private": "private",
    "project-private": "projectPrivate",
    "public-read": "publicRead",
    "public-read-write": "publicReadWrite",
    "authenticated-read": "authenticatedRead",
    "bucket-owner-read": "bucketOwnerRead",
    "bucket-owner-full-control": "bucketOwnerFullControl",
}

_BUCKET: Final = re.compile(r"(?=.{3,222}\Z)[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*")
_KMS_KEY: Final = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")


def address(settings: EnvironSettings, bucket: str | None = None) -> Address:
    """Where the bucket is, and who asks. Raises :class:`SettingError`."""
    name = BUCKET.read(settings) if bucket is None else bucket
    if not _BUCKET.fullmatch(name):
        reason = "must be 3 or more lower-case letters and digits, with '-', '_' or '.' between them"
        raise wrong(settings, BUCKET, reason, name)
    for timeout in (CONNECT_TIMEOUT, READ_TIMEOUT):
        if timeout.read(settings) == 0:
            raise wrong(settings, timeout, "must be a second at least", "0")
    return Address(
        name,
        _endpoint(settings),
        KEY_FILE.read(settings) or None,
        PROJECT.read(settings) or None,
        IAM_SIGNER.read(settings),
        SIGNER_EMAIL.read(settings) or None,
        CONNECT_TIMEOUT.read(settings),
        READ_TIMEOUT.read(settings) or SILENCE,
    )


def acl(settings: EnvironSettings) -> str | None:
    """Who may read new objects, as the API says it; None leaves it to the bucket. Raises :class:`SettingError`."""
    word = OBJECT_ACL.read(settings)
    name = ACLS.get(word, word)
    if name and name not in ACLS.values():
        raise wrong(settings, OBJECT_ACL, f"must be one of {', '.join(ACLS)}", word)
    return name or None


def kms_key(settings: EnvironSettings) -> str | None:
    """The key that encrypts new objects; None for the bucket's own. Raises :class:`SettingError`."""
    name = KMS_KEY.read(settings)
    if name and not _KMS_KEY.fullmatch(name):
        reason = "must be the whole name of a key, projects/.../locations/.../keyRings/.../cryptoKeys/..."
        raise wrong(settings, KMS_KEY, reason, name)
    return name or None


def _endpoint(settings: EnvironSettings) -> str | None:
    url = ENDPOINT.read(settings).rstrip("/")
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname) and parts.port != 0 and not (parts.path or parts.query or parts.fragment)
    except ValueError:
        is_plain = False
    if url and (not is_plain or parts.scheme not in {"http", "https"} or parts.username is not None):
        raise wrong(settings, ENDPOINT, "must be the address of a server alone, for example https://storage.example")
    return url or None


def wrong(settings: EnvironSettings, setting: Setting[Any], reason: str, value: str | None = None) -> SettingError:
    """The error for a setting that cannot be used."""
    key = setting.spelling(settings)
    return SettingError(key, reason, value=value, source=settings.source(key))
