"""The settings of the cache in DynamoDB (compat.md 1.5)."""

from __future__ import annotations

import re
from typing import Any, Final

from pypicloud.cache.dynamo.tables import Tables, table_names
from pypicloud.errors import SettingError
from pypicloud.settings import BOOLEAN, INTEGER, NAMES, TEXT, EnvironSettings, Setting

REGION: Final = Setting(
    "db.region_name", TEXT, "", "The AWS region of the tables, for example eu-west-1.", was=("db.region",)
)
ACCESS_KEY: Final = Setting(
    "db.aws_access_key_id",
    TEXT,
    "",
    "The AWS access key. Without it boto3 looks where it always does: environment, configuration files, role.",
    was=("db.access_key",),
)
SECRET_KEY: Final = Setting(
    "db.aws_secret_access_key", TEXT, "", "The secret of the AWS access key.", was=("db.secret_key",), secret=True
)
SESSION_TOKEN: Final = Setting(
    "db.aws_session_token", TEXT, "", "The session token of temporary AWS credentials.", secret=True
)
PROFILE: Final = Setting("db.profile_name", TEXT, "", "The profile of AWS's configuration files that is used.")
HOST: Final = Setting("db.host", TEXT, "", "The host of a DynamoDB that is not Amazon's, for example DynamoDB Local.")
PORT: Final = Setting("db.port", INTEGER, 8000, "The port there.")
SECURE: Final = Setting("db.secure", BOOLEAN, False, "Whether the host is reached over HTTPS.")
NAMESPACE: Final = Setting("db.namespace", TEXT, "", "What the names of the tables begin with, as it stands.")
TABLENAMES: Final = Setting(
    "db.tablenames",
    NAMES,
    ("DynamoPackage", "PackageSummary"),
    "The names of the two tables: of the packages, and of the projects' summaries.",
)

#: The region of a host that is not Amazon's, which needs the name of one.
_ANY_REGION: Final = "us-east-1"

#: The last port there is.
_PORTS: Final = 65535

SETTINGS: Final[tuple[Setting[Any], ...]] = (
    REGION,
    ACCESS_KEY,
    SECRET_KEY,
    SESSION_TOKEN,
    PROFILE,
    HOST,
    PORT,
    SECURE,
    NAMESPACE,
    TABLENAMES,
)


def tables(settings: EnvironSettings) -> Tables:
    """The names of the tables. Raises :class:`SettingError`."""
    names = TABLENAMES.read(settings)
    try:
        return table_names(NAMESPACE.read(settings), names)
    except ValueError as error:
        raise _wrong(settings, TABLENAMES, str(error), " ".join(names)) from error


def session(settings: EnvironSettings) -> dict[str, str]:
    """Whose DynamoDB it is, as boto3's session takes it. Raises :class:`SettingError`."""
    key, secret, token = (each.read(settings) for each in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN))
    if bool(key) != bool(secret):
        here, there = (ACCESS_KEY, SECRET_KEY) if key else (SECRET_KEY, ACCESS_KEY)
        raise _wrong(settings, here, f"needs {there.key}, too")
    if token and not key:
        raise _wrong(settings, SESSION_TOKEN, f"needs {ACCESS_KEY.key} and {SECRET_KEY.key}, too")
    region = REGION.read(settings)
    if not region and not HOST.read(settings):
        raise SettingError(REGION.key, "is required: the AWS region of the tables, for example eu-west-1")
    given = {
        "region_name": region or _ANY_REGION,
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "aws_session_token": token,
        "profile_name": PROFILE.read(settings),
    }
    return {name: value for name, value in given.items() if value}


def address(settings: EnvironSettings) -> str | None:
    """Where DynamoDB is, if it is not Amazon's. Raises :class:`SettingError`."""
    host, port = HOST.read(settings), PORT.read(settings)
    if not host:
        return None
    if not re.fullmatch(r"[^\s/:@?#]+|\[?[0-9A-Fa-f:.]+\]?", host):
        reason = f"must be a host alone, for example localhost; {PORT.key} and {SECURE.key} say the rest"
        raise _wrong(settings, HOST, reason, host)
    if not 0 < port <= _PORTS:
        raise _wrong(settings, PORT, f"must be a port, from 1 to {_PORTS}", str(port))
    if ":" in host:
        host = f"[{host.strip('[]')}]"
    return f"{'https' if SECURE.read(settings) else 'http'}://{host}:{port}"


def _wrong(settings: EnvironSettings, setting: Setting[Any], reason: str, value: str | None = None) -> SettingError:
    key = setting.spelling(settings)
    return SettingError(key, reason, value=value, source=settings.source(key))
