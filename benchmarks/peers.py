"""The servers that are measured: ours, nginx with the very same bytes, pypiserver with the very same files."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks import load
from benchmarks.load import Answer, Target
from benchmarks.process import free_port, started
from benchmarks.result import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Headers that nginx sets itself, or that belong to one answer only.
_NOT_COPIED: Final = {
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "server",
    "transfer-encoding",
}

_NGINX: Final = """\
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log stderr;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    open_file_cache max=1000 inactive=600s;
    open_file_cache_valid 600s;
    client_body_temp_path {work}/nginx-body;
    proxy_temp_path {work}/nginx-proxy;
    fastcgi_temp_path {work}/nginx-fastcgi;
    scgi_temp_path {work}/nginx-scgi;
    uwsgi_temp_path {work}/nginx-uwsgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        gzip off;
        gzip_static on;
        types {{ }}
{locations}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of ours that is running."""

    pid: int
    port: int

    def target(self, path: str, accept: str | None = None, encoding: str | None = None) -> Target:
        """A URL of it, asked for with Basic credentials."""
        headers = {"Authorization": load.AUTHORIZATION}
        if accept:
            headers["Accept"] = accept
        if encoding:
            headers["Accept-Encoding"] = encoding
        return Target(self.port, path, headers)


def serve_command(config: Path, port: int, command: Sequence[str]) -> list[str]:
    """How one worker of ours is started."""
    return [*command, "serve", str(config), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


@contextlib.contextmanager
def pypicloud(config: Path, command: Sequence[str], *, within: float = 120) -> Iterator[Server]:
    """Our server, one worker process."""
    port = free_port()
    health = Target(port, "/health", {})
    log = config.with_suffix(".log")
    with started(serve_command(config, port, command), log, lambda: load.is_up(health), within=within) as child:
        yield Server(child.pid, port)


@dataclass(frozen=True, slots=True)
class Static:
    """One URL of nginx: a file, or an answer of ours that it gives byte for byte."""

    name: str
    answer: Answer | None = None
    file: Path | None = None


@contextlib.contextmanager
def nginx(work: Path, statics: Sequence[Static]) -> Iterator[int]:
    """nginx, one process, serving ``/<name>`` for each static, with the headers that our answer had. Its port."""
    port, root = free_port(), work / "nginx"
    root.mkdir(parents=True, exist_ok=True)
    locations = []
    for static in statics:
        path = root / static.name
        for old in (path, path.with_name(f"{path.name}.gz")):
            old.unlink(missing_ok=True)
        if static.file is not None:
            path.hardlink_to(static.file)
        headers = ["default_type application/octet-stream;"]
        if static.answer is not None:
            headers = _write_answer(path, static.answer)
        locations.append(f"        location = /{static.name} {{ {' '.join(headers)} }}")
    config = work / "nginx.conf"
    config.write_text(_NGINX.format(work=work, root=root, port=port, locations="\n".join(locations)))
    ready = Target(port, f"/{statics[0].name}", {"Range": "bytes=0-0"})
    command = ["nginx", "-p", str(work), "-c", str(config)]
    with started(command, work / "nginx.log", lambda: _answers(ready)):
        yield port


def _answers(target: Target) -> bool:
    try:
        load.ask(target)
    except OSError:
        return False
    return True


def _write_answer(path: Path, answer: Answer) -> list[str]:
    """Lay an answer's body where nginx finds it, and say its headers in nginx's words."""
    encoding = answer.header("Content-Encoding")
    if encoding == "gzip":
        # nginx picks the .gz file; the plain one is never sent but makes the location real.
        path.with_name(f"{path.name}.gz").write_bytes(answer.body)
    elif encoding is not None:
        raise BenchError(f"nginx has no counterpart for Content-Encoding {encoding}")
    path.write_bytes(answer.body)
    lines = [f'default_type "{answer.header("Content-Type")}";']
    lines += [
        f'add_header {name} "{_quoted(value)}";' for name, value in answer.headers if name.lower() not in _NOT_COPIED
    ]
    return lines


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def pypiserver_home(home: Path) -> Path:
    """The environment that pypiserver lives in, made on first use."""
    if not (home / "bin" / "pypi-server").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "pypiserver"])
    return home


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command[1:])} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def pypiserver(home: Path, folder: Path, project: str, work: Path) -> Iterator[Target]:
    """The page of a project on pypiserver as it comes, without authentication, with that project's files alone."""
    port = free_port()
    page = Target(port, f"/simple/{project}/", {})
    command = [str(home / "bin" / "pypi-server"), "run", "-i", "127.0.0.1", "-p", str(port)]
    command += ["-P", ".", "-a", ".", "--disable-fallback", str(folder)]
    with started(command, work / "pypiserver.log", lambda: load.is_up(page)):
        yield page
