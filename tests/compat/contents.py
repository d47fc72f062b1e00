"""What a cache's service holds, read without the cache: to be kept as text, put back exactly, and compared."""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final, TypeAlias

import boto3
import redis
import sqlalchemy
from boto3.dynamodb.types import TypeDeserializer

#: Everything a service holds, by a key that is unlike any other.
Held: TypeAlias = dict[str, Any]

#: The facts about a file: ``name``, ``version``, ``last_modified`` in seconds, ``summary``, ``data``.
Facts: TypeAlias = dict[str, Any]

#: What a table or an index was created with, out of all that is told of it.
_CREATED_WITH: Final = (
    "IndexName",
    "AttributeDefinitions",
    "KeySchema",
    "Projection",
    "ProvisionedThroughput",
    "GlobalSecondaryIndexes",
)

_READ: Final = TypeDeserializer()


class Contents(ABC):
    """The contents of one database of a service."""

    @abstractmethod
    def read(self) -> Held:
        """All that is held."""

    def lasting(self) -> Held:
        """All that a start has to leave as it was."""
        return self.read()

    @abstractmethod
    def shape(self) -> Any:
        """What must stay as 1.3.12 made it, whatever is written: columns and indexes, or tables and their settings."""

    @abstractmethod
    def packages(self) -> dict[str, Facts]:
        """The facts about each file, as 1.3.12 reads them (compat.md 3.2-3.4), by file name.

        Raises whatever 1.3.12 would stop at, and AssertionError where it would list what it cannot show.
        """

    @abstractmethod
    def put(self, dump: str) -> None:
        """Put back into the empty database what the text says."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""


def contents(settings: Mapping[str, str]) -> Contents:
    """The database that a server with these settings has its cache in."""
    match settings["pypi.db"]:
        case "redis":
            return RedisContents(settings["db.url"], is_cluster="db.clustered" in settings)
        case "dynamo":
            return DynamoContents(settings)
        case _:
            return SQLContents(settings["db.url"])


class SQLContents(Contents):
    """A database of an SQL server; read row by row."""

    def __init__(self, url: str) -> None:
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    def read(self) -> Held:
        tables = sqlalchemy.MetaData()
        with self._engine.connect() as connection:
            tables.reflect(connection)
            return {
                f"{table.name}/{'/'.join(str(row[column]) for column in table.primary_key)}": dict(row)
                for table in tables.sorted_tables
                for row in connection.execute(table.select()).mappings()
            }

    def shape(self) -> Any:
        """The columns of the table of packages, its primary key and its indexes.

        A text may get room for more, and a collation that tells more letters apart.
        """
        with self._engine.connect() as connection:
            asked = sqlalchemy.inspect(connection)
            return {
                "columns": [
                    (told["name"], told["type"].python_type, getattr(told["type"], "length", None), told["nullable"])
                    for told in asked.get_columns("packages")
                ],
                "key": asked.get_pk_constraint("packages")["constrained_columns"],
                "indexes": sorted((index["name"], index["column_names"]) for index in asked.get_indexes("packages")),
            }

    def packages(self) -> dict[str, Facts]:
        query = sqlalchemy.text("SELECT filename, name, version, last_modified, summary, data FROM packages").columns(
            last_modified=sqlalchemy.DateTime
        )
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        for row in rows:
            row["data"] = json.loads(row["data"])
            row["last_modified"] = row["last_modified"].replace(tzinfo=UTC).timestamp()
        return {row.pop("filename"): row for row in rows}

    def put(self, dump: str) -> None:
        # Without parameters a percent sign means itself.
        with self._engine.connect().execution_options(no_parameters=True) as connection, connection.begin():
            for statement in dump.strip().split(";\n"):
                connection.exec_driver_sql(statement)

    def close(self) -> None:
        self._engine.dispose()


class RedisContents(Contents):
    """A database of Redis, or a cluster; read key by key.

    In a cluster this server has the keys of a project in one slot, and moves there what 1.3.12 wrote: each key has
    the project's name in braces. They are read as if they still were where they were.
    """

    def __init__(self, url: str, *, is_cluster: bool) -> None:
        make = redis.RedisCluster.from_url if is_cluster else redis.Redis.from_url
        self._is_cluster = is_cluster
        self._client: Any = make(url, decode_responses=True)

    def read(self) -> Held:
        """Each key and its value: a text, the fields of a hash, or the members of a set."""
        return {_unmoved(key): self._value(key) for key in self._client.scan_iter("*", count=1000)}

    def lasting(self) -> Held:
        """Everything; but what is moved gets its summaries anew, of the newest versions."""
        made_anew = "pypicloud:summary:" if self._is_cluster else "\0"
        return {key: value for key, value in self.read().items() if not key.startswith(made_anew)}

    def shape(self) -> Any:
        """Nothing: there are only keys and values."""
        return None

    def packages(self) -> dict[str, Facts]:
        """The members of each project's set; every field that 1.3.12 does not know by name is JSON."""
        held, found = self.read(), {}
        for name in held["pypicloud:set"]:
            last_saved = held[f"pypicloud:summary:{name}"]
            assert last_saved["name"] == name
            assert float(last_saved["last_modified"])
            assert "summary" in last_saved
            for filename in held[f"pypicloud:set:{name}"]:
                fields = dict(held[f"pypicloud:package:{filename}"])
                assert (fields.pop("filename"), fields["name"]) == (filename, name)
                known = {key: fields.pop(key) for key in ("name", "version", "last_modified", "summary")}
                known["last_modified"] = float(known["last_modified"])
                known["summary"] = known["summary"] or None
                found[filename] = {**known, "data": {key: json.loads(value) for key, value in fields.items()}}
        return found

    def put(self, dump: str) -> None:
        for key, value in json.loads(dump).items():
            if isinstance(value, dict):
                self._client.hset(key, mapping=value)
            else:
                self._client.sadd(key, *value)

    def close(self) -> None:
        self._client.close()

    def dump(self) -> str:
        """The text to put back; it has hashes and sets, and 1.3.12 keeps nothing else."""
        return line_by_line(self.read())

    def _value(self, key: str) -> Any:
        match self._client.type(key):
            case "hash":
                return dict(sorted(self._client.hgetall(key).items()))
            case "set":
                return sorted(self._client.smembers(key))
            case _:
                return self._client.get(key)


class DynamoContents(Contents):
    """The tables of a namespace of DynamoDB, which is left out of their names; read item by item."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._namespace = settings["db.namespace"]
        self._client: Any = boto3.client(
            "dynamodb",
            endpoint_url=f"http://{settings['db.host']}:{settings['db.port']}",
            region_name=settings["db.region_name"],
            aws_access_key_id=settings["db.aws_access_key_id"],
            aws_secret_access_key=settings["db.aws_secret_access_key"],
        )

    def read(self) -> Held:
        """Each item, in the service's own JSON."""
        found = {}
        for table in self._tables():
            (key,) = (part["AttributeName"] for part in table["KeySchema"])
            name = table["TableName"].removeprefix(self._namespace)
            for page in self._client.get_paginator("scan").paginate(TableName=table["TableName"], ConsistentRead=True):
                found.update({f"{name}/{item[key]['S']}": item for item in page["Items"]})
        return found

    def shape(self) -> Any:
        """What each table was created with, and its identity: one that is dropped and made again has another."""
        identity = ("TableArn", "TableId", "CreationDateTime")
        return [[_created_with(table), *(str(table.get(key)) for key in identity)] for table in self._tables()]

    def packages(self) -> dict[str, Facts]:
        """The items of each project in the index; other items must outlast a graceful rebuild of 1.3.12.

        That compares the ``last_modified`` of every item of DynamoPackage with the time now, and takes those that
        are older for files that are gone.
        """
        held, found, names = self.read(), {}, set()
        for key, item in held.items():
            table, _, filename = key.partition("/")
            values = {field: _READ.deserialize(value) for field, value in item.items()}
            if table == "PackageSummary":
                assert values["last_modified"] > 0
                names.add(values["name"])
            elif "name" in values:
                facts = {field: values[field] for field in ("name", "version", "data")}
                facts["last_modified"] = float(values["last_modified"])
                found[filename] = {**facts, "summary": values.get("summary")}
            else:
                assert values["last_modified"] > time.time() + 10**9
        assert names == {facts["name"] for facts in found.values()}
        return found

    def put(self, dump: str) -> None:
        for key, value in json.loads(dump).items():
            table, _, item = key.partition("/")
            if item:
                self._client.put_item(TableName=self._namespace + table, Item=value)
            else:
                self._client.create_table(**value, TableName=self._namespace + table)
                self._client.get_waiter("table_exists").wait(TableName=self._namespace + table)

    def close(self) -> None:
        self._client.close()

    def dump(self) -> str:
        """The text to put back: what the tables were created with, and the items."""
        tables = {told["TableName"].removeprefix(self._namespace): _created_with(told) for told in self._tables()}
        return line_by_line({**tables, **self.read()})

    def _tables(self) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_tables").paginate()
        names = [name for page in pages for name in page["TableNames"] if name.startswith(self._namespace)]
        return [self._client.describe_table(TableName=name)["Table"] for name in names]


def _unmoved(key: str) -> str:
    """The key that 1.3.12 has for what is found at this one."""
    return re.sub(r"^pypicloud:package:\{.*?\}:", "pypicloud:package:", key).replace("{", "").replace("}", "")


def _created_with(told: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a table's description, or of an index's, that its creator wrote."""
    made: dict[str, Any] = {key: told[key] for key in _CREATED_WITH if told.get(key)}
    units = told["ProvisionedThroughput"]
    made["ProvisionedThroughput"] = {key: units[key] for key in ("ReadCapacityUnits", "WriteCapacityUnits")}
    if "AttributeDefinitions" in made:
        # In whichever order they are told of.
        made["AttributeDefinitions"] = sorted(made["AttributeDefinitions"], key=lambda one: str(one["AttributeName"]))
    if "GlobalSecondaryIndexes" in made:
        made["GlobalSecondaryIndexes"] = [_created_with(index) for index in made["GlobalSecondaryIndexes"]]
    return made


def line_by_line(value: Mapping[str, Any]) -> str:
    """A mapping as JSON with a line for each of its keys, which are sorted."""
    lines = [f"{json.dumps(key)}: {json.dumps(value[key], ensure_ascii=False)}" for key in sorted(value)]
    return "{\n" + ",\n".join(lines) + "\n}\n"
