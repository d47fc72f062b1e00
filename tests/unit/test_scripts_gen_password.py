"""ppc-gen-password (compat.md 6)."""

from __future__ import annotations

import io
import sys

import pytest

from pypicloud import scripts
from pypicloud.access.passwords import SCHEMES, get_pwd_context

FORMS = {
    "sha512_crypt": "$6$rounds=20500$",
    "sha256_crypt": "$5$rounds=16000$",
    "pbkdf2_sha512": "$pbkdf2-sha512$10500$",
    "pbkdf2_sha256": "$pbkdf2-sha256$13000$",
    "bcrypt": "$2b$07$",
    "argon2": "$argon2id$v=19$m=65536,t=1,p=4$",
}


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Give a text to the next command on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme(scheme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each scheme gives a hash of its form, with the documented rounds, that verifies."""
    pipe(monkeypatch, "secret\n")
    assert scripts.gen_password(["-i", "-s", scheme]) == 0
    printed = capsys.readouterr().out.removesuffix("\n")
    assert printed.startswith(FORMS[scheme])
    assert get_pwd_context().verify("secret", printed)


@pytest.mark.parametrize(
    ("text", "password"),
    [("secret", "secret"), ("secret\r\n", "secret"), (" two words \n", " two words "), ("a\nb\n", "a")],
)
def test_one_line_end_is_taken_off(
    text: str, password: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-i hashes the first line without its end, and without touching the spaces in it."""
    pipe(monkeypatch, text)
    assert scripts.gen_password(["-i"]) == 0
    assert get_pwd_context().verify(password, capsys.readouterr().out.strip())


def test_the_default_scheme(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -s the hash is sha512_crypt."""
    pipe(monkeypatch, "secret\n")
    scripts.gen_password(["-i"])
    assert capsys.readouterr().out.startswith("$6$")


def test_rounds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """-r sets the rounds."""
    pipe(monkeypatch, "secret\n")
    scripts.gen_password(["-i", "-r", "1234"])
    assert capsys.readouterr().out.startswith("$6$rounds=1234$")


def test_the_password_is_asked_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -i the password is asked until two answers are alike; only the hash is on standard output."""
    pipe(monkeypatch, "a\nb\nc\nc\n")
    assert scripts.gen_password([]) == 0
    output = capsys.readouterr()
    assert output.err == "Password: Password: Passwords do not match!\nPassword: Password: "
    assert get_pwd_context().verify("c", output.out.strip())


@pytest.mark.parametrize(
    ("options", "text", "reason"),
    [(["-i"], "", "no password"), (["-i"], "\n", "no password"), ([], "a\n", "no answer"), (["-i"], "a\0b", "null")],
)
def test_no_password(
    options: list[str],
    text: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a password that can be hashed there is one line on standard error, no hash, and exit status 1."""
    pipe(monkeypatch, text)
    assert scripts.gen_password(options) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert reason in output.err.splitlines()[-1]


@pytest.mark.parametrize("options", [["-s", "md5"], ["-r", "many"], ["-s", "bcrypt", "-r", "99"], ["-x"]])
def test_wrong_usage(options: list[str]) -> None:
    """Unknown schemes and impossible rounds are wrong usage."""
    with pytest.raises(SystemExit) as caught:
        scripts.gen_password(options)
    assert caught.value.code == 2
