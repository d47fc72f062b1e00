"""A cache in two tables of Amazon DynamoDB, which are those of 1.3.12 (compat.md 3.4).

Old and new servers can share the tables. Existing ones are used as they are, and none is ever dropped: what is set
up for them (encryption, throughput, tags) stays.

The index by which a project's files are found is a moment late. So the item of each project has a checksum of
the files that there are, which changes in one transaction with them. What the index says is believed if it agrees.

The server's user needs these rights, to the two tables and the index, and no others: ``dynamodb:DescribeTable``,
``CreateTable`` (unless the tables are there), ``BatchGetItem``, ``Query``, ``Scan``, ``PutItem`` and ``DeleteItem``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Final, ParamSpec, TypeAlias, TypeVar

from pypicloud.cache.base import GRACEFUL_RELOAD, UNCHANGED, ICache
from pypicloud.cache.changes import Change
from pypicloud.cache.choose import newest_first, summaries
from pypicloud.cache.dynamo import settings as dynamo_settings
from pypicloud.cache.dynamo import tables as dynamo_tables
from pypicloud.cache.dynamo.changes import Changes, check_size
from pypicloud.cache.dynamo.client import Dynamo, TableMissing
from pypicloud.cache.dynamo.items import (
    LIST,
    Item,
    State,
    digest_in,
    fill_package,
    gone_key,
    is_key,
    is_own,
    note_key,
    own_item,
    state_of,
    text_of,
)
from pypicloud.cache.dynamo.locks import Locks
from pypicloud.cache.dynamo.repair import renewed, repair, tally_of
from pypicloud.cache.dynamo.tables import INDEX, Tables
from pypicloud.cache.fill import FILL, Watch, is_filled
from pypicloud.cache.leases import Leases
from pypicloud.cache.rebuild import Rebuilt
from pypicloud.cache.steps import Step, StepCache
from pypicloud.errors import BackendUnavailable, InvalidUpload
from pypicloud.models import Package
from pypicloud.settings import EnvironSettings, Setting
from pypicloud.util import normalize_name

LOG: Final = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: Items by their key.
Items: TypeAlias = Mapping[str, Item]

#: How long to wait for the index, in seconds, before each new look.
LAGS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0)

#: How often a project whose facts do not agree is looked at in the table itself.
LOOKS: Final = 5


class DynamoCache(StepCache):
    """The facts in DynamoDB."""

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*ICache.SETTINGS, *dynamo_settings.SETTINGS, GRACEFUL_RELOAD)

    def __init__(self, request: Any = None, *, dynamo: Dynamo, tables: Tables, leases: Leases, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        self.dynamo = dynamo
        self.tables = tables
        self.leases = leases
        self.changes = Changes(dynamo, tables)

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Reach DynamoDB, and create the tables that are missing."""
        tables = dynamo_settings.tables(settings)
        dynamo = Dynamo(dynamo_settings.session(settings), dynamo_settings.address(settings))
        with dynamo.impatient():
            dynamo_tables.ensure(dynamo, tables)
        leases = Locks(dynamo, tables.packages).leases()
        return {**super().configure(settings), "dynamo": dynamo, "tables": tables, "leases": leases, "watch": Watch()}

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Look at where DynamoDB is said to be, and at the names of the tables."""
        dynamo_settings.tables(settings)
        dynamo_settings.session(settings)
        dynamo_settings.address(settings)

    @classmethod
    def postfork(cls, **kwargs: Any) -> None:
        """Leave the parent's connections and threads alone."""
        for shared in (kwargs["dynamo"], kwargs["leases"], kwargs["watch"]):
            shared.after_fork()

    # Reading

    def fetch(self, filename: str) -> Package | None:
        """The package of this file name, or None."""
        return self._packages(self._look([filename])[0].values()).get(filename)

    def fetch_many(self, filenames: Iterable[str]) -> dict[str, Package]:
        """Those packages that exist, by file name."""
        return self._packages(self._get({*filenames}, ())[0].values())

    def all(self, name: str) -> list[Package]:
        """All packages of a project, newest version first; versions that cannot be parsed come last."""
        project = normalize_name(name)
        if not is_key(project):
            return []
        for lag in LAGS:
            listed = self._packages(self._items(self.dynamo.query(self.tables.packages, INDEX, "name", project)))
            state = state_of(project, self._look((), [project])[1].get(project))
            if state.agrees(listed.values()):
                return newest_first(listed.values())
            # What the index is late with is most likely among these.
            known = self.fetch_many([*listed, *state.recent]).values()
            found = [package for package in known if package.name == project]
            if state.agrees(found):
                return newest_first(found)
            time.sleep(lag)
        with self.lock(f"project {project}"):
            return newest_first(self._looked_through(project))

    def _looked_through(self, project: str) -> list[Package]:
        """The packages of a project as the table itself has them; what is known of the project is put right."""
        only = {
            "FilterExpression": "#name = :name",
            "ExpressionAttributeNames": {"#name": "name"},
            "ExpressionAttributeValues": {":name": {"S": project}},
        }
        for _ in range(LOOKS):
            state = self.read_projects([project])[project]
            found = list(self._packages(self._items(self.dynamo.scan(self.tables.packages, **only))).values())
            if state.agrees(found):
                return found
            if self._call(self.changes.renew, [(state, renewed(state, tally_of(found)))]) == [True]:
                LOG.warning("The files of %s were changed by another program, such as an older version", project)
                return found
        raise BackendUnavailable(f"the files of {project} are being changed all the time; please try again")

    def distinct(self) -> list[str]:
        """The names of all projects, sorted."""
        only = {"ProjectionExpression": "#name", "ExpressionAttributeNames": {"#name": "name"}}
        with self._steady():
            items = list(self._items(self.dynamo.scan(self.tables.summaries, **only)))
        return sorted(item["name"]["S"] for item in items)

    def everything(self) -> Iterator[Package]:
        """All packages of all projects, in no order."""
        for item in self._items(self.dynamo.scan(self.tables.packages)):
            package = self._package(item)
            if package is not None:
                yield package

    def search(self, criteria: Mapping[str, Iterable[str]], query_type: str) -> list[Package]:
        """The newest matching package of each project, sorted by name (compat.md 3.5)."""
        with self._steady():
            return super().search(criteria, query_type)

    def summary(self) -> list[dict[str, Any]]:
        """For each project, sorted: ``name``, the newest version's ``summary``, the latest file's ``last_modified``."""
        with self._steady():
            digests = {
                item["name"]["S"]: digest_in(item) for item in self._items(self.dynamo.scan(self.tables.summaries))
            }
            if None in digests.values():
                # 1.3.12 wrote some: they tell of the file that was saved last.
                return summaries(self.everything())
        return [
            {"name": name, "summary": digest.summary, "last_modified": digest.last_modified}
            for name, digest in sorted(digests.items())
            if digest is not None
        ]

    def revision(self, name: str | None) -> str | None:
        """The token of a project's page, or of the list of projects."""
        return self.revisions([name])[name]

    def revisions(self, names: Collection[str | None]) -> dict[str | None, str | None]:
        """``revision`` for many, by name as given."""
        if not names:
            return {}
        projects = {name: normalize_name(name) for name in names if name is not None}
        keys = [*map(gone_key, projects.values()), *([LIST] if None in names else [])]
        items, summaries = self._look(keys, {*projects.values()})
        # What was lost and filled again is something else, though nobody has changed it.
        filled = text_of(items.get(note_key(FILL)), "text") if self.watch.is_on else None
        revisions: dict[str | None, str | None] = {}
        for name in names:
            item = None if name is None else summaries.get(projects[name])
            if name is not None and item is not None:
                revisions[name] = state_of(name, item).page_revision
            else:
                own = items.get(LIST if name is None else gone_key(projects[name]))
                revisions[name] = text_of(own, "revision") or filled or UNCHANGED
        return revisions

    def is_empty(self) -> bool:
        """Whether nothing is known about any package."""
        return next(self._items(self.dynamo.scan(self.tables.summaries, Limit=1)), None) is None

    def note(self, key: str) -> str | None:
        """A small text that all servers of the cache share."""
        item = note_key(key)
        return text_of(self._get([item], ())[0].get(item), "text")

    def check_health(self) -> tuple[bool, str]:
        """Whether DynamoDB answers for both tables, and has not lost anything."""
        try:
            self._look([LIST], ["-"])
        except BackendUnavailable as error:
            LOG.exception("DynamoDB does not answer as it should")
            return False, error.message
        return True, ""

    # Writing

    def write_note(self, key: str, text: str) -> None:
        """Keep a small text, of up to 2,000 characters, for all servers of the cache."""
        self._call(self.dynamo.put, self.tables.packages, own_item(note_key(key), text=text))

    def shared_lock(self, key: str) -> AbstractContextManager[None]:
        """Keeps the holders of the same key on other servers out."""
        return self.leases.held(key)

    def read_projects(self, names: Iterable[str]) -> dict[str, State]:
        """What must be known of each of these projects to change it."""
        wanted = {*names}
        items = self._get((), wanted)[1]
        return {name: state_of(name, items.get(name)) for name in wanted}

    def commit(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step; False for one whose project is not as it was read, or is being changed by others."""
        return self._call(self.changes.make, steps)

    def exchange(self, changes: Sequence[Change]) -> set[str]:
        """Make each change whose file's facts are still as they were read; the names of the files changed.

        A file whose facts are too large is left out: a rebuild must not stop at it.
        """
        return super().exchange([change for change in changes if change.wanted is None or _fits(change.wanted)])

    def check_facts(self, package: Package) -> None:
        """Raise :class:`InvalidUpload` for facts that an item cannot hold; asked before the file is stored."""
        check_size(package)

    def clear_all(self) -> None:
        """Forget everything; every page and the list of projects get a new revision."""
        super().clear_all()
        self._repair()

    def fill(self) -> None:
        """Fill the cache from storage, unless that has been done and something is in it."""
        dynamo_tables.ensure(self.dynamo, self.tables)
        super().fill()

    def rebuild(self, progress: Callable[[int], None] | None = None, *, allow_empty: bool = False) -> Rebuilt:
        """Make the cache agree with storage, and say what was done; the cache answers all the while."""
        # First, as a project of which enough is known is changed with less work.
        self._repair()
        return super().rebuild(progress, allow_empty=allow_empty)

    def _repair(self) -> None:
        self._call(repair, self.dynamo, self.tables, self.changes)

    # What the rest stands on

    def _look(self, filenames: Iterable[str], projects: Iterable[str] = ()) -> tuple[Items, Items]:
        """The items of these packages and projects, for readers, whom a cache that was lost must not mislead."""
        if not self.watch.is_on:
            return self._get(filenames, projects)
        note = note_key(FILL)
        packages, summaries = self._get({*filenames, note}, projects)
        if not is_filled(text_of(packages.get(note), "text")):
            raise self.refill()
        return packages, summaries

    @contextmanager
    def _steady(self) -> Iterator[None]:
        """Reading that takes a while is done with a cache that was filled all the time."""
        before = self._look(())
        yield
        if self._look(()) != before:
            raise self.refill()

    def _get(self, filenames: Iterable[str], projects: Iterable[str]) -> tuple[Items, Items]:
        """The items of these packages and projects that exist."""
        keys = {
            self.tables.packages: [{"filename": {"S": key}} for key in dict.fromkeys(filenames) if is_key(key)],
            self.tables.summaries: [{"name": {"S": key}} for key in dict.fromkeys(projects) if is_key(key)],
        }
        found = self._call(self.dynamo.get, keys)
        packages, summaries = found[self.tables.packages], found[self.tables.summaries]
        return {item["filename"]["S"]: item for item in packages}, {item["name"]["S"]: item for item in summaries}

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function answers; if the tables are lost, they are made and filled again in the background."""
        try:
            return function(*args, **kwargs)
        except TableMissing as error:
            if self.watch.is_on:
                raise self.refill() from error
            raise

    def _items(self, items: Iterator[Item]) -> Iterator[Item]:
        while (item := self._call(next, items, None)) is not None:
            yield item

    def _packages(self, items: Iterable[Item]) -> dict[str, Package]:
        """The packages among some items, by file name."""
        found = map(self._package, items)
        return {package.filename: package for package in found if package is not None}

    def _package(self, item: Item) -> Package | None:
        if is_own(item):
            return None
        try:
            return fill_package(item, self.new_package)
        except ValueError as error:
            LOG.warning("The item %s is left out: %s; a rebuild will mend it", text_of(item, "filename"), error)
            return None


def _fits(package: Package) -> bool:
    try:
        check_size(package)
    except InvalidUpload as error:
        LOG.warning("%s is left out: %s", package.filename, error)
        return False
    return True
