"""``ppc-make-config``: asks what a server is for, and writes its ini file (compat.md 6)."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pypicloud.errors import PypicloudError
from pypicloud.scripts import prompts
from pypicloud.scripts.failures import told

_STORAGES: Final = ("s3", "gcs", "filesystem", "azure-blob")
_FLAGS: Final = (
    ("-d", "dev", "development"),
    ("-t", "test", "testing"),
    ("-p", "prod", "production"),
    ("-r", "docker", "a docker image"),
)


@told("ppc-make-config")
def make_config(argv: Sequence[str] | None = None) -> int:
    """Create a server config file."""
    arguments = _parser().parse_args(argv)
    outfile = arguments.outfile
    if outfile is not None and outfile.exists() and not arguments.force:
        question = f"'{outfile}' already exists. Overwrite?"
        if not prompts.promptyn(question, default=False):
            return 0
    text = _text(arguments)
    if outfile is None:
        sys.stdout.write(text)
    else:
        _write(outfile, text)
        print(f"Config file written to '{outfile}'")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ppc-make-config",
        description="Create a server config file. What no option answers is asked.",
    )
    purposes = parser.add_mutually_exclusive_group()
    for flag, purpose, words in _FLAGS:
        purposes.add_argument(
            flag, dest="purpose", action="store_const", const=purpose, help=f"create a config file for {words}"
        )
    parser.add_argument("outfile", nargs="?", type=Path, help="name of the output file (default standard output)")
    parser.add_argument("--force", action="store_true", help="overwrite the output file without asking")
    parser.add_argument("--storage", choices=_STORAGES, help="where packages are stored")
    parser.add_argument("--bucket", type=_without(_bucket_fault), help="the bucket of s3 or gcs")
    parser.add_argument("--region", help="the region of an s3 bucket")
    parser.add_argument("--account", type=_without(_account_fault), help="the account of azure-blob")
    parser.add_argument("--container", help="the container of azure-blob")
    parser.add_argument("--admin", type=_without(_admin_fault), metavar="NAME", help="the administrator's user name")
    parser.add_argument(
        "--password-stdin", action="store_true", help="read the password from one line of standard input"
    )
    parser.add_argument("--fallback", choices=("redirect", "none"), help="what to do for packages that are not stored")
    return parser


def _without(fault: Callable[[str], str | None]) -> Callable[[str], str]:
    """What lets through to argparse only words without a fault."""

    def convert(text: str) -> str:
        if (found := fault(text)) is not None:
            raise argparse.ArgumentTypeError(found)
        return text

    return convert


def _text(arguments: argparse.Namespace) -> str:
    """The file's text, after everything that is not known yet was asked, in the documented order."""
    purpose = arguments.purpose or prompts.prompt_option("What is this config file for?", ("dev", "test", "prod"))
    chosen = arguments.storage or prompts.prompt_option("Where do you want to store your packages?", _STORAGES)
    storage = _STORAGE_SETTINGS[chosen](arguments)
    admin = arguments.admin or prompts.prompt("Admin username?", validate=lambda name: _is_said(_admin_fault(name)))
    password = prompts.read_password_line() if arguments.password_stdin else prompts.prompt_password()
    # The rest is imported when all is answered: it takes a moment.
    from pypicloud.access.passwords import get_pwd_context
    from pypicloud.sample import render_config

    return render_config(
        purpose,
        admin=admin,
        password_hash=get_pwd_context().hash(password),
        storage=storage,
        fallback=arguments.fallback,
    )


def _s3(arguments: argparse.Namespace) -> dict[str, str]:
    settings = {"pypi.storage": "s3"}
    key = os.environ.get("AWS_ACCESS_KEY_ID") or prompts.prompt("AWS access key id (none for a role)?", default="")
    if key:
        secret = _from_environment("AWS_SECRET_ACCESS_KEY", "AWS secret access key?")
        settings |= {"storage.aws_access_key_id": key, "storage.aws_secret_access_key": secret}
    settings["storage.bucket"] = arguments.bucket or prompts.prompt("S3 bucket name?", validate=bucket_validate)
    region = arguments.region
    if region is None and "." in settings["storage.bucket"]:
        region = prompts.prompt("S3 bucket region?")
    return {**settings, "storage.region_name": region} if region else settings


def _gcs(arguments: argparse.Namespace) -> dict[str, str]:
    bucket = arguments.bucket or prompts.prompt("GCS bucket name?", validate=bucket_validate)
    return {"pypi.storage": "gcs", "storage.bucket": bucket}


def _filesystem(_: argparse.Namespace) -> None:
    """Nothing to ask: the purpose says where."""


def _azure(arguments: argparse.Namespace) -> dict[str, str]:
    account = arguments.account or _from_environment(
        "AZURE_STORAGE_ACCOUNT", "Storage account name?", storage_account_name_validate
    )
    question = "Storage account key (none for a managed identity)?"
    key = os.environ.get("AZURE_STORAGE_KEY") or prompts.prompt(question, default="")
    return {
        "pypi.storage": "azure-blob",
        "storage.storage_account_name": account,
        **({"storage.storage_account_key": key} if key else {}),
        "storage.storage_container_name": arguments.container or prompts.prompt("Container name?"),
    }


_STORAGE_SETTINGS: Final[dict[str, Callable[[argparse.Namespace], dict[str, str] | None]]] = {
    "s3": _s3,
    "gcs": _gcs,
    "filesystem": _filesystem,
    "azure-blob": _azure,
}


def _from_environment(variable: str, question: str, validate: Callable[[str], bool] | None = None) -> str:
    return os.environ.get(variable) or prompts.prompt(question, validate=validate)


def bucket_validate(name: str) -> bool:
    """Check for valid bucket name; say what is wrong with it."""
    return _is_said(_bucket_fault(name))


def storage_account_name_validate(name: str) -> bool:
    """Check for valid storage account name; say what is wrong with it."""
    return _is_said(_account_fault(name))


def _is_said(fault: str | None) -> bool:
    """Whether there is no fault; one that there is is printed."""
    if fault is not None:
        print(fault, file=sys.stderr)
    return fault is None


def _bucket_fault(name: str) -> str | None:
    if name.startswith("."):
        return "Bucket names cannot start with '.'"
    if name.endswith("."):
        return "Bucket names cannot end with '.'"
    return "Bucket names cannot contain '..'" if ".." in name else None


def _account_fault(name: str) -> str | None:
    return "Storage account names cannot contain '.'" if "." in name else None


def _admin_fault(name: str) -> str | None:
    """What keeps a user name from being a key, and a word in a list, of an ini file."""
    if re.search(r"[\s:=%]", name):
        return "User names in a config file cannot contain spaces, ':', '=' or '%'"
    return None


def _write(outfile: Path, text: str) -> None:
    """Write the file, which holds secrets, for its owner alone; one that is there keeps its permissions."""
    try:
        descriptor = os.open(outfile, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PypicloudError(f"{outfile} cannot be written: {error.strerror}") from error
