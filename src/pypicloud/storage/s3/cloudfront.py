"""Package files in S3 that clients get from CloudFront (compat.md 2.4)."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from pypicloud.models import Package
from pypicloud.settings import PATH, REQUIRED, TEXT, EnvironSettings, Setting
from pypicloud.storage.s3.settings import wrong
from pypicloud.storage.s3.storage import S3Storage

DOMAIN: Final = Setting(
    "storage.cloud_front_domain",
    TEXT,
    REQUIRED,
    "The address of the distribution, for example https://dabcdefgh12345.cloudfront.net.",
)
KEY_ID: Final = Setting(
    "storage.cloud_front_key_id", TEXT, "", "The id of the key that signs URLs; without one they are unsigned."
)
KEY_FILE: Final = Setting("storage.cloud_front_key_file", PATH, None, "The file of the private key that signs URLs.")
KEY_STRING: Final = Setting(
    "storage.cloud_front_key_string",
    TEXT,
    "",
    "The private key itself, in place of a file: PEM, with its line ends or \\n.",
    secret=True,
)


class CloudFrontS3Storage(S3Storage):
    """Keeps package files in a bucket of S3 and lets clients get them from CloudFront.

    ``crypto_pk`` is a private RSA key of the package ``cryptography``.
    """

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*S3Storage.SETTINGS, DOMAIN, KEY_ID, KEY_FILE, KEY_STRING)
    longest_expiry: ClassVar[int | None] = None

    def __init__(
        self,
        request: Any = None,
        domain: str | None = None,
        crypto_pk: Any = None,
        key_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(request, **kwargs)
        self.domain = (domain or "").rstrip("/")
        self.crypto_pk = crypto_pk
        self.key_id = key_id or None

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Read the key, and reach the bucket."""
        own = {"domain": _domain(settings), "crypto_pk": _key(settings), "key_id": KEY_ID.read(settings) or None}
        return {**super().configure(settings), **own}

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Look at the key, too."""
        super().check(settings)
        _domain(settings)
        _key(settings)

    def _generate_url(self, package: Package) -> str:
        url = f"{self.domain}/{quote(self.get_path(package), safe='/~')}"
        if self.key_id is None or self.crypto_pk is None:
            return url
        from botocore.signers import CloudFrontSigner

        signer = CloudFrontSigner(self.key_id, self._signature)
        expires = datetime.fromtimestamp(int(time.time()) + self.expire_after, UTC)
        signed: str = signer.generate_presigned_url(url, date_less_than=expires)
        return signed

    def _signature(self, message: bytes) -> bytes:
        """What CloudFront wants to see under a policy: RSA with SHA-1."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA1

        signature: bytes = self.crypto_pk.sign(message, PKCS1v15(), SHA1())  # noqa: S303 - it takes no other
        return signature


def _domain(settings: EnvironSettings) -> str:
    domain = DOMAIN.read(settings)
    if not re.fullmatch(r"https?://[^\s?#]+", domain):
        reason = "must be an address with its scheme, for example https://dabcdefgh12345.cloudfront.net"
        raise wrong(settings, DOMAIN, reason, domain)
    return domain


def _key(settings: EnvironSettings) -> Any:
    """The private key, or None for URLs without a signature. Raises :class:`SettingError`."""
    text, file = KEY_STRING.read(settings), KEY_FILE.read(settings)
    if not KEY_ID.read(settings):
        return None
    if text:
        return _loaded(text.replace("\\n", "\n").encode(), KEY_STRING, settings)
    if file is None:
        reason = f"needs {KEY_FILE.key} or {KEY_STRING.key}, too; without all of them URLs are unsigned"
        raise wrong(settings, KEY_ID, reason)
    try:
        return _loaded(Path(file).read_bytes(), KEY_FILE, settings)
    except OSError as error:
        raise wrong(settings, KEY_FILE, f"cannot be read: {os.strerror(error.errno or 0)}", file) from error


def _loaded(pem: bytes, setting: Setting[Any], settings: EnvironSettings) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise wrong(settings, setting, "is no private key in PEM without a password") from error
    if not isinstance(key, RSAPrivateKey):
        raise wrong(settings, setting, "must be an RSA key: CloudFront's signatures are made with one here")
    return key
