"""Certificates for the loopback address, of an authority that nobody knows."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.live import LOOPBACK
from support.services.service import find


@dataclass(frozen=True)
class Certificate:
    """A server's certificate with its key, and the authority that signed it."""

    authority: Path
    chain: Path
    key: Path


def make_certificate(directory: Path) -> Certificate:
    """Make an authority and a certificate in a directory."""
    openssl = find("openssl", "openssl")
    (directory / "san.ext").write_text(f"subjectAltName = IP:{LOOPBACK}, DNS:localhost\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san.ext"]
    for words in (
        ["req", "-x509", *new_key, "-days", "2", "-subj", "/CN=An authority", "-keyout", "ca.key", "-out", "ca.pem"],
        ["req", *new_key, "-subj", "/CN=A server", "-keyout", "server.key", "-out", "server.csr"],
        ["x509", "-req", "-in", "server.csr", *sign, "-out", "server.pem"],
    ):
        subprocess.run([openssl, *words], cwd=directory, check=True, capture_output=True)
    return Certificate(directory / "ca.pem", directory / "server.pem", directory / "server.key")
