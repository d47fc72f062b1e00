"""The bundle for AWS Lambda: a zip file of the function and all that it imports (compat.md 7)."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

import pypicloud
from pypicloud import plugins
from pypicloud.cache import BACKENDS
from pypicloud.errors import PypicloudError, SettingError
from pypicloud.scripts import config_file
from pypicloud.scripts.failures import told
from pypicloud.settings import EnvironSettings
from pypicloud.storage.object_store import ObjectStoreStorage
from pypicloud.storage.s3 import settings as s3

#: The Python of the function: what Lambda calls it, and what pip does.
RUNTIME: Final = "python3.13"
PYTHON: Final = RUNTIME.removeprefix("python")

#: What Lambda runs that on: the machine, and the wheels that fit it and its C library, the newest first.
ARCHITECTURE: Final = "x86_64"
PLATFORMS: Final = tuple(f"{kind}_{ARCHITECTURE}" for kind in ("manylinux_2_34", "manylinux_2_28", "manylinux2014"))

#: What Lambda is told to call.
MODULE: Final = "lambda_script"
HANDLER: Final = f"{MODULE}.handle_s3_event"

#: What the function imports of what the server needs, whichever cache it has.
_ALWAYS: Final = frozenset({"boto3", "msgspec", "packaging", "packaging-legacy"})

#: The extra that brings the driver of a database, by how ``db.url`` begins.
_DRIVERS: Final = {"postgres": "postgres", "mysql": "mysql", "mariadb": "mysql"}

#: The settings of the storage that say which objects are whose, and where they are. Credentials are not among
#: them: the function has a role.
_STORAGE: Final = (
    "storage.bucket",
    "storage.region_name",
    "storage.prefix",
    "storage.prepend_hash",
    "storage.endpoint_url",
    "storage.use_ssl",
    "storage.addressing_style",
    "storage.signature_version",
)

#: What an installation of botocore knows of services that the function does not use, and is most of its size.
_BOTOCORE_DATA: Final = ("botocore", "data")
_SERVICES: Final = frozenset({"s3", "dynamodb", "sts"})

#: The time of all files in the bundle, so that the same files make the same bundle.
_TIME: Final = (1980, 1, 1, 0, 0, 0)


@told("ppc-build-lambda-bundle")
def build_lambda_bundle(argv: Sequence[str] | None = None) -> int:
    """Build the zip bundle that will be deployed to AWS Lambda."""
    description = "Write the zip file that AWS Lambda runs to keep the cache in line with the bucket."
    parser = argparse.ArgumentParser(prog="ppc-build-lambda-bundle", description=description)
    config_file.add_arguments(parser)
    parser.add_argument("-o", metavar="FILE", default="output.zip", help="the file to write (default %(default)s)")
    arguments = parser.parse_args(argv)
    settings = config_file.read_checked(arguments)
    output = Path(arguments.o)
    data = bundle(settings)
    try:
        output.write_bytes(data)
    except OSError as error:
        raise PypicloudError(f"{output} cannot be written: {error.strerror}") from error
    print(f"Wrote bundle file {output}")
    return 0


def function_settings(settings: EnvironSettings) -> dict[str, Any]:
    """What the function has to know of the server's settings: the whole cache, and where the objects are.

    Raises :class:`SettingError` for a cache that a function cannot have.
    """
    settings = settings.clone()
    settings.read_prefix_from_environ("db.")
    found = {key: value for key, value in settings.items() if key.startswith("db.")}
    found["pypi.db"] = kind_of_cache(settings)
    found["pypi.storage"] = "s3"
    told = [setting for setting in (*ObjectStoreStorage.SETTINGS, *s3.SETTINGS) if setting.key in _STORAGE]
    return found | {each.key: settings[each.spelling(settings)] for each in told if each.is_set(settings)}


def kind_of_cache(settings: EnvironSettings) -> str:
    """The short name of the cache. Raises :class:`SettingError` for one that a function cannot have."""
    spec = plugins.DB.read(settings)
    paths = {target.replace(":", "."): short for short, target in BACKENDS.items()}
    name = paths.get(spec.replace(":", "."), spec)
    if name not in BACKENDS:
        raise SettingError(plugins.DB.key, "a function can only have a cache of PyPICloud's own", value=name)
    url = str(settings.get("db.url", "sqlite"))
    if name == "sql" and not url.startswith(tuple(_DRIVERS)):
        raise SettingError("db.url", "a function cannot get at a file; it can at a database server, Redis or DynamoDB")
    if name == "sql" and "+" in url.partition(":")[0]:
        raise SettingError("db.url", "the function brings a driver of its own; leave + and what follows it out")
    return name


def requirements(settings: EnvironSettings) -> list[str]:
    """What has to be installed for the function, as pip takes it."""
    extras, names = {kind_of_cache(settings)}, set(_ALWAYS)
    if "sql" in extras:
        names.add("sqlalchemy")
        url = str(settings["db.url"])
        extras = {extra for start, extra in _DRIVERS.items() if url.startswith(start)}
    return sorted(str(requirement) for requirement in _declared(extras, names))


def _declared(extras: set[str], names: set[str]) -> Iterator[Requirement]:
    """What this package says it needs, of these names or for these extras, without the conditions."""
    for text in importlib.metadata.requires("pypicloud") or ():
        requirement = Requirement(text)
        if (requirement.name in names and _is_needed(requirement)) or _is_needed(requirement, *extras):
            requirement.marker = None
            yield requirement


def _is_needed(requirement: Requirement, *extras: str) -> bool:
    """Whether something is needed for any of these extras alone; without extras, whether it always is."""
    if requirement.marker is None:
        return not extras
    python = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux"}
    fits = [requirement.marker.evaluate({**python, "extra": extra}) for extra in ("", *extras)]
    return any(fits[1:]) and not fits[0] if extras else fits[0]


def bundle(settings: EnvironSettings) -> bytes:
    """The zip file. Raises :class:`SettingError`, and :class:`PypicloudError` if something cannot be installed."""
    wanted = requirements(settings)
    with tempfile.TemporaryDirectory(prefix="pypicloud-lambda-") as name:
        folder = Path(name)
        packages = folder / "packages"
        make_virtualenv(str(folder / "env"))
        _install(folder / "env", packages, wanted)
        # As it is here, so that server and function are of one version.
        source = Path(pypicloud.__file__).parent
        shutil.copytree(source, packages / "pypicloud", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(source / "_lambda_handler.py", packages / f"{MODULE}.py")
        archive = folder / "bundle.zip"
        _pack(packages, archive)
        return archive.read_bytes()


def make_virtualenv(env: str) -> None:
    """Create a virtualenv."""
    # Whoever runs this may have no pip, as with uv.
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(env)


def _install(environment: Path, target: Path, wanted: Sequence[str]) -> None:
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--target", str(target), "--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PypicloudError(f"pip cannot install what the function needs: {' '.join(done.stderr.split())[-1000:]}")


def _pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder)
            if file.is_file() and _is_used(path.parts):
                entry = zipfile.ZipInfo(path.as_posix(), _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                # Lambda runs the function as another user than the one that unpacks it.
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, file.read_bytes())


def _is_used(parts: Sequence[str]) -> bool:
    """Whether the function needs a file."""
    if parts[0] == "bin" or "__pycache__" in parts:
        return False
    is_of_a_service = parts[:2] == _BOTOCORE_DATA and len(parts) > len(_BOTOCORE_DATA) + 1
    return not is_of_a_service or parts[len(_BOTOCORE_DATA)] in _SERVICES
