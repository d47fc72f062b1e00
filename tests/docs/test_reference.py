"""The reference pages against the source: nothing is missing, and nothing is made up."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doc_pages import page, rows
from generated import CACHES, STORAGES, TEXTS, anchor, escaped, measured
from pypicloud.access.base import IAccessBackend
from pypicloud.cache.base import ICache
from pypicloud.declared import all_settings
from pypicloud.errors import PypicloudError
from pypicloud.route import ANY, READ, ROUTES, Route
from pypicloud.scripts import main
from pypicloud.settings import FILE_ONLY_PREFIXES, Setting, environment_name
from pypicloud.storage.base import IStorage

SETTINGS = [setting for _, settings in all_settings() for setting in settings]
COMMANDS = list(importlib.metadata.distribution("pypicloud").entry_points.select(group="console_scripts"))
BASES = [(IStorage, "extend/storage"), (ICache, "extend/cache"), (IAccessBackend, "extend/access")]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_settings(setting: Setting[Any]) -> None:
    """Every setting has a heading with its key, its help, its variable and its older spellings below."""
    text = page("reference/settings")
    heading = f"({anchor(setting.key)})=\n### `{setting.key}`\n"
    assert text.count(heading) == 1
    entry = text.split(heading)[1].split("\n### ")[0]
    assert escaped(setting.help) in entry
    assert setting.kind.name.replace("|", "\\|") in entry
    assert all(f"`{spelling}`" in entry for spelling in setting.was)
    if not setting.key.startswith(FILE_ONLY_PREFIXES):
        assert f"`{environment_name(setting.key)}`" in entry


def test_setting_groups() -> None:
    """Every group of settings is a section of the settings page, in the order of the declarations."""
    titles = re.findall(r"^## (.*)$", TEXTS["settings"](), re.MULTILINE)
    assert titles == [title for title, _ in all_settings()]


def test_shared_settings() -> None:
    """A setting that several backends read says which; one that is of a single one does not."""
    entries = {setting.key: page("reference/settings").split(f"### `{setting.key}`\n")[1] for setting in SETTINGS}
    found = {key: re.search(r"read by \| (.*) \|", entry.split("\n### ")[0]) for key, entry in entries.items()}
    shared = {key: match[1] for key, match in found.items() if match}
    assert shared["storage.bucket"] == "`s3`, `cloudfront`, `gcs`"
    assert shared["storage.prefix"] == "`s3`, `cloudfront`, `gcs`, `azure-blob`"
    assert shared["db.url"] == "`sql`, `redis`"
    assert "storage.dir" not in shared


@pytest.mark.parametrize("heading", [CACHES, STORAGES])
def test_measured_figures(heading: str) -> None:
    """The figures of a guide are those of the benchmarks page, without its goals; without figures there are none."""
    table = "| work | SQLite | must | met |\n| --- | --- | --- | --- |\n| x, /s | **9** (1 x) | 5 | yes |"
    assert (
        measured(f"| a |\n\n## {heading}\n\n{table}\n\n## b\n| c |", heading)
        == "| work | SQLite |\n| --- | --- |\n| x, /s | 9 (1 x) |\n"
    )
    assert measured("# Benchmarks\n", heading) == ""


def addresses(pattern: str) -> list[str]:
    """The addresses of a route's pattern as the page spells them: ``/{index:a|b}/{name}/`` -> ``/a/<project>/`` ..."""
    parts = []
    for literal, name, regex in re.findall(r"([^{]+)|\{(\w+):?((?:[^{}])*)\}", pattern):
        if literal:
            parts.append([literal])
        elif regex.startswith("/?"):
            parts.append([""])
        elif "|" in regex:
            parts.append([word.replace("\\", "").removesuffix(".*") for word in regex.split("|")])
        else:
            parts.append([{"name": "<project>", "filename": "<file>"}.get(name, f"<{name}>")])
    return ["".join(words) for words in itertools.product(*parts)]


def plain(address: str) -> str:
    """An address without its last slash."""
    return address.rstrip("/") or "/"


def routed() -> Iterator[tuple[str, str]]:
    """Method and address of everything that answers; methods that answer alike are one word."""
    words = {READ: ["GET"], ANY: ["any method"]}
    for route in ROUTES:
        if not is_nothing(route):
            for method in words.get(route.methods, route.methods):
                yield from ((method, plain(address)) for address in addresses(route.pattern))


def is_nothing(route: Route) -> bool:
    """Whether a route is there to say that there is nothing."""
    return route.view.endswith(".nothing_here")


def documented() -> Iterator[tuple[str, str]]:
    """Method and address of every row of the page."""
    for row in rows(page("reference/http")):
        match = re.match(r"(GET|POST|PUT|DELETE|any method),? `", row[0])
        if match:
            yield from ((match[1], plain(address)) for address in re.findall(r"`(/[^`]*)`", row[0]))


def test_routes() -> None:
    """The HTTP page lists exactly the methods and addresses that the server routes."""
    assert set(documented()) == set(routed())


@pytest.mark.parametrize("route", [route for route in ROUTES if is_nothing(route)], ids=lambda route: route.name)
def test_routes_to_nothing(route: Route) -> None:
    """The HTTP page names the addresses at which there is never a project."""
    text = page("reference/http")
    assert all(f"`{address}`" in text for address in addresses(route.pattern))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_commands(command: importlib.metadata.EntryPoint) -> None:
    """Every command that the package installs is on the command line page."""
    assert re.search(rf"^## .*`{command.name}|`{command.name}`", page("reference/command-line"), re.MULTILINE)


LAMBDA = [["ppc-create-s3-sync"], ["ppc-build-lambda-bundle"]]
COMMAND_LINES = [*(["pypicloud", word] for word in main.COMMANDS), ["ppc-make-config"], ["ppc-gen-password"], *LAMBDA]


@pytest.mark.parametrize("command", COMMAND_LINES, ids=" ".join)
def test_options(command: list[str]) -> None:
    """Every subcommand has its section on the command line page, and every option is in the section of its command."""
    program = Path(sys.executable).with_name(command[0])
    described = subprocess.check_output([program, *command[1:], "--help"], text=True)
    options = set(re.findall(r"^  (-[-\w]+)", described, re.MULTILINE)) - {"-h", "--help", "--version"}
    section = page("reference/command-line").split(f"## `{' '.join(command)}`\n")[-1].split("\n## ")[0]
    assert {option for option in options if f"`{option}" not in section and f"[{option}" not in section} == set()


def kinds(kind: type[PypicloudError] = PypicloudError) -> Iterator[type[PypicloudError]]:
    """The whole tree of errors."""
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.key != "setting"], ids=lambda kind: kind.__name__)
def test_errors(kind: type[PypicloudError]) -> None:
    """Every error that a client may see is on the errors page with its status and key."""
    heads = [row[:2] for row in rows(page("reference/errors"))]
    assert [f"{int(kind.status)} {kind.status.phrase}", f"`{kind.key}`"] in heads


@pytest.mark.parametrize(("base", "name"), BASES, ids=lambda value: getattr(value, "__name__", ""))
def test_extension_points(base: type, name: str) -> None:
    """Every public method of a base class is on its page, and every method on the page exists."""
    cells = [row[0] for row in rows(page(name))]
    on_page = {method for cell in cells for method in re.findall(r"`(\w+)(?:\(|`)", cell)}
    public = {method for method in vars(base) if not method.startswith("_") and is_method(vars(base)[method])}
    assert public <= on_page
    assert {method for method in on_page if not hasattr(base, method)} == set()


def is_method(attribute: object) -> bool:
    """Whether a class attribute is something to call or override, rather than a value."""
    return callable(attribute) or isinstance(attribute, classmethod | staticmethod | property)
