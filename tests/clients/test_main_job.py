"""The main job, start to end: one command sets a server up, a wheel is built, uploaded and installed."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from support.builds import build_sdist, wheel_name
from support.live import Installation, free_port, running
from support.tools import Tools


def test_main_job(installation: Installation, tools: Tools, project: str, tmp_path: Path) -> None:
    """`pypicloud serve` without a config file, then build, twine, uv, pip and uv with what it prints."""
    port = free_port()
    data = tmp_path / "data"
    command = installation.command("pypicloud", "serve", "--data-dir", data, "--port", str(port))
    with running(command, port, tmp_path) as server:
        printed = server.log.read_text()
        (password,) = re.findall(r"user 'admin' with password '(.+?)'", printed)
        (index,) = re.findall(r"pip config set global\.index-url (\S+)/simple/", printed)
        assert f"export UV_DEFAULT_INDEX={index}/simple/" in printed

        for version, uploader in (("1.0", "twine"), ("2.0", "uv")):
            wheel = build(tools, tmp_path / uploader, project, version)
            words = ["--username", "admin", "--password", password]
            if uploader == "twine":
                tools.run("twine", "upload", "--repository-url", f"{index}/simple/", *words, wheel)
            else:
                tools.run("uv", "--no-config", "publish", "--publish-url", f"{index}/simple/", *words, wheel)

        reading = index.replace("://", f"://admin:{password}@")
        for version in ("1.0", "2.0"):
            for installer in ("pip", "uv"):
                target = tmp_path / f"{installer}-{version}"
                if installer == "pip":
                    tools.pip("install", reading, "--target", target, f"{project}=={version}")
                else:
                    tools.uv(reading, "--target", target, f"{project}=={version}")
                (module,) = target.glob("*.py")
                assert module.read_text() == f"VERSION = {version!r}\n"
        assert server.stop() == 0
        printed = server.log.read_text()

    with running(command, port, tmp_path) as server:
        assert "password" not in server.log.read_text().removeprefix(printed)
        assert server.ask(f"/simple/{project}/", user=None).status == 401


def build(tools: Tools, directory: Path, project: str, version: str) -> Path:
    """Build a wheel from a project's directory, which brings all that building takes, with `python -m build`."""
    with tarfile.open(fileobj=io.BytesIO(build_sdist(project, version))) as archive:
        archive.extractall(directory, filter="data")
    (checkout,) = directory.iterdir()
    tools.run("pyproject-build", "--no-isolation", "--wheel", "--outdir", directory, checkout)
    return directory / wheel_name(project, version)
