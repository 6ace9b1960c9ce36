"""Submission, queue, relay: users log in and send to another host; the clock stops when that host has it all.

``python -m benchmarks.load_relay [--workers N] [--messages N] [--rounds N] [--tls | --plain]``
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import corpus
from benchmarks.clients import Smtp, insecure_tls
from benchmarks.progress import Progress, wait_for_all
from benchmarks.report import Result, table
from benchmarks.server import DOMAIN, PASSWORD, Server, free_port
from benchmarks.sink import SinkProcess

USERS = 20
PER_CONNECTION = 10


async def submit(port: int, user: str, messages: list[bytes], *, tls: bool) -> list[float]:
    """One connection's messages; the latency of each."""
    client = await Smtp.open(port)
    await client.hello()
    if tls:
        client.writer.write(b"STARTTLS\r\n")
        await client.reply(b"220")
        await client.writer.start_tls(insecure_tls())
        await client.hello()
    word = base64.b64encode(f"\0{user}@{DOMAIN}\0{PASSWORD}".encode())
    client.writer.write(b"AUTH PLAIN " + word + b"\r\n")
    await client.reply(b"235")
    latencies = []
    for number, stuffed in enumerate(messages):
        start = time.perf_counter()
        await client.send(f"{user}@{DOMAIN}", f"r{number}@sink.example.org", stuffed)
        latencies.append((time.perf_counter() - start) * 1e3)
    client.writer.write(b"QUIT\r\n")
    await client.close()
    return latencies


async def feed(port: int, count: int, connections: int, stuffed: list[bytes], *, tls: bool) -> list[float]:
    jobs = iter(range(count // PER_CONNECTION))
    latencies: list[float] = []
    progress = Progress("submitted", count)

    async def keep_on() -> None:
        for number in jobs:
            messages = [stuffed[(number + one) % len(stuffed)] for one in range(PER_CONNECTION)]
            latencies.extend(await submit(port, f"user{number % USERS}", messages, tls=tls))
            progress.at(len(latencies))

    await asyncio.gather(*(keep_on() for _ in range(connections)))
    return latencies


def measure(folder: Path, variant: str, *, count: int, size: int, connections: int, tls: bool, workers: int) -> Result:
    users = [f"user{number}" for number in range(USERS)]
    rng = random.Random(7)
    stuffed = [corpus.message(rng, number, size) + b".\r\n" for number in range(50)]
    with SinkProcess(free_port()) as sink:
        route = f'\n[[route]]\nto = "sink.example.org"\nvia = "smtp:127.0.0.1:{sink.port}"\n'
        route += "\n[delivery]\ncheck_from_field = false\n"
        with Server(folder, users, workers=workers, extra=route) as server:
            cpu = server.cpu_seconds()
            start = time.perf_counter()
            latencies = asyncio.run(feed(server.ports["submission"], count, connections, stuffed, tls=tls))
            wait_for_all(sink, "relayed", count, pause=0.02)
            seconds = time.perf_counter() - start
            cpu = server.cpu_seconds() - cpu
            memory = server.memory_kib()
    return Result("Relay", variant, count, seconds, cpu, latencies, memory)


def work(folder: Path, messages: int, workers: int, variants: Sequence[bool]) -> Iterator[Result]:
    """``variants``: with TLS or without."""
    count = messages // PER_CONNECTION * PER_CONNECTION
    for tls in variants:
        variant = f"2 KiB, AUTH{' and TLS' if tls else ''}, {PER_CONNECTION} a connection"
        variant += f", {workers} workers" if workers > 1 else ""
        yield measure(folder, variant, count=count, size=2048, connections=10, tls=tls, workers=workers)


def run(folder: Path) -> Iterator[Result]:
    yield from work(folder, 3000, 1, (False, True))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_relay", description=__doc__)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--tls", dest="variants", action="store_const", const=(True,), default=(False, True))
    kinds.add_argument("--plain", dest="variants", action="store_const", const=(False,), default=(False, True))
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="mailsrv-bench-") as temporary:
        for _ in range(options.rounds):
            results += work(Path(temporary) / "server", options.messages, options.workers, options.variants)
    print(table(results))


if __name__ == "__main__":
    main()
