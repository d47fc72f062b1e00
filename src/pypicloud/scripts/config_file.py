"""The ini file that a command is about."""

from __future__ import annotations

import argparse
import sys

from pypicloud.ini import load_ini
from pypicloud.settings import EnvironSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that name the file, as pserve has them."""
    parser.add_argument(
        "config", metavar="CONFIG", help="the ini file; CONFIG#name reads [app:name] instead of [app:main]"
    )
    add_variables(parser)


def add_variables(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that give variables in a file their values."""
    parser.add_argument(
        "variables",
        metavar="NAME=value",
        nargs="*",
        type=_variable,
        # Without a default a missing CONFIG would be reported together with this one, as if both were needed.
        default=[],
        help="a value for %%(NAME)s in the file",
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=value")
    return name, value


def read(arguments: argparse.Namespace) -> EnvironSettings:
    """The settings in the file and the environment. Raises :class:`pypicloud.errors.SettingError`."""
    path, _, section = arguments.config.partition("#")
    return load_ini(path, section or "main", dict(arguments.variables))


def read_checked(arguments: argparse.Namespace) -> EnvironSettings:
    """The same, for a command that works with them: what is odd is printed, and what is wrong raised."""
    from pypicloud.declared import check  # It knows the whole server, which the help of a command can do without.

    settings = read(arguments)
    findings, errors = check(settings)
    for finding in findings:
        print(f"warning: {finding.key} {finding.message}", file=sys.stderr)
    if errors:
        raise errors[0]
    return settings
