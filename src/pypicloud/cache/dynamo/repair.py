"""What is known of projects is put right, where 1.3.12, a stranger or an accident has left it wrong."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from pypicloud.cache.dynamo.changes import Changes
from pypicloud.cache.dynamo.client import ConditionFailed, Dynamo
from pypicloud.cache.dynamo.items import Item, State, checksum, fill_package, is_own, state_of, written
from pypicloud.cache.dynamo.tables import Tables
from pypicloud.cache.steps import Digest, digest_of
from pypicloud.models import Package

LOG: Final = logging.getLogger(__name__)

#: The attributes of a package's item by which it is known again.
_FACTS: Final = ("name", "version", "last_modified", "summary", "data")


@dataclass(slots=True)
class Tally:
    """What the files of a project come to."""

    digest: Digest | None = None
    count: int = 0
    check: int = 0

    def add(self, package: Package) -> None:
        """Count one more file."""
        self.digest = digest_of([package], self.digest)
        self.count += 1
        self.check ^= checksum([package])

    def agrees(self, state: State) -> bool:
        """Whether this is what is known of the project already."""
        if (state.check, state.count) != (self.check, self.count):
            return False
        # Of two files of the same time, either may be the latest.
        return _without_latest(state.digest) == _without_latest(self.digest)


def _without_latest(digest: Digest | None) -> Digest | None:
    return None if digest is None else replace(digest, latest="")


def renewed(state: State, tally: Tally) -> State:
    """What is to be known of a project whose files are these."""
    recent = state.recent
    return written(State(state.name, secrets.token_hex(16), tally.digest, tally.count, tally.check, recent, None))


def tally_of(packages: Iterable[Package]) -> Tally:
    """What these files come to."""
    tally = Tally()
    for package in packages:
        tally.add(package)
    return tally


def repair(dynamo: Dynamo, tables: Tables, changes: Changes) -> None:
    """Make what is known of the projects agree with the files, and drop what is no package.

    What somebody changes meanwhile is left as they made it.
    """
    # Read before the files: a project that changes from here on has another revision than this.
    states = {item["name"]["S"]: state_of(item["name"]["S"], item) for item in dynamo.scan(tables.summaries)}
    tallies: dict[str, Tally] = {}
    for item in dynamo.scan(tables.packages):
        if is_own(item):
            continue
        try:
            package = fill_package(item)
        except ValueError:
            _drop(dynamo, tables.packages, item)
        else:
            tallies.setdefault(package.name, Tally()).add(package)
    wrong = []
    for name in {**states, **tallies}:
        state, tally = states.get(name) or state_of(name, None), tallies.get(name) or Tally()
        if not tally.agrees(state):
            wrong.append((state, renewed(state, tally)))
    made = changes.renew(wrong)
    if any(made):
        LOG.info("What is known of %d projects was put right", sum(made))


def _drop(dynamo: Dynamo, table: str, item: Item) -> None:
    """Delete an item that is no package, if it still is as it was read."""
    known = [name for name in _FACTS if name in item]
    terms = [f"#{name} = :{name}" if name in known else f"attribute_not_exists(#{name})" for name in _FACTS]
    values = {f":{name}": item[name] for name in known}
    try:
        dynamo.delete(
            table,
            {"filename": item["filename"]},
            ConditionExpression=" AND ".join(terms),
            ExpressionAttributeNames={f"#{name}": name for name in _FACTS},
            **({"ExpressionAttributeValues": values} if values else {}),
        )
    except ConditionFailed:
        return
    LOG.warning("The item %s was no package, and is gone", item["filename"]["S"])
