"""What pip and uv make of a version that is yanked on a live server."""

from __future__ import annotations

import json
import secrets
import subprocess

import pytest

from support.builds import build_wheel, wheel_name
from support.live import Installation, Server, clean_environment
from support.tools import Tools

REASON = "broken on ARM: use 1.2"


def install(tools: Tools, tool: str, server: Server, requirement: str) -> tuple[str, str]:
    """The version that a tool installs into a new folder, with its caches as they are, and what it prints."""
    target = tools.home / secrets.token_hex(4)
    index = server.url_for("alice")
    if tool == "pip":
        printed = tools.pip("install", index, "--target", target, requirement)
    else:
        printed = tools.uv(index, "--target", target, requirement)
    (info,) = target.glob("nowhere_*.dist-info")
    return info.name.removesuffix(".dist-info").rpartition("-")[2], printed


def post(server: Server, path: str, reason: str | None = None) -> None:
    """A POST to the API that must succeed."""
    body = json.dumps({"reason": reason}).encode()
    answer = server.ask(f"/api/package/{path}", "POST", body, headers={"Content-Type": "application/json"})
    assert answer.status == 200, answer.body


@pytest.fixture(params=["pip", "uv"])
def tool(request: pytest.FixtureRequest) -> str:
    """Each of the two installers."""
    return str(request.param)


@pytest.fixture
def published(server: Server, project: str) -> str:
    """A project with two versions."""
    for number in ("1.0", "1.1"):
        assert server.upload(wheel_name(project, number), build_wheel(project, number)).status == 200
    return project


def test_a_yanked_version(tool: str, tools: Tools, server: Server, published: str) -> None:
    """It is passed over at once, still installed where it is pinned, with the reason, and back when that is undone."""
    assert install(tools, tool, server, published)[0] == "1.1"
    post(server, f"{published}/1.1.0/yank", REASON)
    version, printed = install(tools, tool, server, published)
    assert (version, REASON in printed) == ("1.0", False)
    version, printed = install(tools, tool, server, f"{published}==1.1")
    assert (version, REASON in printed) == ("1.1", True)
    post(server, f"{published}/1.1/unyank")
    version, printed = install(tools, tool, server, published)
    assert (version, REASON in printed) == ("1.1", False)


def test_the_command(tool: str, tools: Tools, server: Server, installation: Installation, published: str) -> None:
    """What `pypicloud yank` does beside a running server counts for the next installation."""
    assert install(tools, tool, server, published)[0] == "1.1"
    command = installation.command("pypicloud", "yank", server.directory / "server.ini", published, "1.1")
    for options, expected in ((["--reason", REASON], "1.0"), (["--undo"], "1.1")):
        subprocess.run([*command, *options], check=True, capture_output=True, env=clean_environment())
        assert install(tools, tool, server, published)[0] == expected
