"""Programs people read mail with: curl, mbsync, fetchmail, mutt, imaplib, imapclient, poplib."""

from __future__ import annotations

import imaplib
import poplib
import ssl
from pathlib import Path

import pytest
from imapclient import IMAPClient

from tests.interop.running import ALICE, BOB, MailServer, run


def letter(subject: str, body: str = "Hello\r\n") -> bytes:
    return f"From: <{ALICE}>\r\nTo: <{BOB}>\r\nSubject: {subject}\r\n\r\n{body}".encode()


def test_curl_reads_by_imap_and_pop3(mail_server: MailServer) -> None:
    user = ("--user", f"{BOB}:{mail_server.password}", "--insecure", "-sS")
    mail_server.deliver(BOB, letter("for curl"))
    imaps = f"imaps://127.0.0.1:{mail_server.ports['imaps']}"
    assert "INBOX" in run("curl", *user, imaps)
    found = run("curl", *user, f"{imaps}/INBOX?SUBJECT%20%22for%20curl%22")
    number = found.split()[-1]
    assert "Subject: for curl" in run("curl", *user, f"{imaps}/INBOX;MAILINDEX={number}")
    starttls = f"imap://127.0.0.1:{mail_server.ports['imap']}"
    assert "Subject: for curl" in run("curl", *user, "--ssl-reqd", f"{starttls}/INBOX;MAILINDEX={number}")
    listing = run("curl", *user, f"pop3s://127.0.0.1:{mail_server.ports['pop3s']}/")
    last = listing.strip().splitlines()[-1].split()[0]
    pop3 = f"pop3://127.0.0.1:{mail_server.ports['pop3']}/{last}"
    assert "Subject: for curl" in run("curl", *user, "--ssl-reqd", pop3)


def test_curl_appends_by_imap(mail_server: MailServer, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(letter("uploaded"))
    run(
        *("curl", "-sS", "--insecure", "--user", f"{BOB}:{mail_server.password}", "-T", upload),
        f"imaps://127.0.0.1:{mail_server.ports['imaps']}/Drafts",
    )
    with mail_server.imap(BOB) as client:
        client.select("Drafts")
        assert client.search(None, "SUBJECT", "uploaded")[1][0]


def mbsync_settings(mail_server: MailServer, folder: Path) -> Path:
    settings = folder / "mbsyncrc"
    settings.write_text(
        f"""IMAPAccount there
Host localhost
Port {mail_server.ports["imaps"]}
User {BOB}
Pass "{mail_server.password}"
SSLType IMAPS
CertificateFile {mail_server.certificate}

IMAPStore remote
Account there

MaildirStore local
Path {folder}/mail/
Inbox {folder}/mail/INBOX
SubFolders Verbatim

Channel all
Far :remote:
Near :local:
Patterns *
Create Both
Expunge Both
SyncState *
"""
    )
    (folder / "mail").mkdir()
    return settings


def test_mbsync_synchronises_both_ways(mail_server: MailServer, tmp_path: Path) -> None:
    for number in range(20):
        mail_server.deliver(BOB, letter(f"sync {number}", "x" * number * 500 + "\r\n"))
    settings = mbsync_settings(mail_server, tmp_path)

    def synchronise() -> None:
        run("mbsync", "-c", settings, "all", home=tmp_path)

    synchronise()
    inbox = tmp_path / "mail" / "INBOX"
    files = [path for part in ("new", "cur") for path in (inbox / part).iterdir()]
    synced = [path for path in files if b"Subject: sync " in path.read_bytes()]
    assert len(synced) == 20
    # Here: one is read, one is deleted, one is new; there: one more is flagged and one more is expunged.
    by_subject = {path.read_bytes().split(b"Subject: ")[1].split(b"\n")[0].strip(): path for path in synced}
    read = by_subject[b"sync 3"]
    base = read.name.split(":2,")[0]
    read.rename(inbox / "cur" / f"{base}:2,S")
    deleted = by_subject[b"sync 4"]
    deleted.rename(inbox / "cur" / (deleted.name.split(":2,")[0] + ":2,T"))
    (inbox / "new" / "1.written.here").write_bytes(letter("written here").replace(b"\r\n", b"\n"))
    with mail_server.imap(BOB) as client:
        client.select("INBOX")
        number = client.search(None, "SUBJECT", '"sync 7"')[1][0].split()[0]
        client.store(number, "+FLAGS", "\\Flagged")
        number = client.search(None, "SUBJECT", '"sync 8"')[1][0].split()[0]
        client.store(number, "+FLAGS", "\\Deleted")
        client.expunge()
    synchronise()
    with mail_server.imap(BOB) as client:
        client.select("INBOX")
        assert client.search(None, "SEEN", "SUBJECT", '"sync 3"')[1][0]
        assert not client.search(None, "SUBJECT", '"sync 4"')[1][0]
        assert client.search(None, "SUBJECT", '"written here"')[1][0]
    names = [path.name for part in ("new", "cur") for path in (inbox / part).iterdir()]
    texts = {
        name: (inbox / ("cur" if (inbox / "cur" / name).exists() else "new") / name).read_bytes() for name in names
    }
    assert not any(b"Subject: sync 8\n" in text.replace(b"\r", b"") for text in texts.values())
    flagged = next(name for name, text in texts.items() if b"Subject: sync 7\n" in text.replace(b"\r", b""))
    assert "F" in flagged.split(":2,")[1]
    before = sorted(names)
    synchronise()
    assert sorted(path.name for part in ("new", "cur") for path in (inbox / part).iterdir()) == before


@pytest.mark.parametrize("protocol", ["IMAP", "POP3"])
def test_fetchmail_empties_an_inbox(mail_server: MailServer, tmp_path: Path, protocol: str) -> None:
    user = mail_server.address(f"fetch-{protocol.lower()}")
    for number in range(5):
        mail_server.deliver(user, letter(f"fetched {number}"))
    settings = tmp_path / "fetchmailrc"
    port = mail_server.ports["imaps" if protocol == "IMAP" else "pop3s"]
    out = tmp_path / "out"
    settings.write_text(
        f'poll localhost protocol {protocol} service {port}\n  user "{user}" password "{mail_server.password}"\n'
        f'  ssl sslcertck sslcertfile "{mail_server.certificate}"\n'
        f'  fetchall no keep\n  mda "/bin/cat >> {out}"\n'
    )
    settings.chmod(0o600)
    run("fetchmail", "--fetchmailrc", settings, "--pidfile", tmp_path / "pid", "--nosyslog", home=tmp_path)
    assert out.read_bytes().count(b"Subject: fetched") == 5
    with mail_server.imap(user) as client:
        assert client.select("INBOX")[1] == [b"0"]


def test_mutt_saves_and_deletes_in_batch(mail_server: MailServer, tmp_path: Path) -> None:
    user = mail_server.address("mutt")
    for number in range(3):
        mail_server.deliver(user, letter(f"for mutt {number}"))
    settings = tmp_path / "muttrc"
    settings.write_text(
        f'set imap_user="{user}"\nset imap_pass="{mail_server.password}"\nset ssl_verify_host=no\n'
        f'set certificate_file="{mail_server.certificate}"\nset mbox_type=mbox\nset folder="{tmp_path}"\n'
        "set confirmcreate=no\nset quit=yes\nset delete=yes\nset wait_key=no\nset header_cache=\n"
        f'push "<tag-pattern>~s mutt<enter><tag-prefix><copy-message>{tmp_path}/saved<enter><delete-message><quit>"\n'
    )
    run(
        *("mutt", "-n", "-F", settings, "-f", f"imaps://localhost:{mail_server.ports['imaps']}/INBOX"),
        home=tmp_path,
        terminal=True,
    )
    assert (tmp_path / "saved").read_bytes().count(b"Subject: for mutt") == 3
    assert len(mail_server.messages(user)) == 2


def test_imaplib_walks_through_its_commands(mail_server: MailServer) -> None:
    user = mail_server.address("imaplib")
    for number in range(3):
        mail_server.deliver(user, letter(f"number {number}"))
    context = ssl.create_default_context(cafile=mail_server.certificate)
    with imaplib.IMAP4("localhost", mail_server.ports["imap"]) as client:
        assert "LOGINDISABLED" in client.capabilities or mail_server.trusts_loopback
        client.starttls(context)
        client.authenticate("PLAIN", lambda _: f"\0{user}\0{mail_server.password}".encode())
        assert client.select()[1] == [b"3"]
        assert client.create("Work/2026")[0] == "OK"
        assert client.copy("1:2", "Work/2026")[0] == "OK"
        assert client.uid("MOVE", "3", "Work/2026")[0] == "OK"
        assert client.store("1", "+FLAGS", "(\\Deleted $Label1)")[0] == "OK"
        assert client.expunge()[0] == "OK"
        assert client.fetch("1", "(FLAGS ENVELOPE BODYSTRUCTURE BODY[HEADER.FIELDS (SUBJECT)])")[0] == "OK"
        assert client.status("Work/2026", "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN)")[1][0].count(b"MESSAGES 3") == 1
        assert client.rename("Work", "Play")[0] == "OK"
        assert client.select("Play/2026", readonly=True)[1] == [b"3"]
        assert client.append("Play/2026", "(\\Seen)", None, letter("appended"))[0] == "OK"
        assert client.delete("Play/2026")[0] == "OK"


def test_imaplib_speaks_utf8(mail_server: MailServer) -> None:
    """It knows only the capabilities from before the log-in."""
    user = mail_server.address("imaplib")
    with imaplib.IMAP4("localhost", mail_server.ports["imap"]) as client:
        client.starttls(ssl.create_default_context(cafile=mail_server.certificate))
        client.authenticate("PLAIN", lambda _: f"\0{user}\0{mail_server.password}".encode())
        assert client.enable("UTF8=ACCEPT")[0] == "OK"
        assert client.create('"Übung"')[0] == "OK"
        assert client.select('"Übung"')[0] == "OK"


def test_imapclient_uses_the_extensions(mail_server: MailServer) -> None:
    user = mail_server.address("imapclient")
    context = ssl.create_default_context(cafile=mail_server.certificate)
    with IMAPClient("localhost", mail_server.ports["imaps"], ssl_context=context) as client:
        client.login(user, mail_server.password)
        capabilities = client.capabilities()
        for name in (b"IDLE", b"MOVE", b"UIDPLUS", b"CONDSTORE", b"SPECIAL-USE", b"QUOTA", b"NAMESPACE", b"ENABLE"):
            assert name in capabilities, name
        assert client.find_special_folder(b"\\Sent") == "Sent"
        client.create_folder("Entwürfe/Ähm & Öhm")
        assert "Entwürfe/Ähm & Öhm" in [name for _, _, name in client.list_folders()]
        client.select_folder("INBOX")
        client.idle()
        mail_server.deliver(user, letter("while idle"))
        pushed: list[tuple[object, ...]] = []
        while not any(line[1:] == (b"EXISTS",) for line in pushed if len(line) == 2):
            pushed += client.idle_check(timeout=10)
            assert pushed
        client.idle_done()
        uids = client.search(["SUBJECT", "while idle"])
        answer = client.fetch(uids, ["ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "MODSEQ", "BODY.PEEK[]"])
        message = answer[uids[0]]
        assert message[b"RFC822.SIZE"] == len(message[b"BODY[]"])
        client.move(uids, "Entwürfe/Ähm & Öhm")
        client.select_folder("Entwürfe/Ähm & Öhm")
        assert len(client.search()) == 1
        assert client.get_quota_root("INBOX")


def test_poplib_reads_and_deletes(mail_server: MailServer) -> None:
    user = mail_server.address("poplib")
    for number in range(3):
        mail_server.deliver(user, letter(f"pop {number}", ".dotted\r\n"))
    context = ssl.create_default_context(cafile=mail_server.certificate)
    client = poplib.POP3("localhost", mail_server.ports["pop3"])
    client.stls(context)
    client.user(user)
    client.pass_(mail_server.password)
    assert client.stat()[0] == 3
    unique = {line.split()[1] for line in client.uidl()[1]}
    assert len(unique) == 3
    assert b".dotted" in client.retr(1)[1]
    assert b"Subject: pop 1" in client.top(2, 0)[1]
    second = poplib.POP3_SSL("localhost", mail_server.ports["pop3s"], context=context)
    second.user(user)
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        second.pass_(mail_server.password)
    second.close()
    client.dele(1)
    client.quit()
    again = poplib.POP3_SSL("localhost", mail_server.ports["pop3s"], context=context)
    again.user(user)
    again.pass_(mail_server.password)
    assert again.stat()[0] == 2
    assert {line.split()[1] for line in again.uidl()[1]} < unique
    again.quit()
