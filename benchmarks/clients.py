"""Small asyncio clients for SMTP, LMTP and IMAP. They trust the server and cost little."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

LIMIT = 1 << 22


class Refused(Exception):
    """The server said something else than expected."""


def insecure_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=LIMIT)
        client = cls(reader, writer)
        await client.greeting()
        return client

    async def greeting(self) -> None:
        await self.reader.readline()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Smtp(Client):
    """SMTP or LMTP with pipelining."""

    async def reply(self, expected: bytes) -> bytes:
        while True:
            line = await self.reader.readline()
            if line[3:4] != b"-":
                break
        if not line.startswith(expected):
            raise Refused(line.decode(errors="replace"))
        return line

    async def hello(self, verb: bytes = b"EHLO") -> None:
        self.writer.write(verb + b" bench.example.org\r\n")
        await self.reply(b"250")

    async def send(self, sender: str, recipient: str, stuffed: bytes) -> None:
        """One transaction; ``stuffed`` is the data with its end marker."""
        self.writer.write(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        await self.reply(b"250")
        await self.reply(b"250")
        await self.reply(b"354")
        self.writer.write(stuffed)
        await self.reply(b"250")


class Imap(Client):
    tag = 0

    async def command(self, text: bytes) -> int:
        """Run one command to its tagged OK; the number of octets received."""
        self.tag += 1
        tag = b"%d " % self.tag
        self.writer.write(tag + text + b"\r\n")
        octets = 0
        start = b"\r\n" + tag
        tail = b"\r\n"
        while True:
            data = await self.reader.read(1 << 20)
            if not data:
                raise Refused("connection closed")
            octets += len(data)
            tail = (tail + data)[-4096:] if len(data) < 4096 else data[-4096:]
            if tail.endswith(b"\r\n"):
                at = tail.rfind(start)
                if at >= 0:
                    line = tail[at + 2 :]
                    if not line.startswith(tag + b"OK"):
                        raise Refused(line.decode(errors="replace"))
                    return octets

    async def login(self, user: str, password: str) -> None:
        await self.command(f"LOGIN {user} {password}".encode())

    async def idle(self) -> None:
        self.writer.write(b"i IDLE\r\n")
        await self.reader.readuntil(b"+ ")
        await self.reader.readline()

    async def wait_for(self, word: bytes) -> None:
        while word not in await self.reader.readline():
            pass
