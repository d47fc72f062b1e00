"""`pypicloud serve` on SIGTERM: what is running gets to its end, within bounds."""

from __future__ import annotations

import functools
import http.client
import random
import socket
import time
from contextlib import closing
from pathlib import Path

from support.builds import build_wheel, wheel_name
from support.live import Installation, form, free_port, launched, serving, write_config
from support.world import basic

NAME = "slow"
FILENAME = wheel_name(NAME, "1.0")


@functools.cache
def large() -> bytes:
    """A wheel of more bytes than the buffers between server and client hold."""
    return build_wheel(NAME, "1.0", members={"noise.bin": random.Random(2).randbytes(32 << 20)}, compression=0)


def start_download(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """Ask for a file and read only its beginning."""
    connection.request("GET", f"/api/package/{NAME}/{FILENAME}", headers=basic("alice"))
    response = connection.getresponse()
    assert response.status == 200
    assert response.read(1000) == large()[:1000]
    return response


def start_upload(connection: http.client.HTTPConnection, filename: str, content: bytes) -> bytes:
    """Send the first half of an upload; the second half, which is the answer, is still to be sent."""
    kind, body = form(filename, content)
    connection.putrequest("POST", "/simple/")
    for name, value in {**basic("alice"), "Content-Type": kind, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body[: len(body) // 2])
    return body[len(body) // 2 :]


def test_running_transfers_finish(installation: Installation, tmp_path: Path) -> None:
    """A slow download and a slow upload that run at SIGTERM finish, and then the server ends with status 0."""
    other, content = wheel_name(NAME, "2.0"), build_wheel(NAME, "2.0", members={"b": bytes(3 << 20)}, compression=0)
    with serving(installation, write_config(tmp_path)) as server:
        assert server.upload(FILENAME, large()).status == 200
        with closing(server.connect()) as reader, closing(server.connect()) as writer:
            response = start_download(reader)
            rest = start_upload(writer, other, content)
            time.sleep(0.3)
            server.process.terminate()
            time.sleep(0.7)
            assert server.process.poll() is None
            for start in range(0, len(rest), 1 << 18):
                writer.send(rest[start : start + (1 << 18)])
                time.sleep(0.02)
            assert writer.getresponse().status == 200
            assert large()[:1000] + response.read() == large()
        assert server.process.wait(20) == 0
    assert server.stored(NAME, "2.0", other).read_bytes() == content


def test_stopping_is_bounded(installation: Installation, tmp_path: Path) -> None:
    """Clients that stand still keep the server from ending no longer than `--stop-timeout` says."""
    with serving(installation, write_config(tmp_path), "--stop-timeout", "2") as server:
        assert server.upload(FILENAME, large()).status == 200
        with closing(server.connect()) as reader, closing(server.connect()) as writer:
            start_download(reader)
            start_upload(writer, wheel_name(NAME, "2.0"), build_wheel(NAME, "2.0"))
            time.sleep(0.2)
            before = time.monotonic()
            server.process.terminate()
            server.process.wait(30)
            assert 1.5 < time.monotonic() - before < 10
    assert not server.stored(NAME, "2.0", "").exists()


def test_a_start_that_fails_slowly_is_not_tried_for_ever(installation: Installation, tmp_path: Path) -> None:
    """A server whose cache does not answer says so and ends with status 1, however long that takes to find out."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0?socket_timeout=6"
        config = write_config(tmp_path, pypi__db="redis", db__url=url)
        command = installation.command("pypicloud", "serve", config, "--port", str(port))
        with launched(command, port, tmp_path) as server:
            assert server.process.wait(50) == 1
            printed = server.log.read_text()
    assert printed.count("pypicloud: db.url") == 1
    assert "this Redis cannot be used: Timeout" in printed


def test_idle_server_stops_at_once(installation: Installation, tmp_path: Path) -> None:
    """A connection that is only kept open does not keep the server from ending."""
    with serving(installation, write_config(tmp_path)) as server, closing(server.connect()) as connection:
        connection.request("GET", "/simple/")
        assert connection.getresponse().read()
        before = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - before < 5
