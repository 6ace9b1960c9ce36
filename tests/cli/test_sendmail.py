"""``mailsrv-sendmail``: what programs may write, what becomes of the message, and what its exit status says."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.cli import sendmail
from mailsrv.cli.sendmail_message import cut_at_dot, prepare
from mailsrv.cli.sendmail_options import UsageError, parse_options
from mailsrv.delivery.drop_folder import look, make_drop_folder
from mailsrv.interfaces.envelope import BodyType, Notify, ReturnContent

USER = pwd.getpwuid(os.getuid()).pw_name.lower()
ALICE = Address("alice", "example.test")
PLAIN = b"From: alice@example.test\nTo: bob\nSubject: x\n\nHello\n"


class Server(threading.Thread):
    """Answers at a Unix socket: by verb, or by a whole line, else 250."""

    def __init__(self, path, replies):
        super().__init__(daemon=True)
        self.replies = replies
        self.lines: list[str] = []
        self.content = b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.start()

    def run(self):
        # The command does not wait for the reply to QUIT.
        with contextlib.suppress(OSError):
            self.talk()

    def talk(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rwb") as file:
            self.say(file, self.replies.get("greeting", "220 mail.example.test"))
            while line := file.readline().decode("utf-8").rstrip("\r\n"):
                self.lines.append(line)
                verb = line.split(" ")[0].lower()
                default = {"data": "354 go", "ehlo": "250-x\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN"}
                reply = self.replies.get(line, self.replies.get(verb, default.get(verb, "250 2.0.0 Ok")))
                self.say(file, reply)
                if verb == "data" and reply.startswith("354"):
                    content = b""
                    while not content.endswith(b"\r\n.\r\n"):
                        piece = file.readline()
                        if not piece:
                            return
                        content += piece
                    self.content = content
                    if self.replies.get("dot") == "close":
                        return
                    self.say(file, self.replies.get("dot", "250 2.6.0 Ok"))
                if verb == "quit":
                    return

    @staticmethod
    def say(file, reply):
        file.write(reply.encode() + b"\r\n")
        file.flush()


class House:
    def __init__(self, folder):
        self.folder = folder
        self.socket_path = folder / "submit"
        self.spool = folder / "spool"
        make_drop_folder(str(self.spool))
        self.config = folder / "mailsrv.toml"
        self.config.write_text(
            'hostname = "mail.example.test"\nstate_dir = "state"\n[auth]\ndefault_domain = "example.test"\n'
            '[[listen]]\nservice = "submission"\nendpoint = "tcp:587"\n'
            '[[listen]]\nservice = "submission"\nendpoint = "unix:submit"\n'
            '[sendmail]\nspool_dir = "spool"\n[nonsense]\nx = 1\n'
        )

    def serve(self, **replies):
        return Server(self.socket_path, replies)

    def send(self, *arguments, message=PLAIN):
        return sendmail.run(["-C", str(self.config), *arguments], io.BytesIO(message))

    def dropped(self):
        found = look(str(self.spool), without=(), most=10, octets=1 << 20, message_octets=1 << 20, now=time.time())
        return [file.message for file in found.files]


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


# The command line


def test_options_as_programs_write_them():
    options = parse_options(
        ["-oi", "-oem", "-fbob@example.test", "-F", "Bob B", "-t", "-N", "success,delay", "a", "b,c"]
    )
    assert options.recipients == ("a", "b,c")
    assert not options.ends_at_dot
    assert options.takes_recipients_from_header
    assert (options.sender, options.full_name) == ("bob@example.test", "Bob B")
    assert options.notify == Notify.SUCCESS | Notify.DELAY
    options = parse_options(["-ti", "-r", "<>", "-Rhdrs", "-Vid-1", "-B8BITMIME", "-bm", "--", "-a@x"])
    assert options.sender == "<>"
    assert options.return_content is ReturnContent.HEADERS
    assert options.envelope_id == "id-1"
    assert options.recipients == ("-a@x",)
    assert parse_options(["-q30m", "x"]).flushes_queue
    assert parse_options(["-bp"]).shows_queue


@pytest.mark.parametrize(
    "arguments",
    [["-bs"], ["-bd"], ["-Z"], ["-f"], ["-N", "often"], ["-Nnever,delay"], ["-Rall"], ["-V", "a b"], ["-V", ""]],
)
def test_wrong_use(arguments, capsys):
    with pytest.raises(UsageError):
        parse_options(arguments)
    with pytest.raises(SystemExit) as ended:
        sendmail.main(arguments)
    assert ended.value.code == os.EX_USAGE
    assert capsys.readouterr().err.startswith("mailsrv-sendmail: ")


def test_nobody_to_send_to(house):
    with pytest.raises(UsageError):
        house.send()
    with pytest.raises(UsageError):
        house.send("-t", message=b"Subject: x\n\nx\n")


def test_the_queue_is_the_administrators(house):
    with pytest.raises(sendmail.Failure) as raised:
        house.send("-bp")
    assert raised.value.status == os.EX_UNAVAILABLE
    assert "mailsrvctl queue list" in str(raised.value)
    assert house.send("-bi") == os.EX_OK


# The message


def prepared(octets, **options):
    values = {
        "sender": ALICE,
        "full_name": "",
        "domain": "example.test",
        "hostname": "mail.example.test",
        "reads_recipients": False,
        "seconds": 1_000_000_000,
        "offset_minutes": 60,
    }
    return prepare(octets, **{**values, **options})


def test_what_is_missing_is_added():
    message = prepared(b"Subject: x\n\nHello", full_name="A. Lice")
    header, _, body = message.octets.partition(b"\r\n\r\n")
    lines = header.split(b"\r\n")
    assert lines[0] == b'From: "A. Lice" <alice@example.test>'
    assert lines[1] == b"Date: Sun, 09 Sep 2001 02:46:40 +0100"
    assert lines[2].startswith(b"Message-ID: <")
    assert lines[3:] == [b"Subject: x"]
    assert body == b"Hello\r\n"
    assert not message.is_8bit


def test_what_is_there_stays():
    octets = b"Date: x\r\nMessage-ID: <1@x>\r\nfrom: Alice\r\n <alice@example.test>\r\nTo: a@b.test\r\n\r\nbody\r\n"
    assert prepared(octets).octets == octets


def test_cron_writes_names_without_domains():
    message = prepared(b"From: root (Cron Daemon)\nTo: alice, Bob <bob@b.test>\nCc: undisclosed:;\nDate: x\n\nx\n")
    assert b"\r\nFrom: Cron Daemon <root@example.test>\r\n" in b"\r\n" + message.octets
    assert b"\r\nTo: alice@example.test, Bob <bob@b.test>\r\n" in message.octets
    assert b"\r\nCc: undisclosed:;\r\n" in message.octets


def test_recipients_from_the_header_and_no_trace_of_bcc():
    message = prepared(
        b'To: alice,\n "B, ob" <bob@b.test>\nCc: team: c@x.test, d;\nBCC: secret@x.test\nSubject: x\n\nBcc: body\n',
        reads_recipients=True,
    )
    assert message.header_recipients == (
        "alice@example.test",
        "bob@b.test",
        "c@x.test",
        "d@example.test",
        "secret@x.test",
    )
    assert b"secret" not in message.octets
    assert message.octets.endswith(b"\r\n\r\nBcc: body\r\n")
    resent = prepared(b"To: a@x.test\nResent-To: b@x.test\nResent-Bcc: c@x.test\n\nx\n", reads_recipients=True)
    assert resent.header_recipients == ("b@x.test", "c@x.test")
    assert b"c@x.test" not in resent.octets


def test_line_ends_are_mended_and_lost_empty_lines_put_in():
    message = prepared(b"From x Sun\nSubject: x\rDate: x\r\n\nb\rc\nd")
    assert message.octets.endswith(b"\r\n\r\nb\r\nc\r\nd\r\n")
    assert b"From x Sun" not in message.octets
    message = prepared(b"no header here\nat all\n")
    assert message.octets.endswith(b"\r\n\r\nno header here\r\nat all\r\n")
    assert prepared("Subject: ü\n\nx".encode()).needs_smtputf8
    assert not prepared("Subject: x\n\nü".encode()).needs_smtputf8


def test_a_dot_ends_it():
    assert cut_at_dot(b"a\n..\n.\nb\n") == b"a\n..\n"
    assert cut_at_dot(b".\nb\n") == b""
    assert cut_at_dot(b"a\r\n.\r\n") == b"a\r\n"
    assert cut_at_dot(b"a\n.") == b"a\n"
    assert cut_at_dot(b"a\n.b\n") == b"a\n.b\n"


@given(st.binary(max_size=300), st.booleans())
def test_any_octets_become_a_message(octets, reads):
    message = prepared(octets, reads_recipients=reads).octets
    assert message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n")
    header, empty, _ = message.partition(b"\r\n\r\n")
    assert empty
    names = [line.partition(b":")[0].lower() for line in header.split(b"\r\n")]
    assert {b"from", b"date", b"message-id"} <= set(names)


# Handing it over


def test_the_server_has_it(house, capsys):
    server = house.serve()
    given = ["-f", "bob", "-N", "never", "-R", "full", "-V", "a+b", "carol@example.org, dave", "eve@example.org"]
    assert house.send(*given, message=PLAIN + b"..\n.x\n") == os.EX_OK
    server.join(10)
    size = len(server.content) - len(b"..") - len(b".\r\n")
    assert server.lines[1:6] == [
        f"MAIL FROM:<bob@example.test> size={size} ret=FULL envid=a+2Bb",
        "RCPT TO:<carol@example.org> NOTIFY=NEVER",
        "RCPT TO:<dave@example.test> NOTIFY=NEVER",
        "RCPT TO:<eve@example.org> NOTIFY=NEVER",
        "data",
    ]
    assert b"\r\n...\r\n..x\r\n.\r\n" in server.content
    assert house.dropped() == []
    assert capsys.readouterr().err == ""


def test_the_sender_is_who_asks_or_nobody(house):
    server = house.serve()
    assert house.send("bob") == os.EX_OK
    server.join(10)
    assert server.lines[1].startswith(f"MAIL FROM:<{USER}@example.test>")
    os.unlink(house.socket_path)
    server = house.serve()
    assert house.send("-f", "<>", "bob") == os.EX_OK
    server.join(10)
    assert server.lines[1].startswith("MAIL FROM:<> ")


def test_what_is_not_ascii(house):
    server = house.serve()
    assert house.send("jörg@example.org", message="Subject: x\n\nGrüße\n".encode()) == os.EX_OK
    server.join(10)
    assert server.lines[1].endswith(" body=8bitmime smtputf8")
    assert server.lines[2] == "RCPT TO:<jörg@example.org>"


@pytest.mark.parametrize(
    ("replies", "status", "said"),
    [
        ({"rcpt": "550 5.1.1 No such user here"}, os.EX_NOUSER, "No such user here"),
        ({"rcpt": "550 5.1.2 This domain gets no mail"}, os.EX_NOHOST, "gets no mail"),
        ({"rcpt": "550 5.7.1 No"}, os.EX_NOPERM, "550 5.7.1 No"),
        ({"RCPT TO:<bob@example.test>": "552 5.2.2 Full"}, os.EX_UNAVAILABLE, "552 5.2.2 Full"),
    ],
)
def test_refused_recipients(house, capsys, replies, status, said):
    house.serve(**replies)
    assert house.send("bob") == status
    error = capsys.readouterr().err
    assert error.startswith("mailsrv-sendmail: bob@example.test: 55")
    assert said in error
    assert house.dropped() == []


def test_some_are_refused_and_the_others_get_it(house, capsys):
    server = house.serve(**{"RCPT TO:<bob@example.test>": "550 5.1.1 No such user here"})
    assert house.send("bob", "alice") == os.EX_NOUSER
    server.join(10)
    assert server.content
    assert "bob@example.test: 550 5.1.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "replies",
    [
        {"greeting": "421 4.3.2 Shutting down"},
        {"ehlo": "421 4.3.2 Shutting down"},
        {"mail": "451 4.3.0 Later"},
        {"rcpt": "450 4.7.1 Later"},
        {"data": "452 4.3.1 Full"},
        {"dot": "451 4.3.0 Later"},
        {"dot": "close"},
    ],
)
def test_what_the_server_cannot_take_now_is_left_for_it(house, replies):
    house.serve(**replies)
    assert house.send("bob", "alice") == os.EX_OK
    (message,) = house.dropped()
    assert [str(address) for address, _ in message.recipients] == ["bob@example.test", "alice@example.test"]


def test_a_server_that_is_down(house):
    given = ["-f", "alice", "-N", "success", "-R", "hdrs", "-V", "id"]
    assert house.send(*given, "bob@example.org", message="Subject: x\n\nü\n".encode()) == os.EX_OK
    (message,) = house.dropped()
    assert message.sender == ALICE
    assert [(str(address), given.notify) for address, given in message.recipients] == [
        ("bob@example.org", Notify.SUCCESS)
    ]
    assert (message.body, message.is_smtputf8) == (BodyType.EIGHT_BIT, False)
    assert (message.return_content, message.envelope_id) == (ReturnContent.HEADERS, "id")
    assert b"\r\nSubject: x\r\n\r\n\xc3\xbc\r\n" in message.content


def test_neither_server_nor_folder(house):
    os.rmdir(house.spool / "corrupt")
    os.rmdir(house.spool)
    with pytest.raises(sendmail.Failure) as raised:
        house.send("bob")
    assert raised.value.status == os.EX_TEMPFAIL


@pytest.mark.parametrize(
    ("replies", "status"),
    [
        ({"mail": "550 5.7.1 The sender address is not yours"}, os.EX_NOPERM),
        ({"dot": "550 5.7.1 No"}, os.EX_UNAVAILABLE),
    ],
)
def test_refused_whole(house, replies, status):
    house.serve(**replies)
    with pytest.raises(sendmail.Failure) as raised:
        house.send("bob")
    assert raised.value.status == status
    assert house.dropped() == []


def test_bad_addresses_and_too_much(house):
    for arguments in (["a b@"], ["-f", "a b", "bob"], ["@example.org"]):
        with pytest.raises(sendmail.Failure) as raised:
            house.send(*arguments)
        assert raised.value.status == os.EX_DATAERR
    text = house.config.read_text().replace('spool_dir = "spool"', 'spool_dir = "spool"\nmessage_octets = 1024')
    house.config.write_text(text)
    with pytest.raises(sendmail.Failure) as raised:
        house.send("bob", message=b"x" * 1025)
    assert raised.value.status == os.EX_DATAERR


def test_the_configuration(house, tmp_path, monkeypatch):
    monkeypatch.setenv("MAILSRV_CONFIG", str(tmp_path / "none"))
    for path in ([], ["-C", str(house.folder)]):
        with pytest.raises(sendmail.Failure) as raised:
            sendmail.run([*path, "bob"], io.BytesIO(b""))
        assert raised.value.status == os.EX_CONFIG
    house.config.write_text("not toml")
    with pytest.raises(sendmail.Failure):
        house.send("bob")
    house.config.write_text('state_dir = "/s"\n[[domain]]\nname = "b.test"\n')
    places = sendmail.read_places(str(house.config))
    assert (places.domain, places.socket_path, places.spool_dir) == ("b.test", "", "/s/sendmail-spool")


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:/run/s", "/run/s"),
        ("unix:run/s:mode=666:backlog=5", "run/s"),
        ("unix:mode=660:address=/run/s", "/run/s"),
        (r"unix:/run/a\:b\=c:mode=660", "/run/a:b=c"),
        ("tcp:587", ""),
        ("", ""),
        ("unix:", ""),
    ],
)
def test_the_socket_in_an_endpoint(endpoint, path):
    assert sendmail._unix_path(endpoint) == path
