"""Mail that leaves: what the queue is given in the record, under which sender, and what is refused before."""

import pytest
from attrs import evolve
from twisted.internet.defer import fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address, parse_forward_path
from mailsrv.delivery.recipients import RecipientPolicy, Service
from mailsrv.delivery.settings import DeliverySettings
from mailsrv.delivery.srs_secret import open_rewriting, read_rewriting, secret_path
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import InsufficientStorage, MailError, Unavailable
from mailsrv.filters.function import filter_function
from mailsrv.interfaces.content import FileContent, InlineContent
from mailsrv.interfaces.delivery import Accepted, Refused
from mailsrv.interfaces.envelope import (
    BodyType,
    DeliverBy,
    EnvelopeParameters,
    Notify,
    RecipientParameters,
    ReturnContent,
)
from mailsrv.interfaces.filter import AddHeader, Redirect
from mailsrv.interfaces.journal import LocalDelivery
from mailsrv.interfaces.queue import LOCAL, Destination, OnwardDelivery, Transport

from .conftest import ALICE, BOB, FULL, NOW, REWRITING, SENDER, STAFF, Account, mail_parameters, make_house

FRIEND = Address("friend", "example.org")
OUTSIDE = Address("outside", "example.test")
MESSAGE = (
    b"From: <alice@example.test>\r\nSubject: hello\r\nMessage-ID: <1@example.net>\r\n"
    b"Date: Sun, 09 Sep 2001 01:46:40 +0000\r\n\r\nHello\r\n"
)
SUCCESS = RecipientParameters(Notify.SUCCESS | Notify.FAILURE)


class Onward(SynchronousTestCase):
    def send(self, house, *recipients, content=MESSAGE, session=None, parameters=None, reverse_path=SENDER):
        """Recipients are addresses, or pairs with their parameters."""
        account = Account(ALICE) if house.service == "submission" and session is None else None
        sender = ALICE if account is not None else reverse_path
        begun = house.receiver.begin(session or house.session(), sender, parameters or mail_parameters(), account)
        transaction = self.successResultOf(begun)
        for each in recipients:
            address, given = each if isinstance(each, tuple) else (each, None)
            self.successResultOf(transaction.add_recipient(address, given))
        self.successResultOf(transaction.begin_content())
        transaction.write(content)
        return transaction.finish()

    def refusal(self, house, address, reverse_path=SENDER, session=None):
        account = Account(ALICE) if house.service == "submission" and session is None else None
        transaction = self.successResultOf(house.begin(ALICE if account else reverse_path, account, session=session))
        return self.failureResultOf(transaction.add_recipient(address), MailError).value

    def messages(self, house):
        (record,) = house.journal.records
        return record.messages


def submission(**options):
    options.setdefault("routes", ())
    return make_house("submission", apply=False, **options)


def mx(**options):
    options.setdefault("routes", ())
    return make_house("mx", apply=False, **options)


def octets_of(message):
    if isinstance(message.content, InlineContent):
        return message.content.octets
    with open(message.content.path, "rb") as file:
        return file.read()


class SubmissionTests(Onward):
    def test_one_record_for_recipients_here_and_elsewhere(self):
        house = submission()
        other = Address("other", "example.com")
        outcomes = self.successResultOf(self.send(house, FRIEND, BOB, other, FRIEND))
        assert [type(each) for each in outcomes] == [Accepted] * 4
        (message,) = self.messages(house)
        local, onward = message.deliveries
        assert local == LocalDelivery(BOB, recipient="bob@example.test")
        assert onward.account == "alice@example.test"
        assert house.onward() == [
            (
                "alice@example.test",
                {"friend@example.org": "mx:example.org", "other@example.com": "mx:example.com"},
            )
        ]
        assert octets_of(message).startswith(b"Return-Path: <alice@example.test>\r\nReceived: ")
        assert b"Delivered-To" not in octets_of(message)

    def test_what_the_envelope_says_is_carried_on(self):
        house = submission()
        envelope = EnvelopeParameters(
            body=BodyType.EIGHT_BIT,
            return_content=ReturnContent.HEADERS,
            envelope_id="id",
            requires_tls=True,
            priority=3,
            deliver_by=DeliverBy(NOW + 60, must_return=True),
        )
        given = RecipientParameters(Notify.DELAY, "rfc822;somebody@example.org")
        parameters = evolve(mail_parameters(), envelope=envelope)
        self.successResultOf(self.send(house, (FRIEND, given), parameters=parameters))
        ((delivery,),) = [message.deliveries for message in self.messages(house)]
        assert delivery.parameters == envelope
        (recipient,) = delivery.recipients
        assert (recipient.notify, recipient.original_recipient) == (Notify.DELAY, "rfc822;somebody@example.org")

    def test_without_a_queue_nothing_leaves(self):
        house = make_house("submission")
        assert str(self.refusal(house, FRIEND)) == "5.7.1 This server sends no mail to other domains"

    def test_domains_that_can_be_nowhere_are_refused_at_rcpt(self):
        house = submission()
        for domain in ("localhost", "host", "example.invalid", "mail.localhost"):
            assert str(self.refusal(house, Address("x", domain)).status) == "5.1.2"
        led = submission(routes=({"to": "host", "via": "smtp:192.0.2.1"},))
        self.successResultOf(self.send(led, Address("x", "host")))
        assert led.onward()[0][1] == {"x@host": "smtp:192.0.2.1:25"}

    def test_rules_refuse_with_their_text_and_drop(self):
        house = submission(
            routes=(
                {"to": "example.org", "via": "reject:Ask the postmaster"},
                {"to": "example.com", "via": "discard"},
                {"to": "bob@example.test", "sender": "alice@example.test", "via": "reject"},
                {"to": "full@example.test", "via": "discard"},
            )
        )
        assert str(self.refusal(house, FRIEND)).startswith("5.7.1 Ask the postmaster")
        assert str(self.refusal(house, BOB).status) == "5.7.1"
        outcomes = self.successResultOf(self.send(house, Address("x", "example.com"), FULL))
        assert [type(each) for each in outcomes] == [Accepted, Accepted]
        assert house.journal.records == []
        assert house.spool.open_writers == 0

    def test_a_full_queue_is_told_before_the_content(self):
        house = submission()
        house.queue.refusal = InsufficientStorage()
        transaction = self.successResultOf(house.begin(ALICE, Account(ALICE), size=77))
        self.successResultOf(transaction.add_recipient(FRIEND))
        error = self.failureResultOf(transaction.begin_content(), MailError).value
        assert str(error.status) == "4.3.1"
        assert house.queue.asked == [(77, 1)]
        local = self.successResultOf(house.begin(ALICE, Account(ALICE)))
        self.successResultOf(local.add_recipient(BOB))
        self.successResultOf(local.begin_content())
        local.abort()

    def test_r_lim_2_addresses_elsewhere_count_like_accounts(self):
        house = submission(accounts_per_message=2)
        transaction = self.successResultOf(house.begin(ALICE, Account(ALICE)))
        self.successResultOf(transaction.add_recipient(FRIEND))
        self.successResultOf(transaction.add_recipient(BOB))
        error = self.failureResultOf(transaction.add_recipient(Address("x", "example.com")), MailError).value
        assert str(error.status) == "4.5.3"

    def test_a_message_that_was_not_journaled_leaves_nothing(self):
        house = submission(inline_limit=10)
        house.journal.failure = Unavailable()
        self.failureResultOf(self.send(house, FRIEND), MailError)
        assert house.spool.open_writers == 0


class HeldTests(Onward):
    def held(self, house, *recipients):
        envelope = EnvelopeParameters(hold_until=NOW + 3600)
        return self.send(house, *recipients, parameters=evolve(mail_parameters(), envelope=envelope))

    def test_rfc_4865_recipients_here_wait_in_the_queue_too(self):
        house = submission()
        self.successResultOf(self.held(house, BOB, FRIEND, Address("both", "example.test")))
        ((delivery,),) = [message.deliveries for message in self.messages(house)]
        assert {str(each.address): each.destination for each in delivery.recipients} == {
            "bob@example.test": LOCAL,
            "both@example.test": LOCAL,
            "friend@example.org": Destination(Transport.MX, "example.org"),
        }
        assert delivery.parameters.hold_until == NOW + 3600
        assert house.store.account(BOB).reserved_octets == 0

    def test_what_leads_out_of_an_alias_is_queued_once(self):
        house = submission()
        self.successResultOf(self.held(house, OUTSIDE))
        waiting = {address: where for _, group in house.onward() for address, where in group.items()}
        assert waiting == {"alice@example.test": "local", "friend@example.org": "mx:example.org"}

    def test_where_a_filter_redirected_it_waits_for_that(self):
        for phase in ("rcpt", "headers"):

            @filter_function(phase=phase)
            def away():
                return Redirect((STAFF,))

            house = submission(filters=[away])
            self.successResultOf(self.held(house, BOB))
            assert house.onward() == [("alice@example.test", {"staff@example.test": "local"})]

    def test_the_time_may_come_while_the_message_does(self):
        house = submission()
        parameters = evolve(mail_parameters(), envelope=EnvelopeParameters(hold_until=NOW + 5))
        transaction = self.successResultOf(house.receiver.begin(house.session(), ALICE, parameters, Account(ALICE)))
        self.successResultOf(transaction.add_recipient(BOB))
        self.successResultOf(transaction.begin_content())
        transaction.write(MESSAGE)
        house.clock.advance(10)
        self.successResultOf(transaction.finish())
        assert house.onward() == [("alice@example.test", {"bob@example.test": "local"})]

    def test_the_time_may_be_past(self):
        house = submission()
        envelope = EnvelopeParameters(hold_until=NOW - 1)
        self.successResultOf(self.send(house, BOB, parameters=evolve(mail_parameters(), envelope=envelope)))
        assert [type(each) for each in self.messages(house)[0].deliveries] == [LocalDelivery]

    def test_without_a_queue_nothing_is_held(self):
        house = make_house("submission")
        envelope = EnvelopeParameters(hold_until=NOW + 3600)
        parameters = evolve(mail_parameters(), envelope=envelope)
        begun = house.receiver.begin(house.session(), ALICE, parameters, Account(ALICE))
        assert str(self.failureResultOf(begun, MailError).value.status) == "5.5.4"


class ForwardTests(Onward):
    def test_a_forward_goes_under_a_sender_of_ours_and_is_marked(self):
        house = mx()
        self.successResultOf(self.send(house, OUTSIDE))
        (message,) = self.messages(house)
        local, onward = message.deliveries
        assert local.account == ALICE
        assert onward.account == ""
        assert onward.reverse_path == REWRITING.rewrite(SENDER, "example.test", NOW)
        (recipient,) = onward.recipients
        assert recipient.original_recipient == "rfc822;outside@example.test"
        octets = octets_of(message)
        assert octets.startswith(
            b"Return-Path: <sender@example.net>\r\nDelivered-To: outside@example.test\r\nReceived: "
        )

    def test_null_and_own_senders_are_not_rewritten(self):
        for sender in (None, BOB):
            house = mx()
            self.successResultOf(self.send(house, OUTSIDE, reverse_path=sender))
            assert house.onward()[0][0] == (str(sender) if sender else "")
        house = mx(srs=False)
        self.successResultOf(self.send(house, OUTSIDE))
        assert house.onward()[0][0] == "sender@example.net"
        house = mx(srs_domain="srs.example.test")
        self.successResultOf(self.send(house, OUTSIDE))
        assert house.onward()[0][0].endswith("@srs.example.test")

    def test_the_owner_of_a_list_gets_its_bounces(self):
        house = mx()
        house.directory.add_alias(Address("owner-outside", "example.test"), [BOB])
        self.successResultOf(self.send(house, OUTSIDE))
        assert house.onward()[0][0] == "owner-outside@example.test"
        null = mx()
        null.directory.add_alias(Address("owner-outside", "example.test"), [BOB])
        self.successResultOf(self.send(null, OUTSIDE, reverse_path=None))
        assert null.onward()[0][0] == ""

    def test_several_recipients_do_not_learn_of_each_other(self):
        for inline_limit in (128 * 1024, 10):
            house = mx(inline_limit=inline_limit)
            house.directory.add_alias(Address("second", "example.test"), [Address("x", "example.com")])
            self.successResultOf(self.send(house, OUTSIDE, BOB, Address("second", "example.test")))
            plain, first, second = self.messages(house)
            assert b"Delivered-To" not in octets_of(plain)
            assert [delivery.account for delivery in plain.deliveries] == [ALICE, BOB]
            for message, forwarder, target in (
                (first, b"outside@example.test", "friend@example.org"),
                (second, b"second@example.test", "x@example.com"),
            ):
                octets = octets_of(message)
                assert octets.count(b"Delivered-To: ") == 1
                assert b"\r\nDelivered-To: " + forwarder + b"\r\nReceived: " in octets
                assert octets.replace(b"Delivered-To: " + forwarder + b"\r\n", b"") == octets_of(plain)
                ((only,),) = [[str(each.address) for each in d.recipients] for d in message.deliveries]
                assert only == target
            assert isinstance(first.content, FileContent) is (inline_limit == 10)

    def test_a_message_that_comes_back_is_a_loop(self):
        house = mx()
        looped = b"Delivered-To: <Outside@Example.test>\r\n" + MESSAGE
        error = self.failureResultOf(self.send(house, OUTSIDE, content=looped), MailError).value
        assert str(error.status) == "5.4.6"
        assert house.journal.records == []
        assert house.spool.open_writers == 0
        other = mx()
        self.successResultOf(self.send(other, OUTSIDE, content=b"Delivered-To: bob@example.test\r\n" + MESSAGE))

    def test_forwarding_addresses_of_one_message_are_bounded(self):
        house = mx(forwarders_per_message=1)
        house.directory.add_alias(Address("second", "example.test"), [Address("x", "example.com")])
        transaction = self.successResultOf(house.begin())
        self.successResultOf(transaction.add_recipient(OUTSIDE))
        second = transaction.add_recipient(Address("second", "example.test"))
        assert str(self.failureResultOf(second, MailError).value.status) == "4.5.3"
        self.successResultOf(transaction.add_recipient(BOB))

    def test_a_forward_that_a_rule_refuses_is_refused_whole(self):
        house = mx(routes=({"to": "example.org", "via": "reject:No"},))
        assert str(self.refusal(house, OUTSIDE)).startswith("5.7.1 No")

    def test_a_copy_that_cannot_be_made_leaves_nothing(self):
        @filter_function(phase="message")
        def full():
            house.spool.failure = InsufficientStorage()

        house = mx(inline_limit=10, filters=[full])
        self.failureResultOf(self.send(house, OUTSIDE, BOB), MailError)
        assert len(house.spool.discarded) == 1
        assert house.store.account(ALICE).reserved_octets == 0
        assert house.journal.records == []

    def test_lmtp_forwards_but_never_relays(self):
        house = make_house("lmtp", apply=False, routes=())
        self.successResultOf(self.send(house, OUTSIDE))
        assert house.onward()[0][1] == {"friend@example.org": "mx:example.org"}
        assert str(self.refusal(house, FRIEND).status) == "5.1.2"


class CarriedTests(Onward):
    ROUTES = (
        {"to": "postmaster@example.test", "via": "local"},
        {"to": "example.test", "via": "lmtp:unix:/run/lmtp"},
    )

    def test_a_domain_of_ours_may_live_elsewhere(self):
        house = mx(routes=self.ROUTES)
        self.successResultOf(self.send(house, Address("Any.Body+x", "example.test"), Address("both", "example.test")))
        ((delivery,),) = [message.deliveries for message in self.messages(house)]
        assert delivery.reverse_path == SENDER
        assert {str(each.address): str(each.destination) for each in delivery.recipients} == {
            "Any.Body+x@example.test": "lmtp:unix:/run/lmtp",
            "alice@example.test": "lmtp:unix:/run/lmtp",
            "bob@example.test": "lmtp:unix:/run/lmtp",
        }
        assert b"Delivered-To" not in octets_of(self.messages(house)[0])

    def test_exceptions_stay_here(self):
        house = mx(routes=self.ROUTES)
        house.directory.add_user(Address("postmaster", "example.test"), "x")
        self.successResultOf(self.send(house, Address("postmaster", "example.test")))
        assert house.onward() == []

    def test_it_does_not_open_the_others(self):
        assert str(self.refusal(mx(routes=self.ROUTES), FRIEND)) == "5.7.1 Relaying denied"


class BounceTests(Onward):
    def rewritten(self, address=SENDER):
        return REWRITING.rewrite(address, "example.test", NOW)

    def test_bounces_find_their_way_back(self):
        house = mx()
        self.successResultOf(self.send(house, self.rewritten(), reverse_path=None))
        assert house.onward() == [("", {"sender@example.net": "mx:example.net"})]
        assert b"Delivered-To" not in octets_of(self.messages(house)[0])

    def test_only_bounces_do(self):
        assert str(self.refusal(mx(), self.rewritten())) == "5.7.1 This address takes delivery notices only"

    def test_forged_and_outdated_addresses_are_nobodys(self):
        forged = Address("SRS0=aaaaaa=aa=example.org=friend", "example.test")
        assert str(self.refusal(mx(), forged, None).status) == "5.1.1"
        house = mx()
        house.clock.advance(30 * 86400)
        assert str(self.refusal(house, self.rewritten(), None).status) == "5.1.1"
        elsewhere = Address(self.rewritten().local_part, "example.org")
        assert str(self.refusal(mx(), elsewhere, None)) == "5.7.1 Relaying denied"

    def test_one_of_ours_is_delivered(self):
        house = mx()
        self.successResultOf(self.send(house, self.rewritten(BOB), reverse_path=None))
        assert [each.account for each in self.messages(house)[0].deliveries] == [BOB]

    def test_never_round_and_round(self):
        twice = REWRITING.rewrite(Address("srs0=x", "example.test"), "example.test", NOW)
        assert str(self.refusal(mx(), twice, None).status) == "5.1.1"


class RelayNetworkTests(Onward):
    def test_listed_networks_need_no_login(self):
        for service in ("mx", "submission"):
            house = make_house(service, apply=False, routes=(), relay_networks=("192.0.2.0/24",))
            session = evolve(house.session(), account=None)
            self.successResultOf(self.send(house, FRIEND, session=session))
            assert house.onward() == [("sender@example.net", {"friend@example.org": "mx:example.org"})]
            outside = evolve(session, client_address="198.51.100.1")
            if service == "mx":
                assert str(self.refusal(house, FRIEND, session=outside)) == "5.7.1 Relaying denied"
            else:
                begun = house.receiver.begin(outside, SENDER, mail_parameters(), None)
                assert str(self.failureResultOf(begun, MailError).value.status) == "5.7.0"

    def test_a_unix_socket_is_in_no_network(self):
        house = mx(relay_networks=("0.0.0.0/0", "::/0"))
        session = evolve(house.session(), client_address="")
        assert str(self.refusal(house, FRIEND, session=session)) == "5.7.1 Relaying denied"

    def test_lmtp_relays_for_nobody(self):
        house = make_house("lmtp", routes=(), relay_networks=("0.0.0.0/0",))
        assert str(self.refusal(house, FRIEND).status) == "5.1.2"


class NoticeSigning:
    """Signs what this server writes itself."""

    def begin_for(self, header: bytes) -> None:
        return None

    async def sign(self, octets: bytes) -> bytes:
        return b"DKIM-Signature: x\r\n" + octets


class NoticeTests(Onward):
    def test_rfc_3461_a_delivery_here_is_told_in_the_same_record(self):
        house = submission()
        given = RecipientParameters(Notify.SUCCESS, "rfc822;bob@old.example")
        self.successResultOf(self.send(house, (BOB, given), (STAFF, RecipientParameters(Notify.FAILURE))))
        message, notice = self.messages(house)
        assert len(message.deliveries) == 2
        (delivery,) = notice.deliveries
        assert isinstance(delivery, OnwardDelivery)
        assert delivery.reverse_path is None
        assert [(each.address, each.destination) for each in delivery.recipients] == [(ALICE, LOCAL)]
        octets = octets_of(notice)
        assert octets.startswith(b"Return-Path: <>\r\n")
        assert b"Final-Recipient: rfc822; bob@example.test\r\nAction: delivered\r\nStatus: 2.0.0\r\n" in octets
        assert b"Original-Recipient: rfc822; bob@old.example\r\n" in octets
        assert b"staff@example.test" not in octets
        assert b"Subject: hello\r\n" in octets
        assert b"\r\nHello\r\n" not in octets

    def test_the_notice_is_signed(self):
        house = submission(signer=NoticeSigning())
        self.successResultOf(self.send(house, (BOB, SUCCESS)))
        _, notice = self.messages(house)
        assert octets_of(notice).startswith(b"Return-Path: <>\r\nDKIM-Signature: x\r\nDate:")

    def test_a_list_is_told_as_expanded_and_its_members_are_not_told_of(self):
        house = mx()
        self.successResultOf(self.send(house, (OUTSIDE, SUCCESS)))
        message, notice = self.messages(house)
        assert b"Action: expanded" in octets_of(notice)
        assert [each.notify for each in message.deliveries[1].recipients] == [Notify.FAILURE]
        only = mx()
        self.successResultOf(self.send(only, (OUTSIDE, RecipientParameters(Notify.SUCCESS))))
        assert [each.notify for each in self.messages(only)[0].deliveries[1].recipients] == [Notify.NEVER]

    def test_a_single_forward_is_told_further_on(self):
        house = mx()
        house.directory.add_alias(Address("away", "example.test"), [FRIEND])
        self.successResultOf(self.send(house, (Address("away", "example.test"), SUCCESS)))
        (message,) = self.messages(house)
        assert message.deliveries[0].recipients[0].notify == SUCCESS.notify

    def test_nobody_is_told_of_mail_without_a_sender(self):
        house = mx()
        self.successResultOf(self.send(house, (BOB, SUCCESS), reverse_path=None))
        assert len(self.messages(house)) == 1

    def test_who_was_refused_is_not_told_as_delivered(self):
        house = make_house("lmtp", apply=False, routes=())
        long = MESSAGE + b"x" * 300 + b"\r\n"
        outcomes = self.successResultOf(self.send(house, (BOB, SUCCESS), (FULL, SUCCESS), content=long))
        assert [type(each) for each in outcomes] == [Accepted, Refused]
        assert b"full@" not in octets_of(self.messages(house)[1])


class RedirectTests(Onward):
    def test_filters_may_redirect_elsewhere(self):
        for phase in ("rcpt", "headers", "message"):

            @filter_function(phase=phase)
            def away():
                return Redirect((FRIEND, BOB))

            house = mx(filters=[away])
            self.successResultOf(self.send(house, ALICE))
            assert house.onward() == [
                (str(REWRITING.rewrite(SENDER, "example.test", NOW)), {"friend@example.org": "mx:example.org"})
            ], phase
            accounts = [
                each.account
                for message in self.messages(house)
                for each in message.deliveries
                if isinstance(each, LocalDelivery)
            ]
            assert accounts == [BOB]
            marked = [b"Delivered-To: alice@example.test\r\n" in octets_of(each) for each in self.messages(house)]
            assert any(marked)

    def test_a_redirect_that_loops_is_refused(self):
        @filter_function(phase="headers")
        def away():
            return Redirect((FRIEND,))

        house = mx(filters=[away])
        looped = b"Delivered-To: alice@example.test\r\n" + MESSAGE
        assert str(self.failureResultOf(self.send(house, ALICE, content=looped), MailError).value.status) == "5.4.6"

    def test_fields_of_filters_are_in_every_copy(self):
        @filter_function(phase="message")
        def mark():
            return AddHeader("X-Mark", "1")

        house = mx(filters=[mark])
        self.successResultOf(self.send(house, OUTSIDE, BOB))
        assert all(b"X-Mark: 1\r\n" in octets_of(message) for message in self.messages(house))
        assert len(self.messages(house)) == 2


class Signing:
    """A signer that shows what it was fed."""

    def __init__(self):
        self.fed = b""
        self.failure = None

    def begin_for(self, header):
        return self

    def feed(self, octets):
        self.fed += octets

    def prepend(self, fields):
        self.fed = fields + self.fed

    def finish(self):
        if self.failure is not None:
            return fail(self.failure)
        return succeed(b"DKIM-Signature: x\r\n")


class SigningTests(Onward):
    def test_submissions_are_signed_above_what_was_fed(self):
        for inline_limit in (128 * 1024, 10):
            signer = Signing()
            house = submission(signer=signer, inline_limit=inline_limit)
            self.successResultOf(self.send(house, FRIEND))
            (message,) = self.messages(house)
            octets = octets_of(message)
            head = b"Return-Path: <alice@example.test>\r\nDKIM-Signature: x\r\n"
            assert octets == head + signer.fed
            assert message.content.size == len(octets)

    def test_mail_of_others_is_not_signed(self):
        house = mx(signer=Signing())
        self.successResultOf(self.send(house, BOB))
        assert b"DKIM-Signature" not in octets_of(self.messages(house)[0])

    def test_a_signature_that_cannot_be_made_leaves_nothing(self):
        signer = Signing()
        signer.failure = Unavailable()
        house = submission(signer=signer)
        self.failureResultOf(self.send(house, FRIEND), MailError)
        assert len(house.spool.discarded) == 1


def test_secrets_are_made_once_and_rotate(tmp_path):
    state, settings, day = str(tmp_path / "state"), DeliverySettings(), 86400.0
    first = open_rewriting(settings, state, NOW)
    assert first is not None
    assert (tmp_path / "state" / "srs.secret").stat().st_mode & 0o777 == 0o600
    assert open_rewriting(settings, state, NOW + 10) == first
    made = first.rewrite(SENDER, "example.test", NOW)
    rotated = open_rewriting(settings, state, NOW + 91 * day)
    assert rotated is not None
    assert len(rotated.secrets) == 2
    assert rotated.secrets[0] == first.secrets[0], "the new one signs when every worker has it"
    settled = open_rewriting(settings, state, NOW + 91 * day + 3601)
    assert settled is not None
    assert settled.secrets == rotated.secrets[::-1]
    assert settled.restore(made, NOW + day) == SENDER
    gone = open_rewriting(settings, state, NOW + 91 * day + 23 * day)
    assert gone is not None
    assert len(gone.secrets) == 1
    assert gone.secrets[0] != first.secrets[0]
    assert read_rewriting(settings, state, NOW + 120 * day) == gone


def test_secrets_that_cannot_be_had_are_no_reason_not_to_start(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert open_rewriting(DeliverySettings(), str(blocked / "state"), NOW) is None
    assert open_rewriting(DeliverySettings(srs=False), str(tmp_path / "none"), NOW) is None
    assert not (tmp_path / "none").exists()
    assert read_rewriting(DeliverySettings(), str(tmp_path / "none"), NOW) is None
    state = tmp_path / "state"
    state.mkdir()
    with open(secret_path(str(state)), "w") as file:
        file.write("rubbish\n1 aa\n")
    assert open_rewriting(DeliverySettings(), str(state), NOW) is not None


def test_settings_are_checked():
    with pytest.raises(ValueError, match="network"):
        DeliverySettings(relay_networks=("192.0.2.1/24",))
    with pytest.raises(ValueError, match="domain"):
        DeliverySettings(srs_domain="no domain")
    assert RecipientPolicy(Service.MX, make_house().receiver._parts.policy._resolver)
    assert DomainSettings("example.test").catch_all == ""
    assert parse_forward_path("<friend@example.org>") == FRIEND
