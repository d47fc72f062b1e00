"""The gathered settings and the check of a configuration against them."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pypicloud
from pypicloud.declared import CHOICES, all_settings, check, settings_in_use
from pypicloud.settings import TEXT, EnvironSettings, Setting
from pypicloud.storage import FileStorage

#: The least that the default backends need.
LEAST = {"storage.dir": "/srv/packages", "db.url": "sqlite:////srv/db.sqlite"}


class ForeignStorage(FileStorage):
    """A storage of somebody else, with a setting of its own."""

    SETTINGS = (*FileStorage.SETTINGS, Setting("storage.flavour", TEXT, "plain", "What it tastes of."))


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> str:
    """The dotted path of a storage that is not part of the package."""
    module = ModuleType("a_storage_of_somebody_else")
    monkeypatch.setattr(ForeignStorage, "__module__", module.__name__)
    module.__dict__["ForeignStorage"] = ForeignStorage
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return f"{module.__name__}.ForeignStorage"


def checked(values: dict[str, Any], **env: str) -> tuple[dict[str, str], list[str]]:
    """The findings by key, and the keys of the errors."""
    findings, errors = check(EnvironSettings({**LEAST, **values}, env))
    return {finding.key: finding.message for finding in findings}, [error.setting for error in errors]


def declared_in(module: ModuleType) -> list[Setting[Any]]:
    """The settings that a module, or a class in it, declares."""
    values = vars(module).values()
    classes = [value for value in values if isinstance(value, type)]
    found = [value for value in values if isinstance(value, Setting)]
    return [*found, *(setting for kind in classes for setting in getattr(kind, "SETTINGS", ()))]


def test_every_declared_setting_is_gathered() -> None:
    """No module of the package declares a setting that check-config and the reference do not know."""
    gathered = {setting.key for _, group in all_settings() for setting in group}
    names = [found.name for found in pkgutil.walk_packages(pypicloud.__path__, "pypicloud.")]
    modules = [importlib.import_module(name) for name in names if not name.startswith("pypicloud.testing")]
    declared = {setting.key for module in modules for setting in declared_in(module)}
    assert declared <= gathered


def test_each_setting_is_gathered_once() -> None:
    """A setting that several backends share has one place among all settings."""
    keys = [setting.key for _, group in all_settings() for setting in group]
    assert len(keys) == len(set(keys))


def test_what_is_in_use_depends_on_the_choice(foreign: str) -> None:
    """The settings in use are those of the chosen backends, whoever made them."""
    groups = dict(settings_in_use(EnvironSettings({"pypi.storage": foreign}, {})))
    assert [setting.key for setting in groups[f"Storage: {foreign}"]] == ["storage.dir", "storage.flavour"]
    assert "Storage: file" not in groups


def test_a_sound_configuration_has_no_findings() -> None:
    """The least that is needed is enough, and nothing about it is odd."""
    assert checked({}) == ({}, [])


def test_all_errors_are_found() -> None:
    """Every missing or unusable value is an error, not only the first."""
    _, errors = check(EnvironSettings({"pypi.fallback": "yes", "pypi.package_max_age": "soon"}, {}))
    assert [error.setting for error in errors] == [
        "pypi.fallback",
        "pypi.package_max_age",
        "storage.dir",
        "db.url",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pypi.fallback", "cache"),
        ("pypi.fallback", "mirror"),
        ("pypi.fallback_base_url", "index.example"),
        ("pypi.trusted_proxies", "10.0.0.1,10.0.0.2"),
        ("pypi.use_json_scraper", "true"),
    ],
)
def test_what_stops_the_start_is_found_before(key: str, value: str) -> None:
    """What this version cannot do, and what is of the right kind but of no use, is one error."""
    others = {"pypi.fallback_url": "https://index.example/simple"} if key == "pypi.use_json_scraper" else {}
    assert checked({**others, key: value})[1] == [key]


def test_an_unknown_key_names_the_nearest() -> None:
    """A slip in a key is named with the key that was meant."""
    findings, _ = checked({"pypi.fallbak": "none"})
    assert "did you mean pypi.fallback?" in findings["pypi.fallbak"]


def test_an_unknown_variable_names_the_nearest() -> None:
    """A slip in a variable's name is named with the variable that was meant."""
    findings, _ = checked({}, PPC_PYPI_FALBACK="none")
    assert "did you mean PPC_PYPI_FALLBACK?" in findings["PPC_PYPI_FALBACK"]


@pytest.mark.parametrize(
    "key",
    [
        "pyramid.debug_notfound",
        "pyramid.default_locale_name",
        "session.invalidate_corrupt",
        "session.type",
        "db.pool_size",
        "user.a.b",
        "group.brotatos",
        "package.x.user.y",
        "here",
        "__file__",
    ],
)
def test_documented_families_are_known(key: str) -> None:
    """Keys of the framework, the session, the engine, the accounts and the file itself are no slips."""
    assert checked({key: "1"}) == ({}, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("storage.access_key", "storage.aws_access_key_id"),
        ("storage.secret_key", "storage.aws_secret_access_key"),
        ("storage.region", "storage.region_name"),
        ("aws.bucket", "storage.bucket"),
        ("aws.prefix", "storage.prefix"),
        ("aws.secret_key", "storage.aws_secret_access_key"),
        ("pypi.prepend_hash", "storage.prepend_hash"),
        ("pypi.s3", "pypi.storage"),
        ("db.region", "db.region_name"),
        ("db.access_key", "db.aws_access_key_id"),
        ("db.secret_key", "db.aws_secret_access_key"),
        ("auth.ldap.service_account", "auth.ldap.service_dn"),
    ],
)
def test_older_spellings_name_the_new_key(old: str, new: str) -> None:
    """What older editions called otherwise is named with today's key."""
    in_use = {"pypi.db": "dynamo"} if old == "pypi.s3" else {"pypi.db": "dynamo", "pypi.storage": "s3"}
    findings, _ = checked({**in_use, old: "file"})
    assert f"is the older name of {new};" in findings[old]


def test_mirror_is_named() -> None:
    """The older word for caching with upstream links is named with what to write."""
    findings, _ = checked({"pypi.fallback": "mirror"})
    assert "pypi.always_show_upstream = true" in findings["pypi.fallback"]


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("auth.db.url", "sql"),
        ("auth.ldap.service_dn", "ldap"),
        ("auth.secret_id", "aws_secrets_manager"),
        ("auth.uri.verify", "remote"),
    ],
)
def test_keys_of_missing_backends_are_no_slips(key: str, owner: str) -> None:
    """A key of a 1.3.12 backend that is not there is named as that, with the backend it belongs to."""
    findings, _ = checked({key: "x"})
    assert owner in findings[key]
    assert "does not have yet" in findings[key]
    assert "did you mean" not in findings[key]


def test_variables_of_missing_backends_are_no_slips() -> None:
    """The same holds for what the environment sets."""
    findings, _ = checked({}, PPC_AUTH_LDAP_URL="ldap://x", PPC_AUTH_SECRET_ID="b")
    assert "ldap" in findings["PPC_AUTH_LDAP_URL"]
    assert "aws_secrets_manager" in findings["auth.secret_id"]


MISSING = [
    (choice.setting.key, spec, short)
    for choice in CHOICES
    for short, name in choice.later.items()
    if short not in choice.backends
    for spec in (short, f"pypicloud.somewhere.{name}", f"pypicloud.somewhere:{name}")
]


@pytest.mark.parametrize(("key", "spec", "short"), MISSING)
def test_missing_backends_are_named(key: str, spec: str, short: str) -> None:
    """Choosing a 1.3.12 backend that is not there, by name or documented path, says just that."""
    settings = EnvironSettings({**LEAST, key: spec}, {})
    messages = [str(error) for error in check(settings)[1]]
    assert any(f"does not have the {short} " in message for message in messages)


def test_a_key_of_a_backend_that_is_not_chosen(foreign: str) -> None:
    """A key that only another backend reads is named, and stops nothing."""
    findings, errors = checked({"pypi.db": "pypicloud.testing.cache.MemoryCache", "pypi.storage": foreign})
    assert findings == {"db.url": "belongs to a backend that is not in use; it is ignored"}
    assert errors == []


def test_a_foreign_backend_may_read_any_key(foreign: str) -> None:
    """Nothing below the prefix of a class of somebody else counts as a slip."""
    values = {"pypi.storage": foreign, "storage.flavor": "x", "storage.bucket": "x", "storage.flavour": "sweet"}
    assert checked(values) == ({}, [])


def test_the_keys_of_a_backend_that_cannot_be_found_wait() -> None:
    """While the name of a backend is wrong, its keys are not blamed as well."""
    findings, errors = checked({"pypi.storage": "fiel", "storage.directory": "x"})
    assert findings == {}
    assert errors == ["pypi.storage"]


def test_accounts_never_come_from_the_environment() -> None:
    """A variable that looks like an account is named as ignored."""
    findings, _ = checked({}, PPC_USER_BOB="$6$x")
    assert "read from the file only" in findings["PPC_USER_BOB"]


def test_an_odd_boolean_is_named() -> None:
    """A word that is neither yes nor no is named with what it counts as."""
    findings, _ = checked({"pypi.stream_files": "enabled"})
    assert "counts as no" in findings["pypi.stream_files"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"db.url": "sqlite:////nowhere/at/all/db.sqlite"}, "does not exist"),
        ({"db.url": "nonsense"}, "must be an SQLAlchemy URL"),
        ({"db.poolclass": "sqlalchemy.pool.NoPool"}, "NoPool"),
        ({"db.pool_size": "abc"}, "abc"),
    ],
)
def test_a_database_that_cannot_be_used_is_found(tmp_path: Path, values: dict[str, str], sentence: str) -> None:
    """What would stop the start is found without connecting: nothing is made by looking."""
    database = tmp_path / "db.sqlite"
    settings = {"storage.dir": str(tmp_path / "packages"), "db.url": f"sqlite:///{database}", **values}
    _, [error] = check(EnvironSettings(settings, env={}))
    assert sentence in str(error)
    assert list(tmp_path.iterdir()) == []
