"""Mail coming in: the clock stops when the Maildirs hold every message."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import corpus
from benchmarks.clients import Smtp
from benchmarks.report import Result
from benchmarks.server import DOMAIN, Server

ACCOUNTS = 20


async def feed(port: int, jobs: Iterator[tuple[str, bytes]], connections: int, *, keep: bool) -> list[float]:
    latencies: list[float] = []

    async def connection() -> None:
        client: Smtp | None = None
        for recipient, stuffed in jobs:
            if client is None:
                client = await Smtp.open(port)
                await client.hello()
            start = time.perf_counter()
            await client.send("sender@example.org", recipient, stuffed)
            latencies.append((time.perf_counter() - start) * 1e3)
            if not keep:
                client.writer.write(b"QUIT\r\n")
                await client.close()
                client = None
        if client is not None:
            await client.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return latencies


def measure(
    folder: Path, variant: str, *, count: int, size: int, connections: int, keep: bool, accounts: int
) -> Result:
    users = [f"user{number}" for number in range(accounts)]
    rng = random.Random(7)
    stuffed = [corpus.message(rng, number, size) + b".\r\n" for number in range(50)]
    with Server(folder, users) as server:
        jobs = ((f"{users[number % accounts]}@{DOMAIN}", stuffed[number % 50]) for number in range(count))
        cpu = server.cpu_seconds()
        start = time.perf_counter()
        latencies = asyncio.run(feed(server.ports["mx"], jobs, connections, keep=keep))
        while server.delivered() < count:
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        cpu = server.cpu_seconds() - cpu
        memory = server.memory_kib()
    return Result("SMTP in", variant, count, seconds, cpu, latencies, memory)


def run(folder: Path) -> Iterator[Result]:
    for size, label, count in ((2048, "2 KiB", 5000), (102_400, "100 KiB", 600)):
        for keep in (True, False):
            variant = f"{label}, {'kept' if keep else 'new'} connections"
            yield measure(folder, variant, count=count, size=size, connections=20, keep=keep, accounts=ACCOUNTS)
    yield measure(
        folder, "2 KiB into 10,000 new accounts", count=10_000, size=2048, connections=20, keep=True, accounts=10_000
    )
