"""The whole server from outside: mail goes in by one door and comes out by the others; it starts, reloads, stops."""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from mailsrv.tls.self_signed import write_self_signed
from tests.scenarios.server import ALICE, BOB, ROOT, WholeServer

pytestmark = pytest.mark.slow


def letter(subject: str) -> bytes:
    return f"From: <{ALICE}>\r\nTo: <{BOB}>\r\nSubject: {subject}\r\n\r\nHello\r\n".encode()


def test_mail_goes_in_by_every_door_and_comes_out_by_every_other(server: WholeServer) -> None:
    with smtplib.SMTP("localhost", server.ports["mx"], timeout=30) as client:
        client.sendmail("someone@example.org", BOB, letter("by mx"))
    server.deliver(BOB, letter("by lmtp"))
    server.submit(ALICE, BOB, letter("by submission"))
    with smtplib.SMTP_SSL(
        "localhost", server.ports["submissions"], context=server.client_context(), timeout=30
    ) as client:
        client.login(ALICE, server.password)
        client.sendmail(ALICE, BOB, letter("by submission over tls"))
    expected = {b"by mx", b"by lmtp", b"by submission", b"by submission over tls"}
    assert subjects(server.messages(BOB)) == expected
    with server.pop3(BOB) as client:
        count, _ = client.stat()
        assert subjects([b"\r\n".join(client.retr(number + 1)[1]) for number in range(count)]) == expected


def subjects(messages: list[bytes]) -> set[bytes]:
    return {line[9:] for message in messages for line in message.splitlines() if line.startswith(b"Subject: ")}


def test_what_was_accepted_is_there_after_a_restart_and_after_a_kill(server: WholeServer) -> None:
    for number in range(20):
        server.deliver(BOB, letter(f"before {number}"))
    server.restart()
    assert len(server.messages(BOB)) == 20
    for number in range(20):
        server.deliver(BOB, letter(f"after {number}"))
    server.kill()
    server.start()
    assert len(server.messages(BOB)) == 40


def test_a_client_that_idles_is_told_of_mail_that_came_by_any_worker(server: WholeServer) -> None:
    with server.imap(BOB) as client:
        client.select()
        client.send(b"a IDLE\r\n")
        assert client.readline().startswith(b"+")
        for number in range(6):
            server.deliver(BOB, letter(f"push {number}"))
        seen = b""
        while b"* 6 EXISTS" not in seen:
            seen = client.readline()
            assert seen
        client.send(b"DONE\r\n")
        while not client.readline().startswith(b"a OK"):
            pass


def test_every_session_is_told_of_the_stop_r_stop_1(server: WholeServer) -> None:
    idle = imaplib.IMAP4("localhost", server.ports["imap"], timeout=30)
    waiting = socket.create_connection(("localhost", server.ports["mx"]), 30)
    waiting_lines = waiting.makefile("rb")
    assert waiting_lines.readline().startswith(b"220")
    pop3 = socket.create_connection(("localhost", server.ports["pop3"]), 30)
    pop3_lines = pop3.makefile("rb")
    assert pop3_lines.readline().startswith(b"+OK")
    server.stop()
    assert waiting_lines.readline().startswith(b"421")
    assert idle.readline().startswith(b"* BYE")
    assert pop3_lines.readline().startswith(b"-ERR")


def test_a_message_under_way_is_finished_before_the_stop(server: WholeServer) -> None:
    client = smtplib.SMTP("localhost", server.ports["mx"], timeout=30)
    client.ehlo()
    client.mail("someone@example.org")
    client.rcpt(BOB)
    client.putcmd("DATA")
    assert client.getreply()[0] == 354
    client.send(letter("under way"))
    process = server.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    server.wait_for_event("stopping")
    time.sleep(0.2)
    client.send(b"\r\n.\r\n")
    assert client.getreply()[0] == 250
    assert process.wait(30) == 0
    server.start()
    assert subjects(server.messages(BOB)) == {b"under way"}


def test_sighup_brings_a_new_certificate_and_open_connections_stay(server: WholeServer) -> None:
    with server.imap(BOB) as before:
        write_self_signed("renewed.example.test", str(server.certificate), str(server.key))
        server.reload()
        for _ in range(4):
            certificate = ssl.get_server_certificate(("localhost", server.ports["imaps"]))
            assert certificate == server.certificate.read_text()
        assert before.noop()[0] == "OK"
    good = server.key.read_bytes()
    server.key.write_text("no key")
    server.reload()
    assert server.events_with("reload refused")
    assert server.messages(BOB) == []
    server.key.write_bytes(good)


def test_a_new_user_and_a_new_domain_need_no_restart(server: WholeServer) -> None:
    carol = server.new_user("carol")
    server.write_config(extra='[[domain]]\nname = "other.test"\n')
    with server.passwd_path.open("a") as file:
        file.write(f"dave@other.test:{{PLAIN}}{server.password}::::::\n")
    server.reload()
    time.sleep(1.1)
    server.deliver([carol, "dave@other.test"], letter("welcome"))
    assert len(server.messages(carol)) == 1
    assert len(server.messages("dave@other.test")) == 1


def test_workers_are_replaced_one_by_one_while_mail_flows(make_server) -> None:
    server = make_server(workers=2)
    with server:
        process = server.process
        assert process is not None
        before = set(server.worker_processes())
        process.send_signal(signal.SIGUSR2)
        accepted: set[bytes] = set()
        attempts = 0
        while not server.events_with("all workers were replaced"):
            subject = f"number {attempts}"
            attempts += 1
            # Whoever meets a worker that stops is told so (421), and the next attempt meets another.
            with contextlib.suppress(smtplib.SMTPException, ConnectionResetError, BrokenPipeError):
                server.deliver(BOB, letter(subject))
                accepted.add(subject.encode())
        assert len(accepted) > attempts / 2
        assert set(server.worker_processes()).isdisjoint(before)
        stored = server.messages(BOB)
        assert len(stored) == len(subjects(stored))
        assert accepted <= subjects(stored)
        server.check_log()


def test_a_killed_worker_costs_no_mail(make_server) -> None:
    server = make_server(workers=2)
    with server:
        for number in range(30):
            server.deliver(BOB, letter(f"number {number}"))
            if number == 15:
                os.kill(server.worker_processes()[0], signal.SIGKILL)
                server.wait_for_event("died (signal 9)")
                server.wait_for_event("lmtp listens", count=3)
        assert len(server.messages(BOB)) == 30


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("hostname", "hostnam"), 'hostnam = "mail.example.test": unknown key; did you mean "hostname"?'),
        (("endpoint = ", "endpoint = 3 #"), "expected text in quotes"),
        (("key.pem", "nokey.pem"), "nokey.pem"),
    ],
)
def test_a_mistake_is_one_clean_line_and_status_1(make_server, change: tuple[str, str], says: str) -> None:
    server = make_server()
    server.config_path.write_text(server.config_path.read_text().replace(*change))
    result = run_twistd("--nodaemon", "--pidfile=", "mailsrv", "--config", str(server.config_path))
    assert result.returncode == 1
    assert says in result.stdout
    assert "Traceback" not in result.stdout


def test_a_port_that_is_taken_is_named(make_server) -> None:
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as other:
        server.ports["mx"] = other.getsockname()[1]
        server.write_config()
        result = run_twistd("--nodaemon", "--pidfile=", "mailsrv", "--config", str(server.config_path))
    assert result.returncode == 1
    assert "listen[0] cannot listen at tcp:" in result.stdout
    assert "in use" in result.stdout
    assert "Traceback" not in result.stdout


def test_a_state_folder_the_server_could_not_use_is_told_before_it_starts(make_server, tmp_path: Path) -> None:
    server = make_server()
    # Of root's when nobody is to use it, and closed to its owner where the tests do not run as root.
    server.state_dir.mkdir(mode=0o500)
    user = ["--uid", "65534", "--gid", "65534"] if os.geteuid() == 0 else []
    result = run_twistd(
        *user, f"--pidfile={tmp_path / 'pid'}", "--logfile=-", "mailsrv", "--config", str(server.config_path)
    )
    assert result.returncode == 1
    assert re.search(r"^mailsrv: state_dir /.* cannot be used: user \d+ may not write there", result.stdout)
    assert not (tmp_path / "pid").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_daemon_that_cannot_start_says_so_at_once_and_leaves_no_pid_file(make_server, tmp_path, workers) -> None:
    server = make_server(workers=workers)
    pid_file, log_file = tmp_path / "pid", tmp_path / "daemon.log"
    arguments = [f"--pidfile={pid_file}", f"--logfile={log_file}", "mailsrv", "--config", str(server.config_path)]
    with socket.create_server(("127.0.0.1", 0)) as other:
        server.ports["mx"] = other.getsockname()[1]
        server.write_config()
        result = run_twistd(*arguments)
    assert result.returncode == 1
    assert "listen[0] cannot listen at tcp:" in result.stdout
    assert "in use" in log_file.read_text()
    assert not pid_file.exists()


def run_twistd(*arguments: str) -> subprocess.CompletedProcess[str]:
    twistd = Path(sys.executable).with_name("twistd")
    return subprocess.run(
        [twistd, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_it_runs_as_a_daemon_with_a_pid_file(make_server, tmp_path: Path, workers: int) -> None:
    server = make_server(workers=workers)
    pid_file, log_file = tmp_path / "pid", tmp_path / "daemon.log"
    arguments = [f"--pidfile={pid_file}", f"--logfile={log_file}"]
    started = run_twistd(*arguments, "mailsrv", "--config", str(server.config_path))
    assert started.returncode == 0, started.stdout
    pid = int(pid_file.read_text())
    try:
        deadline = time.monotonic() + 30
        while "mailsrv is ready" not in log_file.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.deliver(BOB, letter("to a daemon"))
        assert log_file.stat().st_mode & 0o007 == 0
    finally:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while pid_file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert '"stopped"' in log_file.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_sockets_come_from_systemd_by_name(make_server, workers: int) -> None:
    server = make_server(workers=workers)
    with socket.create_server(("127.0.0.1", 0)) as mx, socket.create_server(("127.0.0.1", 0)) as other:
        text = server.config_path.read_text()
        text = text.replace(f"tcp:{server.ports['mx']}:interface=127.0.0.1", "systemd:domain=INET:name=mx", 1)
        server.config_path.write_text(text)
        twistd = Path(sys.executable).with_name("twistd")
        arguments = f"{twistd} --nodaemon --pidfile= mailsrv --config {server.config_path}"
        # What systemd does: sockets from descriptor 3 on, told apart by name, meant for this process only.
        script = (
            f"exec 3<&{other.fileno()} 4<&{mx.fileno()}; "
            f"LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=other:mx exec {arguments}"
        )
        with server.log_path.open("ab") as log:
            server.process = subprocess.Popen(
                ["/bin/bash", "-c", script], cwd=ROOT, pass_fds=(mx.fileno(), other.fileno()), stdout=log, stderr=log
            )
        server.wait_for_event("mailsrv is ready", 30)
        with smtplib.SMTP("127.0.0.1", mx.getsockname()[1], timeout=30) as client:
            client.sendmail("someone@example.org", BOB, letter("by systemd"))
        server.stop()


@pytest.mark.parametrize("uid", [65534, 54321], ids=["nobody", "without a passwd entry"])
def test_root_is_given_up_after_the_ports_are_bound(uid: int) -> None:
    """Only root can give root up: another user's run shows that nothing is left to give up."""
    uid = uid if os.geteuid() == 0 else os.geteuid()
    folder = Path(tempfile.mkdtemp(prefix="mailsrv-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        # One process: the interpreter may stand where only root can start it again.
        extra = '[[listen]]\nservice = "submission"\nendpoint = "unix:shared/submission.sock:mode=660"\n'
        server = WholeServer(folder / "server", extra=extra)
        for path in [server.folder, *server.folder.rglob("*")]:
            os.chown(path, uid, -1)
        # As /tmp: only its owner can remove a file there.
        shared = server.folder / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        with server.log_path.open("ab") as log:
            twistd = Path(sys.executable).with_name("twistd")
            options = ["--nodaemon", "--pidfile=", f"--logfile={server.log_path}"]
            if os.geteuid() == 0:
                options += [f"--uid={uid}", "--gid=65534"]
            command: list[str | Path] = [twistd, *options, "mailsrv", "--config", server.config_path]
            server.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        server.wait_for_event("mailsrv is ready", 30)
        for pid in server.processes():
            status = Path(f"/proc/{pid}/status").read_text()
            assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
            assert "CapEff:\t0000000000000000" in status
        for socket_file, mode in ((server.lmtp_path, 0o600), (shared / "submission.sock", 0o660)):
            found = socket_file.stat()
            assert found.st_uid == uid
            assert found.st_mode & 0o777 == mode
        server.reload()
        assert not server.events_with("reload refused")
        server.stop()
        assert not server.lmtp_path.exists()
        assert not list(shared.iterdir())
        assert (server.folder / "state").stat().st_mode & 0o777 == 0o700
    finally:
        server.kill()
        shutil.rmtree(folder)
