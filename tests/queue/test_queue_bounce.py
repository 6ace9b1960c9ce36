"""Who is told what of a message's recipients (RFC 3461), and that it is told once."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.logger import capturedLogs

from mailsrv.address import Address
from mailsrv.errors import MailError, Unavailable
from mailsrv.interfaces.envelope import NOTIFY_UNSAID, BodyType, DeliverBy, Notify, ReturnContent
from mailsrv.interfaces.queue import Destination, OnwardRecipient, Transport
from mailsrv.queue.bounce import Notices, route_locally
from mailsrv.queue.settings import NoticeSettings
from mailsrv.status import BAD_DOMAIN
from tests.queue.queue_rig import ALICE, POSTMASTER, STEADY, Rig, bob, declined, mx, taken

REFUSING = "5.1.1"


def refusing(consignment):
    return declined(consignment, REFUSING)


def to_bob(notify: Notify = NOTIFY_UNSAID, original: str = "") -> OnwardRecipient:
    return OnwardRecipient(bob(), mx(), notify, original)


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (Notify(0), True),
        (Notify.FAILURE, True),
        (Notify.SUCCESS, False),
        (Notify.DELAY, False),
        (Notify.NEVER, False),
        (Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, True),
    ],
)
def test_failures_are_told_as_notify_says(notify, told):
    rig = Rig(answer=refusing).start()
    rig.send(to_bob(notify))
    assert bool(rig.notices_sent) is told
    assert rig.endings == [("bob@example.org", "bounced")]


def test_a_success_is_ours_to_tell_where_the_next_hop_does_not_offer_dsn():
    rig = Rig().start()
    rig.send(to_bob(Notify.SUCCESS))
    ((to, text),) = rig.notices_sent
    assert to == "alice@example.test"
    assert "Action: relayed" in text
    assert rig.endings == [("bob@example.org", "delivered")]


def test_a_success_is_the_next_hops_to_tell_where_it_offers_dsn():
    rig = Rig(answer=lambda c: taken(c, offers_dsn=True)).start()
    rig.send(to_bob(Notify.SUCCESS))
    assert rig.notices_sent == []


def test_final_delivery_says_delivered():
    rig = Rig(answer=lambda c: taken(c, is_local=True)).start()
    rig.send(to_bob(Notify.SUCCESS))
    ((_, text),) = rig.notices_sent
    assert "Action: delivered" in text


def test_no_success_notice_unless_it_was_asked_for():
    rig = Rig().start()
    rig.send(to_bob(Notify.FAILURE))
    assert rig.notices_sent == []


@pytest.mark.parametrize(("notify", "told"), [(Notify(0), True), (Notify.NEVER, False)])
def test_deliver_by_with_a_trace_tells_of_every_hop(notify, told):
    rig = Rig(answer=lambda c: taken(c, offers_dsn=True)).start()
    rig.send(to_bob(notify), deliver_by=DeliverBy(2_000_000, is_traced=True))
    assert bool(rig.notices_sent) is told


@pytest.mark.parametrize(
    ("deliver_by", "offers", "notify", "told"),
    [
        (DeliverBy(2_000_000), False, Notify(0), True),
        (DeliverBy(2_000_000), False, Notify.FAILURE, True),
        (DeliverBy(2_000_000), False, Notify.NEVER, False),
        (DeliverBy(2_000_000), True, Notify(0), False),
        (DeliverBy(2_000_000, must_return=True), True, Notify(0), False),
    ],
)
def test_rfc_2852_4_1_4_2_who_leaves_deliver_by_behind_is_told(deliver_by, offers, notify, told):
    rig = Rig(answer=lambda c: taken(c, offers_dsn=True, offers_deliver_by=offers)).start()
    rig.send(to_bob(notify), deliver_by=deliver_by)
    assert ["Action: relayed" in text and "Deliver-By-Date: " in text for _, text in rig.notices_sent] == [True] * told


def test_a_delay_is_told_to_strangers_who_asked():
    rig = Rig(answer=declined).start()
    rig.send(to_bob(Notify.DELAY))
    rig.advance(14_401)
    ((_, text),) = rig.notices_sent
    assert "Action: delayed" in text


def test_one_round_with_failures_and_successes_is_one_record():
    rig = Rig()

    def answer(consignment):
        first, _ = taken(consignment)
        return [first, declined(consignment, REFUSING)[1]]

    rig.agent.answer = answer
    rig.start()
    rig.send(to_bob(Notify.SUCCESS), OnwardRecipient(bob(name="carol"), mx(), Notify.FAILURE))
    assert sorted("failed" if "Action: failed" in text else "relayed" for _, text in rig.notices_sent) == [
        "failed",
        "relayed",
    ]
    assert sorted(rig.endings) == [("bob@example.org", "delivered"), ("carol@example.org", "bounced")]


def test_rfc_4865_what_was_held_says_so():
    rig = Rig(answer=refusing).start()
    rig.send(hold_until=1_000_100)
    rig.advance(101)
    ((_, text),) = rig.notices_sent
    assert "\r\nFuture-Release-Request: until;1970-01-12T13:48:20Z\r\n" in text


def test_envid_and_orcpt_come_back():
    rig = Rig(answer=refusing).start()
    rig.send(to_bob(original="rfc822;bob@old.example"), envelope_id="QQ1")
    ((_, text),) = rig.notices_sent
    assert "Original-Envelope-Id: QQ1" in text
    assert "Original-Recipient: rfc822; bob@old.example" in text


@pytest.mark.parametrize(
    ("parameters", "is_whole"),
    [
        ({}, True),
        ({"return_content": ReturnContent.FULL}, True),
        ({"return_content": ReturnContent.HEADERS}, False),
        ({"requires_tls": True, "return_content": ReturnContent.FULL}, False),
        ({"body": BodyType.BINARY}, False),
    ],
)
def test_how_much_comes_back(parameters, is_whole):
    rig = Rig(answer=refusing).start()
    rig.send(**parameters)
    ((_, text),) = rig.notices_sent
    assert ("Hello" in text) is is_whole
    assert "Subject: one" in text


def test_r_dsn_1_a_large_message_comes_back_as_its_header_section():
    rig = Rig(answer=refusing).start()
    rig.send(content=b"Subject: large\r\n\r\n" + b"x" * 70 * 800 + b"\r\n", return_content=ReturnContent.FULL)
    ((_, text),) = rig.notices_sent
    assert "Subject: large" in text
    assert len(text) < 4000


def test_r_dsn_1_a_large_header_section_is_cut():
    rig = Rig(answer=refusing).start()
    rig.send(content=b"".join(b"X-%05d: %s\r\n" % (number, b"x" * 60) for number in range(2000)) + b"\r\nbody\r\n")
    ((_, text),) = rig.notices_sent
    assert len(text) < 51_200 + 4000


def test_success_and_delay_notices_never_bring_the_body_back():
    rig = Rig().start()
    rig.send(to_bob(Notify.SUCCESS), return_content=ReturnContent.FULL)
    ((_, text),) = rig.notices_sent
    assert "Hello" not in text


def test_a_notice_has_the_null_reverse_path_and_what_protected_the_message():
    rig = Rig(answer=refusing).start()
    rig.send(requires_tls=True, priority=4)
    notice = rig.store.kept.added[-1]
    assert notice.reverse_path is None
    assert notice.parameters.requires_tls
    assert notice.parameters.priority == 4
    assert notice.account == ""


def test_r_dsn_1_a_null_reverse_path_never_bounces_but_the_postmaster_hears_of_it():
    rig = Rig(answer=refusing).start()
    rig.send(reverse_path=None)
    ((to, text),) = rig.notices_sent
    assert to == str(POSTMASTER)
    assert "as postmaster" in " ".join(text.split())


def test_there_is_no_loop_of_double_bounces():
    rig = Rig(answer=refusing)
    rig.local.answer = refusing
    rig.start()
    rig.send(reverse_path=None)
    assert rig.endings == [("bob@example.org", "bounced"), ("postmaster@example.test", "bounced")]
    assert not rig.store.kept.rows


def test_a_bounce_that_bounces_ends_with_the_postmaster():
    rig = Rig(answer=refusing)
    rig.local.answer = refusing
    rig.start()
    rig.send()
    assert [address for address, _ in rig.endings] == [
        "bob@example.org",
        "alice@example.test",
        "postmaster@example.test",
    ]


def test_double_bounces_can_be_only_logged():
    rig = Rig(evolve(STEADY, notices=NoticeSettings(double_bounces=False)), refusing).start()
    rig.send(reverse_path=None)
    assert rig.notices_sent == []
    assert rig.endings == [("bob@example.org", "bounced")]


def test_notices_are_signed():
    rig = Rig(answer=refusing)

    async def sign(octets: bytes) -> bytes:
        return b"DKIM-Signature: of %d octets\r\n" % len(octets) + octets

    rig.notices = make_notices(rig, route_locally, sign)
    rig.runner = rig.make_runner()
    rig.start()
    rig.send()
    ((_, text),) = rig.notices_sent
    signature, _, rest = text.partition("\r\n")
    assert signature == f"DKIM-Signature: of {len(rest)} octets"


def test_a_notice_that_cannot_be_signed_goes_unsigned():
    rig = Rig(answer=refusing)

    async def sign(octets: bytes) -> bytes:
        raise ValueError("a key that is none")

    with capturedLogs() as events:
        rig.notices = make_notices(rig, route_locally, sign)
        rig.runner = rig.make_runner()
        rig.start()
        rig.send()
    ((_, text),) = rig.notices_sent
    assert text.startswith("Date:")
    assert any("goes unsigned" in event["log_format"] for event in events if event.get("log_format"))


def make_notices(rig: Rig, route, sign=None) -> Notices:
    return Notices(
        STEADY.notices,
        rig.store,
        hostname="mail.example.test",
        postmaster=POSTMASTER,
        new_transaction_id=rig.new_id,
        seconds=rig.clock.seconds,
        route=route,
        sign=sign,
    )


def test_a_notice_goes_where_the_route_says():
    rig = Rig(answer=refusing)
    smarthost = Destination(Transport.SMTP, "smart.example:25")

    async def route(address: Address):
        return (OnwardRecipient(address, smarthost),)

    rig.notices = make_notices(rig, route)
    rig.runner = rig.make_runner()
    rig.start()
    rig.send()
    assert list(rig.store.kept.rows) == [smarthost]


def test_a_route_that_is_not_known_now_is_asked_again_and_the_recipient_waits():
    rig = Rig(answer=refusing)
    errors: list[MailError] = [Unavailable()]

    async def route(address: Address):
        if errors:
            raise errors.pop()
        return (OnwardRecipient(address, mx("back.example")),)

    rig.notices = make_notices(rig, route)
    rig.runner = rig.make_runner()
    rig.start()
    rig.send()
    assert rig.endings == []
    rig.advance(6)
    assert rig.endings[0] == ("bob@example.org", "bounced")


def test_a_sender_without_a_route_is_left_to_the_local_agent():
    rig = Rig(answer=refusing)

    async def route(address: Address):
        raise MailError(BAD_DOMAIN, "No such domain")

    rig.notices = make_notices(rig, route)
    rig.runner = rig.make_runner()
    rig.start()
    rig.send()
    assert [to for to, _ in rig.notices_sent] == [str(ALICE)]


def test_content_that_cannot_be_read_now_delays_the_notice_only():
    rig = Rig(answer=refusing)
    rig.send()
    kept = rig.store.kept.contents.pop(1)
    rig.start()
    assert rig.endings == []
    rig.store.kept.contents[1] = kept
    rig.advance(6)
    assert rig.endings == [("bob@example.org", "bounced")]
