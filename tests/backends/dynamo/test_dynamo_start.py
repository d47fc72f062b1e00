"""The cache in DynamoDB at the start: settings that cannot work, rights that are missing, and whose tables they are."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import botocore.endpoint
import pytest

from pypicloud.cache.dynamo import DynamoCache
from pypicloud.cache.dynamo import client as dynamo_client
from pypicloud.cache.dynamo import settings as dynamo_settings
from pypicloud.cache.dynamo import tables as dynamo_tables
from pypicloud.cache.dynamo.client import Dynamo
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import package, put
from support.dynamo import STORAGE, Tables, intercepted, refused, said, started
from support.live import LOOPBACK, free_port
from support.services.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support.services.aws import MiniStack


@pytest.mark.parametrize(
    ("changes", "setting", "words"),
    [
        ({"db.region_name": "", "db.host": ""}, "db.region_name", "is required"),
        ({"db.region_name": "no region!"}, "db.region_name", "no region!"),
        ({"db.tablenames": "one"}, "db.tablenames", "exactly two tables"),
        ({"db.tablenames": "one two three"}, "db.tablenames", "exactly two tables"),
        ({"db.tablenames": "one one"}, "db.tablenames", "different"),
        ({"db.tablenames": "one tw\u00f6"}, "db.tablenames", "tw\u00f6"),
        ({"db.namespace": "a b"}, "db.tablenames", "a bDynamoPackage"),
        ({"db.namespace": "", "db.tablenames": "a b"}, "db.tablenames", "3 to 255"),
        ({"db.host": "http://localhost"}, "db.host", "db.port"),
        ({"db.host": "localhost:1"}, "db.host", "db.port"),
        ({"db.port": "0"}, "db.port", "65535"),
        ({"db.port": "http"}, "db.port", "whole number"),
        ({"db.aws_access_key_id": ""}, "db.aws_secret_access_key", "needs db.aws_access_key_id"),
        ({"db.aws_secret_access_key": ""}, "db.aws_access_key_id", "needs db.aws_secret_access_key"),
        (
            {"db.aws_access_key_id": "", "db.aws_secret_access_key": "", "db.aws_session_token": "hidden"},
            "db.aws_session_token",
            "needs db.aws_access_key_id",
        ),
        ({"db.profile_name": "nobody"}, "db.profile_name", "no such profile"),
    ],
    ids=str,
)
def test_settings_that_cannot_work(settings: dict[str, str], changes: dict[str, str], setting: str, words: str) -> None:
    """What cannot work stops the start, named; what shows without a try is found by the check, too."""
    secret = {"db.aws_secret_access_key": "hidden"}
    configured = EnvironSettings({**STORAGE, **settings, **secret, **changes}, {})
    with pytest.raises(SettingError) as caught:
        DynamoCache.configure(configured)
    assert caught.value.setting == setting
    assert words in str(caught.value)
    assert "hidden" not in str(caught.value)
    if words not in {"no region!", "no such profile"}:
        with pytest.raises(SettingError, match=caught.value.setting):
            DynamoCache.check(configured)


def test_the_check_reaches_for_nothing(settings: dict[str, str]) -> None:
    """A check of good settings succeeds, whether or not there is such a service."""
    DynamoCache.check(EnvironSettings({**settings, "db.port": str(free_port())}, {}))


@pytest.mark.usefixtures("quick_retries")
def test_a_start_without_service(settings: dict[str, str]) -> None:
    """A service that cannot be reached stops the start, and is named."""
    port = free_port()
    with (
        pytest.raises(SettingError, match=f"db.host: DynamoDB does not answer at http://{LOOPBACK}:{port}"),
        started(settings, db__port=str(port)),
    ):
        pass


def test_a_start_with_a_silent_service(
    ministack: MiniStack, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that takes the request and is silent is waited for once, and then named; later it is asked again."""
    paused: list[float] = []
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=paused.append))
    monkeypatch.setattr(dynamo_client, "READ_TIMEOUT", 0.2)
    with Proxy(ministack.port) as proxy, started(settings, db__port=str(proxy.port)) as server:
        proxy.hang()
        with pytest.raises(SettingError, match=r"db.host: DynamoDB does not answer at .*ReadTimeoutError"):
            DynamoCache.configure(EnvironSettings({**settings, "db.port": str(proxy.port)}, {}))
        assert paused == []
        with pytest.raises(BackendUnavailable):
            server().distinct()
        assert len(paused) == dynamo_client.ATTEMPTS - 1
        proxy.resume()


def test_a_start_without_credentials(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials anywhere the start says where they could be."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    nobody = {"db__aws_access_key_id": "", "db__aws_secret_access_key": ""}
    with (
        pytest.raises(SettingError, match="there are no AWS credentials: give the machine"),
        started(settings, **nobody),
    ):
        pass


def test_credentials_come_from_where_boto_looks(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment do as well as keys in the settings."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings["db.aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings["db.aws_secret_access_key"])
    with started(settings) as one, started(settings, db__aws_access_key_id="", db__aws_secret_access_key="") as other:
        one().save(package())
        assert other().distinct() == ["foo"]


def test_without_a_host_it_is_the_region_of_amazon(settings: dict[str, str]) -> None:
    """With a region alone Amazon's own service is spoken to, over HTTPS."""
    configured = EnvironSettings({**settings, "db.host": "", "db.region_name": "eu-west-1"}, {})
    dynamo = Dynamo(dynamo_settings.session(configured), dynamo_settings.address(configured))
    assert dynamo.client.meta.endpoint_url == "https://dynamodb.eu-west-1.amazonaws.com"
    dynamo.close()


def test_the_host_may_be_an_address_of_the_new_kind(settings: dict[str, str]) -> None:
    """An IPv6 address is taken with and without brackets, and HTTPS is used on demand."""
    for host in ("::1", "[::1]"):
        configured = EnvironSettings({**settings, "db.host": host, "db.port": "1", "db.secure": "true"}, {})
        assert dynamo_settings.address(configured) == "https://[::1]:1"


# Whose tables


#: The rights that are needed, with what shows that one is missing, unless the start does.
ACTIONS: dict[str, Callable[[DynamoCache], object] | None] = {
    "DescribeTable": None,
    "CreateTable": None,
    "BatchGetItem": lambda cache: cache.fetch("foo-1.0.tar.gz"),
    "Query": lambda cache: cache.all("foo"),
    "Scan": lambda cache: cache.distinct(),
    "PutItem": lambda cache: cache.save(package()),
    "DeleteItem": lambda cache: cache.clear(package()),
}


@contextmanager
def iam_user(ministack: MiniStack, settings: dict[str, str], actions: Sequence[str]) -> Iterator[dict[str, str]]:
    """The settings of an IAM user who may do this, and nothing else, with the tables of a cache."""
    account = settings["db.aws_access_key_id"]
    iam = boto3.client(
        "iam", "us-east-1", endpoint_url=ministack.url, aws_access_key_id=account, aws_secret_access_key="test"
    )
    where = f"arn:aws:dynamodb:*:{account}:table/{settings['db.namespace']}*"
    statement = {"Effect": "Allow", "Action": [f"dynamodb:{action}" for action in actions], "Resource": where}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_user(UserName="index")
    iam.put_user_policy(UserName="index", PolicyName="cache", PolicyDocument=policy)
    key = iam.create_access_key(UserName="index")["AccessKey"]
    yield {**settings, "db.aws_access_key_id": key["AccessKeyId"], "db.aws_secret_access_key": key["SecretAccessKey"]}
    iam.close()


@pytest.mark.parametrize("missing", ACTIONS)
def test_a_right_that_is_missing_is_named(ministack: MiniStack, settings: dict[str, str], missing: str) -> None:
    """Without one of the rights an error names that right and the table, at the start or when it is needed."""
    with iam_user(ministack, settings, [action for action in ACTIONS if action != missing]) as theirs:
        use = ACTIONS[missing]
        if use is None:
            with (
                pytest.raises(SettingError, match=rf"dynamodb:{missing} on {settings['db.namespace']}"),
                started(theirs),
            ):
                pass
            return
        with started(settings) as server:
            if missing == "DeleteItem":
                server().save(package())
        with started(theirs) as server, pytest.raises(BackendUnavailable) as caught:
            use(server())
        assert f"dynamodb:{missing}" in caught.value.message
        assert settings["db.namespace"] in caught.value.message


def test_tables_that_are_there_need_no_right_to_make_some(ministack: MiniStack, settings: dict[str, str]) -> None:
    """Where the tables exist, the right to create tables is not needed."""
    with started(settings):
        pass
    with (
        iam_user(ministack, settings, [action for action in ACTIONS if action != "CreateTable"]) as theirs,
        started(theirs) as server,
    ):
        cache = server()
        put(cache, package())
        cache.reload_if_needed()
        cache.clear_all()
        assert cache.is_empty()


def test_wrong_keys_stop_the_start(ministack: MiniStack, settings: dict[str, str]) -> None:
    """Keys that AWS does not accept are named at the start, without the secret."""
    with iam_user(ministack, settings, [*ACTIONS]) as theirs:
        for changes in ({"db__aws_secret_access_key": "hidden"}, {"db__aws_access_key_id": "AKIAXXXXXXXXXXXXXXXX"}):
            with (
                pytest.raises(SettingError, match="AWS does not accept the credentials") as caught,
                started(theirs, **changes),
            ):
                pass
            assert caught.value.setting == "db.aws_access_key_id"
            assert "hidden" not in str(caught.value)


# The tables


@pytest.mark.usefixtures("cache")
def test_new_tables_are_billed_on_demand(tables: Tables) -> None:
    """Tables that are missing are made with the layout of 1.3.12, and billed on demand."""
    found = tables.client.describe_table(TableName=tables.packages)["Table"]
    (index,) = found["GlobalSecondaryIndexes"]
    assert found["KeySchema"] == [{"AttributeName": "filename", "KeyType": "HASH"}]
    assert (index["IndexName"], index["Projection"]) == ("name-index", {"ProjectionType": "ALL"})
    assert index["KeySchema"] == [{"AttributeName": "name", "KeyType": "HASH"}]
    other = tables.client.describe_table(TableName=tables.summaries)["Table"]
    assert other["KeySchema"] == [{"AttributeName": "name", "KeyType": "HASH"}]
    assert "GlobalSecondaryIndexes" not in other
    for each in (found, other):
        assert each["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


def test_other_names_for_the_tables(settings: dict[str, str]) -> None:
    """The tables can have any names; two caches in one account do not see each other."""
    named = {"db.namespace": f"{settings['db.namespace']}my.", "db.tablenames": "Files Projects"}
    with started(settings) as one, started({**settings, **named}) as other:
        one().save(package())
        other().save(package("bar"))
        assert (one().distinct(), other().distinct()) == (["foo"], ["bar"])
        tables = Tables({**settings, **named})
        assert tables.packages.endswith("my.Files")
        assert [*tables.items(tables.summaries)] == ["bar"]
        tables.client.close()


def layout(key: str = "filename", *, kind: str = "S", index: str | None = "name", **changes: Any) -> dict[str, Any]:
    """A table to be created."""
    found: dict[str, Any] = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind}],
        "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
    }
    if index is not None:
        found["AttributeDefinitions"].append({"AttributeName": index, "AttributeType": "S"})
        by_index = {"IndexName": "name-index", "KeySchema": [{"AttributeName": index, "KeyType": "HASH"}]}
        found["GlobalSecondaryIndexes"] = [{**by_index, "Projection": {"ProjectionType": "ALL"}, **changes}]
    return found


@pytest.mark.parametrize(
    ("which", "wrong", "words"),
    [
        ("DynamoPackage", layout("id"), "key of the table .*DynamoPackage is not 'filename' alone"),
        ("DynamoPackage", layout(kind="N"), "'filename' of the table .*DynamoPackage is no string"),
        ("DynamoPackage", layout(index=None), "DynamoPackage has no index 'name-index'"),
        (
            "DynamoPackage",
            layout(index="version"),
            "'name-index' of the table .*DynamoPackage is not the string 'name'",
        ),
        ("DynamoPackage", layout(Projection={"ProjectionType": "KEYS_ONLY"}), "does not have all attributes"),
        ("PackageSummary", layout("filename", index=None), "key of the table .*PackageSummary is not 'name' alone"),
    ],
)
def test_a_table_of_another_shape(
    settings: dict[str, str], tables: Tables, which: str, wrong: dict[str, Any], words: str
) -> None:
    """A table that cannot be ours stops the start, named with what is wrong, and stays as it is."""
    name = settings["db.namespace"] + which
    tables.client.create_table(TableName=name, **wrong)
    before = tables.client.describe_table(TableName=name)["Table"]
    with pytest.raises(SettingError, match=words) as caught, started(settings):
        pass
    assert caught.value.setting == "db.tablenames"
    assert tables.client.describe_table(TableName=name)["Table"] == before


def test_tables_stay_as_somebody_has_set_them_up(settings: dict[str, str], tables: Tables) -> None:
    """Throughput, encryption, tags and protection of the tables are there after every kind of change."""
    provisioned = {"ReadCapacityUnits": 7, "WriteCapacityUnits": 3}
    table = layout(ProvisionedThroughput=provisioned)
    for name, made in ((tables.packages, table), (tables.summaries, layout("name", index=None))):
        more = {"BillingMode": "PROVISIONED", "ProvisionedThroughput": provisioned, "DeletionProtectionEnabled": True}
        tables.client.create_table(
            TableName=name,
            **{**made, **more},
            SSESpecification={"Enabled": True, "SSEType": "KMS"},
            Tags=[{"Key": "team", "Value": "index"}],
        )

    def setup(name: str) -> dict[str, Any]:
        found = tables.client.describe_table(TableName=name)["Table"]
        tags = tables.client.list_tags_of_resource(ResourceArn=found["TableArn"])["Tags"]
        volatile = {"ItemCount", "TableSizeBytes", "GlobalSecondaryIndexes"}
        shown = {key: each for key, each in found.items() if key not in volatile}
        return {
            **shown,
            "tags": tags,
            "index": found.get("GlobalSecondaryIndexes", [{}])[0].get("ProvisionedThroughput"),
        }

    before = {name: setup(name) for name in (tables.packages, tables.summaries)}
    assert before[tables.packages]["SSEDescription"]["Status"] == "ENABLED"
    assert before[tables.packages]["tags"] == [{"Key": "team", "Value": "index"}]
    with started(settings) as server:
        cache = server()
        put(cache, package(), package("bar"))
        cache.reload_if_needed()
        cache.rebuild()
        cache.reload_from_storage()
        cache.clear_all()
    assert {name: setup(name) for name in before} == before


def test_a_new_table_is_waited_for(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that another server is making just now, or that is being deleted, is used when it is ready."""
    monkeypatch.setattr(dynamo_tables, "_PAUSE", 0.01)
    with started(settings) as server:
        cache = server()
        for states in (["CREATING"] * 3, ["DELETING"] * 2 + ["gone"], ["gone"]):
            left = list(states) * 2

            def answer(name: str, _: Any, left: list[str] = left) -> Any:
                if name != "DescribeTable" or not left:
                    return None
                state = left.pop(0)
                return (
                    refused("ResourceNotFoundException") if state == "gone" else said(200, Table={"TableStatus": state})
                )

            with intercepted(cache, answer):
                dynamo_tables.ensure(cache.dynamo, cache.tables)
            assert left == []


def test_a_table_that_is_never_ready(
    settings: dict[str, str], cache: DynamoCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that does not get ready is an error that names it."""
    monkeypatch.setattr(dynamo_tables, "PATIENCE", 0.3)
    with (
        intercepted(cache, lambda *_: said(200, Table={"TableStatus": "CREATING"})),
        pytest.raises(BackendUnavailable, match=f"{settings['db.namespace']}DynamoPackage was not ready"),
    ):
        dynamo_tables.ensure(cache.dynamo, cache.tables)
