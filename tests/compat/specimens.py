"""What the fixtures are made of: users, uploads, and files laid by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from compat.archives import tiny_egg, tiny_sdist
from support.builds import build_wheel, metadata

#: Passwords with the scheme and rounds they are hashed with: few rounds, and more than one scheme.
USERS: Final = {
    "admin": ("admin-pw", "sha512_crypt", 1000),
    "alice": ("alice-pw", "sha512_crypt", 1000),
    "bob": ("bob-pw", "sha256_crypt", 1000),
    "carol": ("carol-pw", "pbkdf2_sha512", 100),
    "first.last": ("dotted-pw", "pbkdf2_sha256", 100),
}

CALLERS: Final = (None, *USERS)


@dataclass(frozen=True)
class Specimen:
    """One upload: who sends which bytes under which file name, with these fields of the form."""

    uploader: str
    filename: str
    content: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


def specimen(uploader: str, filename: str, name: str, version: str, **facts: str) -> Specimen:
    """An upload as twine makes it: an archive that fits its file name, and a form that fits the archive."""
    inside = metadata(name, version, **facts)
    if filename.endswith(".whl"):
        content = build_wheel(name, version, members={}, core_metadata=inside)
    elif filename.endswith(".egg"):
        content = tiny_egg(inside)
    else:
        stem = filename.removesuffix(".tar.gz").removesuffix(".zip")
        content = tiny_sdist(stem, inside, as_zip=filename.endswith(".zip"))
    return Specimen(uploader, filename, content, {"name": name, "version": version, **facts})


SPECIMENS: Final = (
    specimen("alice", "simple_pkg-0.9.tar.gz", "simple-pkg", "0.9"),
    specimen(
        "alice", "simple_pkg-1.0.tar.gz", "simple-pkg", "1.0", summary="A simple package", requires_python=">=3.8,<4"
    ),
    specimen(
        "bob",
        "simple_pkg-1.0-py3-none-any.whl",
        "simple-pkg",
        "1.0",
        summary="A simple package",
        requires_python=">=3.8,<4",
    ),
    specimen("alice", "Upper.Case_Name-1.0.tar.gz", "Upper.Case_Name", "1.0", summary="Dots, underscores and capitals"),
    specimen("alice", "Upper.Case_Name-1.1rc1-py2.py3-none-any.whl", "Upper.Case_Name", "1.1rc1", summary="Soon"),
    specimen("bob", "localver-1.0+abc.1-py3-none-any.whl", "localver", "1.0+abc.1", summary="A local version"),
    specimen("bob", "localver-1.0.tar.gz", "localver", "1.0"),
    specimen("carol", "epoch-1!2.0-py3-none-any.whl", "epoch", "1!2.0", summary="Counted anew"),
    specimen("carol", "epoch-2017.4.tar.gz", "epoch", "2017.4", summary="Counted by years"),
    specimen("carol", "eggy-0.3-py2.7.egg", "eggy", "0.3", summary="An egg"),
    specimen("first.last", "zippy-2.0.zip", "zippy", "2.0", summary="A zipped sdist"),
    specimen("first.last", "unicode_sum-1.0.tar.gz", "unicode_sum", "1.0", summary="Größe, naïve <数据> & more"),
    specimen("alice", "many-1.0.dev1.tar.gz", "many", "1.0.dev1"),
    specimen("alice", "many-1.0.tar.gz", "many", "1.0", summary="The first"),
    specimen("alice", "many-1.9.tar.gz", "many", "1.9"),
    specimen("alice", "many-1.10.tar.gz", "many", "1.10", summary="The tenth"),
    specimen("alice", "many-2.0rc1.tar.gz", "many", "2.0rc1"),
    specimen("alice", "many-weird.tar.gz", "many", "weird", summary="No version at all"),
    specimen("admin", "secret_lib-1.0-py3-none-any.whl", "secret-lib", "1.0", summary="Not for everybody"),
    specimen("alice", "secret-lib-1.1.tar.gz", "secret-lib", "1.1"),
    specimen("bob", "team_tool-0.1-py3-none-any.whl", "team-tool", "0.1", summary="Ours"),
    specimen("admin", "closed-1.0.tar.gz", "closed", "1.0"),
    specimen("carol", "dropbox-1.0.tar.gz", "dropbox", "1.0"),
    specimen("admin", "my_pkg-1.0.tar.gz", "my_pkg", "1.0", summary="Meant for alice only"),
    specimen("alice", "gone-1.0.tar.gz", "gone", "1.0", summary="Deleted"),
    # No metadata in the form: name and version come from the file name.
    Specimen("bob", "formless-3.0.tar.gz", tiny_sdist("formless-3.0", metadata("formless", "3.0"))),
    # A type of file of which 1.3.12 cannot tell the version.
    Specimen("bob", "oddext-1.0.rpm", b"no archive", {"name": "oddext", "version": "1.0"}),
)

DELETED: Final = (("alice", "gone", "gone-1.0.tar.gz"), ("alice", "simple-pkg", "simple_pkg-0.9.tar.gz"))

#: Files as they lie in older trees: path, content, text of the ``.meta`` beside it if there is one.
BY_HAND: Final = (
    ("bare/0.1/bare-0.1.tar.gz", tiny_sdist("bare-0.1", metadata("bare", "0.1")), None),
    (
        "bare/0.2/bare-0.2.tar.gz",
        tiny_sdist("bare-0.2", metadata("bare", "0.2")),
        '{"summary": "By hand", "requires_python": ">=2.7", "colour": "blue"}',
    ),
)

#: When the first file laid by hand claims to be written: 2 January 2015, 03:04:05 UTC; each other a day later.
BY_HAND_TIME: Final = 1420167845
