"""From a short name or a dotted path to a backend's class."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pypicloud import access, cache, plugins, storage
from pypicloud.access.base import IAccessBackend
from pypicloud.cache.base import ICache
from pypicloud.errors import SettingError
from pypicloud.plugins import load, resolve
from pypicloud.settings import EnvironSettings
from pypicloud.storage.base import IStorage
from pypicloud.storage.files import FileStorage

BACKENDS = {"file": "pypicloud.storage.files:FileStorage"}


@pytest.mark.parametrize(
    "spec",
    [
        "file",
        "pypicloud.storage.files:FileStorage",
        "pypicloud.storage.files.FileStorage",
        "pypicloud.storage.FileStorage",
    ],
)
def test_every_spelling_of_a_class(spec: str) -> None:
    """The short name, both dotted forms, and the documented place give one class (compat.md 0, fact 2)."""
    assert load(spec, BACKENDS, IStorage) is FileStorage


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("fil", "must be file or a dotted path; did you mean file?"),
        ("s3", "must be file or a dotted path"),
        ("", "must be file or a dotted path"),
        ("nowhere.Thing", "there is no module 'nowhere' to import"),
        ("pypicloud.nowhere.Thing", "there is no module 'pypicloud.nowhere' to import"),
        ("pypicloud.storage.files.Nowhere", "module 'pypicloud.storage.files' has no class 'Nowhere'"),
        ("pypicloud.cache.base.ICache", "pypicloud.cache.base.ICache is not a subclass of IStorage"),
        ("pypicloud.util.parse_filename", "pypicloud.util.parse_filename is not a subclass of IStorage"),
    ],
)
def test_what_is_no_backend(spec: str, sentence: str) -> None:
    """The start is stopped with key, value, source and one sentence for people."""
    settings = EnvironSettings({"pypi.storage": spec}, {})
    with pytest.raises(SettingError) as caught:
        resolve(plugins.STORAGE, settings, BACKENDS, IStorage)
    assert (caught.value.setting, caught.value.value) == ("pypi.storage", spec)
    assert caught.value.reason.startswith(sentence)
    assert "pypi.storage" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "import a_library_that_is_missing",
            "needs the Python package 'a_library_that_is_missing', which is not installed",
        ),
        ("import os\nos.no_such_thing", "module 'os' has no attribute 'no_such_thing'"),
    ],
)
def test_a_plugin_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, sentence: str
) -> None:
    """What is wrong inside a plug-in is told as it is, not as a missing class."""
    (tmp_path / "a_broken_plugin.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = EnvironSettings({"pypi.storage": "a_broken_plugin.Thing"}, {})
    with pytest.raises(SettingError) as caught:
        resolve(plugins.STORAGE, settings, BACKENDS, IStorage)
    assert sentence in caught.value.reason
    sys.modules.pop("a_broken_plugin", None)


def test_the_environment_names_a_backend_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source in the message is where the value came from."""
    settings = EnvironSettings({"pypi.storage": "file"}, {"PPC_PYPI_STORAGE": "nothing"})
    with pytest.raises(SettingError, match="PPC_PYPI_STORAGE"):
        resolve(plugins.STORAGE, settings, BACKENDS, IStorage)


@pytest.mark.parametrize(
    ("backends", "base"),
    [(storage.BACKENDS, IStorage), (cache.BACKENDS, ICache), (access.BACKENDS, IAccessBackend)],
)
def test_every_short_name_leads_to_a_class(backends: dict[str, str], base: type) -> None:
    """Of its kind, and with settings declared beside it."""
    for name in backends:
        found: type = load(name, backends, base)
        assert issubclass(found, base)
        assert "SETTINGS" in vars(found)
