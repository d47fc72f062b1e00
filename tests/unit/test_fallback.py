"""The fallback table: the documentation page is what these tests read."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pypicloud.errors import SettingError
from pypicloud.fallback import Answer, Mode, Policy, Situation, base_url, decide
from pypicloud.settings import EnvironSettings

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "fallback.md"
MODES = (Mode.NONE, Mode.REDIRECT, Mode.REDIRECT_ALWAYS, Mode.CACHE, Mode.CACHE_ALWAYS)


def documented() -> list[tuple[Situation, Mode, str]]:
    """Every cell of the table on the page; ``-`` stands for both values."""
    rows = []
    lines = PAGE.read_text().splitlines()
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 9 or not set("".join(cells[:4])) <= set("01-"):
            continue
        if set("".join(cells)) <= set("-: "):
            continue
        choices = [(False, True) if cell == "-" else (cell == "1",) for cell in cells[:4]]
        for facts in itertools.product(*choices):
            rows += [(Situation(*facts), mode, cell) for mode, cell in zip(MODES, cells[4:], strict=True)]
    return rows


CELLS = documented()


def test_the_page_holds_every_situation() -> None:
    """The table covers all sixteen situations in all five modes, each once."""
    assert len(CELLS) == 16 * 5
    assert len({(situation, mode) for situation, mode, _ in CELLS}) == 16 * 5


@pytest.mark.parametrize(("situation", "mode", "cell"), CELLS)
def test_decide_gives_what_the_page_says(situation: Situation, mode: Mode, cell: str) -> None:
    """``decide`` gives the documented cell."""
    assert decide(mode, situation).value == cell


#: The cells of compat.md 5.11 that ruling 2 changes, as 1.3.12 had them.
OLD_CELLS = {
    Mode.REDIRECT: "302",
    Mode.REDIRECT_ALWAYS: "302",
    Mode.CACHE_ALWAYS: "302",
    Mode.CACHE: "404",
    Mode.NONE: "404",
}


@pytest.mark.parametrize("mode", MODES)
def test_redirect_private_brings_the_old_cells_back(mode: Mode) -> None:
    """With ``pypi.redirect_private`` a user without read is sent upstream for a stored name, as 1.3.12 did."""
    situation = Situation(is_stored=True, can_read=False, can_cache=False, is_logged_in=True)
    assert decide(mode, situation, redirect_private=True).value == OLD_CELLS[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_stored", [False, True])
def test_a_name_with_permissions_never_leaves_the_house(mode: Mode, is_stored: bool) -> None:
    """A name with explicit permissions, stored or not, is 401 or 404 for who may not read it."""
    for is_logged_in, expected in ((False, Answer.LOGIN), (True, Answer.NOT_FOUND)):
        situation = Situation(
            is_stored, can_read=False, can_cache=True, is_logged_in=is_logged_in, has_permissions=True
        )
        assert decide(mode, situation) is expected


@pytest.mark.parametrize("mode", MODES)
def test_a_disallowed_name_is_answered_without_an_upstream(mode: Mode) -> None:
    """``pypi.disallow_fallback`` gives the column ``none``, for every caller."""
    for facts in itertools.product((False, True), repeat=4):
        situation = Situation(*facts)
        assert decide(mode, situation._replace(is_disallowed=True)) is decide(Mode.NONE, situation)


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, Mode.REDIRECT),
        ({"pypi.fallback": "none"}, Mode.NONE),
        ({"pypi.fallback": "none", "pypi.always_show_upstream": "true"}, Mode.NONE),
        ({"pypi.fallback": "redirect", "pypi.always_show_upstream": "on"}, Mode.REDIRECT_ALWAYS),
        ({"pypi.fallback": "cache"}, Mode.CACHE),
        ({"pypi.fallback": "mirror"}, Mode.CACHE_ALWAYS),
        ({"pypi.fallback": "mirror", "pypi.always_show_upstream": "false"}, Mode.CACHE),
    ],
)
def test_the_mode_is_read_from_the_settings(settings: dict[str, str], mode: Mode) -> None:
    """The two settings together name a column; mirror is the older word for one."""
    assert Mode.read(EnvironSettings(settings, {})) is mode


def test_an_unknown_mode_names_the_nearest() -> None:
    """A slip in ``pypi.fallback`` stops the start and is told the right word."""
    with pytest.raises(SettingError, match="did you mean 'redirect'"):
        Mode.read(EnvironSettings({"pypi.fallback": "redirct"}, {}))


def test_the_upstream_is_taken_as_it_is_set() -> None:
    """``pypi.fallback_base_url`` loses its final slash; without it there is a default."""
    assert (
        base_url(EnvironSettings({"pypi.fallback_base_url": "https://index.example/"}, {})) == "https://index.example"
    )
    assert base_url(EnvironSettings({}, {})).startswith("https://")


@pytest.mark.parametrize("mode", MODES)
def test_the_short_question_agrees_with_the_table(mode: Mode) -> None:
    """Where a policy says that just what is stored is listed, the table says so for everybody who may read."""
    for disallowed in (False, True):
        policy = Policy(mode=mode, disallowed=frozenset({"acme"} if disallowed else ()))
        situations = [
            Situation(True, True, can_cache, is_logged_in, is_disallowed=disallowed)
            for can_cache, is_logged_in in itertools.product((False, True), repeat=2)
        ]
        answers = {decide(mode, situation) for situation in situations}
        assert policy.lists_what_is_stored("acme") is (answers == {Answer.LIST})
