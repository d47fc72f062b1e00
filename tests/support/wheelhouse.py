"""What is installed here as wheels, so that pip can install it elsewhere without a network."""

from __future__ import annotations

import importlib.metadata
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(wanted: Iterable[str]) -> set[str]:
    """The names of distributions that requirements mean, with all that these need in turn."""
    left = [Requirement(text) for text in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while left:
        requirement = left.pop()
        extras = frozenset(requirement.extras)
        if (key := (canonicalize_name(requirement.name), extras)) in seen:
            continue
        seen.add(key)
        for text in importlib.metadata.requires(requirement.name) or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                left.append(needed)
    return {name for name, _ in seen}


def pack(directory: Path, names: Iterable[str]) -> None:
    """Put the wheel of each distribution into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        _pack(directory, importlib.metadata.distribution(name))


def _pack(directory: Path, distribution: importlib.metadata.Distribution) -> None:
    tags = [line.partition(": ")[2] for line in (distribution.read_text("WHEEL") or "").splitlines() if "Tag: " in line]
    tag = "-".join(".".join(dict.fromkeys(words)) for words in zip(*(tag.split("-") for tag in tags), strict=True))
    name = canonicalize_name(distribution.metadata["Name"]).replace("-", "_")
    kept = [file for file in distribution.files or () if file.parts[0] != ".." and file.suffix != ".pyc"]
    with zipfile.ZipFile(directory / f"{name}-{distribution.version}-{tag}.whl", "w") as wheel:
        for file in kept:
            if file.name not in {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}:
                wheel.write(str(file.locate()), file.as_posix())
        record = next(file for file in kept if file.name == "RECORD").as_posix()
        wheel.writestr(record, "".join(f"{entry},,\n" for entry in [*wheel.namelist(), record]))
