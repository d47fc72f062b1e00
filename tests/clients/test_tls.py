"""Uploads and installs over HTTPS and HTTP/2, with a certificate of an authority of our own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.builds import wheel_name
from support.certificates import Certificate, make_certificate
from support.live import Installation, Server, serving, write_config
from support.publishing import UPLOADERS, Checkout
from support.tools import Tools


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for the loopback address."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure_server(
    installation: Installation, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that speaks HTTPS, and logs its requests."""
    config = write_config(tmp_path_factory.mktemp("secure"))
    words = ["--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key), "--access-log"]
    with serving(installation, config, *words, scheme="https") as server:
        yield server


def test_https(tools: Tools, secure_server: Server, certificate: Certificate, project: str, tmp_path: Path) -> None:
    """uv uploads, uv and pip install; uv speaks HTTP/2 for it, pip HTTP/1.1."""
    checkout = Checkout(tmp_path / "checkout", project, "1.0")
    checkout.write()
    tools.trust(certificate.authority)
    published = UPLOADERS["uv"](tools, f"{secure_server.url}/simple/", checkout)
    assert published.status == 0, published.text
    index = secure_server.url_for("alice")
    tools.uv(index, "--target", tmp_path / "uv", project)
    tools.pip("install", index, "--cert", certificate.authority, "--target", tmp_path / "pip", project)
    for target in ("uv", "pip"):
        assert (tmp_path / target / f"{checkout.module}.py").exists()

    wheel = f"/api/package/{project}/{wheel_name(project, '1.0')}"
    logged = re.findall(r'"(GET|POST) (\S+) (\S+)" (\d+)', secure_server.log.read_text())
    assert ("POST", "/simple/", "HTTP/2", "200") in logged
    assert [line[2] for line in logged if line[1] == wheel] == ["HTTP/2", "HTTP/1.1"]
