"""``pypicloud``: the command with a subcommand for each task."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Final

from pypicloud import __version__
from pypicloud.scripts.failures import told

#: Each subcommand with its help and its module, which has ``add_arguments(parser)`` and ``run(arguments) -> int``.
COMMANDS: Final = {
    "serve": ("run the server", "pypicloud.server"),
    "check-config": ("say what a config file means, and what is wrong with it", "pypicloud.scripts.check_config"),
    "rebuild": ("make the cache agree with the storage", "pypicloud.scripts.rebuild"),
    "s3-sync": ("follow a queue of S3 events, so that the cache agrees with the bucket", "pypicloud.scripts.s3_sync"),
    "migrate": ("move all files from one storage to another", "pypicloud.scripts.migrate"),
    "backfill": ("add what 1.3.12 did not keep about the files it stored", "pypicloud.scripts.backfill"),
    "yank": ("let installers pass over a version", "pypicloud.scripts.yank"),
}


@told("pypicloud")
def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status is 0, 1 if something is the matter, 2 for wrong usage."""
    # Pyramid 2.1 imports pkg_resources, which warns at every start of its own end; nobody who reads that can help it.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    words = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in words if not word.startswith("-")), None)
    arguments = _parser(chosen).parse_args(words)
    status: int = arguments.run(arguments)
    return status


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the module of the chosen subcommand is imported."""
    parser = argparse.ArgumentParser(prog="pypicloud", description="A private Python package index.")
    parser.add_argument("--version", action="version", version=f"pypicloud {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (words, module_name) in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        if name == chosen:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
