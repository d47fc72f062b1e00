"""What lies in Redis, seen and written without the cache, by the book (compat.md 3.3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from redis import Redis, RedisCluster

from pypicloud.models import Package

Client: TypeAlias = Redis | RedisCluster

_FIXED = ("name", "version", "filename", "last_modified", "summary")


def dump(client: Client, pattern: str = "*") -> dict[str, Any]:
    """Every key that matches, with its value: a text, a set of texts or a mapping of texts."""
    found: dict[str, Any] = {}
    for key in client.scan_iter(pattern):
        kind = client.type(key)
        if kind == b"hash":
            found[_text(key)] = {_text(field): _text(value) for field, value in _answer(client.hgetall(key)).items()}
        elif kind == b"set":
            found[_text(key)] = set(map(_text, _answer(client.smembers(key))))
        elif kind == b"string":
            found[_text(key)] = _text(_answer(client.get(key)))
        else:
            found[_text(key)] = kind
    return found


def rows(client: Client) -> dict[str, dict[str, Any]]:
    """The facts of all files, by name."""
    found = {}
    for row in dump(client, "pypicloud:package:*").values():
        fixed = {key: row.pop(key) for key in _FIXED}
        time = datetime.fromtimestamp(float(fixed["last_modified"]), UTC)
        data = {key: json.loads(value) for key, value in row.items()}
        found[fixed["filename"]] = {**fixed, "last_modified": time, "data": data}
    return found


def save_like_1_3_12(client: Client, packages: Iterable[Package]) -> None:
    """Save files as 1.3.12 does: facts on top of facts, the summary that of the last one."""
    for package in packages:
        facts: dict[Any, Any] = {
            "name": package.name,
            "version": package.version,
            "filename": package.filename,
            "last_modified": package.last_modified.timestamp(),
            "summary": package.summary or "",
        }
        facts |= {key: json.dumps(value) for key, value in package.data.items()}
        client.hset(f"pypicloud:package:{package.filename}", mapping=facts)
        client.sadd("pypicloud:set", package.name)
        client.sadd(f"pypicloud:set:{package.name}", package.filename)
        summary: dict[Any, Any] = {key: facts[key] for key in ("name", "summary", "last_modified")}
        client.hset(f"pypicloud:summary:{package.name}", mapping=summary)


def clear_like_1_3_12(client: Client, package: Package) -> None:
    """Forget a file as 1.3.12 does."""
    client.delete(f"pypicloud:package:{package.filename}")
    client.srem(f"pypicloud:set:{package.name}", package.filename)
    if not client.scard(f"pypicloud:set:{package.name}"):
        client.srem("pypicloud:set", package.name)
        client.delete(f"pypicloud:set:{package.name}", f"pypicloud:summary:{package.name}")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogatepass")


def _answer(value: Any) -> Any:
    """The library's answer; its types allow for clients that are not ours."""
    return value
