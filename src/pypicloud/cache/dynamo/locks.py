"""Locks among servers as items of a DynamoDB table."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pypicloud.cache import leases
from pypicloud.cache.dynamo.client import ConditionFailed, Dynamo
from pypicloud.cache.dynamo.items import Item, lock_key, own_item, text_of


class Locks:
    """The items of the locks.

    A lease has no end that two machines would have to read off their clocks: its holder writes it anew again and
    again, and whoever waits sees by its own clock for how long the item has stayed the same.
    """

    def __init__(self, dynamo: Dynamo, table: str) -> None:
        self._dynamo = dynamo
        self._table = table

    def leases(self) -> leases.Leases:
        """The locks, as the cache takes them."""
        return leases.Leases(self._claim, self._renew, self._release)

    def _claim(self, key: str, token: str) -> Callable[[], bool]:
        seen: Item | None = None
        since = 0.0

        def attempt() -> bool:
            nonlocal seen, since
            is_dead = seen is not None and time.monotonic() - since > leases.LEASE
            try:
                self._write(key, token, _same(seen) if seen is not None and is_dead else _absent())
            except ConditionFailed as error:
                if text_of(error.item, "token") == token:
                    # It was written, and only the answer got lost.
                    return True
                if error.item != seen:
                    seen, since = error.item, time.monotonic()
                return False
            return True

        return attempt

    def _renew(self, key: str, token: str) -> bool:
        mine = _equal(token={"S": token})
        # One that vanished, as when the table was lost, is taken again.
        mine["ConditionExpression"] += " OR attribute_not_exists(#token)"
        try:
            self._write(key, token, mine)
        except ConditionFailed:
            return False
        return True

    def _release(self, key: str, token: str) -> None:
        # One that was lost to another server is that server's.
        with suppress(ConditionFailed):
            self._dynamo.delete(self._table, {"filename": {"S": lock_key(key)}}, **_equal(token={"S": token}))

    def _write(self, key: str, token: str, condition: dict[str, Any]) -> None:
        # The beat makes it another item each time.
        item = own_item(lock_key(key), token=token, beat=secrets.token_hex(8))
        self._dynamo.put(self._table, item, **condition)


def _absent() -> dict[str, Any]:
    return {
        "ConditionExpression": "attribute_not_exists(#filename)",
        "ExpressionAttributeNames": {"#filename": "filename"},
    }


def _same(item: Item) -> dict[str, Any]:
    return _equal(**{name: item[name] for name in ("token", "beat") if name in item})


def _equal(**attributes: Any) -> dict[str, Any]:
    return {
        "ConditionExpression": " AND ".join(f"#{name} = :{name}" for name in attributes),
        "ExpressionAttributeNames": {f"#{name}": name for name in attributes},
        "ExpressionAttributeValues": {f":{name}": value for name, value in attributes.items()},
    }
