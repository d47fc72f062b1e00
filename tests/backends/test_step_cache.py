"""Caches that change one project at a time: the contract, on a memory that can do no more than that."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pypicloud.cache import steps
from pypicloud.cache.base import UNCHANGED
from pypicloud.cache.changes import Change, facts
from pypicloud.cache.choose import newest_first, summaries
from pypicloud.cache.steps import Project, Step, StepCache, digest_of
from pypicloud.errors import BackendUnavailable
from pypicloud.models import Package
from pypicloud.testing.cache import NOW, CacheContract, Witness, package
from pypicloud.util import normalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pypicloud.cache.base import ICache
    from pypicloud.settings import EnvironSettings


class Shelves:
    """What all instances share: rows by file name, and what is known of each project."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: dict[str, Package] = {}
        self.members: dict[str, set[str]] = {}
        self.projects: dict[str, Project] = {}
        self.list_revision = UNCHANGED
        self.notes: dict[str, str] = {}
        self.refusals: Callable[[Step], bool] = lambda _: False


class ShelvesCache(StepCache):
    """Changes one project at a time, and now and then refuses as a busy server does."""

    def __init__(self, request: Any = None, *, shelves: Shelves, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.shelves = shelves

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        return {**super().configure(settings), "shelves": Shelves()}

    def read_projects(self, names: Iterable[str]) -> dict[str, Project]:
        with self.shelves.lock:
            return {name: self.shelves.projects.get(name, Project(name, None, None, 0)) for name in names}

    def commit(self, steps: Sequence[Step]) -> list[bool]:
        return [self._commit(step) for step in steps]

    def _commit(self, step: Step) -> bool:
        with self.shelves.lock:
            known = self.shelves.projects.get(step.name)
            if (known.revision if known else None) != step.before.revision or self.shelves.refusals(step):
                return False
            members = self.shelves.members.setdefault(step.name, set())
            members.update(each.filename for each in step.saved)
            members.difference_update(step.dropped, step.moved)
            for filename in step.dropped:
                del self.shelves.rows[filename]
            self.shelves.rows.update((each.filename, self._copy(each)) for each in step.saved)
            self.shelves.projects[step.name] = step.after
            assert len(members) == step.after.count
            if step.comes or step.goes:
                self.shelves.list_revision = step.after.revision or ""
            return True

    def fetch(self, filename: str) -> Package | None:
        with self.shelves.lock:
            found = self.shelves.rows.get(filename)
            return None if found is None else self._copy(found)

    def all(self, name: str) -> list[Package]:
        project = normalize_name(name)
        with self.shelves.lock:
            rows = [self.shelves.rows[member] for member in self.shelves.members.get(project, ())]
            return newest_first(self._copy(row) for row in rows if row.name == project)

    def distinct(self) -> list[str]:
        with self.shelves.lock:
            return sorted(name for name, project in self.shelves.projects.items() if project.count)

    def everything(self) -> list[Package]:
        with self.shelves.lock:
            return [self._copy(row) for row in self.shelves.rows.values()]

    def summary(self) -> list[dict[str, Any]]:
        with self.shelves.lock:
            digests = {name: project.digest for name, project in sorted(self.shelves.projects.items())}
        return [
            {"name": name, "summary": digest.summary, "last_modified": digest.last_modified}
            for name, digest in digests.items()
            if digest is not None
        ]

    def revision(self, name: str | None) -> str:
        with self.shelves.lock:
            if name is None:
                return self.shelves.list_revision
            project = self.shelves.projects.get(normalize_name(name))
            return (project.revision if project else None) or UNCHANGED

    def note(self, key: str) -> str | None:
        return self.shelves.notes.get(key)

    def write_note(self, key: str, text: str) -> None:
        self.shelves.notes[key] = text

    def _copy(self, of: Package) -> Package:
        copy = self.new_package(of.name, of.version, of.filename, of.last_modified, of.summary)
        copy.data = dict(of.data)
        return copy


class OneProjectAtATime(CacheContract):
    cache_class = ShelvesCache
    limits = frozenset({"servers"})

    @pytest.fixture
    def settings(self) -> dict[str, str]:
        return {}

    @pytest.fixture
    def shelves(self, server: Callable[..., ICache]) -> Shelves:
        found: Shelves = server.keywords["shelves"]  # type: ignore[attr-defined]  # a partial, as the app makes it
        return found

    @pytest.fixture
    def witness(self, shelves: Shelves) -> Witness:
        return lambda: {
            filename: {
                "name": row.name,
                "version": row.version,
                "last_modified": row.last_modified,
                "summary": row.summary,
                "data": row.data,
            }
            for filename, row in shelves.rows.items()
        }


class TestSteps(OneProjectAtATime):
    def test_the_digest_is_always_that_of_the_files(self, cache: ShelvesCache, shelves: Shelves) -> None:
        """After any history of changes, what is known of a project is what its files say."""
        dice = random.Random(1)
        for _ in range(300):
            one = package(
                dice.choice(["foo", "bar"]),
                filename=f"{dice.randrange(6)}.zip",
                version=dice.choice(["1.0", "1.1", "odd", "2.0rc1"]),
                summary=str(dice.random()),
                last_modified=NOW.replace(day=dice.randrange(1, 28)),
            )
            if dice.random() < 0.6:
                cache.save(one)
            else:
                cache.clear(one)
            assert cache.summary() == summaries(cache.everything())
            assert {name: project.count for name, project in shelves.projects.items()} == {
                name: len(cache.all(name)) for name in shelves.projects
            }

    def test_a_project_of_an_earlier_version_is_looked_at_whole(self, cache: ShelvesCache, shelves: Shelves) -> None:
        """Where files are there but no digest is, the first change works it out."""
        cache.save_all([package(version="2.0", summary="newest"), package(version="1.0")])
        shelves.projects["foo"] = Project("foo", None, None, 2)
        cache.save(package(version="1.5", summary="new"))
        assert [row["summary"] for row in cache.summary()] == ["newest"]
        assert shelves.projects["foo"].count == 3

    def test_a_change_gives_up_at_last(
        self, cache: ShelvesCache, shelves: Shelves, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When a project can never be changed the error says so."""
        monkeypatch.setattr(steps, "LONGEST_PAUSE", 0.0001)
        shelves.refusals = lambda _: True
        with pytest.raises(BackendUnavailable, match="too many others"):
            cache.save(package())
        assert cache.is_empty()

    def test_what_others_change_in_between_is_seen(self, cache: ShelvesCache, shelves: Shelves) -> None:
        """An exchange whose file is changed by others while it waits for its turn leaves it as they made it."""
        cache.save(package(summary="old"))
        known = facts(package(summary="old"))

        def meddle(_: Step) -> bool:
            shelves.refusals = lambda _: False
            shelves.rows["foo-1.0.tar.gz"] = package(summary="theirs")
            return True

        shelves.refusals = meddle
        assert cache.exchange([Change("foo-1.0.tar.gz", known, package(summary="ours"))]) == set()
        assert [found.summary for found in cache.all("foo")] == ["theirs"]

    def test_no_files_have_no_digest(self) -> None:
        """Of no files there is no digest."""
        assert digest_of([]) is None


class TestBusySteps(OneProjectAtATime):
    @pytest.fixture
    def server(self, start: Callable[..., Callable[..., ICache]], monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(steps, "LONGEST_PAUSE", 0.0001)
        made: Any = start()
        dice = random.Random(2)
        made.keywords["shelves"].refusals = lambda _: dice.random() < 0.4
        return made
