"""Every uploader publishes to a live server (standards.md 7 and 12)."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from support.builds import build_wheel, wheel_name
from support.live import Server
from support.publishing import UPLOADERS, USER, Checkout, Publish, pdm, poetry, uv
from support.recorder import Recorder
from support.tools import Tools

UPLOAD_TWO = ["POST /simple/ 200", "POST /simple/ 200"]


@pytest.fixture
def checkout(tmp_path: Path, project: str) -> Checkout:
    """A project that was never published."""
    made = Checkout(tmp_path / "checkout", project, "1.0")
    made.write()
    return made


def digests(server: Server, checkout: Checkout) -> dict[str, str]:
    """The sha256 of what the server gives out, for each file of a project."""
    page = server.ask(f"/simple/{checkout.name}/").body.decode()
    names = [path.name for path in (checkout.wheel, checkout.sdist) if path.name in page]
    files = {name: server.ask(f"/api/package/{checkout.name}/{name}").body for name in names}
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def built(checkout: Checkout) -> dict[str, str]:
    """The sha256 of what was built."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (checkout.wheel, checkout.sdist)}


@pytest.mark.parametrize("uploader", UPLOADERS)
def test_publishing(uploader: str, tools: Tools, server: Server, recorder: Recorder, checkout: Checkout) -> None:
    """Wheel and source distribution arrive whole; once more is fine and changes nothing; other bytes are refused."""
    publish = UPLOADERS[uploader]
    url = f"{recorder.url}/simple/"
    first = publish(tools, url, checkout)
    assert first.status == 0, first.text
    assert [line for line in recorder.lines() if line.startswith("POST")] == UPLOAD_TWO
    published = built(checkout)
    assert digests(server, checkout) == published

    recorder.forget()
    again = publish(tools, url, checkout)
    assert again.status == 0, again.text
    # hatch looks first, and leaves out what is there.
    expected = [f"GET /simple/%2Bsimple/{checkout.name}/ 200"] if uploader == "hatch" else UPLOAD_TWO
    assert recorder.lines() == expected

    recorder.forget()
    checkout.write("CHANGED = True")
    refused = publish(tools, url, checkout)
    if uploader == "hatch":
        assert refused.text.count("already exists") == 2
    else:
        assert refused.status != 0, refused.text
        assert "409" in refused.text
        assert recorder.lines() == ["POST /simple/ 409"]
    assert digests(server, checkout) == published


@pytest.mark.parametrize("publish", [poetry, pdm])
def test_skipping_existing(publish: Publish, tools: Tools, server: Server, checkout: Checkout) -> None:
    """`--skip-existing` takes the 409 for what it means: the file is there, and stays as it is."""
    for path in (checkout.wheel, checkout.sdist):
        assert server.upload(path.name, path.read_bytes()).status == 200
    published = built(checkout)
    checkout.write("CHANGED = True")
    outcome = publish(tools, f"{server.url}/simple/", checkout, "--skip-existing")
    assert outcome.status == 0, outcome.text
    assert digests(server, checkout) == published


def test_uv_check_url(tools: Tools, server: Server, recorder: Recorder, checkout: Checkout) -> None:
    """`uv publish --check-url` sends what is missing, skips what is there, and stops at other bytes."""
    url, check = f"{recorder.url}/simple/", ["--check-url", f"{recorder.url_for('alice')}/simple/"]
    assert uv(tools, url, checkout, *check).status == 0
    assert [line for line in recorder.lines() if line.startswith("POST")] == UPLOAD_TWO

    recorder.forget()
    again = uv(tools, url, checkout, *check)
    assert again.status == 0, again.text
    assert again.text.count("already exists") + again.text.count("skipping") >= 2
    assert [exchange.method for exchange in recorder.exchanges if exchange.method != "GET"] == []

    recorder.forget()
    checkout.write("CHANGED = True")
    other = uv(tools, url, checkout, *check)
    assert other.status != 0
    assert [exchange.method for exchange in recorder.exchanges if exchange.method != "GET"] == []


def test_uv_shows_the_reason(tools: Tools, server: Server, checkout: Checkout) -> None:
    """What the server says about a refused file is what uv prints, in one sentence."""
    assert server.upload(checkout.wheel.name, checkout.wheel.read_bytes()).status == 200
    checkout.write("CHANGED = True")
    text = uv(tools, f"{server.url}/simple/", checkout).text
    assert f"409 File already exists: '{checkout.wheel.name}' is stored with other bytes" in text


def test_no_right_to_upload(tools: Tools, server: Server, checkout: Checkout) -> None:
    """Who may not write a project is refused with 403, and nothing is stored."""
    words = ["--repository-url", f"{server.url}/simple/", "-u", "dave", "-p", "davedave", "--non-interactive"]
    outcome = tools.attempt("twine", "upload", *words, checkout.wheel)
    assert outcome.status != 0
    assert "403" in outcome.text
    assert digests(server, checkout) == {}


def test_300_megabytes(tools: Tools, server: Server, project: str, tmp_path: Path) -> None:
    """A wheel of 300 MB goes in by uv and comes out by pip, byte for byte."""
    wheel = tmp_path / wheel_name(project, "1.0")
    write_big_wheel(wheel, project, 300)
    user, password = USER
    words = ["--publish-url", f"{server.url}/simple/", "--username", user, "--password", password]
    tools.run("uv", "--no-config", "publish", *words, wheel)
    out = tmp_path / "out"
    tools.pip("download", server.url_for("alice"), "--no-deps", "--dest", out, project, cache=False)
    with wheel.open("rb") as sent, (out / wheel.name).open("rb") as received:
        assert hashlib.file_digest(sent, "sha256").digest() == hashlib.file_digest(received, "sha256").digest()
    # Three times 300 MB are not left lying about.
    wheel.unlink()
    (out / wheel.name).unlink()
    assert server.ask(f"/api/package/{project}/{wheel.name}", "DELETE").status == 200


def write_big_wheel(path: Path, name: str, megabytes: int) -> None:
    """A sound wheel with a member of so many megabytes, not compressed."""
    small = build_wheel(name, "1.0")
    path.write_bytes(small)
    block = bytes(1 << 20)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive, archive.open(f"{name}-data.bin", "w") as member:
        for _ in range(megabytes):
            member.write(block)
