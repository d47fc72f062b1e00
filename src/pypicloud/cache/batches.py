"""Many things in portions, as databases take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in lists of this size; the last one may be shorter."""
    remaining = iter(values)
    while batch := list(islice(remaining, size)):
        yield batch
