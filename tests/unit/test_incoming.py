"""Bytes on their way in can be read more than once, from where the stream stood."""

from __future__ import annotations

import hashlib
import io

import pytest

from pypicloud.storage.incoming import SPOOL, digests, rewindable


class Pipe(io.BytesIO):
    """A stream that can be read once."""

    def seekable(self) -> bool:
        """No."""
        return False


@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
@pytest.mark.parametrize("content", [b"", b"bytes", b"x" * (SPOOL + 1)], ids=["none", "few", "many"])
def test_rewindable(kind: type[io.BytesIO], content: bytes) -> None:
    """What is left in any stream can be read twice, and is as long as is said."""
    given = kind(b"before" + content)
    given.read(6)
    with rewindable(given) as (stream, size):
        start = stream.tell()
        assert (stream.read(), size) == (content, len(content))
        stream.seek(start)
        assert stream.read() == content


def test_digests() -> None:
    """Digests are of what is left in the stream, which stands afterwards where it stood."""
    stream = io.BytesIO(b"before bytes")
    stream.seek(7)
    assert digests(stream) == {
        "hash_sha256": hashlib.sha256(b"bytes").hexdigest(),
        "hash_md5": hashlib.md5(b"bytes", usedforsecurity=False).hexdigest(),
    }
    assert stream.tell() == 7
