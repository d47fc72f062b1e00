"""The tools of other people, run as by a user who has configured nothing: pip, uv, twine, poetry and more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.live import clean_environment

#: Where `make clients` links the commands.
COMMANDS: Final = Path(os.environ.get("PYPICLOUD_CLIENTS", Path(__file__).parents[2] / ".make" / "clients" / "bin"))


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed, errors included."""

    status: int
    text: str


class Tools:
    """One user's machine: a home directory, and caches that live as long as it does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._trust: dict[str, str] = {}
        home.mkdir(parents=True, exist_ok=True)

    def trust(self, authority: Path) -> None:
        """Let the commands believe this certificate authority."""
        self._trust = {"SSL_CERT_FILE": str(authority)}

    def environment(self, changes: Mapping[str, str]) -> dict[str, str]:
        """What the commands see: nothing that is configured, and nothing of the real home."""
        return clean_environment(
            HOME=str(self.home),
            XDG_CACHE_HOME=str(self.home / "cache"),
            XDG_CONFIG_HOME=str(self.home / "config"),
            XDG_DATA_HOME=str(self.home / "data"),
            TMPDIR=str(self.home),
            PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring",
            NO_COLOR="1",
            COLUMNS="300",
            LC_ALL="C.UTF-8",
            **self._trust,
            **changes,
        )

    def attempt(
        self, tool: str, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run a command and tell how it went."""
        if not (COMMANDS / tool).exists():
            raise AssertionError(f"there is no {COMMANDS / tool}; run `make clients`, or set PYPICLOUD_CLIENTS")
        command = [str(COMMANDS / tool), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=cwd or self.home,
            env=self.environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        return Outcome(done.returncode, done.stdout)

    def run(
        self, tool: str, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a command that must succeed; what it printed."""
        outcome = self.attempt(tool, *arguments, cwd=cwd, env=env)
        if outcome.status != 0:
            words = " ".join([tool, *map(str, arguments)])
            raise AssertionError(f"`{words}` ended with status {outcome.status}:\n{outcome.text}")
        return outcome.text

    def pip(self, command: str, index: str, *arguments: str | Path, cache: bool = True) -> str:
        """``pip install`` or ``pip download`` from this index and nowhere else.

        ``index`` is the server's address, with or without credentials. The host is trusted, or pip would
        keep nothing of what comes over plain HTTP.
        """
        return self.run("pip", *self.pip_words(command, index, arguments, cache=cache))

    def pip_words(
        self, command: str, index: str, arguments: Sequence[str | Path], *, cache: bool = True
    ) -> list[str | Path]:
        """The words of :meth:`pip`, for those who expect it to fail."""
        host = index.rpartition("@")[2].rpartition("://")[2]
        words: list[str | Path] = ["--isolated", "--disable-pip-version-check", "--no-input", command]
        words += ["--index-url", f"{index}/simple/", "--trusted-host", host]
        words += ["--cache-dir", self.home / "pip-cache"] if cache else ["--no-cache-dir"]
        return [*words, *arguments]

    def uv(self, index: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """``uv pip install`` from this index and nowhere else."""
        return self.run("uv", *self.uv_words(index, arguments), env=env)

    def uv_words(self, index: str, arguments: Sequence[str | Path]) -> list[str | Path]:
        """The words of :meth:`uv`, for those who expect it to fail."""
        words: list[str | Path] = ["--no-config", "--cache-dir", self.home / "uv-cache", "--no-python-downloads"]
        words += ["--no-progress", "pip", "install", "--default-index", f"{index}/simple/"]
        python = (COMMANDS / "pip").resolve().with_name("python")
        return [*words, "--python", python, *arguments]
