"""The bundle for AWS Lambda: what is in it, which caches it can be made for, and what the function is told."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pypicloud
from pypicloud import _lambda_handler
from pypicloud.errors import PypicloudError, SettingError
from pypicloud.events import Followed
from pypicloud.lambda_scripts import build_lambda_bundle
from pypicloud.scripts import lambda_bundle
from pypicloud.scripts.lambda_bundle import bundle, function_settings, requirements
from pypicloud.settings import EnvironSettings
from support.wheelhouse import closure

CACHES = {
    "dynamo": {"pypi.db": "dynamo", "db.region_name": "eu-west-1"},
    "postgres": {"db.url": "postgresql://host/pypi"},
    "mysql": {"pypi.db": "pypicloud.cache.sql.SQLCache", "db.url": "mysql://host/pypi"},
    "redis": {"pypi.db": "redis", "db.url": "redis://host"},
}
DRIVERS = {"dynamo": "boto3", "postgres": "psycopg", "mysql": "pymysql", "redis": "redis"}


def settings(**more: str) -> EnvironSettings:
    """Settings of a server that keeps its files in S3; a key is spelled with ``__`` for the dot."""
    given = {"pypi.storage": "s3", "storage.bucket": "acme", "storage.region_name": "eu-west-1"}
    return EnvironSettings({**given, **{key.replace("__", "."): value for key, value in more.items()}}, env={})


def of(cache: str) -> EnvironSettings:
    """Those of one of the caches."""
    return settings(**{key.replace(".", "__"): value for key, value in CACHES[cache].items()})


@pytest.mark.parametrize("cache", CACHES)
def test_requirements(cache: str) -> None:
    """The bundle has the driver of its cache, and of no other, and nothing of the web framework."""
    names = closure(requirements(of(cache)))
    assert {name for name in DRIVERS.values() if name in names} == {"boto3", DRIVERS[cache]}
    assert not names & {"pyramid", "granian", "uvloop", "jinja2", "rich"}
    assert ("sqlalchemy" in names) == (cache in {"postgres", "mysql"})


IMPORTS = """
import importlib.metadata, sys
allowed = set(sys.argv[1].split(","))
owners = importlib.metadata.packages_distributions()

class Watch:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        who = {owner.lower().replace("_", "-") for owner in owners.get(top, ())}
        if who and not who & allowed and top != "pypicloud":
            raise ModuleNotFoundError(f"{name} is not in the bundle", name=name)

sys.meta_path.insert(0, Watch())
import pypicloud._lambda_handler, pypicloud.storage.s3, boto3.session
from pypicloud import cache
for name in sys.argv[2].split(","):
    __import__(name)
"""


@pytest.mark.parametrize("cache", CACHES)
def test_imports(cache: str) -> None:
    """What is installed for a function is all that it imports."""
    modules = {
        "dynamo": "pypicloud.cache.dynamo,boto3",
        "postgres": "pypicloud.cache.sql,psycopg,sqlalchemy.dialects.postgresql.psycopg",
        "mysql": "pypicloud.cache.sql,pymysql,sqlalchemy.dialects.mysql.pymysql",
        "redis": "pypicloud.cache.redis_cache,redis,hiredis",
    }
    names = ",".join(closure(requirements(of(cache))))
    subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORTS, names, modules[cache]], check=True)


def test_function_settings() -> None:
    """The function is told all of the cache and where the objects are, and no credentials of the storage."""
    found = function_settings(
        EnvironSettings(
            {
                "pypi.storage": "cloudfront",
                "pypi.db": "pypicloud.cache.dynamo:DynamoCache",
                "pypi.fallback": "none",
                "db.namespace": "n-",
                "storage.bucket": "acme",
                "storage.prefix": "pre/",
                "storage.aws_secret_access_key": "secret",
                "storage.cloud_front_key_string": "secret",
                "storage.webhook_secret": "secret",
                "user.alice": "hash",
            },
            env={"PPC_DB_REGION_NAME": "eu-west-1", "PPC_STORAGE_PREPEND_HASH": "false"},
        )
    )
    assert found == {
        "pypi.db": "dynamo",
        "pypi.storage": "s3",
        "db.namespace": "n-",
        "db.region_name": "eu-west-1",
        "storage.bucket": "acme",
        "storage.prefix": "pre/",
        "storage.prepend_hash": "false",
    }


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "file"),
        ({"db__url": "sqlite:////x"}, "file"),
        ({"db__url": "postgresql+psycopg2://x"}, r"leave \+"),
        ({"pypi__db": "acme.Cache"}, "own"),
    ],
)
def test_other_caches(more: dict[str, str], words: str) -> None:
    """A cache that a function cannot have is refused, with what to do."""
    with pytest.raises(SettingError, match=words):
        function_settings(settings(**more))


def config_file(directory: Path) -> Path:
    """An ini file with a cache that a function can have."""
    lines = ["[app:main]", "use = egg:pypicloud", "pypi.db = dynamo", "db.region_name = eu-west-1", "storage.dir = x"]
    file = directory / "server.ini"
    file.write_text("\n".join(lines))
    return file


def test_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes a zip file of the packages, of this very version, and of the function."""
    packages = {
        "six.py": "",
        "bin/jp.py": "",
        "botocore/data/endpoints.json": "",
        "botocore/data/s3/2006-03-01/service-2.json.gz": "",
        "botocore/data/ec2/2016-11-15/service-2.json.gz": "",
    }

    def install(_: Path, target: Path, wanted: list[str]) -> None:
        assert any(text.startswith("boto3") for text in wanted)
        for name, text in packages.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text)

    monkeypatch.setattr(lambda_bundle, "_install", install)
    monkeypatch.setattr(lambda_bundle, "make_virtualenv", lambda _: None)
    config = tmp_path / "server.ini"
    config.write_text(
        "[app:main]\nuse = egg:pypicloud\npypi.db = dynamo\ndb.region_name = eu-west-1\nstorage.dir = x\n"
    )
    output = tmp_path / "out.zip"
    assert build_lambda_bundle(["-o", str(output), str(config)]) == 0
    assert capsys.readouterr().out == f"Wrote bundle file {output}\n"
    archive = zipfile.ZipFile(output)
    names = set(archive.namelist())
    assert names & set(packages) == {name for name in packages if not name.startswith(("bin/", "botocore/data/ec2"))}
    assert archive.read("lambda_script.py") == Path(_lambda_handler.__file__).read_bytes()
    assert archive.read("pypicloud/__init__.py") == Path(pypicloud.__file__).read_bytes()
    assert not [name for name in names if "__pycache__" in name]
    assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}
    assert bundle(of("dynamo")) == output.read_bytes()


def test_a_bundle_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be written is told in one line."""
    monkeypatch.setattr(lambda_bundle, "bundle", lambda _: b"")
    config = tmp_path / "server.ini"
    config.write_text(
        "[app:main]\nuse = egg:pypicloud\npypi.db = dynamo\ndb.region_name = eu-west-1\nstorage.dir = x\n"
    )
    assert build_lambda_bundle(["-o", str(tmp_path / "nowhere" / "out.zip"), str(config)]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_pip_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip says is told when it cannot install something, and pip is asked for wheels that run in Lambda alone."""
    environment = tmp_path / "env" / "bin"
    environment.mkdir(parents=True)
    script = environment / "python"
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\necho "ERROR: no such wheel" >&2\nexit 1\n')
    script.chmod(0o755)
    with pytest.raises(PypicloudError, match="ERROR: no such wheel"):
        lambda_bundle._install(tmp_path / "env", tmp_path / "target", ["six"])
    words = (tmp_path / "words").read_text()
    assert "--only-binary=:all:" in words
    assert "--python-version 3.13" in words
    assert "--platform=manylinux2014_x86_64" in words


def test_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function makes the cache of its environment once, and says what it did."""
    made: list[str] = []
    followed: list[list[str]] = []

    def factory(given: EnvironSettings) -> object:
        made.append(given["pypi.db"])
        return lambda _: "cache"

    def follow(cache: str, keys: list[str]) -> Followed:
        followed.append(keys)
        return Followed(saved=1)

    monkeypatch.setattr(_lambda_handler, "get_cache_impl", factory)
    monkeypatch.setattr(_lambda_handler, "follow", follow)
    monkeypatch.setenv("PYPICLOUD_SETTINGS", json.dumps({"pypi.db": "dynamo"}))
    _lambda_handler._cache_factory.cache_clear()
    event = {"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": "a%2Bb"}}}]}
    assert _lambda_handler.handle_s3_event(event, None) == "1 saved, 0 forgotten, 0 unchanged"
    assert _lambda_handler.handle_s3_event(event, None) == "1 saved, 0 forgotten, 0 unchanged"
    assert (made, followed) == (["dynamo"], [["a+b"], ["a+b"]])
    _lambda_handler._cache_factory.cache_clear()
