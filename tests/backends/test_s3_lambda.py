"""Changes in a bucket that others make get into a cache through a function, which MiniStack really runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pypicloud.lambda_scripts import create_sync_scripts
from pypicloud.scripts import lambda_bundle, lambda_sync
from pypicloud.scripts.amazon import Amazon, Refused
from pypicloud.settings import EnvironSettings
from support.notices import EVENTS, FILE, Notices, wait_for
from support.services.s3 import REGION, plain, statement
from support.wheelhouse import closure, pack

if TYPE_CHECKING:
    from support.services.aws import MiniStack

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bundle as the command makes it, of what is installed here, and for the Python that MiniStack runs it with."""
    wheels = tmp_path_factory.mktemp("wheels")
    settings = EnvironSettings({"pypi.db": "dynamo", "db.region_name": REGION}, env={})
    pack(wheels, closure(lambda_bundle.requirements(settings)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambda_bundle, "PYTHON", HERE)
        for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(wheels)}.items():
            patch.setenv(f"PIP_{name}", value)
        return lambda_bundle.bundle(settings)


@pytest.fixture
def notices(ministack: MiniStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notices:
    """An empty bucket and empty tables in an account of their own, whose owner is who runs commands here."""
    where = ministack.settings()
    access_key, secret = where["storage.aws_access_key_id"], where["storage.aws_secret_access_key"]
    cache = {**ministack.cache_settings(), "db.aws_access_key_id": access_key, "db.aws_secret_access_key": secret}
    notices = Notices({**where, "pypi.db": "dynamo", "storage.prefix": "p", **cache}, tmp_path)
    del notices.settings["db.url"]
    act_as(notices.settings, monkeypatch)
    return notices


def act_as(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands have these credentials."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", settings["storage.endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", settings["storage.aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", settings["storage.aws_secret_access_key"])


@pytest.fixture
def _ready_bundle(bundle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_bundle, "bundle", lambda _: bundle)
    monkeypatch.setattr(lambda_sync, "PAUSE", 0.05)


@pytest.mark.usefixtures("_ready_bundle")
def test_function(notices: Notices, capsys: pytest.CaptureFixture[str]) -> None:
    """What others put and delete is known afterwards; what is outside of the prefix is not; other notices stay."""
    notices.cache()
    queue, arn = notices.queue()
    other = {"Id": "other", "QueueArn": arn, "Events": EVENTS}
    notices.notify(QueueConfigurations=[other])
    assert create_sync_scripts([str(notices.config)]) == 0
    assert "Created the function pypicloud_s3_sync" in capsys.readouterr().out
    notices.put("acme-2.0.tar.gz")
    notices.put()
    wait_for(notices.knows, FILE)
    notices.delete()
    wait_for(notices.knows)
    found = notices.client.get_bucket_notification_configuration(Bucket=notices.bucket)
    assert found["QueueConfigurations"] == [other]
    (ours,) = found["LambdaFunctionConfigurations"]
    assert ours["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": "p"}]
    assert notices.waiting(queue) >= 3


@pytest.mark.usefixtures("_ready_bundle")
def test_again(notices: Notices, capsys: pytest.CaptureFixture[str]) -> None:
    """Run again, it keeps the function, or replaces it with -f in place, and there is still one of everything."""
    notices.cache()
    functions, iam = plain(notices.settings, "lambda"), plain(notices.settings, "iam")
    assert create_sync_scripts([str(notices.config), "-n", "acme"]) == 0
    assert create_sync_scripts([str(notices.config), "-n", "acme"]) == 0
    assert "is there already" in capsys.readouterr().out
    functions.update_function_configuration(FunctionName="acme", Description="mine", MemorySize=512)
    assert create_sync_scripts([str(notices.config), "-n", "acme", "-f"]) == 0
    assert "Replaced the function acme" in capsys.readouterr().out
    found = functions.get_function_configuration(FunctionName="acme")
    assert (found["Runtime"], found["Handler"], found["Timeout"]) == ("python3.13", "lambda_script.handle_s3_event", 30)
    told = json.loads(found["Environment"]["Variables"]["PYPICLOUD_SETTINGS"])
    assert (told["pypi.db"], told["storage.bucket"]) == ("dynamo", notices.bucket)
    assert "storage.aws_secret_access_key" not in told
    role = iam.get_role(RoleName="pypicloud_lambda_dynamo")["Role"]
    assert (role["Path"], role["Arn"]) == ("/pypicloud/", found["Role"])
    allowed = iam.get_role_policy(RoleName="pypicloud_lambda_dynamo", PolicyName="inline_policy")["PolicyDocument"]
    assert "s3:GetObject" in json.dumps(allowed)
    permissions = json.loads(functions.get_policy(FunctionName="acme")["Policy"])["Statement"]
    assert [each["Sid"] for each in permissions] == ["s3_invoke"]
    assert notices.bucket in json.dumps(permissions)
    configuration = notices.client.get_bucket_notification_configuration(Bucket=notices.bucket)
    assert len(configuration["LambdaFunctionConfigurations"]) == 1
    notices.put()
    wait_for(notices.knows, FILE)


@pytest.mark.usefixtures("_ready_bundle")
def test_role(notices: Notices) -> None:
    """With -a the function has that role, and none is made; the prefix is said as S3 wants it, encoded."""
    notices.cache()
    notices.settings["storage.prefix"] = "p q+/"
    iam = plain(notices.settings, "iam")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    arn = iam.create_role(RoleName="mine", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    assert create_sync_scripts([str(notices.config), "-a", arn]) == 0
    functions = plain(notices.settings, "lambda")
    assert functions.get_function_configuration(FunctionName="pypicloud_s3_sync")["Role"] == arn
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["mine"]
    configuration = notices.client.get_bucket_notification_configuration(Bucket=notices.bucket)
    (ours,) = configuration["LambdaFunctionConfigurations"]
    assert ours["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": "p+q%2B/"}]


REFUSED: Final[dict[str, tuple[dict[str, str | None], list[str], str]]] = {
    "another region": ({}, ["-r", "eu-west-1"], "use -r us-east-1"),
    "no region": ({"storage.region_name": None}, [], "Say it with -r, or set storage.region_name"),
    "another storage": ({"pypi.storage": "file", "storage.dir": "x"}, [], "pypi.storage = file"),
    "no bucket set": ({"storage.bucket": None, "pypi.storage": "support.memory_bucket.MemoryBucket"}, [], "is not set"),
    "no such bucket": ({"storage.bucket": "nowhere-at-all"}, [], "there is no bucket 'nowhere-at-all'"),
    "no tables": ({"db.namespace": "other-"}, [], "there is no DynamoDB table other-DynamoPackage; start the server"),
    "a file": ({"pypi.db": "sql", "db.url": "sqlite://"}, [], "db.url"),
    "too much": ({"db.aws_session_token": "x" * 9000}, [], "Lambda takes 4096"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(notices: Notices, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where something is missing or wrong, it says what to do, and makes nothing."""
    changes, options, words = REFUSED[case]
    assert create_sync_scripts([str(notices.changed_config(changes)), *options]) == 1
    assert words in capsys.readouterr().err
    assert plain(notices.settings, "lambda").list_functions()["Functions"] == []
    assert plain(notices.settings, "iam").list_roles()["Roles"] == []


@pytest.mark.usefixtures("_ready_bundle")
@pytest.mark.parametrize("missing", ["iam:CreateRole", "lambda:CreateFunction", "s3:PutBucketNotification"])
def test_missing_right(
    notices: Notices,
    ministack: MiniStack,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A right that whoever runs the command has not is named."""
    notices.cache()
    user = ministack.user(notices.settings, statement("*"), statement(missing, effect="Deny"))
    act_as(user, monkeypatch)
    assert create_sync_scripts([str(notices.config)]) == 1
    assert missing in capsys.readouterr().err


@pytest.mark.usefixtures("_ready_bundle")
def test_a_second_cache(notices: Notices, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 calls one function for a change, and no other; who wants more is told how."""
    notices.cache()
    call = Amazon.call

    def answer(self: Any, service: str, operation: str, **parameters: Any) -> Any:
        if operation == "put_bucket_notification_configuration":
            # As S3 says it, and MiniStack does not.
            raise Refused("InvalidArgument: Configurations overlap", "InvalidArgument", {})
        return call(self, service, operation, **parameters)

    monkeypatch.setattr(Amazon, "call", answer)
    assert create_sync_scripts([str(notices.config)]) == 1
    assert "SNS topic" in capsys.readouterr().err


@pytest.mark.usefixtures("_ready_bundle")
def test_a_role_that_is_new(notices: Notices, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that Lambda does not know yet is waited for."""
    notices.cache()
    call = Amazon.call
    tries: list[str] = []

    def answer(self: Any, service: str, operation: str, **parameters: Any) -> Any:
        if operation == "create_function" and len(tries) < 3:
            tries.append(operation)
            words = "The role defined for the function cannot be assumed by Lambda."
            raise Refused(words, "InvalidParameterValueException", {})
        return call(self, service, operation, **parameters)

    monkeypatch.setattr(Amazon, "call", answer)
    assert create_sync_scripts([str(notices.config)]) == 0
    assert len(tries) == 3
