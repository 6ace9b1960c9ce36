"""Prepare ``var/demo`` and become the demonstration server (`make run`).

The folder is made once: a self-signed certificate and the users alice and bob with one random password. A child
process waits for the server and puts a welcome message into their INBOXes the first time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import smtplib
import subprocess
import sys
import time
from email.utils import formatdate, make_msgid
from pathlib import Path

from mailsrv.address import parse_mailbox
from mailsrv.app.settings import Service
from mailsrv.config.load import load
from mailsrv.config.schema import Settings
from mailsrv.directory.passwd_edit import EditError, PasswdEditor
from mailsrv.directory.passwords.hashing import make_hash
from mailsrv.tls.self_signed import write_self_signed

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "etc" / "demo.toml"
USERS = ("alice@example.test", "bob@example.test")
START_SECONDS = 60

WELCOME = """\
From: mailsrv <postmaster@example.test>
To: <{user}>
Subject: Welcome to mailsrv
Date: {date}
Message-ID: {message_id}

This mailbox is on your own machine, below {mail}.

Your address is {user}. Point a mail client at this server, or use curl as `make run` shows it.
Mail to alice@example.test and bob@example.test stays here. Mail for bob@elsewhere.test waits in the queue, for a host
that is down: see it with `.venv/bin/mailsrvctl --config etc/demo.toml queue list`. Mail for all other domains is
refused, so that nothing leaves this machine.
"""

TELL = """
mailsrv runs on this machine only, with two users:

    alice@example.test
    bob@example.test
    password: {password}

    SMTP            127.0.0.1:2525   (from other servers)
    submission      127.0.0.1:2587   STARTTLS        127.0.0.1:2465   TLS
    IMAP            127.0.0.1:2143   STARTTLS        127.0.0.1:2993   TLS
    POP3            127.0.0.1:2110   STARTTLS        127.0.0.1:2995   TLS
    LMTP            {lmtp}
    local programs  .venv/bin/mailsrv-sendmail -C etc/demo.toml

The certificate is self-signed ({certificate}). Send a message, and read it back:

    printf 'From: alice@example.test\\nTo: bob@example.test\\nSubject: Hello\\n\\nHello, Bob!\\n' | \\
        curl -sSk --crlf --ssl-reqd smtp://127.0.0.1:2587 -u alice@example.test:{password} \\
        --mail-from alice@example.test --mail-rcpt bob@example.test -T -
    curl -sSk 'imaps://127.0.0.1:2993/INBOX;MAILINDEX=*' -u bob@example.test:{password}

Nothing leaves this machine: mail for other domains is refused. Mail for bob@elsewhere.test goes to a host that is down,
and waits; look at it with

    .venv/bin/mailsrvctl --config etc/demo.toml queue list

Ctrl-C stops the server. Everything it keeps is below var/demo; remove that folder to begin anew.
"""


def password_of(settings: Settings) -> str:
    """The demonstration's password: chosen once, kept for the next run."""
    path = Path(settings.state_dir) / "password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"{secrets.token_hex(4)}\n")
    return path.read_text().strip()


def prepare(settings: Settings, password: str) -> None:
    """Certificate and users, unless they are there."""
    if not Path(settings.tls.certificate).exists():
        write_self_signed(settings.hostname, settings.tls.certificate, settings.tls.key)
    editor = PasswdEditor(settings.directory[0].path, default_domain=settings.auth.default_domain)
    for user in USERS:
        # There already from an earlier run: then it keeps its password.
        with contextlib.suppress(EditError):
            editor.add(parse_mailbox(user), make_hash(password, settings.passwords))


def lmtp_path(settings: Settings) -> str:
    listen = next(listen for listen in settings.listen if listen.service is Service.LMTP)
    return listen.endpoint.split(":")[1]


def welcome(settings: Settings) -> None:
    """Once per user, as soon as the server takes mail."""
    done = Path(settings.state_dir) / "welcomed"
    deadline = time.monotonic() + START_SECONDS
    while not done.exists() and time.monotonic() < deadline:
        try:
            with smtplib.LMTP(lmtp_path(settings), local_hostname="localhost") as client:
                for user in USERS:
                    text = WELCOME.format(
                        user=user,
                        mail=Path(settings.store.path.partition("{")[0]),
                        date=formatdate(),
                        message_id=make_msgid(domain=settings.hostname),
                    )
                    client.sendmail("postmaster@example.test", [user], text.replace("\n", "\r\n").encode())
            done.touch()
        except (ConnectionError, FileNotFoundError, smtplib.SMTPServerDisconnected):
            time.sleep(0.2)  # not yet


def main(arguments: list[str]) -> None:
    settings = load(str(CONFIG))
    if arguments[0] == "--begin-welcome":
        # Its own session: Ctrl-C is for the server.
        subprocess.Popen([sys.executable, "-P", __file__, "--welcome"], start_new_session=True)
        return
    if arguments[0] == "--welcome":
        welcome(settings)
        return
    Path(settings.state_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    password = password_of(settings)
    prepare(settings, password)
    print(
        TELL.format(
            password=password,
            lmtp=os.path.relpath(lmtp_path(settings)),
            certificate=os.path.relpath(settings.tls.certificate),
        ),
        flush=True,
    )
    # By way of a process that ends at once: the server gets no child it does not know.
    subprocess.run([sys.executable, "-P", __file__, "--begin-welcome"], check=True)
    twistd = str(Path(arguments[0]) / "twistd")
    os.execv(twistd, [twistd, "--nodaemon", "--pidfile=", "mailsrv", "--config", "etc/demo.toml"])


if __name__ == "__main__":
    main(sys.argv[1:])
