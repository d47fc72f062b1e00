"""pypicloud check-config: what it prints, and when it fails."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pypicloud.scripts.check_config import masked, report_on
from pypicloud.scripts.main import main
from pypicloud.settings import EnvironSettings

LEAST = "[app:main]\nuse = egg:pypicloud\nstorage.dir = %(here)s/packages\ndb.url = sqlite:///%(here)s/db.sqlite\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with the least that is needed."""
    path = tmp_path / "server.ini"
    path.write_text(LEAST)
    return path


def report(config: Path, capsys: pytest.CaptureFixture[str], more: str = "") -> tuple[int, dict[str, Any]]:
    """Exit status and JSON report on a file with some more lines."""
    config.write_text(LEAST + more)
    status = main(["check-config", str(config), "--json"])
    return status, json.loads(capsys.readouterr().out)


def row(report: dict[str, Any], key: str) -> tuple[str, str]:
    """Value and source of a setting in a report."""
    rows = {row["key"]: row for group in report["groups"].values() for row in group}
    return rows[key]["value"], rows[key]["source"]


def test_a_sound_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound file has exit status 0, and no warnings or errors."""
    status, found = report(config, capsys)
    assert status == 0
    assert (found["warnings"], found["errors"]) == ([], [])
    assert found["file"] == str(config)


def test_values_and_sources(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every effective value is there, with the file, the variable or the default it comes from."""
    monkeypatch.setenv("PPC_PYPI_FALLBACK", "none")
    monkeypatch.setenv("PPC_DB_POOL_SIZE", "3")
    _, found = report(config, capsys, "pypi.fallback = redirect\npypi.default_read =\n  everyone\n  staff\n")
    assert row(found, "storage.dir") == (f"{config.parent}/packages", "file")
    assert row(found, "pypi.default_read") == ("everyone staff", "file")
    assert row(found, "pypi.fallback") == ("none", "PPC_PYPI_FALLBACK")
    assert row(found, "db.pool_size") == ("3", "PPC_DB_POOL_SIZE")
    assert row(found, "pypi.realm") == ("pypi", "default")
    assert row(found, "pypi.max_upload_size") == ("1G", "default")


def test_secrets_are_masked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No secret is printed, wherever it stands: keys, hashes, passwords in addresses, values in errors."""
    lines = (
        "db.url = postgresql://u:hunter2@h/d?password=hunter2\n"
        "user.bob = hunter2\nsession.validate_key = hunter2\nsession.secret = hunter2\n"
        "auth.signing_key = hunter2\npypi.storage = http://u:hunter2@h\n"
    )
    config.write_text(LEAST.replace("db.url", "x") + lines)
    for options in ([], ["--json"]):
        main(["check-config", str(config), *options])
        printed = capsys.readouterr()
        assert "hunter2" not in printed.out + printed.err
        assert "postgresql://u:***@h/d?password=***" in printed.out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("mysql://u:p@ss:w/rd@h/d?charset=utf8mb4", "mysql://u:***@h/d?charset=utf8mb4"),
        (
            "db.url = 'postgresql://h/d?sslpassword=x&a=b' (file)",
            "db.url = 'postgresql://h/d?sslpassword=***&a=b' (file)",
        ),
        ("sqlite:////srv/db.sqlite", "sqlite:////srv/db.sqlite"),
        ("https://index.example:8080/a", "https://index.example:8080/a"),
    ],
)
def test_masked(text: str, shown: str) -> None:
    """Passwords in an address are masked, the rest of it stays."""
    assert masked(text) == shown


def test_all_that_is_wrong_is_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1, and every error is listed, not only the first."""
    status, found = report(config, capsys, "pypi.fallback = yes\npypi.package_max_age = soon\npypi.auth = nope\n")
    assert status == 1
    assert [error.split(" = ")[0] for error in found["errors"]] == [
        "pypi.auth",
        "pypi.fallback",
        "pypi.package_max_age",
    ]
    assert f"(file {config})" in found["errors"][0]


def test_what_is_odd_is_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown keys, older spellings and deprecated keys are warnings, and stop nothing."""
    lines = "pypi.fallbak = none\npypi.s3 = file\npypi.allow_overwrite = false\n"
    status, found = report(config, capsys, lines)
    assert status == 0
    warnings = "\n".join(found["warnings"])
    assert "pypi.fallbak is not a setting and is ignored; did you mean pypi.fallback?" in warnings
    assert "pypi.s3 is the older name of pypi.storage" in warnings
    assert "pypi.allow_overwrite is deprecated; please use pypi.allow_overwrite_groups" in warnings


def test_what_the_storage_warns_of(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the storage would warn of at the start is printed, without reaching for it."""
    more = "pypi.storage = s3\nstorage.bucket = my.bucket\nstorage.expire_after = 999999\nstorage.object_acl = all\n"
    status, found = report(config, capsys, more)
    assert status == 0
    for words in (
        "storage.bucket = 'my.bucket' has a dot",
        "storage.expire_after = 999999 is more than the service allows; URLs expire after 604800 seconds",
        "storage.object_acl = 'all' is no canned ACL",
    ):
        assert any(warning.startswith(words) for warning in found["warnings"])


@pytest.mark.parametrize("storage", ["s3", "cloudfront", "gcs", "azure-blob"])
@pytest.mark.parametrize(("life", "words"), [("0", "must be at least 1"), ("-5", "must not be negative")])
def test_urls_without_a_life(
    config: Path, capsys: pytest.CaptureFixture[str], storage: str, life: str, words: str
) -> None:
    """URLs of any object store that would be expired when they are made are an error."""
    status, found = report(config, capsys, f"pypi.storage = {storage}\nstorage.expire_after = {life}\n")
    assert status == 1
    assert any(f"storage.expire_after = {life!r}" in error and words in error for error in found["errors"])


def test_what_the_accounts_are_warned_of(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the config backend finds odd about users, groups and rights is a warning, once."""
    lines = "user.bob = plain\nauth.admins = eve\npypi.allow_overwrite = false\n"
    _, found = report(config, capsys, lines)
    assert sum("user.bob" in warning for warning in found["warnings"]) == 1
    assert sum("eve" in warning for warning in found["warnings"]) == 1
    assert sum("now means no" in warning for warning in found["warnings"]) == 1


def test_what_the_accounts_make_impossible(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the config backend would refuse at the start is an error here."""
    status, found = report(config, capsys, "auth.scheme = bcrypt\nauth.rounds = 99\n")
    assert status == 1
    assert "auth.rounds" in found["errors"][0]


def test_nothing_is_made(config: Path) -> None:
    """Neither the directory nor the database is made."""
    main(["check-config", str(config)])
    assert [path.name for path in config.parent.iterdir()] == ["server.ini"]


def test_a_pipe_gets_aligned_lines(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there are plain lines, values under values, no colours."""
    main(["check-config", str(config)])
    output = capsys.readouterr().out
    lines = output.splitlines()
    keys = ("pypi.fallback ", "storage.dir ", "auth.scheme ")
    found = [next(line for line in lines if line.startswith(f"  {key}")) for key in keys]
    values = ("redirect", str(config.parent), "sha512_crypt")
    assert len({line.index(value) for line, value in zip(found, values, strict=True)}) == 1
    assert "\x1b" not in output
    assert lines[-1] == f"{config}: no errors found"


def test_a_terminal_gets_a_table(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the same is coloured, and no value is taken for markup."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    config.write_text(f"{LEAST}pypi.realm = [bold]x[/bold]\npypi.fallbak = x\npypi.auth = nope\n")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["check-config", str(config)]) == 1
    output = terminal.getvalue()
    assert "\x1b[" in output
    assert "[bold]x[/bold]" in output
    assert "pypi.fallbak is not a setting" in output
    assert "the server will not start" in output


def test_variables(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NAME=value and FILE#name are as with pserve; anything else is wrong usage."""
    config.write_text(LEAST.replace("app:main", "app:other") + "pypi.realm = %(word)s\n")
    assert main(["check-config", f"{config}#other", "word=home", "--json"]) == 0
    assert row(json.loads(capsys.readouterr().out), "pypi.realm") == ("home", "file")
    with pytest.raises(SystemExit) as caught:
        main(["check-config", str(config), "word"])
    assert caught.value.code == 2


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is one line on standard error, and exit status 1."""
    assert main(["check-config", str(tmp_path / "no.ini")]) == 1
    assert capsys.readouterr().err == f"pypicloud: {tmp_path}/no.ini: cannot be read: No such file or directory\n"


def test_settings_without_a_file() -> None:
    """A report can be made on settings that come from no file."""
    found = report_on(EnvironSettings({}, {}))
    missing = [row.key for rows in found.groups.values() for row in rows if row.value == "(missing)"]
    assert missing == ["storage.dir", "db.url"]
