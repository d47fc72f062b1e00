"""The two DynamoDB tables: their names, how they are made, and what an existing one must be like (compat.md 3.4)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Final

from pypicloud.cache.dynamo.client import Dynamo, DynamoUnavailable, TableInUse, TableMissing
from pypicloud.errors import BackendUnavailable, SettingError

#: The index of the packages by project.
INDEX: Final = "name-index"

#: How many seconds a new table may take.
PATIENCE: Final = 180.0

#: How often a new table is looked at, in seconds.
_PAUSE: Final = 0.2

#: The setting that is to blame for a table that cannot be used.
_SETTING: Final = "db.tablenames"


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of the tables: of the packages, and of the projects' summaries."""

    packages: str
    summaries: str


def table_names(namespace: str, names: tuple[str, ...]) -> Tables:
    """The names with their prefix. Raises ValueError if DynamoDB cannot have such tables."""
    try:
        packages, summaries = (namespace + name for name in names)
    except ValueError:
        raise ValueError("must be the names of exactly two tables, with a space between") from None
    if packages == summaries:
        raise ValueError("must be the names of two different tables")
    for name in (packages, summaries):
        if not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", name):
            raise ValueError(f"{name!r} can be no table: it must be 3 to 255 letters, digits, _, - and .")
    return Tables(packages, summaries)


def ensure(dynamo: Dynamo, tables: Tables) -> None:
    """Make the tables that are missing, and wait until they can be used.

    Existing ones are never changed. Raises :class:`SettingError` for one that cannot be used, naming what is wrong.
    """
    try:
        for table, key in ((tables.packages, "filename"), (tables.summaries, "name")):
            if _describe(dynamo, table) is None:
                _create(dynamo, table, key)
        packages, summaries = _ready(dynamo, tables.packages, "filename"), _ready(dynamo, tables.summaries, "name")
    except DynamoUnavailable as error:
        raise SettingError(error.setting, error.reason) from error
    _check_key(tables.packages, packages, "filename")
    _check_index(tables.packages, packages)
    _check_key(tables.summaries, summaries, "name")


def _describe(dynamo: Dynamo, table: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = dynamo.call("describe_table", TableName=table)["Table"]
    except TableMissing:
        return None
    return found


def _create(dynamo: Dynamo, table: str, key: str) -> None:
    """Make a table, billed on demand; the one whose items are files gets the index."""
    layout: dict[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
    }
    if key == "filename":
        layout["AttributeDefinitions"].append({"AttributeName": "name", "AttributeType": "S"})
        by_name = {"IndexName": INDEX, "KeySchema": [{"AttributeName": "name", "KeyType": "HASH"}]}
        layout["GlobalSecondaryIndexes"] = [{**by_name, "Projection": {"ProjectionType": "ALL"}}]
    try:
        dynamo.call("create_table", TableName=table, BillingMode="PAY_PER_REQUEST", **layout)
    except TableInUse:
        # Another server was first, which is as good.
        return


def _ready(dynamo: Dynamo, table: str, key: str) -> dict[str, Any]:
    """What a table is like, once it and its indexes can be used."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = _describe(dynamo, table)
        if found is None:
            # Somebody has deleted it meanwhile, as 1.3.12 does when it rebuilds its cache.
            _create(dynamo, table, key)
        else:
            indexes = found.get("GlobalSecondaryIndexes", ())
            states = {found["TableStatus"], *(index.get("IndexStatus", "ACTIVE") for index in indexes)}
            if states <= {"ACTIVE", "UPDATING"}:
                return found
        time.sleep(_PAUSE)
    raise BackendUnavailable(f"the DynamoDB table {table} was not ready within {PATIENCE:.0f} seconds")


def _check_key(table: str, found: dict[str, Any], key: str) -> None:
    if _keys(found) != [(key, "HASH")]:
        raise SettingError(_SETTING, f"the key of the table {table} is not {key!r} alone; it belongs to something else")
    if _types(found).get(key) != "S":
        raise SettingError(_SETTING, f"the key {key!r} of the table {table} is no string")


def _check_index(table: str, found: dict[str, Any]) -> None:
    index = next((each for each in found.get("GlobalSecondaryIndexes", ()) if each["IndexName"] == INDEX), None)
    if index is None:
        raise SettingError(_SETTING, f"the table {table} has no index {INDEX!r}")
    if _keys(index) != [("name", "HASH")] or _types(found).get("name") != "S":
        raise SettingError(_SETTING, f"the key of the index {INDEX!r} of the table {table} is not the string 'name'")
    if index["Projection"]["ProjectionType"] != "ALL":
        raise SettingError(_SETTING, f"the index {INDEX!r} of the table {table} does not have all attributes")


def _keys(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["AttributeName"], each["KeyType"]) for each in found["KeySchema"]]


def _types(found: dict[str, Any]) -> dict[str, str]:
    return {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
