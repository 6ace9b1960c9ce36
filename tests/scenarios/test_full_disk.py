"""A disk that is full to the brim (R-DUR-5, R-FULL-1).

A small tmpfs in a mount namespace of its own holds state and mail. No root is needed where user namespaces may
be made; root makes a mount namespace alone.
"""

from __future__ import annotations

import contextlib
import errno
import imaplib
import os
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import MakeServer
from tests.scenarios.server import ALICE, BOB, ROOT, WholeServer

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
SECTIONS = {
    "smtp": "greeting_delay_seconds = 0.0",
    "limits": 'exempt_networks = ["127.0.0.0/8"]',
    "journal": "segment_octets = 2097152\ncheckpoint_interval = 0.5\nfree_space_floor = 4194304",
}
SECONDS = 30.0


class SmallDisk:
    """The tmpfs, as seen from outside of its namespace."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir(parents=True)
        is_root = os.geteuid() == 0
        self._holder = subprocess.Popen(
            [
                "unshare",
                "-m" if is_root else "-Urm",
                *("sh", "-c", 'mount -t tmpfs -o size="$1"m tmpfs "$2" && echo ready && exec cat'),
                *("sh", str(megabytes), str(folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stdout = self._holder.stdout
        if stdout is None or stdout.readline() != b"ready\n":
            raise RuntimeError("no mount namespace can be made here")
        self.path = Path(f"/proc/{self._holder.pid}/root{folder}")
        options = "" if is_root else "-U --preserve-credentials"
        twistd = Path(sys.executable).with_name("twistd")
        self.twistd = folder.with_name("twistd")
        self.twistd.write_text(
            f'#!/bin/sh\nexec nsenter -t {self._holder.pid} -m {options} --wd="{ROOT}" -- "{twistd}" "$@"\n'
        )
        self.twistd.chmod(0o700)

    def fill(self, leave_octets: int = 0) -> None:
        """Write until so much (or, with 0, nothing at all) is left."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            try:
                while leave_octets == 0 or self.free_octets() > leave_octets:
                    file.write(bytes(64 * 1024 if leave_octets else 4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def free_octets(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    @classmethod
    def for_server(cls, path: Path) -> SmallDisk:
        """Of 64 MiB, with the folders of a server.

        The tables of log-ins and submissions take 36 of them from the start, the journal 4, the queue's log up to 6.
        """
        small = cls(path, 64)
        for name in ("state", "mail"):
            (small.path / name).mkdir(mode=0o700)
        return small

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with contextlib.closing(SmallDisk.for_server(tmp_path / "disk")) as small:
        yield small


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path, make_server: MakeServer) -> WholeServer:
    server = make_server(sections=SECTIONS, twistd=disk.twistd)
    for name in ("state", "mail"):
        (server.folder / name).symlink_to(tmp_path / "disk" / name)
    server.start()
    return server


def letter(subject: str, size: int = 2000) -> bytes:
    return f"From: <someone@example.org>\r\nSubject: {subject}\r\n\r\n".encode() + b"x" * 70 * (size // 70) + b"\r\n"


def subjects(server: WholeServer, account: str, mailbox: str = "INBOX") -> list[str]:
    return sorted(
        octets.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for octets in server.messages(account, mailbox)
    )


def by_smtp(server: WholeServer, octets: bytes) -> str:
    """ "" where it was accepted, otherwise the reply."""
    return _send(smtplib.SMTP("127.0.0.1", server.ports["mx"], timeout=30), ALICE, octets)


def by_lmtp(server: WholeServer, octets: bytes) -> str:
    """The same."""
    return _send(smtplib.LMTP(str(server.lmtp_path), local_hostname="relay.example.org"), BOB, octets)


def _send(client: smtplib.SMTP, recipient: str, octets: bytes) -> str:
    try:
        client.sendmail("someone@example.org", [recipient], octets)
    except smtplib.SMTPRecipientsRefused as refused:
        code, text = refused.recipients[recipient]
        return f"{code} {text.decode()}"
    except smtplib.SMTPResponseException as refused:
        return f"{refused.smtp_code} {_text(refused.smtp_error)}"
    finally:
        client.close()
    return ""


def _text(reply: bytes | str) -> str:
    return reply if isinstance(reply, str) else reply.decode()


def by_append(server: WholeServer, octets: bytes) -> str:
    with server.imap(ALICE) as client:
        answer, data = client.append("Sent", "", "", octets)
    return "" if answer == "OK" else f"{answer} {data[0].decode()}"


def eventually(condition: Callable[[], bool]) -> bool:
    """The server looks at its disk once a second."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def has_worked(client: imaplib.IMAP4_SSL, *command: str) -> bool:
    return client.uid(*command)[0] == "OK"


def check(server: WholeServer) -> None:
    assert not [event for event in server.events() if "traceback" in event]


def test_r_dur_5_r_full_1_a_full_disk_loses_nothing_and_can_be_cleared(server: WholeServer, disk: SmallDisk) -> None:
    kept: dict[str, list[str]] = {ALICE: [], BOB: [], "Sent": []}
    for number in range(20):
        for place, send in ((ALICE, by_smtp), (BOB, by_lmtp), ("Sent", by_append)):
            assert not send(server, letter(f"{number}"))
            kept[place].append(f"{number}")
    # Little room: new mail is refused before its content, and says why.
    disk.fill(3 * MEBIBYTE)
    deadline = time.monotonic() + SECONDS
    while not (reply := by_smtp(server, letter("early"))):
        # The server looks at its disk once a second: what it takes until then, it keeps.
        kept[ALICE].append("early")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert reply.startswith("452 4.3.1")
    assert by_lmtp(server, letter("refused")).startswith("452 4.3.1")
    assert by_append(server, letter("refused")).startswith("NO")
    # None at all.
    disk.fill()
    for _ in range(10):
        assert by_smtp(server, letter("refused")).startswith("452 4.3.1")
        assert by_append(server, letter("refused")).startswith("NO")
    with server.imap(ALICE) as client:
        assert eventually(lambda: client.select("INBOX")[0] == "OK")
        assert eventually(lambda: has_worked(client, "STORE", "1:5", "+FLAGS", "(\\Deleted)"))
        assert eventually(lambda: has_worked(client, "EXPUNGE", "1:5"))
        assert client.uid("STORE", "6", "+FLAGS", "(\\Flagged)")[0] == "OK"
    kept[ALICE] = kept[ALICE][5:]
    with server.pop3(BOB) as client:
        client.dele(1)
    kept[BOB] = kept[BOB][1:]
    # A kill changes nothing of it.
    server.kill()
    disk.fill()
    server.start()
    assert by_smtp(server, letter("refused")).startswith("452 4.3.1")
    for account, mailbox, place in ((ALICE, "INBOX", ALICE), (BOB, "INBOX", BOB), (ALICE, "Sent", "Sent")):
        assert subjects(server, account, mailbox) == sorted(kept[place])
    # Room again.
    disk.free()
    assert eventually(lambda: not by_smtp(server, letter("again")))
    assert not by_lmtp(server, letter("again"))
    assert not by_append(server, letter("again"))
    server.restart()
    for account, mailbox, place in ((ALICE, "INBOX", ALICE), (BOB, "INBOX", BOB), (ALICE, "Sent", "Sent")):
        assert subjects(server, account, mailbox) == sorted([*kept[place], "again"])
    check(server)
    server.stop()


def test_r_dur_5_a_disk_that_fills_up_with_mail_loses_nothing(server: WholeServer, disk: SmallDisk) -> None:
    """No floor would be of use: another program writes faster than the server looks."""
    accepted: list[str] = []
    refused = 0
    disk.fill(12 * MEBIBYTE)
    for number in range(400):
        reply = by_lmtp(server, letter(f"{number}", 60_000))
        if reply:
            assert reply.startswith("45"), reply
            refused += 1
        else:
            accepted.append(f"{number}")
        if number == 30:
            disk.fill()
        if refused > 20:
            break
    assert refused > 20
    server.kill()
    server.start()
    disk.free()
    assert eventually(lambda: not by_lmtp(server, letter("again")))
    assert subjects(server, BOB) == sorted([*accepted, "again"])
    check(server)
    server.stop()
