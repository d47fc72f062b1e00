"""The settings of the storages in S3 (compat.md 1.4): our own, and the options of boto3 by their own names."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import Any, Final

from pypicloud.errors import SettingError
from pypicloud.settings import (
    BOOLEAN,
    FALSE_WORDS,
    INTEGER,
    SIZE,
    TEXT,
    TRUE_WORDS,
    EnvironSettings,
    Finding,
    Kind,
    Setting,
    as_bool,
    one_of,
)
from pypicloud.storage.object_store import (
    BUCKET,
    CONNECT_TIMEOUT,
    ENCRYPTION,
    OBJECT_ACL,
    READ_TIMEOUT,
    REGION,
    STORAGE_CLASS,
    WEBHOOK_SECRET,
)


class Owner(enum.Enum):
    """What takes an option of boto3."""

    SESSION = "Session"
    RESOURCE = "resource"
    CONFIG = "Config"
    S3 = "s3"
    RETRIES = "retries"
    PROXIES = "proxies_config"


def _pairs(text: str) -> dict[str, str]:
    """One ``key=value`` a line (compat.md 1.1)."""
    pairs = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, is_pair, value = line.partition("=")
        if not is_pair:
            raise ValueError("must be one key=value on each line, for example http=http://proxy.example:3128")
        pairs[key.strip()] = value.strip()
    return pairs


def _verify(text: str) -> bool | str:
    """Whether certificates are checked, or the file of those that are trusted."""
    word = text.strip().lower()
    if word in TRUE_WORDS | FALSE_WORDS:
        return as_bool(word)
    return text.strip()


def _certificate(text: str) -> str | tuple[str, ...]:
    """One file, or a certificate and its key in two."""
    files = tuple(text.split())
    if len(files) not in {1, 2}:
        raise ValueError("must be a file, or the file of a certificate and that of its key, apart by a space")
    return files[0] if len(files) == 1 else files


PAIRS: Final = Kind("one key=value per line", _pairs)
VERIFY: Final = Kind("boolean or path", _verify)
CERTIFICATE: Final = Kind("one or two paths", _certificate)
CHECKSUMS: Final = one_of("when_supported", "when_required")

SIGNATURE: Final = Setting(
    "storage.signature_version",
    TEXT,
    "s3v4",
    "How requests and URLs are signed: s3v4, or s3 for a server that knows nothing newer.",
)
ENDPOINT: Final = Setting(
    "storage.endpoint_url",
    TEXT,
    "",
    "The address of an S3 that is not Amazon's, for example https://minio.example:9000.",
)
ACCESS_KEY: Final = Setting(
    "storage.aws_access_key_id",
    TEXT,
    "",
    "The access key. Without it boto3 looks where it always does: environment, configuration files, role.",
    was=("storage.access_key", "aws.access_key"),
)
SECRET_KEY: Final = Setting(
    "storage.aws_secret_access_key",
    TEXT,
    "",
    "The secret of the access key.",
    was=("storage.secret_key", "aws.secret_key"),
    secret=True,
)
SESSION_TOKEN: Final = Setting(
    "storage.aws_session_token", TEXT, "", "The session token of temporary credentials.", secret=True
)
POOL: Final = Setting("storage.max_pool_connections", INTEGER, 64, "How many connections are kept.")
ATTEMPTS: Final = Setting("storage.max_attempts", INTEGER, 3, "How often a request is made at most.")
REQUEST_CHECKSUMS: Final = Setting(
    "storage.request_checksum_calculation",
    CHECKSUMS,
    None,
    "Whether uploads carry a checksum of boto3's: when_supported, as Amazon's do, or when_required, as those to an "
    "endpoint_url do, because many other servers refuse them.",
)
RESPONSE_CHECKSUMS: Final = Setting(
    "storage.response_checksum_validation",
    CHECKSUMS,
    None,
    "Whether boto3 checks downloads against checksums of the store: when_supported or when_required, as above.",
)

#: How many seconds the store may be silent, unless a setting says so.
SILENCE: Final = 15

#: The options of boto3, and who takes them.
OPTIONS: Final[tuple[tuple[Owner, Setting[Any]], ...]] = (
    (Owner.SESSION, ACCESS_KEY),
    (Owner.SESSION, SECRET_KEY),
    (Owner.SESSION, SESSION_TOKEN),
    (
        Owner.SESSION,
        Setting("storage.profile_name", TEXT, "", "The profile of AWS's configuration files that is used."),
    ),
    (Owner.RESOURCE, REGION),
    (Owner.RESOURCE, ENDPOINT),
    (Owner.RESOURCE, Setting("storage.api_version", TEXT, "", "The version of the API that boto3 speaks.")),
    (Owner.RESOURCE, Setting("storage.use_ssl", BOOLEAN, None, "Whether Amazon is reached over HTTPS.")),
    (
        Owner.RESOURCE,
        Setting("storage.verify", VERIFY, None, "False to trust any certificate, or the file of those to trust."),
    ),
    (Owner.CONFIG, SIGNATURE),
    (Owner.CONFIG, Setting("storage.user_agent", TEXT, "", "What requests say that they come from.")),
    (
        Owner.CONFIG,
        Setting("storage.user_agent_extra", TEXT, "", "What requests say that they come from, in addition."),
    ),
    (Owner.CONFIG, Setting("storage.user_agent_appid", TEXT, "", "The name of this server in AWS's own records.")),
    (Owner.CONFIG, CONNECT_TIMEOUT),
    (Owner.CONFIG, READ_TIMEOUT),
    (Owner.CONFIG, POOL),
    (Owner.CONFIG, Setting("storage.parameter_validation", BOOLEAN, None, "Whether boto3 checks what it is told.")),
    (Owner.CONFIG, Setting("storage.proxies", PAIRS, None, "The proxies on the way, by protocol: http=..., https=...")),
    (
        Owner.CONFIG,
        Setting("storage.client_cert", CERTIFICATE, None, "The certificate this server shows: one file or two."),
    ),
    (Owner.CONFIG, Setting("storage.tcp_keepalive", BOOLEAN, None, "Whether idle connections are kept alive.")),
    (Owner.CONFIG, Setting("storage.inject_host_prefix", BOOLEAN, None, "Whether hosts may get a prefix.")),
    (Owner.CONFIG, Setting("storage.use_dualstack_endpoint", BOOLEAN, None, "Whether Amazon is reached by IPv6, too.")),
    (Owner.CONFIG, Setting("storage.use_fips_endpoint", BOOLEAN, None, "Whether Amazon's FIPS endpoints are used.")),
    (
        Owner.CONFIG,
        Setting(
            "storage.ignore_configured_endpoint_urls",
            BOOLEAN,
            None,
            "Whether AWS_ENDPOINT_URL and the like are ignored.",
        ),
    ),
    (Owner.CONFIG, REQUEST_CHECKSUMS),
    (Owner.CONFIG, RESPONSE_CHECKSUMS),
    (
        Owner.CONFIG,
        Setting("storage.sigv4a_signing_region_set", TEXT, "", "The regions that a signature of SigV4a is good for."),
    ),
    (Owner.CONFIG, Setting("storage.auth_scheme_preference", TEXT, "", "The kinds of signatures, the best first.")),
    (
        Owner.S3,
        Setting("storage.use_accelerate_endpoint", BOOLEAN, None, "Whether Amazon's transfer acceleration is used."),
    ),
    (
        Owner.S3,
        Setting(
            "storage.payload_signing_enabled", BOOLEAN, None, "Whether the bytes of uploads are signed over HTTPS, too."
        ),
    ),
    (
        Owner.S3,
        Setting(
            "storage.addressing_style",
            one_of("auto", "virtual", "path"),
            None,
            "Where the bucket stands in URLs: virtual (in the host), path, or auto, as fits.",
        ),
    ),
    (
        Owner.S3,
        Setting(
            "storage.us_east_1_regional_endpoint", one_of("regional", "legacy"), None, "Which host us-east-1 means."
        ),
    ),
    (Owner.S3, Setting("storage.use_arn_region", BOOLEAN, None, "Whether the region of a bucket's ARN counts.")),
    (Owner.RETRIES, ATTEMPTS),
    (
        Owner.RETRIES,
        Setting("storage.retry_mode", one_of("standard", "adaptive", "legacy"), "standard", "How boto3 tries again."),
    ),
    (
        Owner.PROXIES,
        Setting("storage.proxy_ca_bundle", TEXT, "", "The file of the certificates that a proxy is trusted by."),
    ),
    (Owner.PROXIES, Setting("storage.proxy_client_cert", CERTIFICATE, None, "The certificate that a proxy is shown.")),
    (
        Owner.PROXIES,
        Setting("storage.proxy_use_forwarding_for_https", BOOLEAN, None, "Whether a proxy sees what goes over HTTPS."),
    ),
)

#: What boto3 calls otherwise than we do.
_BOTO_NAMES: Final = {"max_attempts": "total_max_attempts", "retry_mode": "mode"}

KMS_KEY: Final = Setting(
    "storage.sse_kms_key_id",
    TEXT,
    "",
    "The key of AWS KMS that encrypts new objects; for server_side_encryption = aws:kms or aws:kms:dsse.",
)
CONDITIONS: Final = Setting(
    "storage.conditional_writes",
    BOOLEAN,
    True,
    "Whether the store itself sees to it that no object is overwritten. False for a server that knows no conditions.",
)
THRESHOLD: Final = Setting(
    "storage.multipart_threshold",
    SIZE,
    None,
    "From how many bytes on a file is sent in parts, several at a time: 64M, or 5G with an endpoint_url.",
)
PART_SIZE: Final = Setting(
    "storage.multipart_chunksize",
    SIZE,
    16 << 20,
    "How many bytes a part has; more where a file would have too many parts.",
)
PARTS_AT_ONCE: Final = Setting(
    "storage.max_concurrency", INTEGER, 4, "How many parts of a file are sent at the same time."
)
LISTING_THREADS: Final = Setting(
    "storage.listing_threads", INTEGER, 32, "How many objects are asked for their facts at the same time."
)

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    BUCKET,
    *(option for _, option in OPTIONS if option is not REGION),
    KMS_KEY,
    CONDITIONS,
    THRESHOLD,
    PART_SIZE,
    PARTS_AT_ONCE,
    LISTING_THREADS,
    WEBHOOK_SECRET,
)

#: The bounds of a part that S3 has, and of an object that is sent in one request.
SMALLEST_PART: Final = 5 << 20
LARGEST_PART: Final = 5 << 30

#: What Amazon allows (the first and last character are never a hyphen or a dot), and older names in us-east-1.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]|arn:[^\s]+")

#: The words for server-side encryption that there are.
_ENCRYPTIONS: Final = frozenset({"AES256", "aws:kms", "aws:kms:dsse", "aws:fsx"})

#: The words for who may do what with an object that there are.
_ACLS: Final = frozenset(
    {
        "private",
        "public-read",
        "public-read-write",
        "authenticated-read",
        "aws-exec-read",
        "bucket-owner-read",
        "bucket-owner-full-control",
        "log-delivery-write",
    }
)

#: The storage classes out of which an object has to be fetched before it can be read.
_ARCHIVES: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})


def options(settings: EnvironSettings) -> dict[Owner, dict[str, Any]]:
    """The options that are set, or have a default of ours, by who takes them. Raises :class:`SettingError`."""
    found: dict[Owner, dict[str, Any]] = {owner: {} for owner in Owner}
    for owner, setting in OPTIONS:
        value = setting.read(settings)
        if value is not None and value not in ("", {}):
            name = setting.key.removeprefix("storage.")
            found[owner][_BOTO_NAMES.get(name, name)] = value
    found[Owner.CONFIG].setdefault("read_timeout", SILENCE)
    if ENDPOINT.read(settings):
        for setting in (REQUEST_CHECKSUMS, RESPONSE_CHECKSUMS):
            found[Owner.CONFIG].setdefault(setting.key.removeprefix("storage."), "when_required")
    return found


def check(settings: EnvironSettings) -> None:
    """Raise :class:`SettingError` for what cannot work, without reaching for anything."""
    name = BUCKET.read(settings)
    if not _NAME.fullmatch(name):
        reason = "is no name of a bucket: 3 to 63 lower-case letters, digits and hyphens"
        raise wrong(settings, BUCKET, reason, name)
    key, secret, token = (each.read(settings) for each in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN))
    if bool(key) != bool(secret):
        here, there = (ACCESS_KEY, SECRET_KEY) if key else (SECRET_KEY, ACCESS_KEY)
        raise wrong(settings, here, f"needs {there.key}, too")
    if token and not key:
        raise wrong(settings, SESSION_TOKEN, f"needs {ACCESS_KEY.key} and {SECRET_KEY.key}, too")
    endpoint = ENDPOINT.read(settings)
    if endpoint and not re.fullmatch(r"https?://[^/\s@]+(/[^\s?#]*)?", endpoint):
        raise wrong(settings, ENDPOINT, "must be an address like https://minio.example:9000", endpoint)
    if KMS_KEY.read(settings) and not ENCRYPTION.read(settings).startswith("aws:kms"):
        raise wrong(settings, KMS_KEY, f"needs {ENCRYPTION.key} = aws:kms")
    for setting in (POOL, ATTEMPTS, PARTS_AT_ONCE, LISTING_THREADS):
        if setting.read(settings) < 1:
            raise wrong(settings, setting, "must be at least 1", str(setting.read(settings)))
    part_size = PART_SIZE.read(settings)
    if not SMALLEST_PART <= part_size <= LARGEST_PART:
        raise wrong(settings, PART_SIZE, "must be from 5M to 5G", str(part_size))
    if not 0 < threshold(settings) <= LARGEST_PART:
        raise wrong(settings, THRESHOLD, "must be at most 5G, as S3 takes no more in one request")


def odd(settings: EnvironSettings) -> Iterator[Finding]:
    """What most likely is not meant so."""
    name, encryption = BUCKET.read(settings), ENCRYPTION.read(settings)
    if "." in name and not name.startswith("arn:") and not ENDPOINT.read(settings):
        yield Finding(
            BUCKET.key,
            f"= {name!r} has a dot: Amazon's certificates do not cover it, so that its URLs have the bucket in their "
            f"path; {REGION.key} has to be the region of the bucket",
        )
    if encryption and encryption not in _ENCRYPTIONS:
        yield Finding(ENCRYPTION.key, f"= {encryption!r} is no encryption that S3 is known to have; it is sent so")
    acl, storage_class = OBJECT_ACL.read(settings), STORAGE_CLASS.read(settings)
    if acl and acl not in _ACLS:
        yield Finding(OBJECT_ACL.key, f"= {acl!r} is no canned ACL that S3 is known to have; it is sent so")
    if storage_class in _ARCHIVES:
        yield Finding(STORAGE_CLASS.key, f"= {storage_class!r}: nothing can be downloaded before it is restored")


def threshold(settings: EnvironSettings) -> int:
    """From how many bytes on a file is sent in parts."""
    wanted = THRESHOLD.read(settings)
    if wanted is not None:
        return wanted
    # Not all servers look at the condition of an upload in parts, as they do at that of a plain one.
    return LARGEST_PART if ENDPOINT.read(settings) else 64 << 20


def wrong(settings: EnvironSettings, setting: Setting[Any], reason: str, value: str | None = None) -> SettingError:
    """The error for a setting that cannot be used."""
    key = setting.spelling(settings)
    return SettingError(key, reason, value=value, source=settings.source(key))
