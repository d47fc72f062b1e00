"""Every installer gets what was published, from a live server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.builds import build_sdist, build_wheel, sdist_name, wheel_name
from support.installers import Installer, installed
from support.live import Server
from support.recorder import Recorder
from support.tools import Tools


def publish(server: Server, name: str, *versions: str) -> None:
    """Upload a small wheel of each version."""
    for version in versions:
        answer = server.upload(wheel_name(name, version), build_wheel(name, version))
        assert answer.status == 200, answer.body


@pytest.fixture(params=["pip", "uv"])
def install(tools: Tools, request: pytest.FixtureRequest) -> Installer:
    """Each of the two installers."""
    return Installer(tools, request.param)


def test_newest(install: Installer, server: Server, project: str) -> None:
    """Without a wish the newest final version is installed; a pre-release only if it is asked for."""
    publish(server, project, "1.9", "1.10", "2.0rc1")
    url = server.url_for("alice")
    assert installed(install(url, project), project) == "1.10"
    option = ["--pre"] if install.name == "pip" else ["--prerelease", "allow"]
    assert installed(install(url, *option, project), project) == "2.0rc1"
    assert installed(install(url, f"{project}==2.0rc1"), project) == "2.0rc1"


def test_local_version(install: Installer, server: Server, recorder: Recorder, project: str) -> None:
    """A wheel with `+` in its name is installed: pip asks for `%2B`, uv for `+`."""
    publish(server, project, "1.0", "1.0+cu121")
    assert installed(install(recorder.url_for("alice"), f"{project}==1.0+cu121"), project) == "1.0+cu121"
    plus = {"pip": "%2B", "uv": "+"}[install.name]
    assert recorder.lines()[-1] == f"GET /api/package/{project}/{wheel_name(project, f'1.0{plus}cu121')} 200"


def test_yanked(install: Installer, server: Server, project: str) -> None:
    """A yanked file of the storage is passed over, unless its version is pinned."""
    publish(server, project, "1.0", "1.1")
    facts = server.stored(project, "1.1", f"{wheel_name(project, '1.1')}.meta")
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "yanked": "broken on ARM"}))
    server.rebuild()
    url = server.url_for("alice")
    assert installed(install(url, project), project) == "1.0"
    assert installed(install(url, f"{project}==1.1"), project) == "1.1"
    page = server.ask(f"/simple/{project}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    assert {file["filename"]: file.get("yanked") for file in json.loads(page.body)["files"]} == {
        wheel_name(project, "1.0"): None,
        wheel_name(project, "1.1"): "broken on ARM",
    }


def test_sdist_only(install: Installer, server: Server, project: str) -> None:
    """A project that has nothing but a source distribution is built and installed."""
    content = build_sdist(project, "1.0")
    assert server.upload(sdist_name(project, "1.0"), content).status == 200
    target = install(server.url_for("alice"), project)
    assert installed(target, project) == "1.0"
    assert (target / f"{project.replace('-', '_')}.py").exists()


def test_requires_python(install: Installer, server: Server, project: str) -> None:
    """A version for another Python is passed over."""
    publish(server, project, "1.0")
    content = build_wheel(project, "2.0", requires_python=">=4")
    assert server.upload(wheel_name(project, "2.0"), content).status == 200
    assert installed(install(server.url_for("alice"), project), project) == "1.0"


def test_new_version_at_once(install: Installer, server: Server, project: str) -> None:
    """With warm caches a version is installed right after its upload."""
    url = server.url_for("alice")
    for version in ("1.0", "1.1", "1.2"):
        publish(server, project, version)
        assert installed(install(url, project), project) == version


def test_deleted(install: Installer, server: Server, project: str) -> None:
    """A file that was deleted is gone for installers, warm caches or not."""
    publish(server, project, "1.0", "1.1")
    url = server.url_for("alice")
    assert installed(install(url, project), project) == "1.1"
    for version, left in (("1.1", "1.0"), ("1.0", None)):
        answer = server.ask(f"/api/package/{project}/{wheel_name(project, version)}", "DELETE")
        assert answer.status == 200, answer.body
        if left is not None:
            assert installed(install(url, project), project) == left
    assert project in install.refusal(url, project)
    assert not server.stored(project, "1.0", "").exists()


@pytest.fixture
def tree(server: Server, project: str) -> tuple[str, str]:
    """Two projects; the first depends on the second."""
    needed = f"{project}-needed"
    publish(server, needed, "1.0", "2.0")
    content = build_wheel(project, "1.0", requires_dist=f"{needed} (<2)")
    assert server.upload(wheel_name(project, "1.0"), content).status == 200
    return project, needed


def test_poetry(tools: Tools, server: Server, tree: tuple[str, str], tmp_path: Path) -> None:
    """Poetry locks and installs a project with what it depends on."""
    project, needed = tree
    directory = tmp_path / "consumer"
    directory.mkdir()
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "consumer"\nversion = "1.0"\nrequires-python = ">=3.11"\n\n'
        f"[tool.poetry]\npackage-mode = false\n\n"
        f'[[tool.poetry.source]]\nname = "ours"\nurl = "{server.url}/simple/"\npriority = "primary"\n'
    )
    environment = {
        "POETRY_HTTP_BASIC_OURS_USERNAME": "alice",
        "POETRY_HTTP_BASIC_OURS_PASSWORD": "alicealice",
        "POETRY_KEYRING_ENABLED": "false",
        "POETRY_VIRTUALENVS_IN_PROJECT": "true",
        "POETRY_VIRTUALENVS_OPTIONS_NO_PIP": "true",
    }
    tools.run("poetry", "add", "--no-interaction", project, cwd=directory, env=environment)
    (packages,) = directory.glob(".venv/lib/python*/site-packages")
    assert (installed(packages, project), installed(packages, needed)) == ("1.0", "1.0")


def test_pdm(tools: Tools, server: Server, tree: tuple[str, str], tmp_path: Path) -> None:
    """PDM locks and installs a project with what it depends on."""
    project, needed = tree
    directory = tmp_path / "consumer"
    directory.mkdir()
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "consumer"\nversion = "1.0"\nrequires-python = ">=3.11"\n\n'
        "[tool.pdm]\ndistribution = false\n\n"
        f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{server.url}/simple/"\nverify_ssl = false\n'
        'username = "alice"\npassword = "alicealice"\n'
    )
    environment = {"PDM_CHECK_UPDATE": "false", "PDM_USE_VENV": "false"}
    tools.run("pdm", "add", "--no-self", project, cwd=directory, env=environment)
    (packages,) = directory.glob("__pypackages__/*/lib")
    assert (installed(packages, project), installed(packages, needed)) == ("1.0", "1.0")
