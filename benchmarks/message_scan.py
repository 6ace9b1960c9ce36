"""What reading a message costs: summarise() at delivery, HEADER.FIELDS, SEARCH.

    python benchmarks/message_scan.py [--messages N]

Prints microseconds of CPU time: the least of several rounds over messages of one kind, each
round over different messages, so that nothing is answered from a memo. For comparison the
standard library's ``email`` parser, which makes neither ENVELOPE nor BODYSTRUCTURE.
"""

from __future__ import annotations

import argparse
import email
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mailsrv.message import MessageStructure, TextSearch, scan, select_fields, summarise
from tests.message.corpus import Corpus

ROUNDS = 7
NAMES = frozenset({b"from", b"to", b"subject", b"date", b"message-id"})
WANTED = TextSearch("nowhere to be found")


def corpus(count: int, low: int, high: int, seed: int) -> list[bytes]:
    """Messages whose whole length is between the two bounds."""
    source = Corpus(seed)
    pick = random.Random(seed)
    found: list[bytes] = []
    while len(found) < count:
        octets = source.message(size=pick.randint(max(200, low - 2_500), high))
        if low <= len(octets) <= high:
            found.append(octets)
    return found


def plain_messages(count: int, seed: int) -> list[bytes]:
    """Single-part text of about 2 KiB."""
    return [octets for octets in corpus(count * 4, 1_700, 2_500, seed) if b"multipart/" not in octets][:count]


def microseconds(work: Callable[[bytes], object], messages: Sequence[bytes]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        for octets in messages:
            work(octets)
        best = min(best, time.process_time() - before)
    return best / len(messages) * 1e6


def select(header_of: dict[bytes, bytes], octets: bytes) -> object:
    return select_fields(header_of[octets], NAMES)


def look_for(structure_of: dict[bytes, MessageStructure], octets: bytes) -> object:
    return WANTED.is_in_message(octets, structure_of[octets])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--messages", type=int, default=100)
    count = arguments.parse_args().messages
    kinds = {
        "2 KiB plain": plain_messages(count, 1),
        "10 KiB MIME": corpus(count, 9_000, 11_500, 2),
        "40 KiB MIME": corpus(max(count // 3, 1), 35_000, 45_000, 3),
        "1 MiB MIME": [Corpus(seed).message(depth=2, size=1 << 20) for seed in range(5)],
    }
    print(f"{'':14}{'octets':>9}{'summarise':>11}{'scan':>8}{'FIELDS':>8}{'TEXT':>9}{'email':>9}  µs")
    for kind, messages in kinds.items():
        structures = {octets: scan(octets) for octets in messages}
        header_of = {octets: octets[: structures[octets].root.body_start] for octets in messages}
        row = (
            sum(map(len, messages)) / len(messages),
            microseconds(summarise, messages),
            microseconds(scan, messages),
            microseconds(partial(select, header_of), messages),
            microseconds(partial(look_for, structures), messages),
            microseconds(email.message_from_bytes, messages),
        )
        print(f"{kind:14}{row[0]:9.0f}{row[1]:11.0f}{row[2]:8.0f}{row[3]:8.1f}{row[4]:9.0f}{row[5]:9.0f}")


if __name__ == "__main__":
    main()
