"""``pypicloud rebuild``: make the cache agree with the storage, while the server runs or before it starts."""

from __future__ import annotations

import argparse

from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import ICache
from pypicloud.scripts import config_file, progress
from pypicloud.scripts.failures import explained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    config_file.add_arguments(parser)
    parser.add_argument(
        "--allow-empty", action="store_true", help="forget all packages if the storage holds none, instead of stopping"
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the program a failure came from")


def run(arguments: argparse.Namespace) -> int:
    """Rebuild the cache that an ini file configures, and say what was done."""
    settings = config_file.read_checked(arguments)
    with explained(arguments, "the rebuild failed: "):
        cache: ICache = get_cache_impl(settings)(None)
        with progress.listing() as listing:
            rebuilt = cache.rebuild(listing, allow_empty=arguments.allow_empty)
    print(rebuilt)
    return 0
