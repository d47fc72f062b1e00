"""Many slow readers of one file, as a program of their own: `python -m benchmarks.slow_readers ...`.

Prints ``ready`` once each of them has its first bytes, reads on until it is told to stop (SIGTERM), and then
prints how many bytes a second they had together and how many were cut off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

#: Reads a second and reader.
_STEPS: Final = 4

#: Small, so that the kernel does not take the file off the server's hands for the reader.
_RECEIVE_BUFFER: Final = 16384


#: How long it may take until each reader has its first bytes.
_START_SECONDS: Final = 30


@dataclass
class Tally:
    """What the readers have had together."""

    waiting: int
    all_read: asyncio.Event = field(default_factory=asyncio.Event)
    bytes: int = 0
    cut: int = 0

    def has_begun(self) -> None:
        """One more reader has its first bytes."""
        self.waiting -= 1
        if not self.waiting:
            self.all_read.set()


async def read_slowly(port: int, request: bytes, rate: int, tally: Tally, delay: float) -> None:
    """Ask for the file over and over and take ``rate`` bytes of it a second."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(delay)
    first = True
    while True:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, request)
            due = loop.time()
            while True:
                wanted = rate // _STEPS
                while wanted:
                    data = await loop.sock_recv(connection, wanted)
                    if not data:
                        break
                    wanted -= len(data)
                    tally.bytes += len(data)
                    if first:
                        first = False
                        tally.has_begun()
                if wanted:
                    tally.cut += 1
                    break
                due += 1 / _STEPS
                await asyncio.sleep(max(0.0, due - loop.time()))


async def main() -> None:
    """Run the readers until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("authorization")
    parser.add_argument("readers", type=int)
    parser.add_argument("rate", type=int)
    options = parser.parse_args()
    head = f"GET {options.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {options.authorization}\r\n"
    request = f"{head}Connection: close\r\n\r\n".encode()
    tally, stop = Tally(waiting=options.readers), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    readers = [
        asyncio.create_task(read_slowly(options.port, request, options.rate, tally, number / options.readers / _STEPS))
        for number in range(options.readers)
    ]
    await asyncio.wait_for(tally.all_read.wait(), _START_SECONDS)
    print("ready", flush=True)
    start, before = time.monotonic(), tally.bytes
    await stop.wait()
    seconds = time.monotonic() - start
    for reader in readers:
        reader.cancel()
    broken = [
        result for result in await asyncio.gather(*readers, return_exceptions=True) if isinstance(result, OSError)
    ]
    report = {"bytes_per_second": (tally.bytes - before) / seconds, "cut": tally.cut, "broken": len(broken)}
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
