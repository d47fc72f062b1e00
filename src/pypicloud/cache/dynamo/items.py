"""The items of the two DynamoDB tables, as 1.3.12 wrote them, and what they mean (compat.md 3.4).

In the table of the packages stand, beside the packages, a few items of this version: the revision of the list of
projects, notes and locks. Their keys begin with a slash, which no file name has in it. They have no ``name``, so
they are not in the index; and 1.3.12 leaves them alone, as they were modified in the year 3000.

The item of a project in the table of the summaries has more attributes than 1.3.12 gave it. 1.3.12 writes such items
anew, without them; so it can be seen that what they said no longer holds.
"""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from pypicloud.cache.steps import Digest, Project
from pypicloud.models import Package
from pypicloud.util import normalize_name

Item: TypeAlias = Mapping[str, Any]

#: The most bytes that DynamoDB takes in an item, and in a key.
LARGEST_ITEM: Final = 400_000
LARGEST_KEY: Final = 2048

#: What the keys of those items of the packages' table begin with that are no packages.
_MARK: Final = "/"

#: The key of the item that holds the revision of the list of projects.
LIST: Final = f"{_MARK}projects"

#: The first second of the year 3000. 1.3.12's graceful rebuild drops what is older than itself and not stored.
_FAR: Final = "32503680000"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLION: Final = Decimal(10**6)

#: The most digits that a number of DynamoDB can have.
_DIGITS: Final = 38

#: The names of how many of the files that came last a project's item holds.
RECENT: Final = 5

#: How long the index can lag behind what 1.3.12 wrote, with clocks that differ.
_SETTLED: Final = timedelta(hours=1)


def gone_key(project: str) -> str:
    """The key of the item that holds the revision of a project that is not there any more."""
    return f"{_MARK}gone/{project}"


def note_key(key: str) -> str:
    """The key of the item of a note."""
    return f"{_MARK}note/{key}"


def lock_key(key: str) -> str:
    """The key of the item of a lock."""
    return f"{_MARK}lock/{key}"


def is_key(text: str) -> bool:
    """Whether there can be an item with this key."""
    return _is_text(text) and 0 < len(text.encode()) <= LARGEST_KEY


def own_item(key: str, **texts: str) -> Item:
    """An item that is no package, with some texts."""
    return {"filename": {"S": key}, "last_modified": {"N": _FAR}, **{name: {"S": text} for name, text in texts.items()}}


def text_of(item: Item | None, name: str) -> str | None:
    """A text of an item, if it has that."""
    found = None if item is None else item.get(name, {}).get("S")
    return found if isinstance(found, str) else None


def is_own(item: Item) -> bool:
    """Whether an item of the packages' table is one of this version's own, and no package."""
    return (text_of(item, "filename") or "").startswith(_MARK)


# Values


def stored(value: Any) -> dict[str, Any]:
    """A value of a package's ``data`` as DynamoDB keeps it; for what it has no type for, JSON in bytes."""
    found: dict[str, Any] = {}
    match value:
        case bool():
            found = {"BOOL": value}
        case None:
            found = {"NULL": True}
        case str() if _is_text(value):
            found = {"S": value}
        case int() | float() if _number(value):
            found = {"N": _number(value)}
        case Mapping():
            found = {"M": {str(key): stored(each) for key, each in value.items()}}
        case list() | tuple():
            found = {"L": [stored(each) for each in value]}
    return found or {"B": json.dumps(value).encode()}


def loaded(attribute: Mapping[str, Any]) -> Any:
    """What a value stands for. Raises ValueError for a type that nothing here has."""
    ((kind, value),) = attribute.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "NULL":
            return None
        case "N":
            number = Decimal(value)
            return int(number) if number == number.to_integral_value() else float(number)
        case "M":
            return {key: loaded(each) for key, each in value.items()}
        case "L":
            return [loaded(each) for each in value]
        case "B":
            return json.loads(value)
        case _:
            raise ValueError(f"a value of the type {kind} means nothing here")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: float) -> str | None:
    """A number in the digits that come back, or None for one that DynamoDB, with its 38 digits, might not keep."""
    number = Decimal(repr(value))
    if not number.is_finite():
        return None
    digits = format(number.normalize(), "f")
    return digits if len(digits) < _DIGITS else None


def seconds(time: datetime) -> str:
    """A time as DynamoDB keeps it: seconds since 1970, with microseconds."""
    micros = (time - _EPOCH) // timedelta(microseconds=1)
    return f"{Decimal(micros) / _MILLION:.6f}"


def moment(attribute: Mapping[str, Any]) -> datetime:
    """The time that was kept. Raises ValueError if it is none."""
    try:
        return _EPOCH + timedelta(microseconds=int((Decimal(attribute["N"]) * _MILLION).to_integral_value()))
    except (InvalidOperation, OverflowError, KeyError, TypeError) as error:
        raise ValueError(f"{attribute!r} is no time") from error


# Packages


def package_item(package: Package) -> Item:
    """The item of a package."""
    return {
        "filename": {"S": package.filename},
        "name": {"S": package.name},
        "version": {"S": package.version},
        "last_modified": {"N": seconds(package.last_modified)},
        **({"summary": {"S": package.summary}} if package.summary else {}),
        "data": {"M": {key: stored(value) for key, value in package.data.items()}},
    }


def fill_package(item: Item, make: Any = Package) -> Package:
    """The package of an item. Raises ValueError if it is none."""
    name, version, filename = (text_of(item, key) for key in ("name", "version", "filename"))
    if name is None or version is None or filename is None or normalize_name(name) != name:
        raise ValueError("its name, version or file name is not what it must be")
    data = loaded(item.get("data", {"M": {}}))
    if not isinstance(data, dict):
        raise ValueError("its data is no map")  # noqa: TRY004 - whatever is wrong with an item is one error
    package: Package = make(name, version, filename, moment(item.get("last_modified", {})), text_of(item, "summary"))
    # Not through keywords: the data may have any key, "name" and "version" too.
    package.data = data
    return package


def size_of(item: Item) -> int:
    """About how many bytes an item has, as DynamoDB counts."""
    return sum(len(name.encode(errors="replace")) + _size(attribute) for name, attribute in item.items())


def _size(attribute: Mapping[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value.encode())
        case "N" | "B":
            return len(value)
        case "M":
            return 3 + size_of(value) + len(value)
        case "L":
            return 3 + sum(1 + _size(each) for each in value)
        case _:
            return 1


# Projects


def checksum(packages: Iterable[Package]) -> int:
    """What the facts of some packages come to; those of two sets, put together with ``^``, to that of both."""
    return functools.reduce(operator.xor, map(_checksum, packages), 0)


#: The types whose values come back as they were.
_PLAIN: Final = frozenset({str, int, bool})


def _checksum(package: Package) -> int:
    # What was saved must come to the same as what is read, though some values come back as others: 1.0 as 1.
    data = {key: value if type(value) in _PLAIN else loaded(stored(value)) for key, value in package.data.items()}
    facts = (package.filename, package.name, package.version, seconds(package.last_modified), package.summary, data)
    text = json.dumps(facts, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class State(Project):
    """What the item of a project says; ``item`` is None if there is none.

    ``check`` is the checksum of all files, or None if 1.3.12 wrote the item; ``recent`` are the names of those
    that came last, which the index may not have yet.
    """

    check: int | None
    recent: tuple[str, ...]
    item: Item | None = field(compare=False, repr=False)

    def agrees(self, packages: Iterable[Package]) -> bool:
        """Whether these are the files of the project; what 1.3.12 wrote has to be believed."""
        return self.check is None or self.check == checksum(packages)

    @property
    def page_revision(self) -> str | None:
        """The revision as readers see it if there is an item.

        What 1.3.12 wrote last has the time of that. While the index may lag behind it there is none: nobody could
        tell a page that was rendered too early from a good one.
        """
        if self.revision is not None or self.item is None:
            return self.revision
        try:
            written = moment(self.item.get("last_modified", {}))
        except ValueError:
            return None
        return None if datetime.now(UTC) - written < _SETTLED else f"1.3.12 {written.isoformat()}"

    def condition(self) -> dict[str, Any]:
        """The condition on the project's item, for DynamoDB: that nobody has written it since."""
        if self.item is None:
            return {"ConditionExpression": "attribute_not_exists(#name)", "ExpressionAttributeNames": {"#name": "name"}}
        known = [name for name in _WITNESSES if name in self.item]
        terms = [f"#{name} = :{name}" if name in known else f"attribute_not_exists(#{name})" for name in _WITNESSES]
        values = {f":{name}": self.item[name] for name in known}
        return {
            "ConditionExpression": " AND ".join(["attribute_exists(#name)", *terms]),
            "ExpressionAttributeNames": {f"#{name}": name for name in ("name", *_WITNESSES)},
            **({"ExpressionAttributeValues": values} if values else {}),
        }


#: What changes in the item of a project when this version writes it, and when 1.3.12 does.
_WITNESSES: Final = ("revision", "last_modified")


def state_of(name: str, item: Item | None) -> State:
    """What the item of a project says, which is little if 1.3.12 or a stranger wrote it."""
    if item is None:
        return State(name, None, None, 0, 0, (), None)
    revision = text_of(item, "revision")
    try:
        check = int(text_of(item, "check") or "", 16)
        count = int(item["count"]["N"])
        recent = tuple(filter(None, item["recent"]["S"].split(_MARK)))
    except (ValueError, KeyError, TypeError, AttributeError):
        # How many files there are is not known, but there is one at least.
        return State(name, revision, None, 1, None, (), item)
    return State(name, revision, digest_in(item), count, check, recent, item)


def digest_in(item: Item) -> Digest | None:
    """The digest of a project, if its item has it."""
    version, filename, latest = (text_of(item, key) for key in ("version", "filename", "latest"))
    try:
        time = moment(item.get("last_modified", {}))
    except ValueError:
        return None
    if version is None or filename is None or latest is None:
        return None
    return Digest(text_of(item, "summary"), time, version, filename, latest)


def written(state: State) -> State:
    """What is known of a project, with the item that says so.

    Without a digest the item has what is shown from the item that ``state`` brings.
    """
    if state.count == 0:
        return replace(state, item=None)
    digest, shown = state.digest, state.item or {}
    shown = {name: shown[name] for name in ("summary", "last_modified") if name in shown}
    if digest is not None:
        shown = {
            **({"summary": {"S": digest.summary}} if digest.summary else {}),
            "last_modified": {"N": seconds(digest.last_modified)},
            "version": {"S": digest.version},
            "filename": {"S": digest.filename},
            "latest": {"S": digest.latest},
        }
    item = {
        "name": {"S": state.name},
        **shown,
        **({"revision": {"S": state.revision}} if state.revision else {}),
        "count": {"N": str(state.count)},
        "check": {"S": f"{state.check or 0:032x}"},
        "recent": {"S": _MARK.join(state.recent)},
    }
    return replace(state, item=item)
