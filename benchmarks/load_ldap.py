"""Users in LDAP: log-ins and recipients asked of two OpenLDAP servers, well, dead and hanging; a list of 10,000.

Log-ins are AUTH PLAIN on the submission port, each on a connection of its own, each user once (``uncached``) or again
(``cached``). slapd is started here (``apt install slapd``), with StartTLS, its certificate checked. Each line ends with
what the reactor did meanwhile, see :mod:`benchmarks.probe`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

from benchmarks import corpus
from benchmarks.clients import Refused, Smtp
from benchmarks.probe import worst_between
from benchmarks.report import Result
from benchmarks.server import DOMAIN, Server
from mailsrv.tls.self_signed import write_self_signed
from tests.interop.slapd import BASE, SERVICE, SERVICE_PASSWORD, Slapd, person

USERS = 10_000
LOGINS = 1_000
CONNECTIONS = 20
RECIPIENTS = 50
"""In a transaction, where recipients are asked."""

LDAP = """
[[directory]]
type = "ldap"
uri = [{uris}]
base = "{base}"
ca_file = "{folder}/ldap-cert.pem"
bind_dn = "{service}"
bind_password_file = "{folder}/ldap-secret"
cache_seconds = 3600.0
retry_seconds = 1.0
"""


def entries() -> tuple[str, ...]:
    """All users, and a list of them all."""
    members = "".join(f"member: uid=u{number},ou=people,{BASE}\n" for number in range(USERS))
    return (
        *(person(f"u{number}", f"pw{number}") for number in range(USERS)),
        f"dn: cn=all,ou=groups,{BASE}\nobjectClass: groupOfNames\nobjectClass: mailUser\ncn: all\nmail: all@{DOMAIN}\n"
        + members,
    )


@contextlib.contextmanager
def site(folder: Path) -> Iterator[tuple[Server, Slapd, Slapd]]:
    """Two directory servers and a mail server that asks them."""
    ldap = folder.with_name("ldap")
    ldap.mkdir(parents=True)
    certificate, key = ldap / "cert.pem", ldap / "key.pem"
    write_self_signed("ldap.example.test", str(certificate), str(key))
    texts = entries()
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(Slapd(ldap / name, certificate, key, texts)) for name in ("one", "two")]
        extra = LDAP.format(uris=", ".join(f'"{each.uri}"' for each in pair), base=BASE, folder=folder, service=SERVICE)
        probe = ldap / "probe"
        server = Server(folder, (), extra=extra, probe=probe)
        (folder / "ldap-cert.pem").write_bytes(certificate.read_bytes())
        (folder / "ldap-secret").write_text(SERVICE_PASSWORD)
        with server:
            time.sleep(1)
            yield server, pair[0], pair[1]


async def log_in(port: int, numbers: Sequence[int]) -> list[float]:
    """Each user once; the latencies."""
    todo = iter(numbers)
    latencies: list[float] = []

    async def client() -> None:
        for number in todo:
            word = base64.b64encode(f"\0u{number}\0pw{number}".encode())
            session = await Smtp.open(port)
            await session.hello()
            start = time.perf_counter()
            session.writer.write(b"AUTH PLAIN " + word + b"\r\n")
            await session.reply(b"235")
            latencies.append((time.perf_counter() - start) * 1e3)
            await session.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return latencies


async def check_recipients(port: int, numbers: Sequence[int]) -> list[float]:
    """RCPT for each, several in a transaction, each waited for."""
    batches = iter([numbers[start : start + RECIPIENTS] for start in range(0, len(numbers), RECIPIENTS)])
    latencies: list[float] = []

    async def client() -> None:
        session = await Smtp.open(port)
        await session.hello()
        for batch in batches:
            session.writer.write(b"MAIL FROM:<sender@example.org>\r\n")
            await session.reply(b"250")
            for number in batch:
                start = time.perf_counter()
                session.writer.write(f"RCPT TO:<u{number}@{DOMAIN}>\r\n".encode())
                await session.reply(b"250")
                latencies.append((time.perf_counter() - start) * 1e3)
            session.writer.write(b"RSET\r\n")
            await session.reply(b"250")
        await session.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return latencies


async def name_list(port: int) -> list[float]:
    """RCPT for the list."""
    session = await Smtp.open(port)
    await session.hello()
    session.writer.write(b"MAIL FROM:<sender@example.org>\r\n")
    await session.reply(b"250")
    start = time.perf_counter()
    session.writer.write(f"RCPT TO:<all@{DOMAIN}>\r\n".encode())
    await session.reply(b"250")
    latencies = [(time.perf_counter() - start) * 1e3]
    await session.close()
    return latencies


def measure(
    server: Server, workload: str, variant: str, operations: int, do: Callable[[], Coroutine[None, None, list[float]]]
) -> Result:
    """Run it and see what it cost the server, and its reactor."""

    cpu, began, start = server.cpu_seconds(), time.time(), time.perf_counter()
    latencies = asyncio.run(do())
    seconds, cpu = time.perf_counter() - start, server.cpu_seconds() - cpu
    ended = time.time()
    time.sleep(0.6)
    assert server.probe is not None
    note = str(worst_between(server.probe, began, ended))
    return Result(workload, variant, operations, seconds, cpu, latencies, note=note)


def log_ins(folder: Path) -> Iterator[Result]:
    """Uncached, cached, one server dead, one hanging: at first, and once that is known."""
    groups = [range(start, start + LOGINS) for start in range(0, USERS, LOGINS)]

    with site(folder) as (server, first, _):
        port = server.ports["submission"]

        def line(variant: str, numbers: Sequence[int]) -> Result:
            return measure(server, "AUTH PLAIN by LDAP", variant, len(numbers), lambda: log_in(port, numbers))

        def wait_until_first_is_back() -> None:
            # Probes come every second once a server is down; the next log-ins are asked of it again.
            time.sleep(6)

        asyncio.run(log_in(port, range(USERS - 100, USERS)))
        yield line("uncached, both servers well", groups[0])
        yield line("cached", groups[0])
        first.kill()
        yield line("first server just died", groups[1])
        yield line("first server dead, known", groups[2])
        first.start()
        wait_until_first_is_back()
        yield line("first server back", groups[3])
        first.freeze()
        yield line("first server begins to hang", groups[4])
        yield line("first server hangs, known", groups[5])
        first.thaw()


def recipients(folder: Path) -> Iterator[Result]:
    """Recipients nobody asked for yet, and again; then the list of them all, in a server that knows nobody."""
    with site(folder) as (server, _, _):
        port = server.ports["mx"]
        numbers = range(5_000)
        for variant in ("uncached", "cached"):
            yield measure(server, "RCPT by LDAP", variant, len(numbers), lambda: check_recipients(port, numbers))
    with site(folder.parent / "list" / "server") as (server, _, _):
        port = server.ports["mx"]
        yield measure(server, f"RCPT, list of {USERS:,}", "uncached", USERS, lambda: name_list(port))
        yield measure(server, f"RCPT, list of {USERS:,}", "cached", USERS, lambda: name_list(port))
        yield measure(server, f"message to {USERS:,}", "until the 250", USERS, lambda: send_to_list(port))
        start, cpu = time.perf_counter(), server.cpu_seconds()
        began = time.time()
        while (delivered := server.delivered()) < USERS and time.perf_counter() - start < 300:
            time.sleep(0.2)
        assert server.probe is not None
        yield Result(
            f"message to {USERS:,}",
            "until it is in all mailboxes",
            delivered,
            time.perf_counter() - start,
            server.cpu_seconds() - cpu,
            note=str(worst_between(server.probe, began, time.time())),
        )


async def send_to_list(port: int) -> list[float]:
    """One message; how long until it is taken."""
    session = await Smtp.open(port)
    await session.hello()
    start = time.perf_counter()
    with contextlib.suppress(Refused):
        await session.send("sender@example.org", f"all@{DOMAIN}", corpus.message(random.Random(5), 1, 2048) + b".\r\n")
        latencies = [(time.perf_counter() - start) * 1e3]
        await session.close()
        return latencies
    raise SystemExit("the list is refused")


def run(folder: Path) -> Iterator[Result]:
    for part in (log_ins, recipients):
        yield from part(folder.parent / part.__name__ / "server")
