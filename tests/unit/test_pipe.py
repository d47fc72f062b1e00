"""A body goes through a pipe as fast as it is read, and nobody but its reader gets it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import pytest

from pypicloud import pipe as pipe_module
from pypicloud.pipe import HELD, TURN, Pipe, beginning

#: Pieces that fit into no pipe together.
PIECES: Final = [bytes([number]) * 100_000 for number in range(30)]


@pytest.fixture
def make() -> Iterator[Callable[[Iterator[bytes]], Pipe]]:
    """What makes pipes that are closed in the end."""
    pipes = []

    def make(pieces: Iterator[bytes]) -> Pipe:
        pipes.append(Pipe(pieces))
        return pipes[-1]

    yield make
    for pipe in pipes:
        pipe.close()


async def sent_to(reader: BinaryIO, pipe: Pipe) -> bytes:
    """What somebody reads while the whole body is sent."""
    read = asyncio.create_task(asyncio.to_thread(reader.read))
    while await asyncio.to_thread(pipe.pump):
        await pipe.wait()
    pipe.close()
    return await read


def test_the_reader_gets_everything(make: Callable[[Iterator[bytes]], Pipe]) -> None:
    """The bytes arrive in order, and then the end; an empty piece among them is not the end."""
    pipe = make(iter([*PIECES[:3], b"", *PIECES[3:]]))
    with Path(pipe.path).open("rb") as reader:
        assert asyncio.run(sent_to(reader, pipe)) == b"".join(PIECES)


def test_only_what_is_read_is_made(make: Callable[[Iterator[bytes]], Pipe]) -> None:
    """Without a reader the pieces stay where they are but for what the pipe holds."""
    pieces = iter(PIECES)
    pipe = make(pieces)
    assert pipe.pump()
    assert pipe.pump()
    left = len(list(pieces))
    assert len(PIECES) - HELD // len(PIECES[0]) - 2 <= left < len(PIECES)


def test_the_name_is_good_for_one_reader(make: Callable[[Iterator[bytes]], Pipe]) -> None:
    """Who opens the pipe finds it; once its bytes are read the name is gone, as it is after the end."""
    pipe = make(itertools.repeat(PIECES[0]))
    with Path(pipe.path).open("rb") as reader:
        while Path(pipe.path).exists():
            assert pipe.pump()
            reader.read(len(PIECES[0]))
    late = make(iter(()))
    assert not late.pump()
    late.close()
    assert not Path(late.path).exists()
    assert not late.pump()


def test_a_turn_ends(make: Callable[[Iterator[bytes]], Pipe]) -> None:
    """A body without an end, however fast it is read, leaves the thread to others after some bytes."""
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += len(PIECES[0])
            yield PIECES[0]

    async def turn(pipe: Pipe, reader: BinaryIO) -> None:
        read = asyncio.create_task(asyncio.to_thread(reader.read))
        assert await asyncio.to_thread(pipe.pump)
        await pipe.wait()
        pipe.close()
        await read

    pipe = make(endless())
    with Path(pipe.path).open("rb") as reader:
        asyncio.run(turn(pipe, reader))
    assert 0 < taken <= TURN + 2 * len(PIECES[0])


def test_a_reader_that_leaves_ends_the_body(make: Callable[[Iterator[bytes]], Pipe]) -> None:
    """The pieces behind those that were read are not made."""
    pipe = make(itertools.repeat(PIECES[0]))

    with Path(pipe.path).open("rb") as reader:
        while Path(pipe.path).exists():
            assert pipe.pump()
            reader.read(len(PIECES[0]))

    async def send() -> None:
        while pipe.pump():
            await pipe.wait()

    with pytest.raises(BrokenPipeError):
        asyncio.run(send())


def test_a_reader_who_never_comes_ends_the_body(
    make: Callable[[Iterator[bytes]], Pipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while nobody is waited for."""
    monkeypatch.setattr(pipe_module, "_OPENING", 0.01)
    pipe = make(itertools.repeat(PIECES[0]))
    assert pipe.pump()
    with pytest.raises(BrokenPipeError):
        asyncio.run(pipe.wait())


def test_some_bytes_are_moved() -> None:
    """What moves its bytes itself is asked for each that comes next, once somebody reads; the order stays."""
    asked: list[str] = []
    moves = iter([b"a" * 1000, None, b"b" * 1000, None])

    def pour(writer: int) -> int | None:
        asked.append("pour")
        block = next(moves, None)
        return None if block is None else os.write(writer, block)

    def pieces() -> Iterator[bytes]:
        for letter in (b"1", b"2", b"3"):
            asked.append("piece")
            yield letter * (HELD + 1)

    pipe = Pipe(pieces(), pour)
    with Path(pipe.path).open("rb") as reader:
        found = asyncio.run(sent_to(reader, pipe))
    assert found == b"1" * (HELD + 1) + b"a" * 1000 + b"2" * (HELD + 1) + b"b" * 1000 + b"3" * (HELD + 1)
    assert asked == ["piece", "pour", "pour", "piece", "pour", "pour", "piece", "pour"]


@pytest.mark.parametrize(("sizes", "is_more"), [([], False), ([HELD], False), ([1, HELD], True), ([HELD, 0], False)])
def test_a_small_body_needs_no_pipe(sizes: list[int], is_more: bool) -> None:
    """The beginning of a body is all of it, or more than a pipe holds."""
    assert beginning(bytes(size) for size in sizes) == (bytes(sum(sizes)), is_more)
