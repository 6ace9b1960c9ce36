"""Reading mail: log-in, metadata, bodies, search, notices, and the memory of clients that wait."""

from __future__ import annotations

import asyncio
import random
import resource
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from benchmarks import corpus
from benchmarks.clients import Imap, Smtp, insecure_tls
from benchmarks.report import Result
from benchmarks.server import DOMAIN, PASSWORD, Server

METADATA = b"FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)"
HEADERS = (
    b"UID FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS "
    b"(From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type "
    b"Reply-To)])"
)


def fill(server: Server, user: str, count: int, *, size: int | None = None) -> None:
    """A Maildir as another program would have left it: no index, plain names."""
    current = server.maildir(user) / "cur"
    for part in ("new", "tmp", "cur"):
        (server.maildir(user) / part).mkdir(parents=True, exist_ok=True)
    rng = random.Random(11)
    for number, octets in enumerate(corpus.messages(count, size=size)):
        flags = "".join(flag for flag in "FRS" if rng.random() < 0.4)
        (current / f"{1_700_000_000 + number}.M{number}.bench:2,{flags}").write_bytes(octets)


async def signed_in(server: Server, user: str, tls: ssl.SSLContext | None = None) -> Imap:
    client = await Imap.open(server.ports["imaps" if tls else "imap"], tls)
    await client.login(user, PASSWORD)
    await client.command(b"SELECT INBOX")
    return client


class Stopwatch:
    """Wall and CPU time of steps of one session."""

    def __init__(self, server: Server, workload: str) -> None:
        self.server = server
        self.workload = workload

    async def time(self, variant: str, operations: int, step: Callable[[], Awaitable[int]]) -> Result:
        cpu, start = self.server.cpu_seconds(), time.perf_counter()
        octets = await step()
        seconds = time.perf_counter() - start
        cpu = self.server.cpu_seconds() - cpu
        return Result(self.workload, variant, operations, seconds, cpu, note=f"{octets / seconds / 1e6:,.0f} MB/s")


def log_in(folder: Path) -> Iterator[Result]:
    users = [f"user{number}" for number in range(20)]

    async def cycles(server: Server, count: int, tls: ssl.SSLContext | None) -> list[float]:
        latencies: list[float] = []
        jobs = iter(range(count))

        async def client() -> None:
            for number in jobs:
                start = time.perf_counter()
                session = await signed_in(server, users[number % len(users)], tls)
                await session.command(b"LOGOUT")
                await session.close()
                latencies.append((time.perf_counter() - start) * 1e3)

        await asyncio.gather(*(client() for _ in range(10)))
        return latencies

    for variant, tls in (("plain", None), ("TLS, full handshake", insecure_tls())):
        with Server(folder, users) as server:
            for user in users:
                fill(server, user, 100)
            asyncio.run(cycles(server, 40, tls))
            cpu, start = server.cpu_seconds(), time.perf_counter()
            latencies = asyncio.run(cycles(server, 1500, tls))
            seconds = time.perf_counter() - start
            yield Result("LOGIN+SELECT+LOGOUT", variant, 1500, seconds, server.cpu_seconds() - cpu, latencies)


def fetch(folder: Path) -> Iterator[Result]:
    count = 20_000

    async def steps(server: Server) -> list[Result]:
        watch = Stopwatch(server, f"FETCH of {count:,}")
        client = await Imap.open(server.ports["imap"])
        await client.login("reader", PASSWORD)
        results = [await watch.time("SELECT, mailbox never seen", count, lambda: client.command(b"SELECT INBOX"))]
        results.append(await watch.time("metadata, first", count, lambda: client.command(METADATA)))
        for variant, text in (
            ("metadata, again", METADATA),
            ("FLAGS", b"FETCH 1:* (FLAGS)"),
            ("FLAGS, again", b"FETCH 1:* (FLAGS)"),
            ("header fields", HEADERS),
            ("header fields, again", HEADERS),
        ):
            results.append(await watch.time(variant, count, lambda text=text: client.command(text)))
        await client.close()
        client = await signed_in(server, "reader")
        results.append(await watch.time("metadata, new session", count, lambda: client.command(METADATA)))
        await client.close()
        return results

    with Server(folder, ["reader"]) as server:
        fill(server, "reader", count)
        yield from asyncio.run(steps(server))


def bodies(folder: Path) -> Iterator[Result]:
    count = 5000

    async def steps(server: Server) -> list[Result]:
        watch = Stopwatch(server, f"bodies, {count:,} of 10 KiB")
        results = []
        for label, tls in (("plain", None), ("TLS", insecure_tls())):
            client = await signed_in(server, "reader", tls)
            for again in ("", ", again"):
                results.append(
                    await watch.time(label + again, count, lambda: client.command(b"UID FETCH 1:* (UID BODY.PEEK[])"))
                )
            await client.close()
        return results

    with Server(folder, ["reader"]) as server:
        fill(server, "reader", count, size=10_240)
        yield from asyncio.run(steps(server))


def search(folder: Path) -> Iterator[Result]:
    count = 20_000

    async def steps(server: Server) -> list[Result]:
        watch = Stopwatch(server, f"SEARCH in {count:,}")
        client = await signed_in(server, "reader")
        return [
            await watch.time(variant, count, lambda text=text: client.command(text))
            for variant, text in (
                ("UNSEEN", b"SEARCH UNSEEN"),
                ("UNSEEN, again", b"SEARCH UNSEEN"),
                ("SINCE, first", b"SEARCH SINCE 1-Sep-2026"),
                ("SINCE", b"SEARCH SINCE 1-Sep-2026"),
                ("SUBJECT, never looked into", b"SEARCH SUBJECT budget"),
                ("SUBJECT", b"SEARCH SUBJECT invoice"),
                ("FROM", b"SEARCH FROM alice"),
                ("BODY, in most", b"SEARCH BODY quarterly"),
                ("BODY, in none", b"SEARCH BODY nowhere-to-be-found"),
                ("TEXT, in none", b"SEARCH TEXT nowhere-to-be-found"),
            )
        ]

    with Server(folder, ["reader"]) as server:
        fill(server, "reader", count)
        yield from asyncio.run(steps(server))


def notices(folder: Path) -> Iterator[Result]:
    """From sending the end of data to the EXISTS of an idle session."""
    count = 500

    async def steps(server: Server) -> list[float]:
        watcher = await signed_in(server, "reader")
        await watcher.idle()
        sender = await Smtp.open(server.ports["mx"])
        await sender.hello()
        stuffed = corpus.message(random.Random(3), 1, 2048) + b".\r\n"
        latencies = []
        for _ in range(count):
            seen = asyncio.ensure_future(watcher.wait_for(b"EXISTS"))
            start = time.perf_counter()
            await sender.send("sender@example.org", f"reader@{DOMAIN}", stuffed)
            await seen
            latencies.append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(0.002)
        return latencies

    with Server(folder, ["reader"]) as server:
        cpu, start = server.cpu_seconds(), time.perf_counter()
        latencies = asyncio.run(steps(server))
        seconds = time.perf_counter() - start
        yield Result("deliver to EXISTS", "one at a time", count, seconds, server.cpu_seconds() - cpu, latencies)


def idle(folder: Path) -> Iterator[Result]:
    """Memory of clients that wait in IDLE, each with an INBOX of 1,000 messages selected."""
    count, accounts, waiting = 2000, 20, 20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 10_000)), hard))

    async def steps(server: Server, tls: ssl.SSLContext | None) -> tuple[int, int, float]:
        for number in range(accounts):  # what is once per mailbox is not counted to the connections
            client = await signed_in(server, f"idle{number}", tls)
            await client.close()
        first = await asyncio.gather(*(signed_in(server, f"idle{n}", tls) for n in range(accounts)))
        await asyncio.sleep(2)
        before = server.memory_kib()
        clients = list(first)
        gate = asyncio.Semaphore(20)

        async def one(number: int) -> None:
            async with gate:
                client = await signed_in(server, f"idle{number % accounts}", tls)
                await client.idle()
                clients.append(client)

        await asyncio.gather(*(one(number) for number in range(count)))
        await asyncio.sleep(2)
        after = server.memory_kib()
        cpu = server.cpu_seconds()
        await asyncio.sleep(waiting)
        cpu = server.cpu_seconds() - cpu
        for client in clients:
            client.writer.transport.abort()
        return before, after, cpu / waiting

    for variant, tls in (("plain", None), ("TLS", insecure_tls())):
        with Server(folder, [f"idle{number}" for number in range(accounts)]) as server:
            for number in range(accounts):
                fill(server, f"idle{number}", 1000, size=600)
            cpu, start = server.cpu_seconds(), time.perf_counter()
            before, after, busy = asyncio.run(steps(server, tls))
            yield Result(
                "idle IMAP sessions",
                variant,
                count,
                time.perf_counter() - start,
                server.cpu_seconds() - cpu,
                memory_kib=after,
                note=f"{(after - before) / count:.1f} KiB a session, {busy:.1%} of a CPU while all wait",
            )


def run(folder: Path) -> Iterator[Result]:
    for part in (log_in, fetch, bodies, search, notices, idle):
        yield from part(folder)
