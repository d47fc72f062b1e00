"""The six uploaders: for each, how a user publishes a project with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from support.builds import build_sdist, build_wheel, metadata, sdist_name, wheel_name
from support.tools import Outcome, Tools


@dataclass(frozen=True)
class Checkout:
    """A project's directory on a developer's machine, with what was built of it in ``dist``."""

    directory: Path
    name: str
    version: str

    @property
    def module(self) -> str:
        """The name of the project's only module."""
        return self.name.replace("-", "_")

    @property
    def wheel(self) -> Path:
        """Where the wheel is built."""
        return self.directory / "dist" / wheel_name(self.name, self.version)

    @property
    def sdist(self) -> Path:
        """Where the source distribution is built."""
        return self.directory / "dist" / sdist_name(self.name, self.version)

    def write(self, source: str = "") -> None:
        """Write the project with this source text, and build it."""
        self.wheel.parent.mkdir(parents=True, exist_ok=True)
        text = f'"""A module."""\n__version__ = "{self.version}"\n{source}\n'
        (self.directory / f"{self.module}.py").write_text(text)
        (self.directory / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n\n'
            f'[project]\nname = "{self.name}"\nversion = "{self.version}"\ndescription = "A project"\n'
            'requires-python = ">=3.9"\nkeywords = ["one", "two"]\n\n'
            f'[tool.flit.module]\nname = "{self.module}"\n'
        )
        facts = metadata(self.name, self.version, summary="A project", requires_python=">=3.9", keywords="one,two")
        members = {f"{self.module}.py": text.encode()}
        self.wheel.write_bytes(build_wheel(self.name, self.version, members=members, core_metadata=facts))
        self.sdist.write_bytes(build_sdist(self.name, self.version, members=members, core_metadata=facts))


class Publish(Protocol):
    """Publishes a checkout at an upload URL."""

    def __call__(self, tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome: ...


USER: Final = ("alice", "alicealice")


def twine(tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome:
    """``twine upload dist/*``."""
    user, password = USER
    words = ["--repository-url", url, "--username", user, "--password", password, "--non-interactive", *options]
    return tools.attempt("twine", "upload", *words, checkout.wheel, checkout.sdist)


def uv(tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome:
    """``uv publish``."""
    user, password = USER
    words = ["--publish-url", url, "--username", user, "--password", password, *options]
    return tools.attempt("uv", "--no-config", "publish", *words, checkout.wheel, checkout.sdist)


def poetry(tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome:
    """``poetry publish``."""
    user, password = USER
    words = ["--repository", "ours", "--username", user, "--password", password, *options]
    env = {"POETRY_REPOSITORIES_OURS_URL": url, "POETRY_KEYRING_ENABLED": "false"}
    return tools.attempt("poetry", "publish", "--no-interaction", *words, cwd=checkout.directory, env=env)


def hatch(tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome:
    """``hatch publish``."""
    user, password = USER
    words = ["--no-prompt", "--repo", url, "--user", user, "--auth", password, *options]
    return tools.attempt(
        "hatch", "--no-interactive", "publish", *words, checkout.wheel, checkout.sdist, cwd=checkout.directory
    )


def pdm(tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome:
    """``pdm publish``."""
    user, password = USER
    words = ["--repository", url, "--username", user, "--password", password, *options]
    env = {"PDM_CHECK_UPDATE": "false", "PDM_USE_VENV": "false"}
    return tools.attempt("pdm", "publish", "--no-build", *words, cwd=checkout.directory, env=env)


def flit(tools: Tools, url: str, checkout: Checkout, *options: str) -> Outcome:
    """``flit publish``, which builds what it uploads."""
    user, password = USER
    env = {"FLIT_INDEX_URL": url, "FLIT_USERNAME": user, "FLIT_PASSWORD": password, "SOURCE_DATE_EPOCH": "1700000000"}
    return tools.attempt("flit", "publish", "--no-use-vcs", *options, cwd=checkout.directory, env=env)


UPLOADERS: Final[Mapping[str, Publish]] = {
    "twine": twine,
    "uv": uv,
    "poetry": poetry,
    "hatch": hatch,
    "pdm": pdm,
    "flit": flit,
}
