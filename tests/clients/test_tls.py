"""Uploads and installs over HTTPS and HTTP/2, with a certificate of an authority of our own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.builds import wheel_name
from support.live import LOOPBACK, Installation, Server, serving, write_config
from support.publishing import UPLOADERS, Checkout
from support.tools import Tools


@dataclass(frozen=True)
class Certificate:
    """A server's certificate with its key, and the authority that signed it."""

    authority: Path
    chain: Path
    key: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for the loopback address."""
    assert shutil.which("openssl"), "openssl is missing; install the package of that name"
    directory = tmp_path_factory.mktemp("certificate")
    (directory / "san.ext").write_text(f"subjectAltName = IP:{LOOPBACK}, DNS:localhost\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san.ext"]
    for words in (
        ["req", "-x509", *new_key, "-days", "2", "-subj", "/CN=An authority", "-keyout", "ca.key", "-out", "ca.pem"],
        ["req", *new_key, "-subj", "/CN=A server", "-keyout", "server.key", "-out", "server.csr"],
        ["x509", "-req", "-in", "server.csr", *sign, "-out", "server.pem"],
    ):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)
    return Certificate(directory / "ca.pem", directory / "server.pem", directory / "server.key")


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
