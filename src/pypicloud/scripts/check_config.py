"""``pypicloud check-config``: what a configuration means, what is odd about it, and what stops the server."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from pypicloud.access import ConfigAccessBackend
from pypicloud.declared import ACCESS, check, odd, settings_in_use
from pypicloud.errors import SettingError
from pypicloud.sample import spelled
from pypicloud.scripts import config_file
from pypicloud.settings import OPEN_PREFIXES, EnvironSettings, Required, Setting, environment_name

MASK: Final = "***"

#: How many characters a column of values takes on a terminal at least, if any value is that long.
WIDEST: Final = 30

_SECRET_WORD: Final = re.compile(r"password|passwd|secret|token|key", re.IGNORECASE)
_PASSWORD_IN_URL: Final = re.compile(r"(://[^:/?#\s@]*:)\S*@")
_PASSWORD_IN_QUERY: Final = re.compile(
    r"([?&;][^=&;\s]*(?:password|passwd|secret|token|key)[^=&;\s]*=)[^&;\s'\"]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Row:
    """A setting with its effective value, as it may be shown, and where that comes from."""

    key: str
    value: str
    source: str


@dataclass(frozen=True)
class Report:
    """Everything there is to say about a configuration."""

    file: str
    groups: dict[str, list[Row]]
    warnings: list[str]
    errors: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    config_file.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the report on an ini file; the exit status says whether the server would start."""
    report = report_on(config_file.read(arguments))
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    elif sys.stdout.isatty():
        _print_rich(report)
    else:
        _print_plain(report)
    return 1 if report.errors else 0


def report_on(settings: EnvironSettings) -> Report:
    """The report on a configuration; connects to nothing and writes nothing."""
    findings, errors = check(settings)
    warnings = [f"{finding.key} {finding.message}" for finding in (*findings, *odd(settings))]
    said, more = _access_remarks(settings)
    messages = dict.fromkeys(masked(str(error)) for error in [*errors, *more])
    return Report(
        settings.file or "",
        {title: rows for title, group in settings_in_use(settings) if (rows := _rows(settings, group))},
        [masked(warning) for warning in [*warnings, *said]],
        list(messages),
    )


def _access_remarks(settings: EnvironSettings) -> tuple[list[str], list[SettingError]]:
    """What the config backend warns of and refuses, about users, groups and rights; others would have to connect."""
    try:
        is_config = ACCESS.resolve(settings) is ConfigAccessBackend
    except SettingError:
        is_config = False
    with _warnings_of("pypicloud.access") as said:
        try:
            if is_config:
                ConfigAccessBackend.configure(settings)
        except SettingError as error:
            return said, [error]
    return said, []


@contextmanager
def _warnings_of(name: str) -> Iterator[list[str]]:
    """The warnings that a logger is given meanwhile, which go nowhere else."""
    said: list[str] = []
    logger = logging.getLogger(name)
    handler = _Collector(said)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Collector(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self._said.append(record.getMessage())


def _rows(settings: EnvironSettings, group: tuple[Setting[Any], ...]) -> list[Row]:
    rows = []
    for setting in group:
        if setting.key.endswith("*"):
            rows += [_row(settings, key, setting) for key in _members(settings, setting, group)]
        elif setting.is_set(settings):
            rows.append(_row(settings, setting.spelling(settings), setting))
        elif not setting.deprecated:
            rows.append(Row(setting.key, _default(setting), "default"))
    return rows


def _members(settings: EnvironSettings, family: Setting[Any], group: tuple[Setting[Any], ...]) -> list[str]:
    """The keys that are set below a family's prefix and have no declaration of their own."""
    prefix = family.key[:-1]
    everything = settings.clone()
    if prefix in OPEN_PREFIXES:
        everything.read_prefix_from_environ(prefix)
    declared = {setting.key for setting in group}
    return sorted(key for key in everything if key.startswith(prefix) and key not in declared)


def _row(settings: EnvironSettings, key: str, setting: Setting[Any]) -> Row:
    value = " ".join(str(settings[key]).split())
    is_secret = setting.secret or (setting.key.endswith("*") and _names_a_secret(key))
    # An address stays readable without its password.
    hidden = value if not is_secret or "://" in value else MASK
    source = settings.source(key) or ""
    return Row(key, masked(hidden), environment_name(key) if source.startswith("environment") else "file")


def _names_a_secret(key: str) -> bool:
    return key.startswith("user.") or _SECRET_WORD.search(key.rpartition(".")[2]) is not None


def _default(setting: Setting[Any]) -> str:
    if isinstance(setting.default, Required):
        return "(missing)"
    return "(not set)" if setting.default in (None, "", ()) else spelled(setting)


def masked(text: str) -> str:
    """A text with the passwords in its addresses made unreadable."""
    return _PASSWORD_IN_QUERY.sub(rf"\1{MASK}", _PASSWORD_IN_URL.sub(rf"\1{MASK}@", text))


def _print_plain(report: Report) -> None:
    key_width, value_width = _widths(report)
    print(report.file)
    for title, group in report.groups.items():
        print(f"\n{title}")
        for row in group:
            print(f"  {row.key:{key_width}}  {row.value:{value_width}}  {row.source}")
    print()
    for warning in report.warnings:
        print(f"warning: {warning}")
    for error in report.errors:
        print(f"error: {error}")
    print(_verdict(report))


def _widths(report: Report) -> tuple[int, int]:
    """The lengths of the longest key and the longest value."""
    rows = [row for group in report.groups.values() for row in group]
    return max(len(row.key) for row in rows), max(len(row.value) for row in rows)


def _print_rich(report: Report) -> None:
    from rich.console import Console  # Only a terminal needs it.
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    key_width, value_width = _widths(report)
    for title, group in report.groups.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(min_width=key_width)
        table.add_column(min_width=min(value_width, WIDEST))
        for row in group:
            style = "dim" if row.source == "default" else ""
            table.add_row(Text(row.key), Text(row.value, overflow="fold"), Text(row.source), style=style)
        console.print(table, Text())
    for label, style, messages in (("warning", "yellow", report.warnings), ("error", "bold red", report.errors)):
        for message in messages:
            console.print(Text.assemble((f"{label}: ", style), message), soft_wrap=True)
    console.print(Text(_verdict(report), style="bold red" if report.errors else "bold green"), soft_wrap=True)


def _verdict(report: Report) -> str:
    return f"{report.file}: " + ("the server will not start" if report.errors else "no errors found")
