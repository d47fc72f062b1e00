"""Names that plug-ins and scripts imported from 1.3.12 are there with their parameters, or marked with the reason.

``api_reference.txt`` has them all, and says what its marks mean.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

ROW: Final = re.compile(
    r"(?P<indent> *)(?P<name>[\w.]+)(?:\((?P<parameters>.*)\))?(?: -- (?P<mark>\w+): (?P<reason>.+))?"
)

#: Kinds of parameters that can be given by position.
POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Name:
    """A documented name: where it is, its parameters if it is called, and its mark."""

    module: str
    path: tuple[str, ...]
    parameters: tuple[str, ...] | None
    mark: str

    def __str__(self) -> str:
        return ".".join((self.module, *self.path))

    def find(self) -> Any:
        """The object itself. Raises ImportError or AttributeError if it is not there."""
        found = importlib.import_module(self.module)
        for part in self.path:
            found = getattr(found, part)
        return found


def read_names() -> Iterator[Name]:
    """The rows of the table."""
    above: list[tuple[str, str]] = []
    for line in (Path(__file__).parent / "api_reference.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        row = ROW.fullmatch(line)
        assert row is not None, line
        del above[len(row["indent"]) // 4 :]
        mark = row["mark"] or (above[-1][1] if above else "same")
        above.append((row["name"], mark))
        (module, _), *path = above
        listed = row["parameters"]
        parameters = None if listed is None else tuple(listed.split(", ")) if listed else ()
        yield Name(module, tuple(name for name, _ in path), parameters, mark)


NAMES: Final = tuple(read_names())


def marked(mark: str) -> list[Name]:
    """The names with this mark."""
    return [name for name in NAMES if name.mark == mark]


@pytest.mark.parametrize("name", marked("same"), ids=str)
def test_same(name: Name) -> None:
    """The name imports from its documented place, and takes its documented parameters in their order."""
    found = name.find()
    if name.parameters is not None:
        assert differences(found, name.parameters) == []


@pytest.mark.parametrize("name", marked("changed"), ids=str)
def test_changed(name: Name) -> None:
    """The name is there, and the mark is needed: its documented parameters are not all taken."""
    assert name.parameters is not None
    assert differences(name.find(), name.parameters) != []


@pytest.mark.parametrize("name", [*marked("later"), *marked("gone")], ids=str)
def test_not_there(name: Name) -> None:
    """The name is not there, so that the mark goes when it comes."""
    with pytest.raises((ImportError, AttributeError)):
        name.find()


def test_marks() -> None:
    """Every mark is one of those explained, and no name is listed twice."""
    assert {name.mark for name in NAMES} == {"same", "changed", "later", "gone"}
    assert len({str(name) for name in NAMES}) == len(NAMES)


def test_differences_are_seen() -> None:
    """A missing, moved, newly required or keyword-only parameter is a difference; one more optional is none."""

    def function(first: int, second: int = 0, *, option: int = 0) -> None: ...

    assert differences(function, ("first", "second=")) == []
    assert differences(function, ("first",)) == []
    assert differences(function, ("first", "second=", "option=")) == ["option cannot be given by position"]
    assert differences(function, ("second=", "first")) == ["second is not parameter 1", "first is not parameter 2"]
    assert differences(function, ("first=",)) == ["first has no default any more"]
    assert differences(function, ()) == ["first is new and has no default"]
    assert differences(function, ("first", "second=", "**kwargs")) == ["any other keyword is refused"]


def differences(found: Any, documented: tuple[str, ...]) -> list[str]:
    """What keeps a call that fits the documented parameters from fitting the real ones.

    Keywords that the documentation hides behind ``**kwargs`` may be named, and required: ``configure`` gives them.
    """
    parameters = [parameter for parameter in inspect.signature(found).parameters.values() if parameter.name != "self"]
    by_position = [parameter for parameter in parameters if parameter.kind in POSITIONAL]
    takes_any_keyword = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    takes_any_position = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    named = [text for text in documented if not text.startswith("*")]
    wrong = []
    for place, text in enumerate(named):
        name, has_default = text.removesuffix("="), text.endswith("=")
        if place >= len(by_position):
            if not takes_any_position:
                wrong.append(f"{name} cannot be given by position")
        elif by_position[place].name != name:
            wrong.append(f"{name} is not parameter {place + 1}")
        elif has_default and by_position[place].default is inspect.Parameter.empty:
            wrong.append(f"{name} has no default any more")
    hides_keywords = any(text.startswith("**") for text in documented)
    if hides_keywords and not takes_any_keyword:
        wrong.append("any other keyword is refused")
    new = by_position[len(named) :] + [
        parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY and not hides_keywords
    ]
    wrong += [f"{other.name} is new and has no default" for other in new if other.default is inspect.Parameter.empty]
    return wrong
