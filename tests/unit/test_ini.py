"""Reading an ini file as pserve reads it (compat.md 1.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pypicloud.errors import SettingError
from pypicloud.ini import load_ini
from pypicloud.settings import as_list

WHOLE = """\
[DEFAULT]
color = red

[app:main]
use = egg:pypicloud
filter-with = proxy-prefix
storage.dir = %(here)s/packages
pypi.realm = 50%% %(color)s
pypi.default_read =
    everyone
    brotatos
user.Bob.B = hash

[app:other]
use = egg:pypicloud
pypi.realm = %(word)s

[app:derived]
use = main

[pipeline:pipe]
pipeline = proxy-prefix main

[filter-app:filtered]
use = egg:PasteDeploy#prefix
next = main

[filter:proxy-prefix]
use = egg:PasteDeploy#prefix
scheme = https
"""


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A file with everything that PasteDeploy can do to an application."""
    path = tmp_path / "server.ini"
    path.write_text(WHOLE)
    return path


@pytest.mark.parametrize("section", ["main", "derived", "pipe", "filtered"])
def test_values_are_those_that_pserve_hands_over(whole: Path, section: str) -> None:
    """Interpolation, [DEFAULT], filters, pipelines and the case of keys are as with pserve."""
    settings = load_ini(str(whole), section)
    assert settings["storage.dir"] == f"{whole.parent}/packages"
    assert settings["pypi.realm"] == "50% red"
    assert settings["pypi.default_read"].split() == ["everyone", "brotatos"]
    assert settings["user.Bob.B"] == "hash"
    assert settings["color"] == "red"
    assert "use" not in settings
    assert "scheme" not in settings


def test_the_source_names_the_file(whole: Path) -> None:
    """What a value's error will call its source is the file's path."""
    settings = load_ini(str(whole))
    assert settings.file == str(whole)
    assert settings.source("storage.dir") == f"file {whole}"


def test_variables_are_interpolated(whole: Path) -> None:
    """NAME=value of the command line fills %(NAME)s, and does not beat [DEFAULT]."""
    assert load_ini(str(whole), "other", {"word": "home"})["pypi.realm"] == "home"


def test_the_environment_beats_the_file(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of a file are open to the process's variables."""
    monkeypatch.setenv("PPC_PYPI_REALM", "elsewhere")
    assert load_ini(str(whole))["pypi.realm"] == "elsewhere"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pypi.realm = x\n", "line 1 stands before the first [section]"),
        ("[app:main]\nuse = egg:pypicloud\n  x\nhunter2\n", "line 4 is neither a [section] nor key = value"),
        ("[app:main]\nuse = egg:pypicloud\nuse = x\n", "'use' in section 'app:main' already exists"),
        ("[server:main]\nuse = egg:waitress\n", "has no [app:main] section"),
        ("[app:main]\npypi.realm = x\n", "has no line 'use = egg:pypicloud' in [app:main]"),
        ("[app:main]\nuse = egg:no-such-thing\n", "uses the Python package 'no-such-thing', which is not installed"),
        ("[app:main]\nuse = call:no_such_module:app\n", "No module named 'no_such_module'"),
        ("[app:main]\nuse = egg:pypicloud\ndb.url = a:%hunter2@\n", "db.url in [app:main] has a percent sign"),
        ("[app:main]\nuse = egg:pypicloud\ndb.url = %(x)s\n", "db.url in [app:main] uses %(x)s, which is not set"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    """What is wrong with a file is said in one line that names the file and quotes no value."""
    path = tmp_path / "server.ini"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_ini(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message
    assert "hunter2" not in message


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no text are not quoted."""
    path = tmp_path / "server.ini"
    path.write_bytes(b"[app:main]\nuse = \xff\xfe\n")
    with pytest.raises(SettingError, match="is not a text file"):
        load_ini(str(path))


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there, or is a directory, is said to be unreadable."""
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        load_ini(str(tmp_path / "no.ini"))
    with pytest.raises(SettingError, match="cannot be read: Is a directory"):
        load_ini(str(tmp_path))


def test_the_ini_file_is_read_as_pserve_reads_it(tmp_path: Path) -> None:
    """Interpolation, %(here)s, doubled percent signs, [DEFAULT], key case and indented lines behave as before."""
    path = tmp_path / "server.ini"
    path.write_text(
        "[DEFAULT]\nshared = 1\n[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/packages\n"
        "db.url = a%%b\nuser.Bob = x\npypi.realm = %(NAME)s\npypi.default_read =\n  a\n  b c\n"
    )
    settings = load_ini(str(path), variables={"NAME": "given"})
    assert settings["storage.dir"] == f"{tmp_path}/packages"
    assert (settings["db.url"], settings["user.Bob"], settings["pypi.realm"]) == ("a%b", "x", "given")
    assert settings["shared"] == "1"
    assert as_list(settings["pypi.default_read"]) == ("a", "b", "c")
