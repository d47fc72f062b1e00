"""XML-RPC ``search``, as ``pip search`` sent it (compat.md 5.7)."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

import pytest

from support.wire import send
from support.world import Index


@pytest.fixture
def house(index: Index) -> Index:
    """Three projects, one with several versions, one that only alice reads."""
    index.upload_wheel("road-map", "1.0", summary="Ways to go")
    index.upload_wheel("road-map", "1.10", summary="More ways to go")
    index.upload_wheel("road-map", "1.9")
    index.upload_wheel("open-door", "1.0", summary="Go <in> & out")
    index.upload_wheel("secret-plan", "1.0", summary="Where to go")
    return index


def search(index: Index, criteria: dict[str, Any], operator: str, user: str | None = "bob", path: str = "/pypi") -> Any:
    """What the call answers."""
    body = xmlrpc.client.dumps((criteria, operator), "search").encode()
    answer = send(index, "POST", path, body, user=user, headers={"Content-Type": "Text/XML; charset=utf-8"})
    assert (answer.status_int, answer.content_type) == (200, "text/xml")
    return xmlrpc.client.loads(answer.body)[0][0]


ROADS = {"name": "road-map", "summary": "More ways to go", "version": "1.10"}
DOOR = {"name": "open-door", "summary": "Go <in> & out", "version": "1.0"}
PLAN = {"name": "secret-plan", "summary": "Where to go", "version": "1.0"}


@pytest.mark.parametrize(
    ("criteria", "operator", "found"),
    [
        ({"name": ["road"]}, "or", [ROADS]),
        ({"name": "road"}, "or", [ROADS]),
        ({"name": ["ROAD"], "summary": ["door"]}, "or", [ROADS]),
        ({"name": ["go"], "summary": ["go"]}, "or", [DOOR, ROADS]),
        ({"summary": ["ways", "more"]}, "and", [ROADS]),
        ({"summary": ["ways", "in"]}, "and", []),
        ({"summary": ["ways", "<in>"]}, "or", [DOOR, ROADS]),
        ({"name": ["%"]}, "or", []),
        ({"name": ["_"]}, "or", []),
        ({"name": ["'"], "summary": ['"']}, "or", []),
        ({"nonsense": ["road"], "name": ["road"]}, "or", [ROADS]),
        ({}, "and", [DOOR, ROADS]),
    ],
)
def test_what_is_found(house: Index, criteria: dict[str, Any], operator: str, found: list[dict[str, str]]) -> None:
    """The newest matching version of each project that the caller may read, by name."""
    assert search(house, criteria, operator) == found


@pytest.mark.parametrize("path", ["/pypi", "/pypi/"])
def test_who_finds_what(house: Index, path: str) -> None:
    """200 for everybody, with what each may read."""
    for user, found in {"alice": [DOOR, ROADS, PLAN], "bob": [DOOR, ROADS], None: [DOOR]}.items():
        assert search(house, {"summary": ["go"]}, "or", user, path) == found


def test_a_summary_is_never_null(index: Index) -> None:
    """A project without one has an empty text."""
    index.upload_wheel("acme", "1.0")
    assert search(index, {"name": ["acme"]}, "and") == [{"name": "acme", "summary": "", "version": "1.0"}]


def test_a_search_for_too_many_words_is_refused(index: Index) -> None:
    """The caller hears of the bound; the database never meets a query that it cannot take."""
    with pytest.raises(xmlrpc.client.Fault, match="no more than 100 words"):
        search(index, {"name": ["a"] * 60, "summary": ["b"] * 60}, "or")
    assert search(index, {"name": ["a"] * 50, "summary": ["b"] * 50}, "or") == []
