"""Moto's server, as it has to be for many writers and many items.

By itself Moto copies all items of a table for each action of a transaction, and a transaction that is cancelled takes
away what others wrote meanwhile. This runs in Moto's own environment, which has nothing of ours.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from moto.dynamodb import models  # type: ignore[import-not-found]
from moto.server import main  # type: ignore[import-not-found]

WRITING = threading.RLock()


def alone(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that writes, one call at a time."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        with WRITING:
            return method(*arguments, **keywords)

    return call


def deepcopy(found: Any, *arguments: Any) -> Any:
    """Of a table, a copy that is deep enough for transactions that put and delete items."""
    if not isinstance(found, models.Table):
        return copy.deepcopy(found, *arguments)
    table = copy.copy(found)
    table.items = copy.copy(found.items)
    return table


models.copy = SimpleNamespace(deepcopy=deepcopy, copy=copy.copy)
for name in ("put_item", "update_item", "delete_item", "transact_write_items"):
    setattr(models.DynamoDBBackend, name, alone(getattr(models.DynamoDBBackend, name)))
main(sys.argv[1:])
