"""A storage, a cache and an access backend as somebody else wrote them for 1.3.12: they run there as they are.

Only documented classes and methods are used, and nothing of what this server has added to them. Python 3.8.
"""

from __future__ import annotations

import hmac
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

from pypicloud.access import IAccessBackend
from pypicloud.cache import ICache
from pypicloud.dateutil import utcfromtimestamp
from pypicloud.models import Package
from pypicloud.storage import IStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class DepotStorage(IStorage):
    """Keeps all files in one directory, each with its facts in a file that lies beside it."""

    def __init__(self, request: Any = None, depot: str = "", **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.depot = Path(depot)

    @classmethod
    def configure(cls, settings: Any) -> dict[str, Any]:
        kwargs = super().configure(settings)
        kwargs["depot"] = settings["storage.depot"]
        Path(kwargs["depot"]).mkdir(exist_ok=True)
        return kwargs

    def list(self, factory: Callable[..., Package] = Package) -> Any:
        for path in self.depot.glob("*.json"):
            facts = json.loads(path.read_text())
            name, version, modified = facts.pop("name"), facts.pop("version"), utcfromtimestamp(facts.pop("time"))
            yield factory(name, version, path.stem, modified, **facts)

    def download_response(self, package: Package) -> Any:
        with self.open(package) as stream:
            return Response(body=stream.read(), content_type="application/x-depot")

    def upload(self, package: Package, datastream: BinaryIO) -> None:
        facts = {"name": package.name, "version": package.version, "time": package.last_modified.timestamp()}
        facts.update(package.get_metadata())
        self.path(package).write_bytes(datastream.read())
        self.facts_path(package).write_text(json.dumps(facts))

    def delete(self, package: Package) -> None:
        self.path(package).unlink()
        self.facts_path(package).unlink()

    @contextmanager
    def open(self, package: Package) -> Iterator[BinaryIO]:
        with self.path(package).open("rb") as stream:
            yield stream

    def path(self, package: Package) -> Path:
        return self.depot / package.filename

    def facts_path(self, package: Package) -> Path:
        return self.depot / (package.filename + ".json")


class CdnStorage(DepotStorage):
    """The same, with a delivery network before it."""

    def get_url(self, package: Package) -> str:
        return "https://cdn.example/" + package.filename

    def download_response(self, package: Package) -> Any:
        return HTTPFound(location=self.get_url(package))


class ShelfCache(ICache):
    """Keeps the facts in a dictionary."""

    def __init__(self, request: Any = None, shelf: dict[str, Package] | None = None, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.shelf = {} if shelf is None else shelf

    @classmethod
    def configure(cls, settings: Any) -> dict[str, Any]:
        kwargs = super().configure(settings)
        kwargs["shelf"] = {}
        return kwargs

    def fetch(self, filename: str) -> Package | None:
        return self.shelf.get(filename)

    def all(self, name: str) -> list[Package]:
        return sorted((package for package in self.shelf.values() if package.name == name), reverse=True)

    def distinct(self) -> list[str]:
        return sorted({package.name for package in self.shelf.values()})

    def clear(self, package: Package) -> None:
        self.shelf.pop(package.filename, None)

    def clear_all(self) -> None:
        self.shelf.clear()

    def save(self, package: Package) -> None:
        self.shelf[package.filename] = package

    def check_health(self) -> tuple[bool, str]:
        return (True, "")


class PhonebookAccess(IAccessBackend):
    """Users, groups and permissions in a JSON file. Passwords are as they are, which is nobody's example."""

    def __init__(self, request: Any = None, book: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.book: dict[str, Any] = book or {}

    @classmethod
    def configure(cls, settings: Any) -> dict[str, Any]:
        kwargs = super().configure(settings)
        kwargs["book"] = json.loads(Path(settings["auth.phonebook"]).read_text())
        return kwargs

    def verify_user(self, username: str, password: str) -> bool:
        known = self.book["users"].get(username)
        return known is not None and hmac.compare_digest(known, password)

    def groups(self, username: str | None = None) -> list[str]:
        groups = self.book["groups"]
        return [group for group in groups if username is None or username in groups[group]]

    def group_members(self, group: str) -> list[str]:
        return list(self.book["groups"].get(group, []))

    def is_admin(self, username: str) -> bool:
        return username in self.book["admins"]

    def group_permissions(self, package: str) -> dict[str, list[str]]:
        return dict(self.book["group_permissions"].get(package, {}))

    def user_permissions(self, package: str) -> dict[str, list[str]]:
        return dict(self.book["user_permissions"].get(package, {}))

    def user_package_permissions(self, username: str) -> Any:
        return self.granted("user_permissions", username)

    def group_package_permissions(self, group: str) -> Any:
        return self.granted("group_permissions", group)

    def granted(self, kind: str, name: str) -> list[dict[str, Any]]:
        rows = self.book[kind].items()
        return [{"package": package, "permissions": names[name]} for package, names in rows if name in names]

    def user_data(self, username: str | None = None) -> Any:
        if username is not None:
            return {"username": username, "admin": self.is_admin(username), "groups": self.groups(username)}
        return [{"username": user, "admin": self.is_admin(user)} for user in self.book["users"]]
