"""The ini file that a command is about."""

from __future__ import annotations

import argparse

from pypicloud.settings import EnvironSettings, load_ini


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that name the file, as pserve has them."""
    parser.add_argument(
        "config", metavar="CONFIG", help="the ini file; CONFIG#name reads [app:name] instead of [app:main]"
    )
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
