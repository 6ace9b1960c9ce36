"""The disk runs full while mail for another host waits and leaves (R-DUR-5): what was acknowledged arrives, once."""

from __future__ import annotations

import contextlib
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import MakeServer
from tests.scenarios.flaky_next_hop import FlakyNextHop, Moods
from tests.scenarios.server import ALICE, WholeServer
from tests.scenarios.test_full_disk import MEBIBYTE, SECTIONS, SmallDisk, eventually

pytestmark = pytest.mark.slow

ELSEWHERE = "elsewhere.example.org"
RELAYING = {
    **SECTIONS,
    "submission": "messages_per_hour = 0\nmessages_per_day = 0\nrecipients_per_hour = 0\nrecipients_per_day = 0",
    "queue.retry": "first_seconds = 0.3\nlongest_seconds = 1.0",
    "queue.schedule": "first_probe_seconds = 0.3\nlongest_probe_seconds = 0.5\nstore_retry_seconds = 0.5",
    "queue.storage": f"free_space_floor = {4 * MEBIBYTE}",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with contextlib.closing(SmallDisk.for_server(tmp_path / "disk")) as small:
        yield small


@pytest.fixture
def hop() -> Iterator[FlakyNextHop]:
    with FlakyNextHop(Moods(), seed=1) as running:
        yield running


@pytest.fixture
def server(disk: SmallDisk, hop: FlakyNextHop, tmp_path: Path, make_server: MakeServer) -> WholeServer:
    route = f'\n[[route]]\nto = "{ELSEWHERE}"\nvia = "smtp:127.0.0.1:{hop.port}"\n'
    server = make_server(sections=RELAYING, twistd=disk.twistd, extra=route)
    for name in ("state", "mail"):
        (server.folder / name).symlink_to(tmp_path / "disk" / name)
    server.start()
    return server


def submit(server: WholeServer, number: int, size: int = 30_000) -> str:
    """ "" where it was accepted, otherwise the reply."""
    text = f"From: <{ALICE}>\r\nTo: <r@{ELSEWHERE}>\r\nMessage-ID: <{number}@example.test>\r\n\r\n"
    client = smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=30)
    try:
        client.login(ALICE, server.password)
        client.sendmail(ALICE, [f"r@{ELSEWHERE}"], text + ("x" * 70 + "\r\n") * (size // 72))
    except smtplib.SMTPRecipientsRefused as refused:
        return str(refused.recipients[f"r@{ELSEWHERE}"][0])
    except smtplib.SMTPResponseException as refused:
        return str(refused.smtp_code)
    finally:
        client.close()
    return ""


@pytest.mark.parametrize("is_killed", [False, True])
def test_r_dur_5_mail_for_other_hosts_waits_for_room_and_none_is_lost_or_doubled(
    server: WholeServer, disk: SmallDisk, hop: FlakyNextHop, is_killed: bool
) -> None:
    hop.moods = Moods(defer_command=1.0)
    accepted: list[str] = []
    refused: list[str] = []
    disk.fill(12 * MEBIBYTE)
    for number in range(600):
        reply = submit(server, number)
        if reply:
            refused.append(reply)
        else:
            accepted.append(f"{number}@example.test")
        if number == 40:
            # Another program is faster than the server can look.
            disk.fill()
        if len(refused) > 20:
            break
    assert len(refused) > 20
    assert set(refused) <= {"452", "451"}
    assert "452" in refused
    assert len(accepted) > 30
    if is_killed:
        server.kill()
        disk.fill()
        server.start()
    # What is sent while its result may find no room is not sent twice.
    hop.moods = Moods()
    time.sleep(2)
    disk.free()
    assert eventually(lambda: {one for one, _ in hop.arrived()} >= set(accepted))
    assert eventually(lambda: not submit(server, 1000))
    accepted.append("1000@example.test")
    assert eventually(lambda: {one for one, _ in hop.arrived()} >= set(accepted))
    # One that was refused after its record was on its way may come as well; none comes twice.
    assert not [key for key, arrivals in hop.arrived().items() if len(arrivals) > 1]
    assert not [event for event in server.events() if "traceback" in event]
    server.stop()
