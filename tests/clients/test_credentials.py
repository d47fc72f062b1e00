"""How installers get at their credentials, and how a live server asks for them (standards.md 5.5, 12, 13)."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.builds import build_wheel, wheel_name
from support.live import LOOPBACK, Server
from support.recorder import Recorder
from support.tools import Tools


@pytest.fixture
def wheel(server: Server, project: str) -> str:
    """The path of a wheel that only users may read."""
    filename = wheel_name(project, "1.0")
    assert server.upload(filename, build_wheel(project, "1.0")).status == 200
    return f"/api/package/{project}/{filename}"


def statuses(recorder: Recorder) -> list[int]:
    """The statuses of all answers."""
    return [exchange.status for exchange in recorder.exchanges]


def write_netrc(tools: Tools) -> None:
    """Leave credentials where pip, uv and curl look."""
    file = tools.home / ".netrc"
    file.write_text(f"machine {LOOPBACK}\nlogin alice\npassword alicealice\n")
    file.chmod(0o600)


def write_keyring(tools: Tools) -> str:
    """Put a `keyring` command onto the path that knows alice's password; the path."""
    folder = tools.home / "bin"
    folder.mkdir()
    script = folder / "keyring"
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '    *creds*) printf \'{"username": "alice", "password": "alicealice"}\' ;;\n'
        "    *) echo alicealice ;;\n"
        "esac\n"
    )
    script.chmod(0o700)
    return f"{folder}:{tools.environment({})['PATH']}"


@pytest.mark.parametrize("source", ["url", "netrc"])
def test_pip(source: str, tools: Tools, recorder: Recorder, project: str, wheel: str, tmp_path: Path) -> None:
    """pip sends credentials of the URL or of netrc with every request, the first included."""
    if source == "netrc":
        write_netrc(tools)
    index = recorder.url_for("alice") if source == "url" else recorder.url
    tools.pip("install", index, "--target", tmp_path / "target", project)
    assert recorder.lines() == [
        f"GET /simple/{project}/ 200",
        f"GET {wheel}.metadata 200",
        f"GET {wheel} 200",
    ]


def test_pip_keyring(tools: Tools, recorder: Recorder, project: str, wheel: str, tmp_path: Path) -> None:
    """The empty 401 makes pip ask the keyring, and once is enough."""
    words = tools.pip_words("install", recorder.url, ["--target", tmp_path / "target", project])
    words[0:0] = ["--keyring-provider", "subprocess"]
    tools.run("pip", *words, env={"PATH": write_keyring(tools)})
    assert statuses(recorder) == [401, 200, 200, 200]
    refusal = recorder.exchanges[0]
    assert refusal.response["WWW-Authenticate"] == 'Basic realm="pypi"'
    assert refusal.size == 0


def test_uv_netrc(tools: Tools, recorder: Recorder, project: str, wheel: str, tmp_path: Path) -> None:
    """uv tries netrc after each 401."""
    write_netrc(tools)
    tools.uv(recorder.url, "--target", tmp_path / "target", project)
    assert statuses(recorder) == [401, 200] * 3
    assert {exchange.path for exchange in recorder.exchanges} == {f"/simple/{project}/", f"{wheel}.metadata", wheel}


def test_uv_environment(tools: Tools, recorder: Recorder, project: str, wheel: str, tmp_path: Path) -> None:
    """uv sends credentials from its environment with every request, the first included."""
    words = tools.uv_words(recorder.url, ["--target", tmp_path / "target", project])
    words[words.index(f"{recorder.url}/simple/")] = f"ours={recorder.url}/simple/"
    tools.run("uv", *words, env={"UV_INDEX_OURS_USERNAME": "alice", "UV_INDEX_OURS_PASSWORD": "alicealice"})
    assert statuses(recorder) == [200, 200, 200]


def test_uv_authenticate_always(tools: Tools, recorder: Recorder, project: str, wheel: str, tmp_path: Path) -> None:
    """With `authenticate = "always"` uv asks netrc first, and no request is made twice."""
    write_netrc(tools)
    config = tmp_path / "uv.toml"
    config.write_text(
        f'[[index]]\nname = "ours"\nurl = "{recorder.url}/simple/"\ndefault = true\nauthenticate = "always"\n'
    )
    words = tools.uv_words(recorder.url, ["--target", tmp_path / "target", project])
    index = words.index("--default-index")
    words[index : index + 2] = ["--config-file", config]
    words.remove("--no-config")
    tools.run("uv", *words)
    assert statuses(recorder) == [200, 200, 200]


@pytest.mark.parametrize("user", [None, "mallory"])
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_no_credentials(
    installer: str, user: str | None, tools: Tools, recorder: Recorder, project: str, wheel: str, tmp_path: Path
) -> None:
    """Without credentials, or with wrong ones, nothing is installed: the answer is 401 and no more."""
    index = recorder.url if user is None else recorder.url_for(user)
    arguments = ["--target", str(tmp_path / "target"), project]
    words = tools.pip_words("install", index, arguments) if installer == "pip" else tools.uv_words(index, arguments)
    outcome = tools.attempt(installer, *words)
    assert outcome.status != 0
    assert set(statuses(recorder)) == {401}
    assert {exchange.size for exchange in recorder.exchanges} == {0}
