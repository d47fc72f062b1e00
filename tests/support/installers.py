"""pip and uv, installing into a folder."""

from __future__ import annotations

from pathlib import Path

from support.tools import Tools


def installed(target: Path, name: str) -> str:
    """The version of a project that lies in a folder of packages."""
    (info,) = target.glob(f"{name.replace('-', '_')}-*.dist-info")
    return info.name.removesuffix(".dist-info").partition("-")[2]


class Installer:
    """pip or uv, installing into a folder."""

    def __init__(self, tools: Tools, name: str) -> None:
        self.tools = tools
        self.name = name
        self._count = 0

    def __call__(self, index: str, *words: str) -> Path:
        """Install into a new folder, which is the answer."""
        self._count += 1
        target = self.tools.home / f"{self.name}-{self._count}"
        if self.name == "pip":
            self.tools.pip("install", index, "--target", target, *words)
        else:
            self.tools.uv(index, "--target", target, *words)
        return target

    def refusal(self, index: str, *words: str) -> str:
        """What it prints when there is nothing that it can install."""
        target = self.tools.home / "refused"
        if self.name == "pip":
            outcome = self.tools.attempt("pip", *self.tools.pip_words("install", index, ["--target", target, *words]))
        else:
            outcome = self.tools.attempt("uv", *self.tools.uv_words(index, ["--target", target, *words]))
        assert outcome.status != 0, outcome.text
        return outcome.text
