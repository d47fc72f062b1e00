"""A third-party cache as one was written for 1.3.12: from the documentation of ``ICache`` alone (compat.md 8.3)."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.cache import ICache, get_cache_impl
from pypicloud.errors import SettingError
from pypicloud.settings import EnvironSettings
from pypicloud.testing.cache import CacheContract, Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from pypicloud.models import Package


class ShelfCache(ICache):
    """Keeps each package as a line of text on a shelf, under its file name; knows nothing of any optional power."""

    def __init__(self, request: Any = None, shelf: Any = None, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.shelf = shelf

    @classmethod
    def configure(cls, settings: Any) -> dict[str, Any]:
        kwargs = super().configure(settings)
        kwargs["shelf"] = settings.get_as_dict("db.", shelf=json.loads).get("shelf", {})
        return kwargs

    def fetch(self, filename: str) -> Any:
        found = self.shelf.get(filename)
        return None if found is None else self._read(found[1])

    def all(self, name: str) -> list[Package]:
        wanted = self.new_package(name, "0", "").name
        packages = [self._read(line) for name, line in list(self.shelf.values()) if name == wanted]
        return sorted(packages, reverse=True)

    def distinct(self) -> list[str]:
        return sorted({name for name, line in list(self.shelf.values())})

    def clear(self, package: Package) -> None:
        self.shelf.pop(package.filename, None)

    def clear_all(self) -> None:
        self.shelf.clear()

    def save(self, package: Package) -> None:
        time = package.last_modified.timestamp()
        line = [package.name, package.version, package.filename, time, package.summary, package.data]
        self.shelf[package.filename] = (package.name, json.dumps(line))

    def _read(self, line: str) -> Package:
        name, version, filename, time, summary, data = json.loads(line)
        return self.new_package(name, version, filename, datetime.fromtimestamp(time, UTC), summary, **data)


class TestPlugin(CacheContract):
    cache_class = ShelfCache
    limits = frozenset({"revisions", "servers"})

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {"db.shelf": "{}"}

    @pytest.fixture
    def witness(self, server: Callable[..., ICache]) -> Witness:
        shelf = server.keywords["shelf"]  # type: ignore[attr-defined]  # a partial, as the app makes it

        def rows() -> dict[str, dict[str, Any]]:
            found = {}
            for filename, (_, line) in shelf.items():
                name, version, _, time, summary, data = json.loads(line)
                found[filename] = {
                    "name": name,
                    "version": version,
                    "last_modified": datetime.fromtimestamp(time, UTC),
                    "summary": summary,
                    "data": data,
                }
            return found

        return rows

    def test_it_is_not_asked_on_the_event_loop(self, cache: ICache) -> None:
        """Of a cache that says nothing about it, it is not believed that it answers at once."""
        assert not cache.is_local

    def test_who_holds_a_lock_may_take_it_again(self, cache: ICache) -> None:
        """A script that holds the lock of a file can call upload, which takes it, too."""
        with cache.lock("foo-1.0.tar.gz"):
            cache.upload("foo-1.0.tar.gz", io.BytesIO(b""))
        assert cache.distinct() == ["foo"]

    @pytest.mark.parametrize("separator", [".", ":"])
    def test_a_dotted_path_finds_it(self, separator: str) -> None:
        """The setting pypi.db takes the dotted path of a class of anybody's."""
        keys = {
            "pypi.db": f"{__name__}{separator}ShelfCache",
            "pypi.storage": "pypicloud.testing.storage.MemoryStorage",
            "pypi.calculate_package_hashes": "no",
        }
        cache = get_cache_impl(EnvironSettings(keys, {"PPC_DB_SHELF": "{}"}))("the request")
        assert type(cache) is ShelfCache
        assert (cache.request, cache.storage.request, cache.calculate_hashes) == ("the request", "the request", False)

    def test_another_class_is_refused(self) -> None:
        """Something that is no cache stops the start."""
        with pytest.raises(SettingError, match=r"^pypi\.db = 'json\.JSONDecoder'.*not a subclass of ICache"):
            get_cache_impl(EnvironSettings({"pypi.db": "json.JSONDecoder"}, {}))
