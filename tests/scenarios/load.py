"""Load that remembers what it was promised, and the audit that holds the server to it.

A sender notes a message once the server has acknowledged it (250, APPEND OK); a reader notes each UID it was
told with the message it stood for. Some messages are expunged, some deleted by POP3, some moved to Archive; which,
their Message-ID says. After any number of crashes :func:`audit` wants every acknowledged message exactly once and
whole, no message twice, none that was removed (R-DUR-3), each that was moved there and only there, and no UID that
means something else than it did.
"""

from __future__ import annotations

import contextlib
import hashlib
import imaplib
import poplib
import random
import re
import smtplib
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from attrs import Factory, define

from tests.scenarios.server import WholeServer

IDENTIFIER = re.compile(rb"^Message-ID: <([^>]+)>", re.MULTILINE | re.IGNORECASE)
CHECKSUM = re.compile(rb"^X-Checksum: (\w+)", re.MULTILINE)
FETCHED = re.compile(rb"UID (\d+)")
APPEND_UID = re.compile(rb"APPENDUID (\d+) (\d+)")
COPY_UID = re.compile(rb"(\d+) ([\d,:]+) ([\d,:]+)")
CATCH_UP_SECONDS = 10
CONNECTION_TROUBLE = (OSError, smtplib.SMTPException, imaplib.IMAP4.error, poplib.error_proto, EOFError)
INBOX, ARCHIVE = "INBOX", "Archive"
MAILBOXES = (INBOX, ARCHIVE)
EXPUNGED, DELETED_BY_POP3, MOVED = range(3)
imaplib.Commands.setdefault("MOVE", ("SELECTED",))


def fate(identifier: str) -> int:
    """What is to become of a message; most stay."""
    return zlib.crc32(identifier.encode()) % 8


@define
class Ledger:
    """What was promised. One lock guards it; ``told`` maps (account, UIDVALIDITY, UID) to the Message-ID."""

    lock: threading.Lock = Factory(threading.Lock)
    acknowledged: dict[str, str] = Factory(dict)
    told: dict[tuple[str, int, int], str] = Factory(dict)
    broken: list[str] = Factory(list)
    refused: Counter[str] = Factory(Counter)
    leaving: set[str] = Factory(set)
    """Their removal was asked for."""
    gone: set[str] = Factory(set)
    """Their removal was acknowledged."""
    moving: set[str] = Factory(set)
    moved: set[str] = Factory(set)

    def promise(self, identifier: str, account: str) -> None:
        with self.lock:
            self.acknowledged[identifier] = account

    def tell(self, account: str, uid_validity: int, uid: int, identifier: str) -> None:
        with self.lock:
            known = self.told.setdefault((account, uid_validity, uid), identifier)
        if known != identifier:
            self.broken.append(f"UID {uid} of {account} was {known} and is now {identifier}")

    def begin(self, fate_of_these: int, identifiers: Collection[str]) -> None:
        """These are about to be removed or moved."""
        with self.lock:
            (self.moving if fate_of_these == MOVED else self.leaving).update(identifiers)

    def end(self, fate_of_these: int, identifiers: Collection[str]) -> None:
        """The server said that they are."""
        with self.lock:
            (self.moved if fate_of_these == MOVED else self.gone).update(identifiers)


def make_message(identifier: str, rng: random.Random) -> bytes:
    """A message that carries the checksum of its body; now and then too large for a record of the journal."""
    size = 300_000 if rng.random() < 0.02 else rng.randint(20, 4000)
    body = b"".join(b"%060d\r\n" % rng.getrandbits(150) for _ in range(size // 62 + 1))
    digest = hashlib.sha256(body).hexdigest()
    header = f"From: <load@example.org>\r\nMessage-ID: <{identifier}>\r\nX-Checksum: {digest}\r\n\r\n"
    return header.encode() + body


def identify(octets: bytes) -> tuple[str, bool]:
    """The Message-ID of a stored message, and whether its body is whole."""
    header, _, body = octets.partition(b"\r\n\r\n")
    identifier, checksum = IDENTIFIER.search(header), CHECKSUM.search(header)
    if identifier is None or checksum is None:
        return "", False
    return identifier[1].decode(), hashlib.sha256(body).hexdigest() == checksum[1].decode()


class Load:
    """Threads that keep sending and reading until :meth:`stop`; they live through any number of restarts."""

    def __init__(
        self, *, smtp_port: int, imap_port: int, pop3_port: int = 0, accounts: list[str], password: str, seed: int
    ) -> None:
        """Without ``pop3_port`` nothing is removed or moved."""
        self.smtp_port, self.imap_port, self.pop3_port = smtp_port, imap_port, pop3_port
        self.accounts, self.password = accounts, password
        self.ledger = Ledger()
        self.seed = seed
        self._stop = threading.Event()
        jobs: list[tuple[Callable[[random.Random, str], None], int]] = [
            (self._send_by_smtp, 4),
            (self._append, 2),
            (self._read, 1),
        ]
        if pop3_port:
            jobs += [(self._expunge, 1), (self._move, 1), (self._delete_by_pop3, 1)]
        self._threads = [
            threading.Thread(target=self._keep_on, args=(job, f"{job.__name__}.{number}.{seed}"), daemon=True)
            for job, count in jobs
            for number in range(count)
        ]

    @classmethod
    def on(cls, server: WholeServer, accounts: list[str], seed: int) -> Load:
        """Of all kinds."""
        smtp, imap, pop3 = (server.ports[service] for service in ("mx", "imap", "pop3"))
        return cls(
            smtp_port=smtp, imap_port=imap, pop3_port=pop3, accounts=accounts, password=server.password, seed=seed
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> Ledger:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        return self.ledger

    def _keep_on(self, job: Callable[[random.Random, str], None], name: str) -> None:
        rng = random.Random(name)
        while not self._stop.is_set():
            try:
                job(rng, name)
            except CONNECTION_TROUBLE:
                time.sleep(0.02)

    def _send_by_smtp(self, rng: random.Random, name: str) -> None:
        with smtplib.SMTP("127.0.0.1", self.smtp_port, local_hostname="load.example.org", timeout=30) as client:
            while not self._stop.is_set():
                account = rng.choice(self.accounts)
                identifier = f"{rng.getrandbits(80):x}.{name}"
                try:
                    client.sendmail("load@example.org", [account], make_message(identifier, rng))
                except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as refusal:
                    self.ledger.refused[str(refusal)] += 1
                    raise
                self.ledger.promise(identifier, account)

    def _append(self, rng: random.Random, name: str) -> None:
        with self._reader(account := rng.choice(self.accounts)) as client:
            while not self._stop.is_set():
                identifier = f"{rng.getrandbits(80):x}.{name}"
                answer, data = client.append("INBOX", "(\\Seen)", "", make_message(identifier, rng))
                if answer != "OK":
                    self.ledger.refused[str(data)] += 1
                    return
                self.ledger.promise(identifier, account)
                if match := APPEND_UID.search(data[0]):
                    self.ledger.tell(account, int(match[1]), int(match[2]), identifier)

    def _read(self, rng: random.Random, name: str) -> None:
        account = rng.choice(self.accounts)
        with self._reader(account) as client:
            client.select("INBOX")
            uid_validity = int(client.response("UIDVALIDITY")[1][0] or 0)
            first = 1
            while not self._stop.is_set():
                for uid, octets in fetch(client, f"{first}:*", "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"):
                    match = IDENTIFIER.search(octets)
                    self.ledger.tell(account, uid_validity, uid, match[1].decode() if match else "")
                    first = max(first, uid)
                client.noop()
                time.sleep(0.005)

    def _expunge(self, rng: random.Random, name: str) -> None:
        with self._reader(rng.choice(self.accounts)) as client:
            for found in self._found(client, EXPUNGED, rng):
                uids = ",".join(map(str, found))
                self.ledger.begin(EXPUNGED, found.values())
                client.uid("STORE", uids, "+FLAGS.SILENT", "(\\Deleted)")
                answer, _ = client.uid("EXPUNGE", uids)
                if answer == "OK":
                    self.ledger.end(EXPUNGED, found.values())

    def _move(self, rng: random.Random, name: str) -> None:
        with self._reader(account := rng.choice(self.accounts)) as client:
            for found in self._found(client, MOVED, rng):
                self.ledger.begin(MOVED, found.values())
                answer, _ = client.uid("MOVE", ",".join(map(str, found)), ARCHIVE)
                if answer == "OK":
                    self.ledger.end(MOVED, found.values())
                    if match := COPY_UID.search(client.response("COPYUID")[1][0] or b""):
                        for source, target in zip(numbers(match[2]), numbers(match[3]), strict=True):
                            self.ledger.tell(account, int(match[1]), target, found[source])

    def _found(self, client: imaplib.IMAP4, wanted: int, rng: random.Random) -> Iterator[dict[int, str]]:
        """UID → Message-ID of messages with that fate, some at a time, for a while."""
        client.select(INBOX)
        first = 1
        for _ in range(rng.randint(5, 50)):
            if self._stop.is_set():
                return
            found = {}
            for uid, octets in fetch(client, f"{first}:*", "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]"):
                match = IDENTIFIER.search(octets)
                if match and fate(match[1].decode()) == wanted:
                    found[uid] = match[1].decode()
                first = max(first, uid)
            if found:
                yield found
            client.noop()
            time.sleep(rng.uniform(0, 0.02))

    def _delete_by_pop3(self, rng: random.Random, name: str) -> None:
        client = poplib.POP3("127.0.0.1", self.pop3_port, timeout=30)
        try:
            client.user(rng.choice(self.accounts))
            client.pass_(self.password)
            count, _ = client.stat()
            found = []
            # The youngest: they may not be out of the journal yet.
            for number in range(count, max(0, count - 20), -1):
                match = IDENTIFIER.search(b"\n".join(client.top(number, 0)[1]))
                if match and fate(match[1].decode()) == DELETED_BY_POP3:
                    client.dele(number)
                    found.append(match[1].decode())
            self.ledger.begin(DELETED_BY_POP3, found)
            client.quit()
            self.ledger.end(DELETED_BY_POP3, found)
        finally:
            client.close()
        time.sleep(0.02)

    @contextlib.contextmanager
    def _reader(self, account: str) -> Iterator[imaplib.IMAP4]:
        client = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=30)
        try:
            client.login(account, self.password)
            yield client
        finally:
            with contextlib.suppress(*CONNECTION_TROUBLE):
                client.shutdown()


def fetch(client: imaplib.IMAP4, uids: str, item: str) -> Iterator[tuple[int, bytes]]:
    """(UID, octets) of one section of messages."""
    _, data = client.uid("FETCH", uids, f"(UID {item})")
    for part in data:
        if isinstance(part, tuple) and (match := FETCHED.search(part[0])):
            yield int(match[1]), part[1]


def numbers(sequence: bytes) -> list[int]:
    """``3:5,9`` as numbers."""
    found: list[int] = []
    for part in sequence.decode().split(","):
        first, _, last = part.partition(":")
        found += range(int(first), int(last or first) + 1)
    return found


def _look(ledger: Ledger, *, imap_port: int, accounts: list[str], password: str) -> tuple[Counter[str], dict[str, str]]:
    """All Message-IDs, counted, and the mailbox of each; what was told of UIDs must hold at any time."""
    found: Counter[str] = Counter()
    places: dict[str, str] = {}
    for account in accounts:
        client = imaplib.IMAP4("127.0.0.1", imap_port, timeout=60)
        client.login(account, password)
        present: dict[tuple[int, int], str] = {}
        validities = set()
        for mailbox in MAILBOXES:
            client.select(mailbox, readonly=True)
            uid_validity = int(client.response("UIDVALIDITY")[1][0] or 0)
            validities.add(uid_validity)
            for uid, octets in fetch(client, "1:*", "BODY.PEEK[]"):
                identifier, is_whole = identify(octets)
                assert is_whole, f"UID {uid} of {account} is damaged: {identifier or octets[:200]!r}"
                assert ledger.acknowledged.get(identifier, account) == account
                present[uid_validity, uid] = identifier
                places[identifier] = mailbox
                found[identifier] += 1
        client.logout()
        for (owner, validity, uid), identifier in ledger.told.items():
            if owner == account:
                assert validity in validities, f"UIDVALIDITY of {account} changed from {validity} to {validities}"
                now = present.get((validity, uid))
                is_away = now is None and identifier in ledger.leaving | ledger.moving
                assert now == identifier or is_away, f"UID {uid} of {account} told as {identifier} is {now}"
    return found, places


def audit(ledger: Ledger, *, imap_port: int, accounts: list[str], password: str) -> Counter[str]:
    """Compare what is there with what was promised; the Message-IDs found, counted. Raises AssertionError.

    A busy server acknowledges what is durable and shows it a moment later: it is given that moment.
    """
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while True:
        found, places = _look(ledger, imap_port=imap_port, accounts=accounts, password=password)
        lost = [
            identifier
            for identifier in ledger.acknowledged
            if not found[identifier] and identifier not in ledger.leaving
        ]
        if not lost or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert not lost, f"{len(lost)} of {len(ledger.acknowledged)} acknowledged messages are gone: {lost[:5]}"
    doubled = {identifier: count for identifier, count in found.items() if count > 1}
    assert not doubled, f"delivered more than once: {doubled}"
    back = [identifier for identifier in ledger.gone if found[identifier]]
    assert not back, f"{len(back)} of {len(ledger.gone)} removed messages are back: {back[:5]}"
    stray = [identifier for identifier in ledger.moved if places[identifier] != ARCHIVE]
    assert not stray, f"{len(stray)} of {len(ledger.moved)} moved messages are not in Archive: {stray[:5]}"
    assert not ledger.broken, ledger.broken[:5]
    return found
