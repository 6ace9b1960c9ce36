"""A next hop that takes everything and keeps nothing: a process of its own, so that its CPU is not the server's.

``python -m benchmarks.sink PORT [--address A] [--silent N]``: it counts messages and answers ``COUNT`` on the same
port with the number. With ``--silent`` it also listens on the N ports above and accepts connections there without a
greeting.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from types import TracebackType

END = b"\r\n.\r\n"


class Sink(asyncio.Protocol):
    """One connection."""

    taken = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.in_content = False
        self.waiting = b""
        self.transport.write(b"220 sink.example.org ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        replies = []
        while self.waiting:
            if self.in_content:
                content, found, rest = self.waiting.partition(END)
                if not found:
                    self.waiting = content[-len(END) :]
                    break
                self.waiting, self.in_content = rest, False
                Sink.taken += 1
                replies.append(b"250 2.0.0 Taken\r\n")
                continue
            line, found, rest = self.waiting.partition(b"\r\n")
            if not found:
                break
            self.waiting = rest
            replies.append(self._answer(line))
        self.transport.write(b"".join(replies))

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"250-sink.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"
        if verb == b"DATA":
            self.in_content = True
            # A line end, so that an end of data right away is found too.
            self.waiting = b"\r\n" + self.waiting
            return b"354 Go on\r\n"
        if verb == b"COUN":
            return b"%d\r\n" % Sink.taken
        if verb == b"QUIT":
            return b"221 2.0.0 Bye\r\n"
        return b"250 2.0.0 OK\r\n"


async def serve(port: int, silent: int, address: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Sink, address, port, backlog=4096)
    for number in range(silent):
        await loop.create_server(asyncio.Protocol, address, port + 1 + number, backlog=4096)
    await server.serve_forever()


class SinkProcess:
    """The sink while the block runs; ``silent`` ports above its own, at every loopback address with ``0.0.0.0``."""

    def __init__(self, port: int, *, silent: int = 0, address: str = "127.0.0.1") -> None:
        self.port = port
        self._options = ["--silent", str(silent), "--address", address]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SinkProcess:
        self._process = subprocess.Popen([sys.executable, "-m", "benchmarks.sink", str(self.port), *self._options])
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                self.taken()
                return self
            if time.monotonic() > deadline:
                raise SystemExit("the sink did not start")
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def taken(self) -> int:
        """Messages so far."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection, connection.makefile("rb") as lines:
            lines.readline()
            connection.sendall(b"COUNT\r\n")
            return int(lines.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--silent", type=int, default=0)
    parser.add_argument("--address", default="127.0.0.1", help="to listen at")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.silent, options.address))


if __name__ == "__main__":
    main()
