"""The bytes of a file on their way in, as a stream that can be read more than once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, Final, cast

from pypicloud.storage.body import BLOCK, can_seek

#: Streams that cannot seek are put into a file if they are longer than this, in bytes.
SPOOL: Final = 1 << 20


@contextlib.contextmanager
def rewindable(stream: BinaryIO) -> Iterator[tuple[BinaryIO, int]]:
    """A stream that can be read more than once, and how many bytes are left in it."""
    with ExitStack() as stack:
        if not can_seek(stream):
            spooled = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=SPOOL))
            shutil.copyfileobj(stream, spooled, BLOCK)
            spooled.seek(0)
            stream = cast("BinaryIO", spooled)
        here = stream.tell()
        size = stream.seek(0, io.SEEK_END) - here
        stream.seek(here)
        yield stream, size


def digests(stream: BinaryIO) -> dict[str, str]:
    """The sha256 and the md5 of what is left in a stream that can be read more than once, as facts of a package."""
    here = stream.tell()
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    while block := stream.read(BLOCK):
        sha256.update(block)
        md5.update(block)
    stream.seek(here)
    return {"hash_sha256": sha256.hexdigest(), "hash_md5": md5.hexdigest()}
