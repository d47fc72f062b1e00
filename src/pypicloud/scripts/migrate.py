"""``ppc-migrate`` and ``pypicloud migrate``: move all files from one storage to another."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from pypicloud import plugins
from pypicloud.models import Package
from pypicloud.scripts import config_file, progress, work
from pypicloud.scripts.failures import INTERRUPTED, explained, told
from pypicloud.storage.base import IStorage
from pypicloud.storage.start import CREATE_MISSING, PlaceMissing

if TYPE_CHECKING:
    from pypicloud.moving import Plan
    from pypicloud.settings import EnvironSettings, Setting

#: The key that says by itself which cache it is, where there is one.
_URL: Final = "db.url"


#: What the data do not tell, and whoever runs the command again must know.
_AGAIN: Final = (
    "A second run gives NEW what it lacks of OLD, whoever took it away: a file that was deleted in NEW is copied "
    "again, and one that was unyanked there, while it is yanked in OLD, is yanked again. What NEW has it keeps."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _AGAIN
    parser.add_argument("old", metavar="OLD", help="the config file that names the storage to move from")
    parser.add_argument("new", metavar="NEW", help="the config file that names the storage to move to")
    config_file.add_variables(parser)
    work.add_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that NEW has with other bytes")


@told("ppc-migrate")
def migrate_packages(argv: Sequence[str] | None = None) -> int:
    """Migrate packages from one storage backend to another.

    Create two config files that are configured to use different storage backends. All packages will be
    migrated from the storage backend in the first to the storage backend in the second.
    """
    parser = argparse.ArgumentParser(
        prog="ppc-migrate", description="Move all files from the storage of one config file to that of another."
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> int:
    """Move all files, and say what was done."""
    from pypicloud.moving import NOT_THERE, Moving  # --help needs no backends.

    old = config_file.read(_of(arguments.old, arguments))
    new = config_file.read_checked(_of(arguments.new, arguments))
    if _is_same(old, new, plugins.STORAGE, "storage."):
        print(f"{arguments.old} and {arguments.new} name the same storage", file=sys.stderr)
        return 2
    with explained(arguments):
        plan = _plan(arguments, old, new)
        moving = Moving(plan, progress.report)
        try:
            with progress.working() as tick:
                moving.run(tick)
        except KeyboardInterrupt:
            print(f"Stopped: {moving}. The same command does the rest.", file=sys.stderr)
            return INTERRUPTED
    print(moving)
    if plan.make_cache is not None and not plan.saves:
        print(
            f"Both files name one cache, which was left alone: run pypicloud rebuild {arguments.new} when you switch."
        )
    if moving.unreadable:
        print(f"{moving.unreadable} could not be read when the old storage was listed", file=sys.stderr)
    missing = moving.unreadable + moving.incomplete + sum(moving.tally.outcomes[outcome] for outcome in NOT_THERE)
    return 1 if missing else 0


def _of(path: str, arguments: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(config=path, variables=arguments.variables)


def _plan(arguments: argparse.Namespace, old: EnvironSettings, new: EnvironSettings) -> Plan:
    from pypicloud.cache import get_cache_impl
    from pypicloud.moving import Plan
    from pypicloud.storage import get_storage_impl

    make_old = get_storage_impl(_as_it_is(old))
    options = {
        "workers": arguments.workers,
        "overwrite": arguments.overwrite,
        "is_dry_run": arguments.dry_run,
    }
    if arguments.dry_run:
        try:
            make_new = get_storage_impl(_as_it_is(new))
        except PlaceMissing as error:
            print(f"{error.setting} = {error.value} does not exist yet; it will be made", file=sys.stderr)
            make_new = Nothing
        return Plan(make_old, make_new, **options)
    make_cache = get_cache_impl(new)
    # A server that uses the cache now has the old storage, and would be told of files that it has not.
    saves = not _is_same(old, new, plugins.DB, "db.", _URL)
    return Plan(make_old, make_cache(None).make_storage, make_cache, saves=saves, **options)


class Nothing(IStorage):
    """A storage that is not there yet."""

    def list(self, factory: Callable[..., Package] = Package) -> Iterable[Package]:
        """No package."""
        return ()


def _as_it_is(settings: EnvironSettings) -> EnvironSettings:
    """The settings of a storage that is not made if it is missing: then there is a slip in the file."""
    found = settings.clone()
    found[CREATE_MISSING.key] = "false"
    return found


def _is_same(
    old: EnvironSettings, new: EnvironSettings, kind: Setting[str], prefix: str, address: str | None = None
) -> bool:
    """Whether two files name the same backend: of the same kind, with the same settings, or at the same address."""
    if kind.read(old) != kind.read(new):
        return False
    if address is not None and address in old and old.get(address) == new.get(address):
        return True
    sections = ({key: settings[key] for key in settings if key.startswith(prefix)} for settings in (old, new))
    return next(sections) == next(sections)
