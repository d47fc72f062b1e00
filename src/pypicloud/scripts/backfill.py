"""``pypicloud backfill``: add what 1.3.12 did not keep about the files it stored."""

from __future__ import annotations

import argparse
import sys

from pypicloud.scripts import config_file, progress, work
from pypicloud.scripts.failures import INTERRUPTED, explained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    config_file.add_arguments(parser)
    work.add_arguments(parser)
    parser.add_argument("--rate", metavar="N", type=work.rate, help="begin no more than N files in a second")
    parser.add_argument("--no-hashes", action="store_true", help="read no file as a whole to work out its digests")


def run(arguments: argparse.Namespace) -> int:
    """Complete the facts of all files, and say what was done."""
    from pypicloud.backfill import TROUBLE, Backfill, Plan, survey  # --help needs no backends.
    from pypicloud.cache import get_cache_impl
    from pypicloud.cache.base import CALCULATE_HASHES
    from pypicloud.storage import get_storage_impl

    settings = config_file.read_checked(arguments)
    wants_digests = CALCULATE_HASHES.read(settings) and not arguments.no_hashes
    with explained(arguments):
        if arguments.dry_run:
            print(survey(get_storage_impl(settings)(None), wants_digests=wants_digests))
            return 0
        plan = Plan(get_cache_impl(settings), arguments.workers, arguments.rate, wants_digests)
        backfill = Backfill(plan, progress.report)
        try:
            with progress.listing() as listing:
                backfill.prepare(listing)
            with progress.working() as tick:
                backfill.run(tick)
        except KeyboardInterrupt:
            print(f"Stopped: {backfill}. The same command does the rest.", file=sys.stderr)
            return INTERRUPTED
    print(backfill)
    return 1 if any(backfill.tally.outcomes[outcome] for outcome in TROUBLE) else 0
