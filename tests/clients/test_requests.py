"""What pip and uv ask a live server for, and what they are spared (standards.md 5 and 12)."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.builds import build_wheel, wheel_name
from support.live import Server
from support.recorder import Exchange, Recorder
from support.tools import Tools

JSON_FIRST = {
    "pip": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
    "uv": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
}
ENCODINGS = {"pip": ("gzip, deflate", "gzip", "identity"), "uv": ("gzip, deflate, zstd", "zstd", "zstd,gzip,deflate")}


class Tree:
    """Two projects, of which the first needs an old version of the second."""

    def __init__(self, server: Server, project: str) -> None:
        self.first = project
        self.second = f"{project}-needed"
        for name, version, content in (
            (self.second, "1.0", build_wheel(self.second, "1.0")),
            (self.second, "2.0", build_wheel(self.second, "2.0")),
            (self.first, "1.0", build_wheel(self.first, "1.0", requires_dist=f"{self.second} (<2)")),
        ):
            assert server.upload(wheel_name(name, version), content).status == 200

    @property
    def pages(self) -> list[str]:
        """The pages of both projects."""
        return [f"/simple/{name}/" for name in (self.first, self.second)]

    @property
    def wheels(self) -> list[str]:
        """The wheels that have to be installed."""
        return [f"/api/package/{name}/{wheel_name(name, '1.0')}" for name in (self.first, self.second)]

    @property
    def metadata(self) -> list[str]:
        """The metadata of these wheels."""
        return [f"{path}.metadata" for path in self.wheels]

    def is_installed(self, target: Path) -> bool:
        """Whether both projects lie in a folder of packages."""
        names = {path.name for path in target.glob("*.dist-info")}
        return names == {f"{name.replace('-', '_')}-1.0.dist-info" for name in (self.first, self.second)}


@pytest.fixture
def tree(server: Server, project: str) -> Tree:
    """Two projects that nobody has asked for yet."""
    return Tree(server, project)


def install(tools: Tools, installer: str, index: str, *words: str | Path) -> None:
    """Install with one of the two."""
    if installer == "pip":
        tools.pip("install", index, *words)
    else:
        tools.uv(index, *words)


def get(paths: Sequence[str], status: int = 200) -> list[str]:
    """The lines of a log in which each of these paths is read once."""
    return [f"GET {path} {status}" for path in paths]


@pytest.mark.parametrize("form", ["application/vnd.pypi.simple.v1+json", "text/html"])
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_tree(installer: str, form: str, tools: Tools, recorder: Recorder, tree: Tree, tmp_path: Path) -> None:
    """From JSON and from HTML: each page and each metadata once, then each wheel; the second run is two 304."""
    if form == "text/html":
        recorder.overrides = {"Accept": "text/html"}
    install(tools, installer, recorder.url_for("alice"), "--target", tmp_path / "first", tree.first)
    assert tree.is_installed(tmp_path / "first")
    # What has to be known to choose comes first, what is chosen after it; uv asks for several at once.
    log = recorder.lines()
    order = [tree.pages[0], tree.metadata[0], tree.pages[1], tree.metadata[1], *tree.wheels]
    assert log[:4] == get(order)[:4]
    assert sorted(log[4:]) == sorted(get(tree.wheels))
    for exchange in recorder.exchanges:
        check_headers(exchange, installer, form)

    recorder.forget()
    install(tools, installer, recorder.url_for("alice"), "--target", tmp_path / "second", tree.first)
    assert tree.is_installed(tmp_path / "second")
    assert recorder.lines() == get(tree.pages, 304)
    assert [exchange.size for exchange in recorder.exchanges] == [0, 0]


def check_headers(exchange: Exchange, installer: str, form: str) -> None:
    """Each request is as standards.md 12 has it, and each answer as sections 1 and 5 want it."""
    pages, page, files = ENCODINGS[installer]
    asked, got = exchange.request, exchange.response
    assert asked["Authorization"].startswith("Basic ")
    assert got["ETag"].startswith('"')
    assert got["Date"]
    if exchange.path.startswith("/simple/"):
        assert (asked["Accept"], asked["Accept-Encoding"]) == (JSON_FIRST[installer], pages)
        assert (got.get_content_type(), got["Content-Encoding"]) == (form, page)
        assert got["Cache-Control"] == "private, max-age=0"
        assert got["Vary"] == "Accept, Accept-Encoding"
    else:
        assert asked["Accept-Encoding"] == (files if exchange.path.endswith(".metadata") else "identity")
        assert (got["Content-Encoding"], got["Content-Length"]) == (None, str(exchange.size))
        assert got["Cache-Control"] == "private, max-age=365000000, immutable"
    if exchange.path.endswith(".whl"):
        assert got["Accept-Ranges"] == "bytes"


def test_resolving_takes_no_wheel(tools: Tools, recorder: Recorder, tree: Tree) -> None:
    """To find out what would be installed, pip reads pages and metadata only."""
    words = ["--dry-run", "--ignore-installed", tree.first]
    assert f"{tree.second}-1.0" in tools.pip("install", recorder.url_for("alice"), *words)
    assert recorder.lines() == get([tree.pages[0], tree.metadata[0], tree.pages[1], tree.metadata[1]])


@pytest.fixture
def bare_wheel(server: Server, project: str) -> str:
    """The path of a wheel of 300 kB that was in the storage before anybody thought of metadata beside files."""
    filename = wheel_name(project, "1.0")
    file = server.stored(project, "1.0", filename)
    file.parent.mkdir(parents=True)
    noise = random.Random(project).randbytes(300_000)
    file.write_bytes(build_wheel(project, "1.0", members={f"{project.replace('-', '_')}.bin": noise}))
    server.rebuild()
    return f"/api/package/{project}/{filename}"


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_metadata_by_ranges(
    installer: str, tools: Tools, recorder: Recorder, project: str, bare_wheel: str, tmp_path: Path
) -> None:
    """Without metadata beside it, pip (`fast-deps`) and uv read the end of a wheel, and then the wheel once."""
    words = ["--use-feature", "fast-deps"] if installer == "pip" else []
    install(tools, installer, recorder.url_for("alice"), *words, "--target", tmp_path / "target", project)
    page, head, *ranges, wheel = recorder.exchanges
    assert (str(page), str(head)) == (f"GET /simple/{project}/ 200", f"HEAD {bare_wheel} 200")
    assert [str(each) for each in ranges] == [f"GET {bare_wheel} 206"] * len(ranges)
    assert 1 <= len(ranges) <= 3
    assert sum(each.size for each in ranges) < 20_000
    assert str(wheel) == f"GET {bare_wheel} 200"


@pytest.mark.parametrize("is_bare", [True, False])
def test_pip_resumes(
    is_bare: bool,
    tools: Tools,
    server: Server,
    recorder: Recorder,
    project: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """A download that breaks goes on where it broke, checked by the ETag or else by the date."""
    if is_bare:
        path = request.getfixturevalue("bare_wheel")
    else:
        path = f"/api/package/{project}/{wheel_name(project, '1.0')}"
        content = build_wheel(project, "1.0", members={"noise.bin": random.Random(project).randbytes(300_000)})
        assert server.upload(wheel_name(project, "1.0"), content).status == 200
    recorder.cut = lambda exchange: 100_000 if str(exchange) == f"GET {path} 200" else None
    tools.pip("install", recorder.url_for("alice"), "--target", tmp_path / "target", project)
    broken, rest = (exchange for exchange in recorder.exchanges if exchange.path == path)
    assert (rest.status, rest.request["Range"]) == (206, "bytes=100000-")
    assert rest.request["If-Range"] == broken.response["Last-Modified" if is_bare else "ETag"]
    assert rest.response["Content-Range"] == f"bytes 100000-{broken.size - 1}/{broken.size}"


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_minimum_age(installer: str, tools: Tools, server: Server, project: str, tmp_path: Path) -> None:
    """pip's `--uploaded-prior-to` and uv's `--exclude-newer` go by the time of the upload."""
    for version in ("1.0", "2.0"):
        assert server.upload(wheel_name(project, version), build_wheel(project, version)).status == 200
    past = time.time() - 3 * 86400
    old = server.stored(project, "1.0", wheel_name(project, "1.0"))
    for path in old.parent.iterdir():
        os.utime(path, (past, past))
    server.rebuild()
    words = ["--uploaded-prior-to", "P1D"] if installer == "pip" else ["--exclude-newer", "1 day"]
    install(tools, installer, server.url_for("alice"), *words, "--target", tmp_path / "target", project)
    assert [path.name for path in (tmp_path / "target").glob("*.dist-info")] == [
        f"{project.replace('-', '_')}-1.0.dist-info"
    ]
    page = server.ask(f"/simple/{project}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    times = {file["filename"]: file["upload-time"] for file in json.loads(page.body)["files"]}
    assert times[old.name].startswith(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(past)))
