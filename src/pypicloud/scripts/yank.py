"""``pypicloud yank``: let installers pass over a version, or take that back, beside running servers."""

from __future__ import annotations

import argparse

from pypicloud import yanking
from pypicloud.cache import get_cache_impl
from pypicloud.cache.base import ICache
from pypicloud.errors import BadRequest, PackageNotFound
from pypicloud.models import Package, normalized
from pypicloud.scripts import config_file
from pypicloud.scripts.failures import explained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    config_file.add_arguments(parser)
    parser.add_argument("project", metavar="PROJECT", help="the project's name, in any spelling")
    parser.add_argument("version", metavar="VERSION", help="the version whose files are yanked")
    parser.add_argument(
        "--file", metavar="FILENAME", action="append", help="only this file of the version; can be given more than once"
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--reason",
        metavar="TEXT",
        dest="yanked",
        type=_reason,
        default=True,
        help="one line that installers show to who pins the version",
    )
    either.add_argument("--undo", dest="yanked", action="store_false", help="take it back")
    parser.add_argument("--traceback", action="store_true", help="show where in the program a failure came from")


def _reason(text: str) -> str | bool:
    try:
        return yanking.yanked_for(text)
    except BadRequest as error:
        raise argparse.ArgumentTypeError(error.message) from error


def run(arguments: argparse.Namespace) -> int:
    """Yank files of the index that an ini file configures, and say which."""
    settings = config_file.read_checked(arguments)
    with explained(arguments):
        cache: ICache = get_cache_impl(settings)(None)
        for package in yanking.mark(cache, _files(cache, arguments), arguments.yanked):
            print(f"{package.filename}: {_told(package)}")
    return 0


def _files(cache: ICache, arguments: argparse.Namespace) -> list[Package]:
    """The files that are meant. Raises :class:`PackageNotFound` where one of them, or all, are not there."""
    project = normalized(arguments.project)
    files = {package.filename: package for package in yanking.of_version(cache, project, arguments.version)}
    for filename in arguments.file or ():
        if filename not in files:
            raise PackageNotFound(f"{project} {arguments.version} has no file {filename!r}, but {', '.join(files)}")
    return [files[filename] for filename in dict.fromkeys(arguments.file or files)]


def _told(package: Package) -> str:
    if not package.yanked:
        return "not yanked"
    return f"yanked: {package.yanked}" if isinstance(package.yanked, str) else "yanked"
