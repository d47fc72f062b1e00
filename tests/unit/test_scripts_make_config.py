"""ppc-make-config: its questions, its options, its file (compat.md 6)."""

from __future__ import annotations

import configparser
import getpass
import io
import stat
import sys
from pathlib import Path

import pytest

from pypicloud import scripts
from pypicloud.access.passwords import get_pwd_context


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def outfile(tmp_path: Path) -> Path:
    """Where the file goes."""
    return tmp_path / "server.ini"


def pipe(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Give the lines to the next command on standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def application(text: str) -> configparser.SectionProxy:
    """The section of the application in a file's text."""
    parser = configparser.ConfigParser(defaults={"here": "/srv"})
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the library documents it
    parser.read_string(text)
    return parser["app:main"]


def questions(text: str) -> list[str]:
    """What was asked, menus left out."""
    return [question.rpartition("\n")[2].strip() for question in text.replace(":", "?").split("?")[:-1]]


@pytest.mark.parametrize(("flag", "read"), [("-d", "everyone"), ("-t", "everyone"), ("-p", "authenticated")])
def test_a_file_from_a_pipe(
    flag: str, read: str, outfile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers that a script piped into 1.3.12 make the same file here."""
    pipe(monkeypatch, "3", "adm", "hunter2", "hunter2")
    assert scripts.make_config([flag, str(outfile)]) == 0
    section = application(outfile.read_text())
    assert section["pypi.default_read"] == read
    assert section["storage.dir"] == "/srv/packages"
    assert section["auth.admins"] == "adm"
    assert get_pwd_context().verify("hunter2", section["user.adm"])
    assert capsys.readouterr().out == f"Config file written to '{outfile}'\n"


def test_standard_output_is_the_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file name standard output holds the file and no question."""
    pipe(monkeypatch, "3", "adm", "pw", "pw")
    assert scripts.make_config(["-r"]) == 0
    output = capsys.readouterr()
    assert application(output.out)["storage.dir"] == "/var/lib/pypicloud/packages"
    assert questions(output.err) == [
        "Where do you want to store your packages",
        "Admin username",
        "Password",
        "Password",
    ]


def test_the_purpose_is_asked_without_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a flag the first question is what the file is for; a bad choice is asked again."""
    pipe(monkeypatch, "9", "prod?", "3", "3", "adm", "pw", "pw")
    assert scripts.make_config([]) == 0
    output = capsys.readouterr()
    assert "[1] dev\n[2] test\n[3] prod\nWhat is this config file for? Invalid choice\n\n[1] dev\n" in output.err
    assert application(output.out)["session.secure"] == "True"


def test_s3_asks_for_the_region_of_a_dotted_bucket(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """S3: keys, bucket, and the region only if the bucket has a dot; bad bucket names are asked again."""
    pipe(monkeypatch, "1", "AKID", "SE%CRET", ".a", "a.", "a..b", "a.b", "eu-west-1", "adm", "pw", "pw")
    assert scripts.make_config(["-d"]) == 0
    output = capsys.readouterr()
    section = application(output.out)
    assert {key: section[key] for key in section if key.startswith(("pypi.storage", "storage."))} == {
        "pypi.storage": "s3",
        "storage.aws_access_key_id": "AKID",
        "storage.aws_secret_access_key": "SE%CRET",
        "storage.bucket": "a.b",
        "storage.region_name": "eu-west-1",
    }
    for fault in ("cannot start with '.'", "cannot end with '.'", "cannot contain '..'"):
        assert f"Bucket names {fault}\n" in output.err


def test_s3_takes_its_keys_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """AWS keys that are in the environment are not asked for."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "EK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ES")
    pipe(monkeypatch, "s3", "bucket", "adm", "pw", "pw")
    assert scripts.make_config(["-d"]) == 0
    section = application(capsys.readouterr().out)
    assert section["storage.aws_access_key_id"] == "EK"
    assert section["storage.aws_secret_access_key"] == "ES"
    assert "storage.region_name" not in section


def test_a_cloud_that_knows_the_machine_needs_no_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever gives no key, because the machine has a role or an identity, gets a file without one."""
    for answers in (["s3", "", "bucket"], ["azure-blob", "acc", "", "cont"]):
        pipe(monkeypatch, *answers, "adm", "pw", "pw")
        assert scripts.make_config(["-d"]) == 0
        section = application(capsys.readouterr().out)
        assert not [key for key in section if "key" in key and key.startswith("storage.")]


def test_gcs_asks_for_the_bucket(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """GCS: the bucket and nothing else."""
    pipe(monkeypatch, "2", "bucket", "adm", "pw", "pw")
    assert scripts.make_config(["-d"]) == 0
    section = application(capsys.readouterr().out)
    assert (section["pypi.storage"], section["storage.bucket"]) == ("gcs", "bucket")


def test_azure_asks_for_account_key_and_container(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Azure: account (without a dot), key, container."""
    pipe(monkeypatch, "4", "a.b", "acc", "key==", "cont", "adm", "pw", "pw")
    assert scripts.make_config(["-d"]) == 0
    output = capsys.readouterr()
    section = application(output.out)
    assert section["storage.storage_account_name"] == "acc"
    assert section["storage.storage_account_key"] == "key=="
    assert section["storage.storage_container_name"] == "cont"
    assert "Storage account names cannot contain '.'\n" in output.err


def test_options_answer_everything(
    outfile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With options nothing is asked but the password, which is one line of standard input."""
    pipe(monkeypatch, " spaced pw ")
    options = ["--storage", "filesystem", "--admin", "adm", "--password-stdin", "--fallback", "none"]
    assert scripts.make_config(["-p", *options, str(outfile)]) == 0
    assert capsys.readouterr().err == ""
    section = application(outfile.read_text())
    assert get_pwd_context().verify(" spaced pw ", section["user.adm"])
    assert section["pypi.fallback"] == "none"


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["s3", "--bucket", "b", "--region", "r"], {"storage.bucket": "b", "storage.region_name": "r"}),
        (["gcs", "--bucket", "b"], {"storage.bucket": "b"}),
        (["azure-blob", "--account", "a", "--container", "c"], {"storage.storage_container_name": "c"}),
    ],
)
def test_options_answer_for_every_storage(
    options: list[str], settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options, and the environment for what is secret, answer for the storages that are services, too."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY"):
        monkeypatch.setenv(name, "x")
    pipe(monkeypatch, "pw")
    assert scripts.make_config(["-d", "--admin", "adm", "--password-stdin", "--storage", *options]) == 0
    section = application(capsys.readouterr().out)
    assert settings.items() <= dict(section).items()


def test_the_password_is_asked_until_it_is_typed_twice_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two passwords that differ, and empty ones, are asked again."""
    pipe(monkeypatch, "3", "adm", "pw", "other", "", "pw2", "pw2")
    assert scripts.make_config(["-d"]) == 0
    output = capsys.readouterr()
    assert "Passwords do not match!" in output.err
    assert get_pwd_context().verify("pw2", application(output.out)["user.adm"])


def test_a_terminal_does_not_show_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal the password is read without echo."""
    asked = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def read(prompt: str, stream: object) -> str:
        asked.append(prompt)
        return "pw"

    monkeypatch.setattr(sys, "stdin", Terminal("3\nadm\n"))
    monkeypatch.setattr(getpass, "getpass", read)
    assert scripts.make_config(["-d"]) == 0
    assert asked == ["Password: ", "Password: "]


@pytest.mark.parametrize("name", ["a b", "a:b", "a=b", "a%b"])
def test_a_user_name_that_the_file_cannot_hold(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user name that would break the file is asked again, and refused as an option."""
    pipe(monkeypatch, "3", name, "adm", "pw", "pw")
    assert scripts.make_config(["-d"]) == 0
    output = capsys.readouterr()
    assert "User names in a config file cannot contain" in output.err
    assert application(output.out)["auth.admins"] == "adm"
    with pytest.raises(SystemExit) as caught:
        scripts.make_config(["-d", "--admin", name])
    assert caught.value.code == 2


@pytest.mark.parametrize("answers", [["n"], [""], ["maybe", "n"]])
def test_a_file_that_exists_is_kept(
    answers: list[str], outfile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An existing file is overwritten only after a yes; no is no failure."""
    outfile.write_text("mine")
    pipe(monkeypatch, *answers)
    assert scripts.make_config(["-d", str(outfile)]) == 0
    assert outfile.read_text() == "mine"
    assert f"'{outfile}' already exists. Overwrite? [y/N] " in capsys.readouterr().err


@pytest.mark.parametrize(("options", "answers"), [([], ["y"]), (["--force"], [])])
def test_a_file_that_exists_is_overwritten(
    options: list[str], answers: list[str], outfile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A yes, or --force, overwrites the whole file, which keeps its permissions."""
    outfile.write_text("mine\n" * 10_000)
    outfile.chmod(0o640)
    pipe(monkeypatch, *answers, "3", "adm", "pw", "pw")
    assert scripts.make_config(["-d", *options, str(outfile)]) == 0
    assert "mine" not in outfile.read_text()
    assert stat.S_IMODE(outfile.stat().st_mode) == 0o640


def test_a_new_file_is_for_its_owner_alone(outfile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds keys and a hash, so nobody else may read it."""
    pipe(monkeypatch, "3", "adm", "pw", "pw")
    scripts.make_config(["-d", str(outfile)])
    assert stat.S_IMODE(outfile.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be written is one line on standard error and exit status 1."""
    pipe(monkeypatch, "3", "adm", "pw", "pw")
    assert scripts.make_config(["-d", str(tmp_path / "no" / "server.ini")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("server.ini cannot be written: No such file or directory")


def test_the_end_of_the_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe that ends too early is one line that names the question, and exit status 1."""
    pipe(monkeypatch, "3")
    assert scripts.make_config(["-d"]) == 1
    assert "no answer to 'Admin username?'" in capsys.readouterr().err.splitlines()[-1]


def test_two_purposes_are_wrong_usage() -> None:
    """The purposes exclude each other."""
    with pytest.raises(SystemExit) as caught:
        scripts.make_config(["-d", "-p"])
    assert caught.value.code == 2


def test_the_documented_prompts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Defaults and validation of the documented prompt functions are as in 1.3.12."""
    pipe(monkeypatch, "", "", "bad", "good", "", "2", "", "Y", "no")
    assert scripts.prompt("m", default=None) is None
    assert scripts.prompt("m", default="d") == "d"
    assert scripts.prompt("m", validate=lambda text: text == "good") == "good"
    assert scripts.prompt_option("t", ["a", "b"], default="b") == "b"
    assert scripts.prompt_option("t", ["a", "b"]) == "b"
    assert scripts.promptyn("ok?", True) is True
    assert scripts.promptyn("ok?") is True
    assert scripts.promptyn("ok?") is False
    assert "ok? [Y/n] ok? [y/n] " in capsys.readouterr().err


def test_the_documented_validations(capsys: pytest.CaptureFixture[str]) -> None:
    """The documented validations are true or false, and print what is wrong."""
    assert scripts.bucket_validate("a.b")
    assert not scripts.bucket_validate(".a")
    assert scripts.storage_account_name_validate("a")
    assert not scripts.storage_account_name_validate("a.b")
    assert len(capsys.readouterr().err.splitlines()) == 2
