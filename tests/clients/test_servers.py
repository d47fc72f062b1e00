"""The same ini files under every server: `pypicloud serve`, waitress, gunicorn and uWSGI (compat.md 8.1)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from doc_pages import examples
from pypicloud.sample import render_config
from support.builds import build_wheel, metadata, wheel_name
from support.live import LOOPBACK, Installation, Server, free_port, running
from support.world import password_hash

Command = Callable[[Installation, Path, int], list[str]]

COMMANDS: Final[dict[str, Command]] = {
    "serve": lambda installation, config, port: installation.command(
        "pypicloud", "serve", config, "--host", LOOPBACK, "--port", str(port)
    ),
    "pserve": lambda installation, config, port: installation.command("pserve", config),
    "gunicorn": lambda installation, config, port: installation.command(
        "gunicorn", "--paste", config, "--bind", f"{LOOPBACK}:{port}", "--workers", "2", "--threads", "2"
    ),
    "uwsgi": lambda installation, config, port: installation.command("uwsgi", "--ini-paste-logged", config),
}

USERS: Final = f"""use = egg:pypicloud
pypi.default_read = authenticated
pypi.default_write = authenticated
user.alice = {password_hash("alicealice")}"""


def example(page: str, part: str) -> str:
    """The ini file on a page of the documentation that has this part in it."""
    (found,) = (each.text for each in examples("ini") if each.page == f"docs/{page}.md" and part in each.text)
    return found


def section(text: str, name: str) -> str:
    """One section of an ini file."""
    (found,) = re.findall(rf"^\[{name}\]\n(?:(?!\[).*\n?)*", text, re.MULTILINE)
    return str(found)


WAITRESS: Final = example("guides/other-servers", "[server:main]")
UWSGI: Final = example("guides/other-servers", "[uwsgi]")
PREFIX: Final = example("guides/reverse-proxy", "[filter:proxy-prefix]")


def plain(server: str) -> str:
    """The example of the page on other servers; its own one for uWSGI."""
    return UWSGI if server == "uwsgi" else WAITRESS


def prefixed(server: str) -> str:
    """The example with the prefix filter, and how to start each server."""
    return f"{PREFIX}\n{section(WAITRESS, 'server:main')}\n{section(UWSGI, 'uwsgi')}"


def generated(server: str) -> str:
    """What `ppc-make-config` writes: for tests, or for a container where uWSGI runs."""
    purpose = "docker" if server == "uwsgi" else "test"
    return render_config(purpose, admin="root", password_hash="none", directory="%(here)s")


def localized(text: str, port: int) -> str:
    """An ini file as it is used here: with a user, on a port of the loopback interface, with few processes."""
    text = re.sub(r"^pypi\.default_(read|write) = .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("use = egg:pypicloud", USERS, 1)
    text = re.sub(r"^(uid|gid) = .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^processes = \d+", "processes = 2", text, flags=re.MULTILINE)
    text = re.sub(r"^(http|http-socket) = .*", rf"\1 = {LOOPBACK}:{port}", text, flags=re.MULTILINE)
    return re.sub(r"^host = .*\nport = .*", f"host = {LOOPBACK}\nport = {port}", text, flags=re.MULTILINE)


@pytest.mark.parametrize("write", [plain, prefixed, generated])
@pytest.mark.parametrize("name", COMMANDS)
def test_server(
    name: str, write: Callable[[str], str], installation: Installation, project: str, tmp_path: Path
) -> None:
    """A documented ini file starts; an upload, the page, the metadata, a download and a range are right."""
    port = free_port()
    config = tmp_path / "server.ini"
    config.write_text(localized(write(name), port))
    with running(COMMANDS[name](installation, config, port), port, tmp_path) as server:
        check(server, project, "/pypi-of-ours" if write is prefixed else "")


def check(server: Server, project: str, prefix: str) -> None:
    """Publish a wheel of a megabyte, and read it back in every way that installers do."""
    filename = wheel_name(project, "1.0+local")
    content = build_wheel(project, "1.0+local", members={"noise.bin": random.Random(0).randbytes(1 << 20)})
    uploaded = server.upload(filename, content, path=f"{prefix}/simple/")
    assert uploaded.status == 200, (uploaded.body, server.log_tail())
    assert server.upload(filename, content, path=f"{prefix}/simple/").status == 200
    refused = server.upload(filename, build_wheel(project, "1.0+local"), path=f"{prefix}/simple/")
    assert refused.status == 409

    page = f"{prefix}/simple/{project}/"
    assert server.ask(page, user=None).status == 401
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    answer = server.ask(page, headers=accept)
    assert server.ask(page, headers={**accept, "If-None-Match": answer.headers["ETag"]}).status == 304
    (file,) = json.loads(answer.body)["files"]
    assert file["url"] == f"../../api/package/{project}/{filename}"
    assert file["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}

    path = f"{prefix}/api/package/{project}/{filename}"
    assert server.ask(path).body == content
    assert server.ask(path.replace("+", "%2B")).body == content
    assert server.ask(f"{path}.metadata").body == metadata(project, "1.0+local").encode()
    part = server.ask(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status, part.body) == (206, content[1000:2000])
    head = server.ask(path, "HEAD")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(content)))

    listed = json.loads(server.ask(f"{prefix}/api/package/{project}/").body)["packages"][0]["url"]
    scheme = "https" if prefix else "http"
    assert listed.partition("#")[0] == f"{scheme}://{LOOPBACK}:{server.port}{path}"
