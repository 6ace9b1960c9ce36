"""Clients that send one octet a second, beside others that want to be served: what the slow ones cost these.

``python -m benchmarks.load_slow [--slow N] [--messages N] [--rounds N]``; the slow ones are a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import corpus
from benchmarks.load_smtp import feed
from benchmarks.report import Result, table
from benchmarks.server import DOMAIN, Server

USERS = 20
CONNECTIONS = 20
DIALOGUE = (
    b"EHLO slow.example.org\r\nMAIL FROM:<slow@example.org>\r\nRCPT TO:<user0@" + DOMAIN.encode() + b">\r\nRSET\r\n"
)


async def crawl(port: int, connections: int) -> None:
    """Until it is ended; says ``ready`` when all are connected."""
    writers = []
    for _ in range(connections):
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writers.append(writer)
    print("ready", flush=True)
    for octet in itertools.cycle(DIALOGUE):
        began = time.monotonic()
        # Spread over the second, as they would be.
        for number, writer in enumerate(writers):
            writer.write(bytes([octet]))
            if number % 20 == 19:
                ahead = began + number / connections - time.monotonic()
                await asyncio.sleep(max(0.0, ahead))
        await asyncio.sleep(max(0.0, began + 1 - time.monotonic()))


@contextlib.contextmanager
def crawling(port: int, connections: int) -> Iterator[None]:
    """So many slow clients while the block runs."""
    command = [sys.executable, "-m", "benchmarks.load_slow", "--crawl", str(port), "--slow", str(connections)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit("the slow clients cannot connect")
            yield
        finally:
            process.terminate()


def measure(server: Server, variant: str, messages: int) -> Result:
    rng = random.Random(7)
    stuffed = [corpus.message(rng, number, 2048) + b".\r\n" for number in range(50)]
    jobs = ((f"user{number % USERS}@{DOMAIN}", stuffed[number % 50]) for number in range(messages))
    before = server.memory_kib()
    cpu = server.cpu_seconds()
    start = time.perf_counter()
    latencies = asyncio.run(feed(server.ports["mx"], jobs, CONNECTIONS, keep=True))
    seconds = time.perf_counter() - start
    cpu = server.cpu_seconds() - cpu
    note = f"PSS before {before / 1024:.0f} MiB"
    return Result("Slow", variant, messages, seconds, cpu, latencies, server.memory_kib(), note)


def work(folder: Path, slow: int, messages: int, rounds: int) -> Iterator[Result]:
    """The median round of each variant, all on one server."""
    alone: list[Result] = []
    beside: list[Result] = []
    with Server(folder, [f"user{number}" for number in range(USERS)]) as server:
        measure(server, "warm up", 200)
        for _ in range(rounds):
            alone.append(measure(server, "fast ones alone", messages))
            with crawling(server.ports["mx"], slow):
                beside.append(measure(server, f"fast ones beside {slow} slow", messages))
            took = f"alone {alone[-1].seconds:.1f} s, beside slow ones {beside[-1].seconds:.1f} s"
            print(f"round {len(alone)} of {rounds}: {took}", file=sys.stderr, flush=True)
    for found in (alone, beside):
        middle = statistics.median_low([each.seconds for each in found])
        yield next(each for each in found if each.seconds == middle)


def run(folder: Path) -> Iterator[Result]:
    yield from work(folder, 2000, 5000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_slow", description=__doc__)
    parser.add_argument("--slow", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crawl", type=int, metavar="PORT", help="be the slow ones")
    options = parser.parse_args()
    if options.crawl is not None:
        asyncio.run(crawl(options.crawl, options.slow))
        return
    with tempfile.TemporaryDirectory(prefix="mailsrv-bench-") as temporary:
        print(table(list(work(Path(temporary) / "server", options.slow, options.messages, options.rounds))))


if __name__ == "__main__":
    main()
