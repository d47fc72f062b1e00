"""Settings: the file, the environment, conversion, errors, and what is worth a warning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pypicloud.auth import REALM
from pypicloud.errors import SettingError
from pypicloud.settings import (
    BOOLEAN,
    INTEGER,
    NAMES,
    PATH,
    REQUIRED,
    SECONDS,
    SIZE,
    TEXT,
    EnvironSettings,
    Kind,
    Setting,
    as_bool,
    as_list,
    environment_name,
    findings,
    nearest,
    one_of,
)

FILE = {"pypi.fallback": "cache", "db.url": "sqlite://", "user.bob": "hash"}
ENVIRONMENT = {
    "PPC_PYPI_FALLBACK": "none",
    "PPC_NEW_KEY": "new",
    "PPC_DB_POOL_SIZE": "5",
    "PPC_DB_URL": "",
    "PPC_AUTH_ADMINS": "ann bob",
    "PPC_A-B": "hyphen",
    "PPC_USER_BOB": "stolen",
    "PPC_GROUP_G": "mallory",
    "PPC_PACKAGE_P_USER_MALLORY": "rw",
    "OTHER": "x",
}


@pytest.fixture
def both() -> EnvironSettings:
    """Settings from a file and an environment that contradicts it."""
    return EnvironSettings(FILE, ENVIRONMENT)


# The environment (compat.md 1.2)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("pypi.fallback", "PPC_PYPI_FALLBACK"),
        ("auth.ldap.url", "PPC_AUTH_LDAP_URL"),
        ("db.pool_size", "PPC_DB_POOL_SIZE"),
        ("a-b", "PPC_A-B"),
    ],
)
def test_the_name_of_the_variable(key: str, name: str) -> None:
    """Upper case, ``_`` for ``.``, and ``PPC_`` in front."""
    assert environment_name(key) == name


def test_the_environment_beats_the_file(both: EnvironSettings) -> None:
    """A variable wins over the file, stands in for a key that the file lacks, and counts even if it is empty."""
    assert both["pypi.fallback"] == both.get("pypi.fallback") == "none"
    assert both["new.key"] == "new"
    assert "new.key" in both
    assert both["db.url"] == ""
    assert both["auth.admins"] == "ann bob"
    assert both["a-b"] == "hyphen"


def test_what_is_not_set_is_missing(both: EnvironSettings) -> None:
    """A key that is nowhere raises KeyError, or gives the default."""
    assert "nope" not in both
    assert 3 not in both
    assert both.get("nope") is None
    assert both.get("nope", 3) == 3
    with pytest.raises(KeyError):
        both["nope"]


def test_users_groups_and_permissions_come_from_the_file_alone(both: EnvironSettings) -> None:
    """No variable makes a user, a group or a permission, or changes one."""
    assert both["user.bob"] == "hash"
    assert "group.g" not in both
    assert "package.p.user.mallory" not in both
    assert dict(both.items())["user.bob"] == "hash"
    with pytest.raises(KeyError):
        both["group.g"]


def test_walking_sees_the_keys_of_the_file(both: EnvironSettings) -> None:
    """Keys, items, iteration and length are those of the file, with their effective values."""
    assert list(both) == list(both.keys()) == list(FILE)
    assert len(both) == 3
    assert dict(both.items()) == {"pypi.fallback": "none", "db.url": "", "user.bob": "hash"}
    assert dict(both) == dict(both.items())


def test_a_prefix_is_taken_in_as_a_whole(both: EnvironSettings) -> None:
    """Every variable below the prefix becomes a key, lower-cased, with its underscores."""
    both.read_prefix_from_environ("db.")
    assert dict(both.items()) == {
        "pypi.fallback": "none",
        "db.url": "",
        "user.bob": "hash",
        "db.pool_size": "5",
    }
    nested = EnvironSettings({}, {"PPC_AUTH_DB_POOL_SIZE": "5", "PPC_AUTH_REALM": "x"})
    nested.read_prefix_from_environ("auth.db.")
    assert list(nested) == ["auth.db.pool_size"]


def test_the_environment_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment of its own it takes the process's, as it is at that moment."""
    monkeypatch.setenv("PPC_SOME_KEY", "first")
    settings = EnvironSettings({})
    monkeypatch.setenv("PPC_SOME_KEY", "later")
    assert settings["some.key"] == "first"
    assert settings.environment()["PPC_SOME_KEY"] == "first"
    assert all(name.startswith("PPC_") for name in settings.environment())


# The rest of the documented class


def test_pop_takes_a_key_out_wherever_it_is(both: EnvironSettings) -> None:
    """pop gives the effective value, and then the key is neither in the file nor in the environment."""
    assert both.pop("pypi.fallback") == "none"
    assert "pypi.fallback" not in both
    assert both.pop("new.key") == "new"
    assert both.pop("pypi.fallback", 9) == both.pop("pypi.fallback", default=9) == 9
    assert both.pop("nope", None) is None
    with pytest.raises(KeyError):
        both.pop("nope")


def test_setdefault_sets_what_is_nowhere(both: EnvironSettings) -> None:
    """setdefault leaves alone what file or environment give."""
    assert both.setdefault("fresh", "1") == both["fresh"] == "1"
    assert both.setdefault("new.key", "1") == "new"
    assert both.setdefault("pypi.fallback", "1") == "none"


def test_a_value_that_is_set_wins(both: EnvironSettings) -> None:
    """Code that sets a key means it, whatever the environment says."""
    both["pypi.fallback"] = "redirect"
    assert both["pypi.fallback"] == "redirect"


def test_a_clone_is_independent(both: EnvironSettings) -> None:
    """What happens to a clone does not happen to the original, and the other way round."""
    clone = both.clone()
    clone.pop("pypi.fallback")
    both["fresh"] = "1"
    assert both["pypi.fallback"] == "none"
    assert "fresh" not in clone
    assert clone["new.key"] == "new"


def test_the_mapping_given_is_left_alone() -> None:
    """Settings work on a copy."""
    given_file = dict(FILE)
    EnvironSettings(given_file, {}).pop("db.url")
    assert given_file == FILE


def test_named_keys_are_fetched_and_converted(both: EnvironSettings) -> None:
    """get_as_dict converts those that are set and leaves the others out."""
    assert both.get_as_dict("db.", url=str, pool_size=int, nope=str) == {"url": "", "pool_size": 5}


def test_the_source_of_a_value_is_known() -> None:
    """Errors can say whether a value came from the file, the environment or elsewhere."""
    settings = EnvironSettings({**FILE, "__file__": "server.ini"}, ENVIRONMENT)
    assert settings.source("pypi.fallback") == "environment variable PPC_PYPI_FALLBACK"
    assert settings.source("user.bob") == "file server.ini"
    assert settings.source("nope") is None
    assert EnvironSettings(FILE, {}).source("db.url") == "settings"


# Conversion (compat.md 1.1)


@pytest.mark.parametrize("word", ["t", "true", "y", "yes", "on", "1", " TRUE ", "Yes", "oN\n"])
def test_words_that_mean_yes(word: str) -> None:
    """One of six words in any case, with space around."""
    assert as_bool(word) is True


@pytest.mark.parametrize("word", ["", "false", "0", "no", "off", "none", "2", "ja", "truth", "t rue", None, False])
def test_every_other_word_means_no(word: Any) -> None:
    """Junk and nothing are no."""
    assert as_bool(word) is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b", ("a", "b")),
        ("\n  a\n\n  b c\n", ("a", "b", "c")),
        ("", ()),
        ("a,b", ("a,b",)),
        ("['everyone']", ("['everyone']",)),
    ],
)
def test_lists_are_words(text: str, words: tuple[str, ...]) -> None:
    """Lists are split at white space; commas and brackets mean nothing."""
    assert as_list(text) == words


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (TEXT, " as is ", " as is "),
        (BOOLEAN, "on", True),
        (NAMES, "a b", ("a", "b")),
        (INTEGER, "-5", -5),
        (SECONDS, "0", 0),
        (SIZE, "1024", 1024),
        (SIZE, "64M", 64 << 20),
        (SIZE, "2 kb", 2048),
        (SIZE, "1G", 1 << 30),
        (PATH, "/a/../b", "/b"),
        (one_of("a", "b"), "b", "b"),
    ],
)
def test_kinds_convert(kind: Kind[Any], text: str, value: Any) -> None:
    """Each kind makes the value its name promises."""
    assert Setting("pypi.x", kind, None, "help").read(EnvironSettings({"pypi.x": text}, {})) == value


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (INTEGER, "many", "must be a whole number"),
        (INTEGER, "", "must be a whole number"),
        (SECONDS, "-1", "must not be negative"),
        (SECONDS, "1.5", "must be a whole number"),
        (SIZE, "1T", "number of bytes"),
        (SIZE, "", "number of bytes"),
        (SIZE, "-1k", "must not be negative"),
        (one_of("redirect", "cache"), "redirct", "must be one of redirect, cache; did you mean 'redirect'?"),
        (one_of("redirect", "cache"), "Cache!", "must be one of redirect, cache"),
    ],
)
def test_bad_values_are_named(kind: Kind[Any], text: str, reason: str) -> None:
    """An error names the key, the value, where it came from and what is wrong with it (design: ruling 9)."""
    settings = EnvironSettings({}, {"PPC_PYPI_X": text})
    with pytest.raises(SettingError) as caught:
        Setting("pypi.x", kind, None, "help").read(settings)
    assert str(caught.value).startswith(f"pypi.x = {text!r} (environment variable PPC_PYPI_X): ")
    assert reason in str(caught.value)
    assert (caught.value.setting, caught.value.value) == ("pypi.x", text)


def test_a_bad_secret_is_not_shown() -> None:
    """The value of a secret stays out of the error."""
    with pytest.raises(SettingError) as caught:
        Setting("auth.x", INTEGER, 0, "help", secret=True).read(EnvironSettings({"auth.x": "hunter2"}, {}))
    assert "hunter2" not in str(caught.value)
    assert caught.value.value == "***"


def test_defaults_and_required_settings() -> None:
    """A missing value is the default, or an error that says what the setting is for."""
    empty = EnvironSettings({"__file__": "server.ini"}, {})
    assert Setting("pypi.x", INTEGER, 7, "help").read(empty) == 7
    with pytest.raises(SettingError, match=r"storage\.dir \(server\.ini\): is required: The directory"):
        Setting("storage.dir", PATH, REQUIRED, "The directory.").read(empty)


def test_values_from_python_are_understood() -> None:
    """Tests and embedding programs may give booleans, numbers and lists."""
    settings = EnvironSettings({"a": True, "b": ["x", "y"], "c": 5, "d": False}, {})
    assert Setting("a", BOOLEAN, None, "").read(settings) is True
    assert Setting("b", NAMES, None, "").read(settings) == ("x", "y")
    assert Setting("c", INTEGER, None, "").read(settings) == 5
    assert Setting("d", BOOLEAN, None, "").read(settings) is False


def test_older_spellings_still_work() -> None:
    """An older spelling is read where the newer is not set, and loses where it is."""
    setting = Setting("pypi.new", TEXT, "default", "help", was=("pypi.old", "pypi.older"))
    assert not setting.is_set(EnvironSettings({}, {}))
    old = EnvironSettings({"pypi.older": "x"}, {})
    assert (setting.is_set(old), setting.spelling(old), setting.read(old)) == (True, "pypi.older", "x")
    assert setting.read(EnvironSettings({"pypi.old": "x", "pypi.new": "y"}, {})) == "y"
    assert setting.read(EnvironSettings({}, {"PPC_PYPI_OLD": "z"})) == "z"


@given(st.text())
def test_any_text_is_converted_or_refused(text: str) -> None:
    """Whatever a file says leads to a value or to a SettingError."""
    settings = EnvironSettings({"k": text}, {})
    for kind in (TEXT, BOOLEAN, NAMES, INTEGER, SECONDS, SIZE, one_of("a")):
        setting: Setting[Any] = Setting("k", kind, None, "")
        try:
            value = setting.read(settings)
        except SettingError as error:
            assert error.setting == "k"  # noqa: PT017 - either outcome is fine, any other exception is not
            continue
        assert value is not None


# What is worth a warning

DECLARED: list[Setting[Any]] = [
    Setting("pypi.fallback", TEXT, "redirect", ""),
    Setting("pypi.stream_files", BOOLEAN, False, ""),
    Setting("pypi.allow_old", BOOLEAN, False, "", deprecated="pypi.allow_groups"),
    Setting("db.url", TEXT, "", "", was=("db.address",)),
    Setting("user.*", TEXT, "", ""),
]


def warned(file: dict[str, str], env: dict[str, str] | None = None, *open_prefixes: str) -> dict[str, str]:
    found = findings(EnvironSettings(file, env or {}), DECLARED, open_prefixes)
    return {finding.key: finding.message for finding in found}


def test_nothing_odd_gives_no_finding() -> None:
    """Known keys, families, keys that are none of ours and variables of known keys pass."""
    assert (
        warned(
            {"pypi.fallback": "x", "user.bob": "y", "pyramid.debug": "z", "here": "/", "pypi.stream_files": "off"},
            {"PPC_PYPI_FALLBACK": "x", "PPC_DB_POOL_SIZE": "5", "PPC_SESSION_KEY": "k", "PPC_USER_BOB": "y"},
        )
        == {}
    )


@pytest.mark.parametrize(
    ("file", "key", "message"),
    [
        ({"pypi.falback": "x"}, "pypi.falback", "is not a setting and is ignored; did you mean pypi.fallback?"),
        ({"storage.zzz": "x"}, "storage.zzz", "is not a setting and is ignored"),
        ({"db.address": "x"}, "db.address", "is the older name of db.url; please rename it"),
        ({"pypi.allow_old": "yes"}, "pypi.allow_old", "is deprecated; please use pypi.allow_groups"),
        ({"pypi.stream_files": "ja"}, "pypi.stream_files", "'ja' is neither yes nor no and counts as no"),
    ],
)
def test_odd_keys_are_found(file: dict[str, str], key: str, message: str) -> None:
    """Unknown, older and deprecated keys and odd booleans are each named with what to do (design: ruling 9)."""
    assert warned(file) == {key: message}


def test_unknown_variables_are_found() -> None:
    """A PPC_ variable of no setting is named with the nearest that is one."""
    assert warned({}, {"PPC_PYPI_FALBACK": "x"}) == {
        "PPC_PYPI_FALBACK": "is no setting's environment variable and is ignored; did you mean PPC_PYPI_FALLBACK?"
    }


def test_keys_of_third_party_backends_are_none_of_our_business() -> None:
    """Below an open prefix anything goes, in the file and in the environment."""
    assert warned({"storage.mine": "x"}, {"PPC_STORAGE_MINE": "y"}, "storage.") == {}


def test_the_nearest_key_is_a_real_one() -> None:
    """Families are not suggested, and neither is what is far off."""
    assert nearest("user.*x", ["user.*"]) == ""
    assert nearest("zzz", ["pypi.fallback"]) == ""


@pytest.mark.parametrize("value", ["a\nb", "a\x00b"])
def test_a_value_for_a_header_is_one_line(value: str) -> None:
    """What goes into a header is refused at the start if it would break it."""
    with pytest.raises(SettingError, match="one line"):
        REALM.read(EnvironSettings({"pypi.realm": value}, {}))
