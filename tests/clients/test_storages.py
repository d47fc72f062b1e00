"""pip, uv and twine with files in each object store, in each way that clients can be given them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from support.builds import build_wheel, wheel_name
from support.edge import Edge
from support.installers import Installer, installed
from support.live import Installation, Server, serving, write_config
from support.publishing import UPLOADERS, Checkout
from support.recorder import Recorder, recording
from support.storages import NO_INTERNET, StorageWorld, shared_world
from support.tools import Tools

JSON: Final = {"Accept": "application/vnd.pypi.simple.v1+json"}

#: A version whose file names have to be escaped.
VERSION: Final = "1.0+cu121"

#: Settings with which the server passes the bytes on, pages link to the store, and everybody may read a bucket.
STREAMED: Final = {"pypi.stream_files": "true"}
OWN_LINKS: Final = {"storage.redirect_urls": "false"}
PUBLIC: Final = {"storage.public_url": "true", "storage.object_acl": "public-read"}

WAYS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "s3": ("radosgw", {}),
    "s3-streamed": ("radosgw", STREAMED),
    "s3-own-links": ("radosgw", OWN_LINKS),
    "s3-public": ("radosgw", PUBLIC),
    "cloudfront": ("edge", {}),
    "cloudfront-own-links": ("edge", OWN_LINKS),
    "cloudfront-public": ("public-edge", {}),
    "gcs": ("gcs", {}),
    "gcs-streamed": ("gcs", STREAMED),
    "gcs-own-links": ("gcs", OWN_LINKS),
    "azure": ("azurite", {}),
    "azure-streamed": ("azurite", STREAMED),
    "azure-own-links": ("azurite", OWN_LINKS),
}


@dataclass(frozen=True)
class Way:
    """A live server, the store its files are in, and how clients get them; ``address`` is where the store has them."""

    name: str
    server: Server
    recorder: Recorder
    world: StorageWorld
    address: str

    @property
    def is_streamed(self) -> bool:
        """Whether the server sends the bytes itself."""
        return "streamed" in self.name

    @property
    def has_own_links(self) -> bool:
        """Whether pages link to the store."""
        return "own-links" in self.name


@pytest.fixture
def way(request: pytest.FixtureRequest, installation: Installation, tmp_path: Path) -> Iterator[Way]:
    """A live server whose files are in a new bucket, for the way that the test is parametrized with."""
    where, changes = WAYS[request.param]
    with ExitStack() as stack:
        world = shared_world("radosgw" if "edge" in where else where, request)
        settings, address, plugin = world.settings, world.service.url, world.kind.plugin
        if "edge" in where:
            edge = stack.enter_context(Edge(settings, is_public=where == "public-edge"))
            settings, address, plugin = edge.settings(settings), edge.url, "cloudfront"
            # A value in an ini file is one line here.
            settings = {key: value.replace("\n", "\\n") for key, value in settings.items()}
        spelled = {key.replace(".", "__"): value for key, value in {**settings, **changes}.items()}
        config = write_config(tmp_path / "server", **{**world.changes, "pypi__storage": plugin, **spelled})
        server = stack.enter_context(serving(installation, config, environment=NO_INTERNET))
        yield Way(request.param, server, stack.enter_context(recording(server.port)), world, address)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_publish_and_install(way: Way, tools: Tools, project: str, tmp_path: Path) -> None:
    """What twine or uv publish lies in the store whole, and pip and uv install it; the page is sent once."""
    checkout = Checkout(tmp_path / "checkout", project, VERSION)
    checkout.write()
    publish = UPLOADERS["uv" if way.is_streamed or way.has_own_links else "twine"]
    outcome = publish(tools, f"{way.server.url}/simple/", checkout)
    assert outcome.status == 0, outcome.text
    stored = set(way.world.objects().values())
    assert {checkout.wheel.read_bytes(), checkout.sdist.read_bytes()} <= stored

    page = json.loads(way.server.ask(f"/simple/{project}/", headers=JSON).body)
    links = [file["url"] for file in page["files"]]
    assert all(link.startswith(f"{way.address}/") == way.has_own_links for link in links), links

    index = way.recorder.url_for("alice")
    wish = f"{project}=={VERSION}"
    pip, uv = Installer(tools, "pip"), Installer(tools, "uv")
    for install in (pip, uv):
        way.recorder.forget()
        assert installed(install(index, wish), project) == VERSION
        asked = way.recorder.lines()
        assert sum(line.endswith(f"/simple/{project}/ 200") for line in asked) == 1, asked
        statuses = {line.rpartition(" ")[2] for line in asked if line.split(" ")[1].endswith(".whl")}
        assert statuses == (set() if way.has_own_links else {"200" if way.is_streamed else "302"}), asked

    way.recorder.forget()
    assert installed(pip(index, wish), project) == VERSION
    assert f"GET /simple/{project}/ 304" in way.recorder.lines()


@pytest.mark.parametrize("way", [name for name in WAYS if "streamed" in name], indirect=True)
def test_ranges(way: Way, tools: Tools, project: str, tmp_path: Path) -> None:
    """Through the server files are sent in ranges, and a download that broke off goes on where it was."""
    filename = wheel_name(project, "1.0")
    content = build_wheel(project, "1.0", members={"noise.bin": hashlib.shake_128(b"noise").digest(3_000_000)})
    assert way.server.upload(filename, content).status == 200
    path = f"/api/package/{project}/{filename}"

    head = way.server.ask(path, "HEAD")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(content)), b"")
    for asked, part in (
        ("0-99", slice(0, 100)),
        ("1000-2500000", slice(1000, 2_500_001)),
        ("-70000", slice(-70000, None)),
    ):
        answer = way.server.ask(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status, answer.body) == (206, content[part]), asked
    rest = way.server.ask(path, headers={"Range": "bytes=70000-", "If-Range": head.headers["ETag"]})
    assert (rest.status, content[:70000] + rest.body) == (206, content)
    assert way.server.ask(path, headers={"If-None-Match": head.headers["ETag"]}).status == 304
    beyond = way.server.ask(path, headers={"Range": f"bytes={len(content)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(content)}")

    cuts = iter([1_200_000])
    way.recorder.cut = lambda exchange: next(cuts, None) if exchange.path.endswith(".whl") else None
    out = tmp_path / "out"
    words: list[str | Path] = ["--no-deps", "--resume-retries", "2", "--dest", out, project]
    tools.pip("download", way.recorder.url_for("alice"), *words, cache=False)
    assert (out / filename).read_bytes() == content
    assert [exchange.status for exchange in way.recorder.exchanges if exchange.path.endswith(".whl")] == [200, 206]
