"""A cache in Redis, on one server or in a cluster, that any number of servers share.

On one server the keys and values are those of 1.3.12 (compat.md 3.3), with some more beside them
(:mod:`pypicloud.cache.redis_cache.layout`, :mod:`pypicloud.cache.redis_cache.rows`). In a cluster most keys are
others, so that those of a project are together; what 1.3.12 has left in a cluster is taken over at the first start.

A project is changed by one script (:mod:`pypicloud.cache.redis_cache.scripts`), together with its revision and, on one
server, with the list of projects. Redis may lose everything at any time: then nothing is answered until the
cache has been filled again from storage, which begins by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pypicloud.cache.base import GRACEFUL_RELOAD, UNCHANGED, ICache
from pypicloud.cache.choose import newest_first
from pypicloud.cache.fill import FILL, FILLING, Watch, filled, is_filled
from pypicloud.cache.redis_cache.layout import PACKAGE, PREFIX, Layout, leases
from pypicloud.cache.redis_cache.repair import Repair
from pypicloud.cache.redis_cache.rows import decoded, digest_of_summary, package_of, summary_row, text_of, texts_of
from pypicloud.cache.redis_cache.scripts import DISCARD, Command, key_of, run
from pypicloud.cache.steps import Project, Step, StepCache, digest_of
from pypicloud.errors import BackendUnavailable, SettingError
from pypicloud.models import Package
from pypicloud.plugins import DB
from pypicloud.settings import BOOLEAN, REQUIRED, TEXT, EnvironSettings, Setting
from pypicloud.util import normalize_name

if TYPE_CHECKING:
    from pypicloud.cache.changes import Facts
    from pypicloud.cache.leases import Leases

LOG = logging.getLogger(__name__)

URL: Final = Setting(
    "db.url",
    TEXT,
    REQUIRED,
    "The Redis server, for example redis://user:password@localhost:6379/0; rediss:// for TLS, unix:// for a socket. "
    "Options of redis-py can follow, as in ?socket_timeout=5&ssl_ca_certs=/etc/ssl/redis.pem",
    secret=True,
)
CLUSTERED: Final = Setting(
    "db.clustered",
    BOOLEAN,
    False,
    "Whether Redis is a Redis Cluster, of which db.url names any node.",
)


class RedisCache(StepCache):
    """The facts in Redis."""

    SETTINGS: ClassVar[tuple[Setting[Any], ...]] = (*ICache.SETTINGS, URL, CLUSTERED, GRACEFUL_RELOAD)

    redis_prefix = PREFIX.decode()

    def __init__(
        self,
        request: Any = None,
        db: Any = None,
        graceful_reload: bool = False,
        *,
        layout: Layout | None = None,
        locks: Leases | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(request, **kwargs)
        self.db = db
        self.graceful_reload = graceful_reload
        if layout is None:
            from pypicloud.cache.redis_cache.start import layout_of

            layout = layout_of(db)
        self.layout = layout
        self.wire = layout.wire
        self._locks = locks or leases(layout)

    @classmethod
    def configure(cls, settings: EnvironSettings) -> dict[str, Any]:
        """Reach Redis."""
        cls.check(settings)
        from pypicloud.cache.redis_cache import start as redis_start

        db = redis_start.reach(settings, URL, is_cluster=CLUSTERED.read(settings))
        layout = redis_start.layout_of(db)
        return {
            **super().configure(settings),
            "db": db,
            "graceful_reload": GRACEFUL_RELOAD.read(settings),
            "layout": layout,
            "locks": leases(layout),
            "watch": Watch(),
        }

    @classmethod
    def check(cls, settings: EnvironSettings) -> None:
        """Look at the address; it is not connected to."""
        try:
            from pypicloud.cache.redis_cache import start as redis_start
        except ModuleNotFoundError as error:
            if error.name != "redis":
                raise
            reason = "this cache needs more Python packages: pip install 'pypicloud[redis]'"
            raise SettingError(DB.key, reason, value=DB.read(settings), source=settings.source(DB.key)) from error
        redis_start.prepare(settings, URL, is_cluster=CLUSTERED.read(settings))

    @classmethod
    def postfork(cls, **kwargs: Any) -> None:
        """Leave the parent's connections, locks and threads alone."""
        kwargs["layout"].wire.after_fork()
        kwargs["locks"].after_fork()
        kwargs["watch"].after_fork()

    @property
    def redis_set(self) -> str:
        """The key of the set of all projects' names."""
        return self.layout.projects.decode()

    def redis_key(self, key: str) -> str:
        """The key of the hash of a file, given its name."""
        return text_of(self.layout.key_of(key))

    def redis_filename_set(self, name: str) -> str:
        """The key of the set of a project's file names."""
        return text_of(self.layout.members(name))

    def redis_summary_key(self, name: str) -> str:
        """The key of the hash of a project's summary."""
        return text_of(self.layout.summary(name))

    def fetch(self, filename: str) -> Package | None:
        """The package of this file name, or None."""
        return self._found(self.layout.find([filename], self._ask)).get(filename)

    def fetch_many(self, filenames: Iterable[str]) -> dict[str, Package]:
        """Those packages that exist, by file name."""
        return self._found(self.layout.find(filenames, self.wire.run))

    def all(self, name: str) -> list[Package]:
        """All packages of a project, newest version first; versions that cannot be parsed come last."""
        project = normalize_name(name)
        return newest_first(self._files(project, self._ask([self.layout.files_of(project)])[0]))

    def distinct(self) -> list[str]:
        """The names of all projects, sorted."""
        return sorted(texts_of(self._ask([(b"SMEMBERS", self.layout.projects)])[0]))

    def everything(self) -> Iterator[Package]:
        """All packages of all projects, in no order."""
        for keys in self.wire.scan(PACKAGE + b"*"):
            rows = self.wire.run((b"HGETALL", key) for key in keys)
            packages = [package for package in self.packages(keys, rows) if package is not None]
            names = [(package.name, package.filename) for package in packages]
            for package, is_found in zip(packages, self.layout.are_found(names), strict=True):
                if is_found:
                    yield package

    def search(self, criteria: Mapping[str, Iterable[str]], query_type: str) -> list[Package]:
        """The newest matching package of each project, sorted by name (compat.md 3.5)."""
        found = super().search(criteria, query_type)
        self._look(self.layout.notes(FILL))
        return found

    def summary(self) -> list[dict[str, Any]]:
        """For each project, sorted: ``name``, the newest version's ``summary``, the latest file's ``last_modified``."""
        names = self.distinct()
        digests = {name: project.digest for name, project in self.read_projects(names).items()}
        unknown = [name for name, digest in digests.items() if digest is None]
        for name, rows in zip(unknown, self.wire.run(map(self.layout.files_of, unknown)), strict=True):
            digests[name] = digest_of(self._files(name, rows))
        self._look(self.layout.notes(FILL))
        return [
            {"name": name, "summary": digest.summary, "last_modified": digest.last_modified}
            for name, digest in digests.items()
            if digest is not None
        ]

    def is_empty(self) -> bool:
        """Whether nothing is known about any package."""
        return not self.wire.run([(b"EXISTS", self.layout.projects)])[0]

    def revision(self, name: str | None) -> str | None:
        """The token of a project's page, or of the list of projects."""
        return self.revisions([name])[name]

    def revisions(self, names: Collection[str | None]) -> dict[str | None, str | None]:
        """``revision`` for many, by name as given."""
        keys = [self.layout.revision(None if name is None else normalize_name(name)) for name in names]
        notes = list(self.layout.fill_notes(keys)) if self.watch.is_on else []
        answers = self.wire.run((b"GET", key) for key in (*keys, *notes))
        absent = self._filled(answers[len(keys) :]) or UNCHANGED
        return {name: text_of(text) if text else absent for name, text in zip(names, answers, strict=False)}

    def note(self, key: str) -> str | None:
        """A small text that all servers of the cache share."""
        texts = set(self.wire.run((b"GET", place) for place in self.layout.notes(key)))
        if len(texts) > 1:
            # Some places have lost it; it must not look like the cache of an earlier version, which had none.
            return FILLING
        text = texts.pop()
        return None if text is None else text_of(text)

    def write_note(self, key: str, text: str) -> None:
        """Keep a small text, of up to 2,000 characters, for all servers of the cache."""
        self.wire.run((b"SET", place, text.encode()) for place in self.layout.notes(key))

    def shared_lock(self, key: str) -> AbstractContextManager[None]:
        """Keeps the holders of the same key on other servers out."""
        return self._locks.held(key)

    def fill(self) -> None:
        """Fill the cache from storage, unless that has been done and something is in it."""
        with self.lock(FILL):
            if self.note(FILL) is None and self._take_over():
                self.write_note(FILL, filled())
            super().fill()

    def save(self, package: Package, pipe: Any = None, save_summary: bool = True) -> None:
        """Keep the facts about a package, in place of those of the same file name.

        ``pipe`` and ``save_summary`` are those of 1.3.12, and change nothing.
        """
        super().save(package)

    def clear_all(self) -> None:
        """Forget everything; every page and the list of projects get a new revision."""
        super().clear_all()
        self.repair({})

    def repair(self, known: Mapping[str, Facts]) -> None:
        """Put right what was worked out from the facts."""
        Repair(self, known).run()

    def read_projects(self, names: Iterable[str]) -> dict[str, Project]:
        """What must be known of each of these projects to change it."""
        wanted = list(names)
        answers = iter(
            self.wire.run(
                command
                for name in wanted
                for command in (
                    (b"GET", self.layout.revision(name)),
                    (b"SCARD", self.layout.members(name)),
                    (b"HGETALL", self.layout.summary(name)),
                )
            )
        )
        projects = {}
        for name, revision, count, summary in zip(wanted, answers, answers, answers, strict=True):
            digest = digest_of_summary(summary or (), count or 0)
            projects[name] = Project(name, text_of(revision) if revision else None, digest, count or 0)
        return projects

    def commit(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step; False for one whose project is not as it was read."""
        return self.layout.change(steps)

    def check_health(self) -> tuple[bool, str]:
        """Whether Redis, or every node of the cluster, answers and has not lost anything."""
        try:
            self.note(FILL)
            self._look(self.layout.notes(FILL))
        except BackendUnavailable as error:
            LOG.exception("Redis does not answer")
            return False, error.message
        return True, ""

    def packages(self, keys: Sequence[bytes], rows: Iterable[Sequence[bytes] | None]) -> list[Package | None]:
        """What the rows under these keys are; none if there is no row, or it is of no use, which is logged."""
        return [None if row == [] else self._package(key, row) for key, row in zip(keys, rows, strict=True)]

    def _take_over(self) -> bool:
        """Bring what 1.3.12 has written elsewhere to where it belongs; whether there was any of it."""
        has_some = False
        for keys in self.layout.older_rows():
            rows = self.wire.run((b"HGETALL", key) for key in keys)
            found = [self._package(key, row, self.layout.older_package) for key, row in zip(keys, rows, strict=True)]
            self.save_all(package for package in found if package is not None)
            self.wire.run(run(DISCARD, [key], *(row or ())) for key, row in zip(keys, rows, strict=True))
            has_some = has_some or bool(keys)
        self.layout.forget_older()
        return has_some

    def _ask(self, commands: list[Command]) -> list[Any]:
        """The answers, unless what is read has been lost."""
        if not self.watch.is_on:
            return self.wire.run(commands)
        # The note is read last: what was lost before the data were read it cannot say to be there.
        notes = self.layout.fill_notes([key_of(command) for command in commands])
        answers = self.wire.run([*commands, *((b"GET", note) for note in notes)])
        self._filled(answers[len(commands) :])
        return answers[: len(commands)]

    def _look(self, notes: Iterable[bytes]) -> None:
        if self.watch.is_on:
            self._filled(self.wire.run((b"GET", note) for note in notes))

    def _filled(self, notes: Iterable[bytes | None]) -> str | None:
        """The text of the note about filling. Raises :class:`BackendUnavailable` if one says it was not."""
        text = None
        for note in notes:
            text = text_of(note or b"")
            if not is_filled(text):
                raise self.refill()
        return text

    def _found(self, rows: Mapping[bytes, Sequence[bytes]]) -> dict[str, Package]:
        packages = (self._package(key, row) for key, row in rows.items())
        return {package.filename: package for package in packages if package is not None}

    def _files(self, name: str, answer: Sequence[Any]) -> Iterator[Package]:
        """The packages in the answer of ``files_of`` that are this project's."""
        start = self.layout.files(name)
        for filename, row in zip(answer[::2], answer[1::2], strict=True):
            package = self._package(start + filename, row) if row else None
            if package is not None and package.name == name:
                yield package

    def _package(
        self, key: bytes, row: Sequence[bytes] | None, place: Callable[[str, str], bytes] | None = None
    ) -> Package | None:
        """The package in the row under a key; none, and a warning, if there is something else.

        ``place`` gives the key where a project's file belongs.
        """
        try:
            package = package_of(row or (), self.new_package)
        except ValueError as error:
            reason = str(error)
        else:
            if (place or self.layout.package)(package.name, package.filename) == key:
                return package
            reason = f"it is {package.filename} of {package.name}"
        LOG.warning("What Redis holds under %r is of no use, and counts as nothing: %s", text_of(key), reason)
        return None


def summary_from_package(package: Package) -> dict[str, str]:
    """What the hash of a project's summary has in it, if this is the project's only package."""
    row = summary_row(Project(package.name, None, digest_of([package]), 1))
    return {decoded(field): decoded(value) for field, value in zip(row[::2], row[1::2], strict=True)}
