"""``pypicloud rebuild``: make the cache agree with the storage, while the server runs or before it starts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import ICache
from pypicloud.declared import check
from pypicloud.errors import PypicloudError, SettingError
from pypicloud.scripts import config_file

#: How many seconds pass between two lines of progress where there is no terminal.
INTERVAL: Final = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    config_file.add_arguments(parser)
    parser.add_argument(
        "--allow-empty", action="store_true", help="forget all packages if the storage holds none, instead of stopping"
    )
    parser.add_argument("--traceback", action="store_true", help="show where in the program a failure came from")


def run(arguments: argparse.Namespace) -> int:
    """Rebuild the cache that an ini file configures, and say what was done."""
    settings = config_file.read(arguments)
    findings, errors = check(settings)
    for finding in findings:
        print(f"warning: {finding.key} {finding.message}", file=sys.stderr)
    if errors:
        raise errors[0]
    try:
        cache: ICache = get_cache_impl(settings)(None)
        with _progress() as progress:
            rebuilt = cache.rebuild(progress, allow_empty=arguments.allow_empty)
    except SettingError:
        raise
    except Exception as error:
        if arguments.traceback:
            raise
        # A backend may be anybody's, and raise anything.
        reason = error.message if isinstance(error, PypicloudError) else f"{type(error).__name__}: {error}"
        raise PypicloudError(f"the rebuild failed: {reason}") from error
    print(rebuilt)
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """What is told the number of files seen so far: a live line on a terminal, a plain one now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console  # Only a terminal needs it.
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} files"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        # How many files there will be is not known before all are listed.
        task = bar.add_task("rebuild", total=None)
        yield lambda count: bar.update(task, completed=count)


def _plain_progress() -> Callable[[int], None]:
    last = time.monotonic()

    def tell(count: int) -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            last = time.monotonic()
            print(f"{count} files so far", file=sys.stderr, flush=True)

    return tell
