"""The commented ini file of a new server."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest

from pypicloud.declared import check, settings_in_use
from pypicloud.ini import load_ini
from pypicloud.sample import PURPOSES, render_config
from pypicloud.settings import EnvironSettings, Required, Setting

HASH = "$6$rounds=5000$salt$hash"

#: Those of the backends that a new server has.
SETTINGS: dict[str, Setting[Any]] = {
    setting.key: setting for _, group in settings_in_use(EnvironSettings({}, {})) for setting in group
}

#: What all files of ppc-make-config have in ``[app:main]``, as lists of words, as recorded from 1.3.12.
COMMON = {
    "use": "egg:pypicloud",
    "pyramid.debug_authorization": "false",
    "pyramid.debug_notfound": "false",
    "pyramid.debug_routematch": "false",
    "pyramid.default_locale_name": "en",
    "pypi.storage": "file",
    "auth.admins": "adm",
    "user.adm": HASH,
    "session.invalidate_corrupt": "true",
}

#: What differs between the purposes, as recorded from 1.3.12.
OPEN = {"pypi.default_read": "everyone", "pypi.default_write": "authenticated"}
BESIDE = {"storage.dir": "%(here)s/packages", "db.url": "sqlite:///%(here)s/db.sqlite"}
INSTALLED = {"storage.dir": "/var/lib/pypicloud/packages", "db.url": "sqlite:////var/lib/pypicloud/db.sqlite"}
OWN = {
    "dev": {**OPEN, **BESIDE, "pyramid.reload_templates": "True", "session.secure": "False"},
    "test": {**OPEN, **BESIDE, "pyramid.reload_templates": "False", "session.secure": "False"},
    "prod": {
        **BESIDE,
        "pypi.default_read": "authenticated",
        "pyramid.reload_templates": "False",
        "session.secure": "True",
    },
    "docker": {**OPEN, **INSTALLED, "pyramid.reload_templates": "False", "session.secure": "False"},
}

WAITRESS = {"server:main": {"use": "egg:waitress#main", "host": "0.0.0.0", "port": "6543"}}
UWSGI = {
    "paste": "config:%p",
    "paste-logger": "%p",
    "master": "true",
    "processes": "20",
    "reload-mercy": "15",
    "worker-reload-mercy": "15",
    "max-requests": "1000",
    "enable-threads": "true",
    "http": "0.0.0.0:8080",
}
FORMATTER = {
    "formatters": {"keys": "generic"},
    "formatter_generic": {"format": "%(levelname)s %(asctime)s [%(name)s] %(message)s"},
}
CONSOLE = {
    **FORMATTER,
    "loggers": {"keys": "root, botocore, pypicloud"},
    "handlers": {"keys": "console"},
    "logger_root": {"level": "INFO", "handlers": "console"},
    "logger_pypicloud": {"level": "DEBUG", "qualname": "pypicloud", "handlers": ""},
    "logger_botocore": {"level": "WARN", "qualname": "botocore", "handlers": ""},
    "handler_console": {
        "class": "StreamHandler",
        "args": "(sys.stderr,)",
        "level": "NOTSET",
        "formatter": "generic",
    },
}
LOG_FILE = {
    **FORMATTER,
    "loggers": {"keys": "root"},
    "handlers": {"keys": "file"},
    "logger_root": {"level": "WARN", "handlers": "file"},
    "handler_file": {
        "class": "handlers.RotatingFileHandler",
        "args": "('/var/log/pypicloud.log', 'a', 1000000, 5)",
        "level": "NOTSET",
        "formatter": "generic",
    },
}
OTHER_SECTIONS = {
    "dev": {**WAITRESS, **CONSOLE},
    "test": {**WAITRESS, **CONSOLE},
    "prod": {"uwsgi": UWSGI, **LOG_FILE},
    "docker": {"uwsgi": {**UWSGI, "uid": "pypicloud", "gid": "pypicloud"}, **CONSOLE},
}


def rendered(purpose: str, **options: Any) -> str:
    """A file for the user adm."""
    return render_config(purpose, admin="adm", password_hash=HASH, **options)


def parsed(text: str) -> dict[str, dict[str, str]]:
    """The sections of a file with their values, uninterpreted."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the library documents it
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def commented_out(text: str) -> list[tuple[str, str]]:
    """Key and value of every setting that a file leaves at its default."""
    return re.findall(r"^#([a-z][a-z_.]+) = ?(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("purpose", OWN)
def test_the_application_is_that_of_1_3_12(purpose: str) -> None:
    """Every file has exactly the settings that ppc-make-config of 1.3.12 writes."""
    section = parsed(rendered(purpose))["app:main"]
    keys = [section.pop(key) for key in ("session.encrypt_key", "session.validate_key")]
    assert section == {**COMMON, **OWN[purpose]}
    assert all(re.fullmatch(r"[A-Za-z0-9+/]{43}=", key) for key in keys)
    assert keys[0] != keys[1]


@pytest.mark.parametrize("purpose", OTHER_SECTIONS)
def test_the_other_sections_are_those_of_1_3_12(purpose: str) -> None:
    """Server and logging are set up as ppc-make-config of 1.3.12 does."""
    sections = parsed(rendered(purpose))
    del sections["app:main"]
    assert sections == OTHER_SECTIONS[purpose]


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_file_has_no_findings(purpose: str, tmp_path: Path) -> None:
    """A new file is sound, and nothing in it is odd or deprecated."""
    path = tmp_path / "server.ini"
    # The directory of the docker file is there in the image, not here.
    path.write_text(rendered(purpose).replace("/var/lib/pypicloud", str(tmp_path)))
    assert check(load_ini(str(path))) == ([], [])


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_is_commented_out_is_the_default(purpose: str) -> None:
    """A setting that is commented out shows its declared default; three dots where it has none."""
    found = commented_out(rendered(purpose))
    assert "pypi.fallback" in dict(found)
    for key, value in found:
        setting = SETTINGS[key]
        if value == "...":
            assert setting.default is None
        else:
            assert setting.kind.parse(value.replace("%%", "%")) == setting.default


def test_every_setting_in_use_has_its_help() -> None:
    """Each setting that is not deprecated stands in the file, with its help above it."""
    text = rendered("serve")
    words = " ".join(text.replace("\n#", "\n").split())
    for setting in SETTINGS.values():
        if setting.deprecated or setting.key == "db.graceful_reload":
            assert f"{setting.key} =" not in text
        else:
            assert setting.help in words


def test_every_default_can_be_uncommented(tmp_path: Path) -> None:
    """Uncommenting a line changes nothing about what the file means."""
    text = re.sub(r"^#([a-z][a-z_.]+ =(?! \.\.\.))", r"\1", rendered("serve"), flags=re.MULTILINE)
    path = tmp_path / "server.ini"
    path.write_text(text)
    settings = load_ini(str(path))
    assert check(settings) == ([], [])
    for key, value in commented_out(rendered("serve")):
        if value != "...":
            assert not isinstance(SETTINGS[key].default, Required)
            assert SETTINGS[key].read(settings) == SETTINGS[key].default


def test_the_first_start_is_closed() -> None:
    """Without a config file a new server shows nothing to strangers, and only the admin writes."""
    sections = parsed(rendered("serve", directory="%(here)s"))
    assert sections["app:main"]["pypi.default_read"] == "authenticated"
    assert "pypi.default_write" not in sections["app:main"]
    assert sections["server:main"]["host"] == "127.0.0.1"


def test_percent_signs_survive(tmp_path: Path) -> None:
    """A percent sign in a directory or a key is there after reading, and %(here)s is filled in."""
    path = tmp_path / "server.ini"
    path.write_text(rendered("serve", directory="%(here)s/100%", storage=None))
    assert load_ini(str(path))["storage.dir"] == f"{tmp_path}/100%/packages"
    path.write_text(rendered("serve", storage={"pypi.storage": "s3", "storage.aws_secret_access_key": "a%(b"}))
    assert load_ini(str(path))["storage.aws_secret_access_key"] == "a%(b"


def test_another_storage() -> None:
    """The settings of another storage stand in place of the directory."""
    section = parsed(rendered("dev", storage={"pypi.storage": "gcs", "storage.bucket": "b"}))["app:main"]
    assert section["pypi.storage"] == "gcs"
    assert section["storage.bucket"] == "b"
    assert "storage.dir" not in section


def test_fallback_is_written_if_asked_for() -> None:
    """The fallback stands in the file only if it was chosen."""
    assert "pypi.fallback" not in parsed(rendered("prod"))["app:main"]
    assert parsed(rendered("prod", fallback="none"))["app:main"]["pypi.fallback"] == "none"
