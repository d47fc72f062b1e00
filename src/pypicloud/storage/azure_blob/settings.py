"""The settings of the storage in Azure Blob Storage (compat.md 1.4)."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Any, Final
from urllib.parse import urlsplit

from pypicloud.errors import SettingError
from pypicloud.settings import REQUIRED, TEXT, EnvironSettings, Setting
from pypicloud.storage.azure_blob.address import Address
from pypicloud.storage.object_store import (
    CONNECT_TIMEOUT,
    EXPIRE_AFTER,
    PREFIX,
    READ_TIMEOUT,
    REDIRECT_URLS,
    SILENCE,
)
from pypicloud.storage.start import CREATE_MISSING

ACCOUNT: Final = Setting(
    "storage.storage_account_name",
    TEXT,
    "",
    "The name of the Azure storage account; if it is not set, what the environment's AZURE_STORAGE_ACCOUNT says.",
)
KEY: Final = Setting(
    "storage.storage_account_key",
    TEXT,
    "",
    "A key of the storage account; if it is not set, what the environment's AZURE_STORAGE_KEY says. Without "
    "either, the server asks as the managed identity of its machine, or as whoever else azure-identity finds.",
    secret=True,
)
URL: Final = Setting(
    "storage.storage_account_url",
    TEXT,
    "",
    "The address of the account's Blob service; if it is not set, what the environment's "
    "AZURE_STORAGE_SERVICE_ENDPOINT says, and without either, Azure's public address for the account.",
)
CONTAINER: Final = Setting(
    "storage.storage_container_name",
    TEXT,
    REQUIRED,
    "The container of the package files; one that is missing is made.",
)
CLIENT_ID: Final = Setting(
    "storage.managed_identity_client_id",
    TEXT,
    "",
    "The client id of the managed identity, for a machine that has several.",
)

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    CREATE_MISSING,
    ACCOUNT,
    KEY,
    URL,
    CONTAINER,
    CLIENT_ID,
    PREFIX,
    EXPIRE_AFTER,
    REDIRECT_URLS,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
)

_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER: Final = re.compile(r"\$root|\$web|(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")


def own_url(account: str) -> str:
    """Azure's public address of the Blob service of an account."""
    return f"https://{account}.blob.core.windows.net"


def account_key(settings: EnvironSettings) -> str | None:
    """The account's key; None if an identity is to be used. Raises :class:`SettingError`."""
    key = _given(settings, KEY, "AZURE_STORAGE_KEY")
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(settings, KEY, "is no account key: it must be base64, as Azure's portal shows it") from error
    return key or None


def address(settings: EnvironSettings) -> Address:
    """Where the container is, and who asks. Raises :class:`SettingError`."""
    account = _given(settings, ACCOUNT, "AZURE_STORAGE_ACCOUNT")
    url = _given(settings, URL, "AZURE_STORAGE_SERVICE_ENDPOINT").rstrip("/")
    container = CONTAINER.read(settings)
    key = account_key(settings)
    if not account:
        raise _wrong(settings, ACCOUNT, "is required: the name of the storage account")
    if not url and not _ACCOUNT.fullmatch(account):
        raise _wrong(settings, ACCOUNT, "must be 3 to 24 lower-case letters and digits", account)
    if not _CONTAINER.fullmatch(container):
        reason = "must be 3 to 63 lower-case letters and digits, with single hyphens between them"
        raise _wrong(settings, CONTAINER, reason, container)
    _check_url(settings, url, has_key=key is not None)
    return Address(
        url or own_url(account),
        account,
        container,
        key,
        CLIENT_ID.read(settings) or None,
        CONNECT_TIMEOUT.read(settings),
        READ_TIMEOUT.read(settings) or SILENCE,
    )


def _check_url(settings: EnvironSettings, url: str, *, has_key: bool) -> None:
    if not url:
        return
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment or parts.username)
    except ValueError:
        is_plain = False
    if not is_plain or parts.scheme not in {"http", "https"}:
        # There may be a signature in it.
        raise _wrong(settings, URL, "must be the address of a Blob service alone, for example https://blobs.example")
    if parts.scheme == "http" and not has_key:
        raise _wrong(settings, URL, f"must begin with https:// where there is no {KEY.key}", url)


def _given(settings: EnvironSettings, setting: Setting[str], variable: str) -> str:
    return setting.read(settings) or os.environ.get(variable, "")


def _wrong(settings: EnvironSettings, setting: Setting[Any], reason: str, value: str | None = None) -> SettingError:
    return SettingError(setting.key, reason, value=value, source=settings.source(setting.key))
