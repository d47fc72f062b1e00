"""``ppc-create-s3-sync``: a function in AWS Lambda that keeps a cache in line with the bucket (compat.md 7)."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus

from pypicloud import plugins
from pypicloud._lambda_handler import VARIABLE
from pypicloud.errors import PypicloudError
from pypicloud.scripts import config_file, lambda_bundle
from pypicloud.scripts.amazon import Amazon, Refused
from pypicloud.scripts.failures import told
from pypicloud.settings import EnvironSettings
from pypicloud.storage import BACKENDS
from pypicloud.storage.object_store import BUCKET, PREFIX, REGION

#: How many seconds the function may take for an event, and how much memory it gets, in megabytes.
TIMEOUT: Final = 30
MEMORY: Final = 256

#: For how many seconds a new role may be unknown to Lambda, and how long to wait between two tries.
PATIENCE: Final = 90.0
PAUSE: Final = 2.0

#: The most that Lambda takes as environment, and as a zip file, in bytes.
LARGEST_ENVIRONMENT: Final = 4096
LARGEST_BUNDLE: Final = 50 << 20

#: What the rights of the function, and those to call it, are called.
_POLICY: Final = "inline_policy"
_STATEMENT: Final = "s3_invoke"

#: What stands in the filter of a notification as it is.
_SAFE: Final = "/!*'()"

#: What the function may do with the tables of a cache in DynamoDB.
_DYNAMO_ACTIONS: Final = tuple(
    f"dynamodb:{action}"
    for action in (
        "BatchGetItem",
        "BatchWriteItem",
        "DeleteItem",
        "DescribeLimits",
        "DescribeTable",
        "GetItem",
        "GetRecords",
        "PutItem",
        "Query",
        "Scan",
        "UpdateItem",
    )
)


@told("ppc-create-s3-sync")
def create_sync_scripts(argv: Sequence[str] | None = None) -> int:
    """Set bucket notifications and create AWS Lambda functions that will sync changes in the S3 bucket to the cache."""
    description = "Let a function in AWS Lambda keep the cache in line with the bucket, whoever changes that."
    parser = argparse.ArgumentParser(prog="ppc-create-s3-sync", description=description)
    config_file.add_arguments(parser)
    parser.add_argument("-n", metavar="NAME", default="pypicloud_s3_sync", help="its name (default %(default)s)")
    parser.add_argument("-f", action="store_true", help="replace a function that has this name already")
    parser.add_argument("-a", metavar="ARN", help="the role that it gets, instead of one that is made for it")
    parser.add_argument("-r", metavar="REGION", help="the region of the bucket, and so of the function")
    arguments = parser.parse_args(argv)
    sync = Sync(config_file.read_checked(arguments), arguments.n, arguments.r)
    sync.check()
    function = sync.ensure_function(arguments.a, replace=arguments.f)
    sync.ensure_permission()
    sync.ensure_notification(function)
    return 0


class Sync:
    """The function of one cache, and all that it takes for the bucket to call it.

    Raises :class:`PypicloudError` that says what to do where something is missing.
    """

    def __init__(self, settings: EnvironSettings, name: str, region: str | None) -> None:
        self.settings = settings
        self.name = name
        self.cache = lambda_bundle.kind_of_cache(settings)
        storage = plugins.STORAGE.read(settings)
        if storage in BACKENDS.keys() - {"s3", "cloudfront"}:
            raise PypicloudError(f"{plugins.STORAGE.key} = {storage}: only a bucket in S3 calls functions")
        if not BUCKET.is_set(settings):
            raise PypicloudError(f"{BUCKET.key} is not set: only a bucket in S3 calls functions")
        self.region = region or REGION.read(settings)
        if not self.region:
            raise PypicloudError(f"in which region is the bucket? Say it with -r, or set {REGION.key}")
        self.bucket = BUCKET.read(settings)
        self.aws = Amazon(self.region)

    def check(self) -> None:
        """Look for what has to be there, before anything is made."""
        variables = json.dumps(self._variables())
        if len(variables) > LARGEST_ENVIRONMENT:
            reason = f"of {len(variables)} bytes; Lambda takes {LARGEST_ENVIRONMENT}"
            raise PypicloudError(f"the settings db.* and storage.* make an environment {reason}")
        identity = self.aws.call("sts", "get_caller_identity")
        self.account = identity["Account"]
        self.partition = identity["Arn"].split(":")[1]
        self._check_bucket()
        if self.cache == "dynamo":
            self._check_tables()

    def _check_bucket(self) -> None:
        try:
            answer = self.aws.call("s3", "head_bucket", Bucket=self.bucket)
            region = answer.get("BucketRegion")
        except Refused as error:
            region = error.headers.get("x-amz-bucket-region")
            if error.code in {"404", "NoSuchBucket"}:
                raise PypicloudError(
                    f"there is no bucket {self.bucket!r}; start the server once, or make it"
                ) from error
            if region in {None, self.region}:
                raise
        if region not in {None, self.region}:
            raise PypicloudError(
                f"the bucket {self.bucket!r} is in {region}, not in {self.region}, and can only call a function there: "
                f"use -r {region}. The cache may be in any region"
            )

    def _check_tables(self) -> None:
        from pypicloud.cache.dynamo import settings as dynamo  # Other caches need it not.
        from pypicloud.cache.dynamo.client import Dynamo, DynamoUnavailable, TableMissing

        client = Dynamo(dynamo.session(self.settings), dynamo.address(self.settings))
        try:
            for table in self._tables():
                client.call("describe_table", TableName=table)
        except TableMissing as error:
            raise PypicloudError(f"{error.message}; start the server once, which makes it") from error
        except DynamoUnavailable as error:
            raise PypicloudError(f"{error.setting}: {error.reason}") from error
        finally:
            client.close()

    def _tables(self) -> tuple[str, str]:
        from pypicloud.cache.dynamo import settings as dynamo

        tables = dynamo.tables(self.settings)
        return tables.packages, tables.summaries

    # The function

    def ensure_function(self, role: str | None, *, replace: bool) -> str:
        """Make the function, or replace it; its ARN."""
        found = self._function()
        if found is not None and not replace:
            print(f"The function {self.name} is there already; with -f it is replaced")
            return str(found["FunctionArn"])
        print("Building the bundle")
        data = lambda_bundle.bundle(self.settings)
        if len(data) > LARGEST_BUNDLE:
            raise PypicloudError(f"the bundle has {len(data)} bytes, and Lambda takes {LARGEST_BUNDLE}")
        role = role or self.ensure_role()
        return self._create(role, data) if found is None else self._replace(role, data)

    def _function(self) -> Mapping[str, Any] | None:
        try:
            return self.aws.call("lambda", "get_function_configuration", FunctionName=self.name)
        except Refused as error:
            if error.code != "ResourceNotFoundException":
                raise
        return None

    def _variables(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(lambda_bundle.function_settings(self.settings), separators=(",", ":"))}

    def _configuration(self, role: str) -> dict[str, Any]:
        return {
            "FunctionName": self.name,
            "Description": f"Keeps a cache of PyPICloud in line with the bucket {self.bucket}"[:256],
            "Runtime": lambda_bundle.RUNTIME,
            "Handler": lambda_bundle.HANDLER,
            "Role": role,
            "Timeout": TIMEOUT,
            "MemorySize": MEMORY,
            "Environment": {"Variables": self._variables()},
        }

    def _create(self, role: str, data: bytes) -> str:
        options = {"Code": {"ZipFile": data}, "Architectures": [lambda_bundle.ARCHITECTURE]}
        answer = self._with_role("create_function", **self._configuration(role), **options)
        self.aws.wait("lambda", "function_active_v2", FunctionName=self.name)
        print(f"Created the function {self.name}")
        return str(answer["FunctionArn"])

    def _replace(self, role: str, data: bytes) -> str:
        """Give the function other code and settings. What others set stays: a network, a queue for failures."""
        self.aws.call(
            "lambda",
            "update_function_code",
            FunctionName=self.name,
            ZipFile=data,
            Architectures=[lambda_bundle.ARCHITECTURE],
        )
        self.aws.wait("lambda", "function_updated_v2", FunctionName=self.name)
        answer = self._with_role("update_function_configuration", **self._configuration(role))
        self.aws.wait("lambda", "function_updated_v2", FunctionName=self.name)
        print(f"Replaced the function {self.name}")
        return str(answer["FunctionArn"])

    def _with_role(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Do it as soon as Lambda knows the role, which takes a while after that was made."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.aws.call("lambda", operation, **parameters)
            except Refused as error:
                is_new = error.code == "InvalidParameterValueException" and "assumed" in error.message
                if not is_new or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)

    # Rights

    def ensure_role(self) -> str:
        """Make the role of the function with its rights; the ARN."""
        name = f"pypicloud_lambda_{self.cache}"
        try:
            role = self.aws.call("iam", "get_role", RoleName=name)["Role"]
        except Refused as error:
            if error.code != "NoSuchEntity":
                raise
            trust = _policy({"Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"})
            made = self.aws.call(
                "iam", "create_role", RoleName=name, Path="/pypicloud/", AssumeRolePolicyDocument=trust
            )
            role = made["Role"]
            print(f"Created the role {name}")
        document = _policy(*self._statements())
        self.aws.call("iam", "put_role_policy", RoleName=name, PolicyName=_POLICY, PolicyDocument=document)
        return str(role["Arn"])

    def _statements(self) -> Iterator[dict[str, Any]]:
        aws, bucket = f"arn:{self.partition}", f"arn:{self.partition}:s3:::{self.bucket}"
        yield {"Action": ["logs:*"], "Resource": [f"{aws}:logs:*:*:*"]}
        yield {"Action": ["s3:GetObject"], "Resource": [f"{bucket}/*"]}
        # Who may not list a bucket is not told that an object is gone, only that it may not be had.
        yield {"Action": ["s3:ListBucket"], "Resource": [bucket]}
        if self.cache == "dynamo":
            from pypicloud.cache.dynamo.settings import REGION as TABLES_REGION

            region = TABLES_REGION.read(self.settings) or self.region
            tables = [f"{aws}:dynamodb:{region}:{self.account}:table/{table}" for table in self._tables()]
            yield {"Action": ["dynamodb:ListTables"], "Resource": ["*"]}
            yield {"Action": list(_DYNAMO_ACTIONS), "Resource": [*tables, *(f"{table}/index/*" for table in tables)]}

    def ensure_permission(self) -> None:
        """Let the bucket, and no other, call the function."""
        statement = {"FunctionName": self.name, "StatementId": _STATEMENT}
        allowed = {
            "Action": "lambda:InvokeFunction",
            "Principal": "s3.amazonaws.com",
            "SourceAccount": self.account,
            "SourceArn": f"arn:{self.partition}:s3:::{self.bucket}",
        }
        try:
            self.aws.call("lambda", "add_permission", **statement, **allowed)
        except Refused as error:
            if error.code != "ResourceConflictException":
                raise
            # It may be another bucket's, from before.
            self.aws.call("lambda", "remove_permission", **statement)
            self.aws.call("lambda", "add_permission", **statement, **allowed)

    # The bucket

    def ensure_notification(self, function: str) -> None:
        """Let the bucket call the function when it changes; whatever else it tells others stays."""
        answer = self.aws.call("s3", "get_bucket_notification_configuration", Bucket=self.bucket)
        known = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
        ours = f"pypicloud-{self.name}"
        others = [
            each
            for each in known.get("LambdaFunctionConfigurations", [])
            if each.get("Id") != ours and each["LambdaFunctionArn"] != function
        ]
        prefix = PREFIX.read(self.settings)
        # S3 wants it encoded as the keys in its events are.
        rules = [{"Name": "prefix", "Value": quote_plus(prefix, safe=_SAFE)}] if prefix else []
        entry = {
            "Id": ours,
            "LambdaFunctionArn": function,
            "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
            **({"Filter": {"Key": {"FilterRules": rules}}} if rules else {}),
        }
        wanted = {**known, "LambdaFunctionConfigurations": [*others, entry]}
        try:
            self.aws.call(
                "s3", "put_bucket_notification_configuration", Bucket=self.bucket, NotificationConfiguration=wanted
            )
        except Refused as error:
            if "overlap" not in error.message.lower():
                raise
            raise PypicloudError(
                f"the bucket {self.bucket!r} tells somebody else of the same changes, and S3 tells only one: let it "
                "tell an SNS topic, and subscribe both to that"
            ) from error
        print(f"The bucket {self.bucket} calls {self.name} from now on")


def _policy(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]})
