"""From the changes of projects to DynamoDB's transactions, and what becomes of these.

A transaction can do 100 things. So the small changes of many projects go together, and a large one is made in parts:
each is whole in itself, with a revision of its own. A file that leaves one project for another does so in one part.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from operator import xor
from typing import Any, Final, cast

from pypicloud.cache.dynamo.client import Cancelled, Dynamo, pauses
from pypicloud.cache.dynamo.items import (
    LARGEST_ITEM,
    LARGEST_KEY,
    LIST,
    RECENT,
    Item,
    State,
    checksum,
    gone_key,
    is_key,
    own_item,
    package_item,
    size_of,
    written,
)
from pypicloud.cache.dynamo.tables import Tables
from pypicloud.cache.steps import Project, Step
from pypicloud.errors import BackendUnavailable, InvalidUpload
from pypicloud.models import Package

#: The most actions of one transaction, and the most bytes, of which there may be four million.
MOST_ACTIONS: Final = 100
MOST_BYTES: Final = 3_500_000

#: About how many bytes the item of a project has.
_PROJECT_SIZE: Final = 2000

#: What DynamoDB says of an action that was well; of one whose condition does not hold; of one that may be well later.
_FINE: Final = "None"
_REFUSED: Final = "ConditionalCheckFailed"
_LATER: Final = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})


@dataclass(frozen=True, slots=True)
class Part:
    """Some actions that are done together or not at all; ``is_listed`` if the list of projects changes, too."""

    actions: tuple[Mapping[str, Any], ...]
    size: int
    is_listed: bool


@dataclass(slots=True)
class _Edit:
    """What becomes of one file: the action on its item, and by project what it does to checksum and count.

    ``arrival`` is its name, and that of the project in which it has new facts.
    """

    action: Mapping[str, Any] | None = None
    size: int = 0
    effects: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrival: tuple[str, str] | None = None


def check_size(package: Package) -> None:
    """Raise :class:`InvalidUpload` for facts that are more than an item can hold."""
    # A character has up to four bytes; hardly any package comes near the limit.
    is_small = 4 * (len(package.summary or "") + len(repr(package.data))) < LARGEST_ITEM // 2
    size = 0 if is_small else size_of(package_item(package))
    if size > LARGEST_ITEM:
        raise InvalidUpload(
            f"the facts about {package.filename} are {size} bytes, and DynamoDB keeps {LARGEST_ITEM}: "
            "please shorten its summary and other metadata"
        )
    if not is_key(package.filename) or not is_key(package.name):
        raise InvalidUpload(f"{package.filename!r} cannot be kept: names in DynamoDB have 1 to {LARGEST_KEY} bytes")


class Changes:
    """Makes changes in the tables."""

    def __init__(self, dynamo: Dynamo, tables: Tables) -> None:
        self._dynamo = dynamo
        self._tables = tables

    def make(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step, those that share a file together; False for one that would not go."""
        made: dict[str, bool] = {}
        small: list[tuple[list[str], Part]] = []
        for unit in _units(steps):
            names = [step.name for step in unit]
            parts = self._parts(unit)
            if len(parts) == 1:
                small.append((names, parts[0]))
            else:
                made.update(dict.fromkeys(names, all(self._send([part])[0] for part in parts)))
        for (names, _), is_made in zip(small, self._send_all([part for _, part in small]), strict=True):
            made.update(dict.fromkeys(names, is_made))
        return [made[step.name] for step in steps]

    def renew(self, states: Iterable[tuple[State, State]]) -> list[bool]:
        """Write anew what is known of projects; for each, whether it still was as it was read."""
        return self._send_all(
            Part(self._project(before, after), _PROJECT_SIZE, (before.item is None) != (after.count == 0))
            for before, after in states
        )

    def _send_all(self, parts: Iterable[Part]) -> list[bool]:
        return [is_made for some in _packed(parts) for is_made in self._send(some)]

    def _send(self, parts: Sequence[Part]) -> list[bool]:
        """Do all parts whose conditions hold, in one transaction; whether each was done."""
        left = [*parts]
        for pause in pauses():
            is_listed = any(part.is_listed for part in left)
            listed = [{"Put": {"TableName": self._tables.packages, "Item": _new_list()}}] if is_listed else []
            try:
                self._dynamo.transact([*(action for part in left for action in part.actions), *listed])
            except Cancelled as error:
                possible = _possible(left, error.reasons)
                if not possible:
                    break
                if pause is None:
                    raise BackendUnavailable("DynamoDB is too busy to write; please try again") from error
                if len(possible) == len(left):
                    time.sleep(pause)
                left = possible
            else:
                if is_listed:
                    # Who listed the projects while this was half done may have seen the new revision, but not all
                    # of the change, as only single items are read as of one moment.
                    self._dynamo.put(self._tables.packages, _new_list())
                return [any(part is each for each in left) for part in parts]
        return [False] * len(parts)

    def _project(self, before: State, after: State) -> tuple[Mapping[str, Any], ...]:
        """Puts or deletes the item of a project, if it still is as it was read."""
        table = {"TableName": self._tables.summaries, **before.condition()}
        if after.count:
            return ({"Put": {**table, "Item": after.item}},)
        gone = own_item(gone_key(after.name), revision=after.revision or "")
        key = {"name": {"S": after.name}}
        return ({"Delete": {**table, "Key": key}}, {"Put": {"TableName": self._tables.packages, "Item": gone}})

    def _parts(self, unit: Sequence[Step]) -> list[Part]:
        """The changes of some projects that have files in common, in parts that are to be made one after the other."""
        edits = self._edits(unit)
        ends = {step.name: step.after for step in unit}
        states = {step.name: _beginning(step, edits) for step in unit}
        groups = list(_grouped(edits))
        last = {name: number for number, group in enumerate(groups) for edit in group for name in edit.effects}
        parts = []
        for number, group in enumerate(groups):
            actions = [edit.action for edit in group if edit.action is not None]
            is_listed = False
            for name in dict.fromkeys(name for edit in group for name in edit.effects):
                before, after = states[name], _after(states[name], group, ends[name], is_last=last[name] == number)
                actions += self._project(before, after)
                is_listed |= (before.item is None) != (after.count == 0)
                states[name] = after
            size = sum(edit.size for edit in group) + _PROJECT_SIZE * (len(actions) - len(group))
            parts.append(Part(tuple(actions), size, is_listed))
        return parts

    def _edits(self, unit: Iterable[Step]) -> list[_Edit]:
        """What becomes of each file of some projects."""
        table = self._tables.packages
        edits: dict[str, _Edit] = defaultdict(_Edit)
        for step in unit:
            before = {package.filename: checksum([package]) for package in step.replaced}
            for package in step.saved:
                check_size(package)
                item, edit = package_item(package), edits[package.filename]
                edit.action, edit.size = {"Put": {"TableName": table, "Item": item}}, size_of(item)
                known = before.pop(package.filename, None)
                edit.effects[step.name] = (checksum([package]) ^ (known or 0), 1 if known is None else 0)
                edit.arrival = package.filename, step.name
            for filename in step.dropped:
                # A file that somebody else has given to another project meanwhile stays there.
                key = {"TableName": table, "Key": {"filename": {"S": filename}}}
                edits[filename].action = {"Delete": {**key, **_owned_by(step.name)}}
            for filename, known in before.items():
                edits[filename].effects[step.name] = (known, -1)
        return list(edits.values())


def _new_list() -> Item:
    return own_item(LIST, revision=secrets.token_hex(16))


def _owned_by(name: str) -> dict[str, Any]:
    return {
        "ConditionExpression": "#name = :name",
        "ExpressionAttributeNames": {"#name": "name"},
        "ExpressionAttributeValues": {":name": {"S": name}},
    }


def _beginning(step: Step, edits: Iterable[_Edit]) -> State:
    """What is known of a project before a step, worked out from what is known after it as far as that is more."""
    # It is what this cache read.
    before = cast("State", step.before)
    effects = [edit.effects[step.name] for edit in edits if step.name in edit.effects]
    check = checksum(step.files) if step.files is not None else before.check or 0
    if step.files is not None:
        check = reduce(xor, (each for each, _ in effects), check)
    return replace(before, check=check, count=step.after.count - sum(count for _, count in effects))


def _after(before: State, group: Iterable[_Edit], end: Project, *, is_last: bool) -> State:
    """What is known of a project after some edits, which may be not all yet of those that lead to ``end``."""
    name = before.name
    effects = [edit.effects[name] for edit in group if name in edit.effects]
    check = reduce(xor, (each for each, _ in effects), before.check or 0)
    arrived = [edit.arrival[0] for edit in group if edit.arrival is not None and edit.arrival[1] == name]
    recent = tuple(dict.fromkeys([*before.recent, *arrived]))[-RECENT:]
    if is_last:
        return written(State(name, end.revision, end.digest, end.count, check, recent, None))
    # Its digest is only known when everything is done.
    count = max(1, before.count + sum(each for _, each in effects))
    shown = before.item or written(State(name, None, end.digest, count, check, (), None)).item
    return written(State(name, secrets.token_hex(16), None, count, check, recent, shown))


def _units(steps: Iterable[Step]) -> list[list[Step]]:
    """The steps one by one, but all those together in which a file goes from one project to another."""
    alone, together = [], []
    steps = list(steps)
    leaving = {filename for step in steps for filename in step.moved}
    for step in steps:
        if step.moved or any(package.filename in leaving for package in step.saved):
            together.append(step)
        else:
            alone.append([step])
    return [*alone, together] if together else alone


def _grouped(edits: Iterable[_Edit]) -> Iterator[list[_Edit]]:
    """The edits in groups that one transaction can make, with the items of their projects and the list."""
    group: list[_Edit] = []
    projects: set[str] = set()
    size = 0
    for edit in edits:
        more = projects | edit.effects.keys()
        is_full = len(group) + 1 + 2 * len(more) + 1 > MOST_ACTIONS
        if group and (is_full or size + edit.size + len(more) * _PROJECT_SIZE > MOST_BYTES):
            yield group
            group, more, size = [], {*edit.effects}, 0
        group.append(edit)
        projects, size = more, size + edit.size
    if group:
        yield group


def _packed(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts, as many together as one transaction can make."""
    some: list[Part] = []
    actions, size = 0, 0
    for part in parts:
        if some and (actions + len(part.actions) + 1 > MOST_ACTIONS or size + part.size > MOST_BYTES):
            yield some
            some, actions, size = [], 0, 0
        some.append(part)
        actions, size = actions + len(part.actions), size + part.size
    if some:
        yield some


def _possible(parts: Iterable[Part], reasons: Sequence[str]) -> list[Part]:
    """Those parts of a cancelled transaction that may be done in another."""
    if unknown := {*reasons} - {_FINE, _REFUSED} - _LATER:
        raise BackendUnavailable(f"DynamoDB does not make a change: {', '.join(sorted(unknown))}")
    remaining = iter(reasons)
    return [part for part in parts if _REFUSED not in list(islice(remaining, len(part.actions)))]
