"""What a user who may send, and anybody on this machine, could try: other names in From, files in the drop folder."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import CliRunner
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.cli import tls_policy
from mailsrv.cli.output import printable, to_json
from mailsrv.cli.sendmail import read_places
from mailsrv.cli.sendmail_message import PreparedMessage, prepare
from mailsrv.coroutines import run_coroutine
from mailsrv.delivery import drop_folder
from mailsrv.delivery.drop_folder import CORRUPT, DroppedMessage, drop, look, make_drop_folder, put_aside
from mailsrv.delivery.local_submission import LocalAccount, LocalPeers
from mailsrv.delivery.pickup import Pickup
from mailsrv.delivery.settings import SendmailSettings
from mailsrv.delivery.submission import FROM_OCTETS, check_from_field
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.delivery import IMessageReceiver
from mailsrv.interfaces.envelope import BodyType, Notify, RecipientParameters
from mailsrv.routing.srs import SenderRewriting, SrsError

ALICE = Address("alice", "example.test")
CHIEF = Address("chief", "example.net")
CONTENT = b"From: alice@example.test\r\n\r\nHello\r\n"
NOBODY_ASKED = RecipientParameters()
MESSAGE = DroppedMessage(ALICE, ((ALICE, NOBODY_ASKED),), CONTENT)


# -- From


def _may_send(header: bytes) -> bool:
    def may_send_as(_: Address, address: Address) -> Deferred[bool]:
        user, _detail = address.split_subaddress()
        return succeed(user == ALICE)

    account = LocalAccount(ALICE, "", may_send_as, is_trusted=False)
    outcome: list[object] = []
    run_coroutine(check_from_field(account, header + b"\r\n", None)).addBoth(outcome.append)
    if outcome[0] is False:
        return True
    error = getattr(outcome[0], "value", None)
    assert isinstance(error, MailError)
    assert str(error.status) == "5.7.1"
    return False


@pytest.mark.parametrize(
    "header",
    [
        b"From: alice@example.test\r\n" + b"X-Filler: aaaa\r\n" * 1200 + b"From: chief@example.net\r\n",
        b"From: " + b"alice@example.test," * 2100 + b"chief@example.net\r\n",
        b"From: " + b"," * 4100 + b"alice@example.test,chief@example.net\r\n",
        b"From: alice@example.test" + b"," * FROM_OCTETS + b"\r\n",
        b"From: chief@example.net <alice@example.test>\r\n",
        b"From: chief@example.net alice@example.test\r\n",
        b"From: alice+chief@example.net alice@example.test\r\n",
        b"From: alice+chief@example.net@example.test\r\n",
        b"From: <chief@example.net> <alice@example.test>\r\n",
        b"From: <<chief@example.net>alice@example.test>\r\n",
        b"From: alice@example.test (, chief@example.net\r\n",
        b"From: chief@example.net; alice@example.test\r\n",
        b"From: chief@example.net\0 <alice@example.test>\r\n",
        b"From: alice@example.test\r\nFrom\0: chief@example.net\r\n",
        b"From: alice@example.test\r\nX: a\n\r\nFrom: chief@example.net\r\n",
        b"X: a\rFrom: chief@example.net\r\nFrom: alice@example.test\r\n",
        b"From: alice@example.test\r\nSubject: a\nFrom: chief@example.net\r\n",
    ],
)
def test_no_from_shows_another_name_to_some_readers(header: bytes) -> None:
    assert not _may_send(header)


@pytest.mark.parametrize(
    "header",
    [
        b"From: alice@example.test\r\n",
        b"From: alice@example.test <alice@example.test>\r\n",
        b"From: Alice @ Work <alice@example.test>\r\n",
        b"From: Alice@Work <alice@example.test>\r\n",
        b'From: "chief@example.net" <alice@example.test>\r\n',
        b"From: alice@example.test (on behalf of chief@example.net (really))\r\n",
        b"From: <@example.net:alice@example.test>\r\n",
        b"From: \xc3\x84lice <alice+list@example.test>\r\n",
        b"From: " + b"alice@example.test, " * 1000 + b"alice@example.test\r\n",
        b"From: alice@example.test\r\n" + b"X-Filler: aaaa\r\n" * 1200,
    ],
)
def test_what_people_write_is_let_through(header: bytes) -> None:
    assert _may_send(header)


# -- rewritten senders


@pytest.mark.parametrize(
    "name", ["srs0=\u017faaaaa=aa=b.test=x", "srs0=aaaa\u212aa=aa=b.test=x", "srs1=aaa\u017faa=b.test==x"]
)
def test_letters_that_only_look_like_ours_are_no_hash(name: str) -> None:
    with pytest.raises(SrsError):
        SenderRewriting((b"x" * 32,)).restore(Address(name, "example.test"), time.time())


# -- the drop folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "drop"
    make_drop_folder(str(path))
    return path


def _leave(folder: Path, **changes: object) -> str:
    """A whole file whose envelope says something else; written as anybody could write it."""
    table = {"sender": str(ALICE), "recipients": [[str(ALICE), 0, ""]], "body": "7BIT", "smtputf8": False}
    table |= {"return": None, "envelope_id": ""}
    content = changes.pop("content", CONTENT)
    assert isinstance(content, bytes)
    envelope = json.dumps(table | changes).encode("ascii")
    body = b"".join(
        (
            drop_folder._MAGIC,
            len(envelope).to_bytes(8, "big"),
            envelope,
            len(content).to_bytes(8, "big"),
            content,
        )
    )
    name = f"{len(os.listdir(folder)):016x}{drop_folder._SUFFIX}"
    (folder / name).write_bytes(body + hashlib.blake2b(body, digest_size=32).digest())
    return name


def _find(folder: Path, **options: object) -> drop_folder.Found:
    values = {"without": (), "most": 100, "octets": 1 << 20, "message_octets": 1 << 20, "now": time.time()}
    return look(str(folder), **{**values, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipients": [[str(ALICE), float("inf"), ""]]},
        {"recipients": [[str(ALICE), float("nan"), ""]]},
        {"recipients": [[str(ALICE), [], ""]]},
        {"recipients": [[str(ALICE), 255, ""]]},
        {"recipients": [[str(ALICE), int(Notify.NEVER | Notify.SUCCESS), ""]]},
        {"recipients": [[str(ALICE), 0, "no type"]]},
        {"recipients": [[str(ALICE), 0, "rfc822;" + "x" * 600]]},
        {"recipients": [["\u00e4@example.test", 0, ""]]},
        {"sender": "\u00e4@example.test"},
        {"envelope_id": "\u0100"},
        {"envelope_id": "x" * 101},
        {"content": b"Subject: x\r\n\r\nend\n.\nMAIL FROM:<chief@example.net>\n"},
        {"content": b"Subject: x\rFrom: chief@example.net\r\n\r\n"},
    ],
    ids=repr,
)
def test_r_inj_what_no_session_would_let_through_is_no_message(folder: Path, changes: dict[str, object]) -> None:
    bad = _leave(folder, **changes)
    good = drop(str(folder), MESSAGE)
    found = _find(folder)
    assert [file.name for file in found.files] == [good]
    assert [name for name, _ in found.corrupt] == [bad]


def test_what_a_session_lets_through_is(folder: Path) -> None:
    for changes in (
        {"recipients": [[str(ALICE), int(Notify.SUCCESS | Notify.DELAY), "utf-8;\u00e4@example.org"]]},
        {"recipients": [["\u00e4@example.test", int(Notify.NEVER), ""]], "smtputf8": True},
        {"body": BodyType.BINARY.value, "content": b"From: alice@example.test\r\n\r\n\n\r\0"},
        {"envelope_id": "a+b c"},
    ):
        _leave(folder, **changes)
    found = _find(folder)
    assert (len(found.files), found.corrupt) == (4, ())


def test_a_time_that_is_none_is_not_believed(folder: Path) -> None:
    names = [drop(str(folder), MESSAGE) for _ in range(2)]
    now = time.time()
    for name, moment in zip(names, (1 << 33, -(1 << 31)), strict=True):
        os.utime(folder / name, (moment, moment))
    assert all(0 <= file.modified <= now + 1 for file in _find(folder).files)


def test_what_cannot_be_moved_does_not_hold_the_others_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of somebody else's cannot be moved into another one, nor a file over a folder."""
    bad = "0.mail"
    (folder / bad).mkdir()
    (folder / CORRUPT / "1.mail").mkdir()
    (folder / "1.mail").write_bytes(b"x" * 40)
    good = drop(str(folder), MESSAGE)
    rename = os.rename

    def strict(source: str, target: str) -> None:
        if os.path.isdir(source) and os.path.dirname(source) != os.path.dirname(target):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", strict)
    found = _find(folder, now=time.time() + 7200)
    assert [file.name for file in found.files] == [good]
    assert ([name for name, _ in found.corrupt], found.stuck) == ([bad, "1.mail"], ())
    assert not _find(folder).corrupt
    (folder / bad).mkdir()
    monkeypatch.setattr(os, "rename", lambda source, target: strict("/", "/x/"))
    assert _find(folder).stuck == (bad,)
    assert _find(folder, without=(bad, "gone.mail")).gone == {"gone.mail"}
    monkeypatch.undo()
    assert put_aside(str(folder), "not there.mail")


def test_torn_files_are_a_portion_of_their_own(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number}.mail").write_bytes(b"x" * 1000)
    good = drop(str(folder), MESSAGE)
    first = _find(folder, octets=2000)
    assert (len(first.torn), first.waiting) == (2, 4)
    rest = _find(folder, without=first.torn, most=4)
    assert (len(rest.torn), [file.name for file in rest.files], rest.waiting) == (3, [good], 0)


class PickupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        make_drop_folder(self.path)
        self.begun: list[Address | None] = []

    def begin(self, _session: object, sender: Address | None, *_: object) -> Deferred[object]:
        self.begun.append(sender)
        if sender == CHIEF:
            raise ZeroDivisionError
        return fail(Unavailable())

    def pickup(self) -> Pickup:
        def nobody(_account: Address, _address: Address) -> Deferred[bool]:
            return fail(Unavailable())

        receiver: IMessageReceiver = self  # type: ignore[assignment]
        made = Pickup(
            SendmailSettings(),
            path=self.path,
            lock=self.path + ".lock",
            receiver=receiver,
            peers=LocalPeers(SendmailSettings(), domain="example.test", may_send_as=nobody),
            hostname="mail.example.test",
            postmaster=Address("postmaster", "example.test"),
            clock=_Now(),  # type: ignore[arg-type]
            run_in_thread=lambda function, *arguments: execute(function, *arguments),
        )
        made._is_stopped = False
        return made

    def test_a_file_that_breaks_us_does_not_stop_the_others(self) -> None:
        drop(self.path, evolve(MESSAGE, sender=CHIEF))
        drop(self.path, MESSAGE)
        with capturedLogs() as events:
            self.successResultOf(Deferred.fromCoroutine(self.pickup().round()))
        assert self.begun == [CHIEF, ALICE]
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert any("Picking up {path}/{name}" in event.get("log_format", "") for event in events)

    def test_nobody_else_is_told_of_what_waited_too_long(self) -> None:
        """The time is the file's owner's to set, and while nobody can be asked the sender is only a word."""
        victim = Address("victim", "example.net")
        name = drop(self.path, evolve(MESSAGE, sender=victim))
        os.utime(os.path.join(self.path, name), (0, 0))
        self.patch(os, "fstat", _as_user(os.fstat))
        self.successResultOf(Deferred.fromCoroutine(self.pickup().round()))
        [notice] = _find(Path(self.path)).files
        [(told, _)] = notice.message.recipients
        assert str(told).endswith("@example.test")


class _Now:
    def seconds(self) -> float:
        return time.time()


def _as_user(fstat: Callable[[int], os.stat_result]) -> Callable[[int], os.stat_result]:
    """Files are of a user who is not trusted."""

    def changed(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        times = {"st_mtime": status.st_mtime, "st_ctime": status.st_ctime}
        return os.stat_result((*status[:4], 65533, *status[5:10]), times)

    return changed


# -- mailsrv-sendmail


def _prepared(octets: bytes, **options: Any) -> PreparedMessage:
    values = {"full_name": "", "domain": "example.test", "hostname": "mail.example.test", "reads_recipients": True}
    return prepare(octets, sender=ALICE, seconds=1, offset_minutes=0, **{**values, **options})


def test_any_name_of_a_user_makes_a_from() -> None:
    for name in ("J\udcf6rg", "a\x1b[31m\0\r\nBcc: x@example.net", "\u202eecila", "x" * 2000):
        header = _prepared(b"\r\nHello\r\n", full_name=name).octets.replace(b"\r\n ", b" ")
        [line] = [line for line in header.split(b"\r\n") if line.startswith(b"From: ")]
        assert line.endswith(b"<alice@example.test>")
        assert line.decode("utf-8").isprintable()
        assert b"\nBcc" not in header


def test_a_field_that_cannot_be_written_anew_stays() -> None:
    long = b"To: <" + b"x" * 1200 + b">, root\r\n"
    assert long in _prepared(long + b"\r\n").octets
    assert b"To: \xc3\xa4 <\0, root\r\n" in _prepared(b"To: \xc3\xa4 <\0, root\r\n\r\n").octets


def test_no_field_is_lost_and_no_bcc_left_however_many_there_are() -> None:
    given = b"".join(b"X-%d: aaaaaaaaaaaa\r\n" % number for number in range(1500))
    message = _prepared(b"To: a@b.test\r\n" + given + b"Bcc: c@d.test\r\nX-Last: y\r\n\r\nHello\r\n")
    assert message.header_recipients == ("a@b.test", "c@d.test")
    assert given + b"X-Last: y\r\n\r\nHello\r\n" in message.octets


def test_a_configuration_that_is_wrong_elsewhere_is_no_reason(tmp_path: Path) -> None:
    path = tmp_path / "mailsrv.toml"
    path.write_text('hostname = "mail.example.test"\nlisten = 3\ndomain = "x"\nauth = 5\nstate_dir = "state"\n')
    places = read_places(str(path))
    assert (places.domain, places.socket_path) == ("mail.example.test", "")
    assert places.spool_dir == str(tmp_path / "state" / "sendmail-spool")


# -- what commands show


def test_what_others_wrote_steers_no_terminal() -> None:
    text = "a\x9b31m\x7f\u202e\U000e0001\u00e4\n"
    shown = to_json({"reply": text, "list": ["\x1b"]}, indent=2)
    assert json.loads(shown) == {"reply": text, "list": ["\x1b"]}
    assert "\u00e4" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert to_json("x") == '"x"'
    assert printable("\x9bm\x1b\n\u00e4") == "\N{REPLACEMENT CHARACTER}m" + 2 * "\N{REPLACEMENT CHARACTER}" + "\u00e4"


class _Settings:
    settings = None


def test_what_a_domain_publishes_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies, names in certificates and errors come from the other side."""

    async def find_out(*_: object, **__: object) -> tuple[dict[str, object], bool]:
        return {}, True

    def react(run: Callable[[object], Deferred[None]], status: list[int]) -> None:
        run(None)
        raise SystemExit(status[0])

    monkeypatch.setattr(tls_policy, "find_out", find_out)
    monkeypatch.setattr(tls_policy, "describe", lambda _: ["policy \x9b31m\x1b]0;x\x07 enforce", "mx a.test"])
    monkeypatch.setattr(tls_policy, "_react", react)
    result = CliRunner().invoke(tls_policy.tls_policy_command, ["example.test"], obj=_Settings())
    assert "enforce\nmx a.test\n" in result.output
    assert all(line.isprintable() for line in result.output.splitlines())
