"""Mail to a thousand destinations of which a hundred take connections and never greet: what that costs the others.

The clock stops when the healthy ones have everything. Without the stalling ones the hundred answer as well. Every
destination is a loopback address of its own. ``python -m benchmarks.load_stalled [--messages N] [--rounds N]
[--workers N]``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import corpus
from benchmarks.clients import Smtp
from benchmarks.progress import Progress, wait_for_all
from benchmarks.report import Result, table
from benchmarks.server import DOMAIN, PASSWORD, Server, free_port
from benchmarks.sink import SinkProcess

DESTINATIONS = 1000
STALLING = 100
CONNECTIONS = 10
ROUTE = """
[[route]]
to = "d{number}.example.org"
via = "smtp:127.7.{high}.{low}:{port}"
"""


def stalls(number: int) -> bool:
    return number % (DESTINATIONS // STALLING) == 0


def free_pair() -> int:
    """A port that is free like the one above it."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port + 1)):
            return port


def routes(healthy: int, others: int) -> str:
    """Ports of the destinations."""
    return "".join(
        ROUTE.format(
            number=number,
            high=number >> 8,
            low=number & 255,
            port=others if stalls(number) else healthy,
        )
        for number in range(DESTINATIONS)
    )


async def submit(port: int, messages: int, stuffed: list[bytes]) -> list[float]:
    """To the destinations in turn; the latency of each."""
    numbers = iter(range(messages))
    latencies: list[float] = []
    word = base64.b64encode(f"\0user@{DOMAIN}\0{PASSWORD}".encode())
    progress = Progress("submitted", messages)

    async def connection() -> None:
        client = await Smtp.open(port)
        await client.hello()
        client.writer.write(b"AUTH PLAIN " + word + b"\r\n")
        await client.reply(b"235")
        for number in numbers:
            start = time.perf_counter()
            recipient = f"r{number}@d{number % DESTINATIONS}.example.org"
            await client.send(f"user@{DOMAIN}", recipient, stuffed[number % len(stuffed)])
            latencies.append((time.perf_counter() - start) * 1e3)
            progress.at(len(latencies))
        await client.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return latencies


def measure(folder: Path, messages: int, workers: int, *, is_stalling: bool) -> Result:
    rng = random.Random(7)
    stuffed = [corpus.message(rng, number, 2048) + b".\r\n" for number in range(50)]
    expected = sum(not stalls(number % DESTINATIONS) for number in range(messages))
    with contextlib.ExitStack() as stack:
        healthy = stack.enter_context(SinkProcess(free_pair(), address="0.0.0.0", silent=1))
        others = stack.enter_context(SinkProcess(free_port(), address="0.0.0.0"))
        extra = routes(healthy.port, healthy.port + 1 if is_stalling else others.port)
        # What is under way to those who never answer need not be waited for at the end.
        extra += "\n[delivery]\ncheck_from_field = false\n\n[queue.schedule]\nstop_seconds = 1\n"
        with Server(folder, ["user"], workers=workers, extra=extra) as server:
            memory = server.memory_kib()
            cpu = server.cpu_seconds()
            start = time.perf_counter()
            latencies = asyncio.run(submit(server.ports["submission"], messages, stuffed))
            wait_for_all(healthy, "relayed", expected, pause=0.05)
            seconds = time.perf_counter() - start
            cpu = server.cpu_seconds() - cpu
            after = server.memory_kib()
    variant = f"{DESTINATIONS - STALLING} healthy of {DESTINATIONS}, {STALLING if is_stalling else 'none'} stall"
    note = f"PSS before {memory / 1024:.0f} MiB"
    return Result("Stalled", variant, expected, seconds, cpu, latencies, after, note)


def work(folder: Path, messages: int, rounds: int, workers: int = 1) -> Iterator[Result]:
    """The median round of each variant."""
    results: dict[bool, list[Result]] = {False: [], True: []}
    for number in range(rounds):
        for is_stalling, found in results.items():
            found.append(measure(folder, messages, workers, is_stalling=is_stalling))
            if rounds > 1:
                took = f"{found[-1].variant}: {found[-1].seconds:.1f} s"
                print(f"round {number + 1} of {rounds}, {took}", file=sys.stderr, flush=True)
    for found in results.values():
        middle = statistics.median_low([each.seconds for each in found])
        yield next(each for each in found if each.seconds == middle)


def run(folder: Path) -> Iterator[Result]:
    yield from work(folder, 10_000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_stalled", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mailsrv-bench-") as temporary:
        print(table(list(work(Path(temporary) / "server", options.messages, options.rounds, options.workers))))


if __name__ == "__main__":
    main()
