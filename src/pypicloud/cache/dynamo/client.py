"""DynamoDB as the cache speaks to it: boto3's client, with patience for a busy service and errors of our own."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pypicloud.aws import missing_credentials
from pypicloud.cache.dynamo.items import Item
from pypicloud.errors import BackendUnavailable, SettingError

if TYPE_CHECKING:
    from pypicloud.cache.dynamo.wire import Wire

#: How many seconds a connection, and then an answer, may take.
CONNECT_TIMEOUT: Final = 3
READ_TIMEOUT: Final = 10

#: How often botocore tries when the network fails.
ATTEMPTS: Final = 3

#: For how many seconds a request is repeated while DynamoDB says that it is too busy.
PATIENCE: Final = 30.0

#: The longest pause before a busy service is asked again, in seconds; the first is a hundredth of it.
LONGEST_PAUSE: Final = 2.0

#: The most keys of one BatchGetItem.
BATCH: Final = 100

#: The event at which boto3 asks whether a request is to be repeated.
_RETRY: Final = "needs-retry.dynamodb"

#: What DynamoDB says when the same request may succeed a moment later.
_BUSY: Final = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_NOT_ALLOWED: Final = frozenset({"AccessDeniedException", "AccessDenied"})
_WRONG_KEYS: Final = frozenset(
    {
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


class DynamoUnavailable(BackendUnavailable):
    """DynamoDB does not answer as it should; ``setting`` and ``reason`` are for whoever starts the server."""

    def __init__(self, message: str, setting: str, reason: str) -> None:
        super().__init__(message)
        self.setting = setting
        self.reason = reason


class TableMissing(BackendUnavailable):
    """There is no such table."""


class TableInUse(BackendUnavailable):
    """There is such a table already, or it is just being made or deleted."""


class ConditionFailed(Exception):
    """An item was not as the condition wants it; ``item`` is as it was, None if there was none."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("the condition does not hold")
        self.item = item


class Cancelled(Exception):
    """Nothing of a transaction was done; ``reasons`` are DynamoDB's words for each of its actions."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons


class Dynamo:
    """DynamoDB in one region, or where it is said to be; shared by all threads, and made anew after a fork.

    ``session`` is what a session of boto3 is given; ``address`` is None for Amazon's own. Raises
    :class:`SettingError` if that cannot work.
    """

    def __init__(self, session: Mapping[str, str], address: str | None = None) -> None:
        self._session = dict(session)
        self._address = address
        self._lock = threading.Lock()
        self._made: tuple[Any, Wire] | None = self._make()

    @property
    def client(self) -> Any:
        """The client of this process."""
        return self._ways()[0]

    @property
    def wire(self) -> Wire:
        """The short way of this process."""
        return self._ways()[1]

    def _ways(self) -> tuple[Any, Wire]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def after_fork(self) -> None:
        """Leave the connections to the parent, and a lock that one of its threads may have held."""
        self._lock = threading.Lock()
        self._made = None

    def close(self) -> None:
        """Close all connections."""
        for each in self._ways():
            each.close()

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """In the block who has once been silent is not asked again, as when somebody waits for the server to start."""
        events = self.client.meta.events
        events.register_first(_RETRY, _no_retry)
        try:
            yield
        finally:
            events.unregister(_RETRY, _no_retry)

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """What DynamoDB answers, which may take a while when it is busy.

        Raises :class:`ConditionFailed`, :class:`Cancelled`, :class:`TableMissing`, and
        :class:`DynamoUnavailable` for everything else.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        waits = pauses()
        while True:
            try:
                answer: dict[str, Any] = getattr(self.client, operation)(**parameters)
            except ClientError as error:
                pause = next(waits) if error.response["Error"]["Code"] in _BUSY else None
                if pause is None:
                    raise _translated(error, operation, _tables(parameters)) from error
                time.sleep(pause)
            except BotoCoreError as error:
                raise self._unreachable(error) from error
            else:
                return answer

    def put(self, table: str, item: Item, **condition: Any) -> None:
        """Write an item, in place of what was there. Raises :class:`ConditionFailed`."""
        self.call("put_item", TableName=table, Item=item, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition)

    def delete(self, table: str, key: Item, **condition: Any) -> None:
        """Delete an item. Raises :class:`ConditionFailed`."""
        self.call("delete_item", TableName=table, Key=key, **condition)

    def get(self, wanted: Mapping[str, Sequence[Item]]) -> dict[str, list[Item]]:
        """The items of these keys that exist, as they are now, by table."""
        keys = [(table, key) for table, some in wanted.items() for key in some]
        found: dict[str, list[Item]] = {table: [] for table in wanted}
        for start in range(0, len(keys), BATCH):
            for table, items in self._batch(keys[start : start + BATCH]):
                found[table] += items
        return found

    def _batch(self, keys: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Any]]:
        request: dict[str, Any] = {}
        for table, key in keys:
            request.setdefault(table, {"Keys": [], "ConsistentRead": True})["Keys"].append(key)
        for pause in pauses():
            answer = self.wire.batch_get_item(request) or self.call("batch_get_item", RequestItems=request)
            if "Responses" not in answer:
                raise BackendUnavailable("something answers, but not as DynamoDB does")
            yield from answer["Responses"].items()
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                return
            if pause is None:
                raise BackendUnavailable("DynamoDB is too busy to answer; please try again")
            time.sleep(pause)

    def query(self, table: str, index: str, key: str, value: str) -> Iterator[Item]:
        """The items of an index with this key; those that have just been written may be missing."""
        yield from self._pages(
            "query",
            TableName=table,
            IndexName=index,
            KeyConditionExpression="#key = :key",
            ExpressionAttributeNames={"#key": key},
            ExpressionAttributeValues={":key": {"S": value}},
        )

    def scan(self, table: str, **options: Any) -> Iterator[Item]:
        """All items of a table, as they are when their turn comes."""
        yield from self._pages("scan", TableName=table, ConsistentRead=True, **options)

    def _pages(self, operation: str, **parameters: Any) -> Iterator[Item]:
        while True:
            answer = self.call(operation, **parameters)
            yield from answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return
            parameters["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def transact(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """Do all of up to 100 things or none. Raises :class:`Cancelled`."""
        self.call("transact_write_items", TransactItems=actions)

    def _make(self) -> tuple[Any, Wire]:
        # It takes a while, and whoever has another cache never needs it.
        import boto3
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ProfileNotFound

        from pypicloud.cache.dynamo.wire import Wire

        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=50,
            # Half of the work of a request, for what is made here and is always right.
            parameter_validation=False,
        )
        core = botocore.session.get_session()
        try:
            session = boto3.session.Session(botocore_session=core, **self._session)
            client = session.client("dynamodb", config=config, endpoint_url=self._address)
            trusted = core.get_config_variable("ca_bundle")
            # Who is silent is waited for by boto3 after that: a part of the time is enough here.
            return client, Wire(client, session.get_credentials(), trusted, READ_TIMEOUT / ATTEMPTS)
        except ProfileNotFound as error:
            raise SettingError("db.profile_name", "there is no such profile in AWS's configuration files") from error
        except (BotoCoreError, ValueError) as error:
            raise SettingError("db.region_name", f"DynamoDB cannot be used: {error}") from error

    def _unreachable(self, error: Exception) -> DynamoUnavailable:
        missing = missing_credentials(error, "db")
        if missing is not None:
            return DynamoUnavailable("there are no credentials for DynamoDB", "db.aws_access_key_id", missing)
        address = self.client.meta.endpoint_url
        setting = "db.region_name" if self._address is None else "db.host"
        reason = f"DynamoDB does not answer at {address} ({type(error).__name__}); is that the right place?"
        return DynamoUnavailable("DynamoDB does not answer", setting, reason)


def _no_retry(caught_exception: Exception | None, **_: Any) -> bool | None:
    """False for a time-out, so that it is not tried again; None leaves it to the others that are asked."""
    from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError

    return False if isinstance(caught_exception, (ConnectTimeoutError, ReadTimeoutError)) else None


def pauses() -> Iterator[float | None]:
    """How long to wait before each next try, in seconds, and at last None: there is no next."""
    deadline = time.monotonic() + PATIENCE
    pause = LONGEST_PAUSE / 100
    while time.monotonic() < deadline:
        # At random, so that those who came together do not come back together.
        yield random.uniform(pause / 2, pause)  # noqa: S311 - no secret
        pause = min(pause * 2, LONGEST_PAUSE)
    yield None


def _tables(parameters: Mapping[str, Any]) -> str:
    """The names of the tables that a request is about."""
    actions = [action for each in parameters.get("TransactItems", ()) for action in each.values()]
    names = [each["TableName"] for each in (parameters, *actions) if "TableName" in each]
    return " and ".join(dict.fromkeys([*names, *parameters.get("RequestItems", ())]))


def _translated(error: Any, operation: str, tables: str) -> Exception:
    """The error that a refusal of DynamoDB is for the rest of the server."""
    code = error.response["Error"]["Code"]
    action = _action(operation)
    translated: Exception
    if code == "ConditionalCheckFailedException":
        translated = ConditionFailed(error.response.get("Item"))
    elif code == "TransactionCanceledException":
        translated = Cancelled([reason.get("Code", "") for reason in error.response.get("CancellationReasons", ())])
    elif code == "ResourceNotFoundException":
        translated = TableMissing(f"there is no DynamoDB table {tables}")
    elif code == "ResourceInUseException":
        translated = TableInUse(f"the DynamoDB table {tables} is in use")
    elif code in _BUSY:
        translated = BackendUnavailable("DynamoDB is too busy to answer; please try again")
    elif code in _NOT_ALLOWED:
        reason = f"its owner may not do {action} on {tables}; the documentation has the policy that is needed"
        translated = DynamoUnavailable(f"DynamoDB refuses {action} on {tables}", "db.aws_access_key_id", reason)
    elif code in _WRONG_KEYS:
        reason = f"AWS does not accept the credentials ({code})"
        translated = DynamoUnavailable("DynamoDB does not accept the credentials", "db.aws_access_key_id", reason)
    else:
        reason = f"DynamoDB refuses {action} on {tables}: {code}"
        translated = DynamoUnavailable("DynamoDB refuses to answer", "db.region_name", reason)
    return translated


def _action(operation: str) -> str:
    """What the right to do something is called; a transaction needs those to what is in it."""
    if operation == "transact_write_items":
        return "dynamodb:PutItem or dynamodb:DeleteItem"
    return "dynamodb:" + "".join(word.capitalize() for word in operation.split("_"))
