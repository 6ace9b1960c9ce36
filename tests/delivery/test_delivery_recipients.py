"""Who is a recipient: own domains only, whatever the spelling; a directory that is down is no answer."""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailsrv.address import Address, parse_forward_path
from mailsrv.delivery.recipients import Found
from mailsrv.directory.resolution import LocalRecipient
from mailsrv.directory.settings import DomainSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.delivery import IMailTransaction, IMessageReceiver
from mailsrv.interfaces.directory import DirectoryUser
from mailsrv.interfaces.filter import Phase
from mailsrv.interfaces.mailbox import OverQuota
from mailsrv.store.settings import StoreSettings

from .conftest import ALICE, BOB, FULL, SENDER, Account, make_house

SPELLINGS = [
    "<friend%example.org@example.test>",
    "<example.org!friend@example.test>",
    '<"friend@example.org"@example.test>',
    '<"friend%example.org"@example.test>',
    '<"example.org!friend"@example.test>',
    '<"@example.org:friend"@example.test>',
    "<friend%example.org%example.test@example.test>",
    "<alice%example.test@example.test>",
    '<"alice@example.test"@example.org>',
    "<alice%example.test@example.org>",
    "<friend@example.org>",
    "<FRIEND@EXAMPLE.ORG>",
    "<friend@[192.0.2.1]>",
    "<alice@[127.0.0.1]>",
    "<alice@[IPv6:::1]>",
    "<@example.test:friend@example.org>",
    "<@example.test,@example.org:friend@example.org>",
    "<alice@sub.example.test>",
    "<alice@example.test.example.org>",
    "<friend@xn--bcher-kva.example>",
    "<friend@b\u00fccher.example>",
    "<SRS0=aaaaaa=aa=example.org=friend@example.test>",
    "<srs1=aaaaaa=example.org==aaaaaa=aa=example.net=x@example.test>",
    '<"SRS0=aaaaaa=aa=example.org=friend"@example.test>',
    "<friend+example.org@example.test>",
    "<friend#example.org@example.test>",
    "<friend=example.org@example.test>",
    '<"friend example.org"@example.test>',
    "<|friend@example.test>",
]


class RecipientTests(SynchronousTestCase):
    def refusal(self, address, service="mx", **options):
        house = make_house(service, **options)
        account = Account(ALICE) if service == "submission" else None
        transaction = self.successResultOf(house.begin(ALICE if account else SENDER, account))
        return self.failureResultOf(transaction.add_recipient(address), MailError).value

    def test_the_interfaces_are_provided(self):
        house = make_house()
        verifyObject(IMessageReceiver, house.receiver)
        verifyObject(IMailTransaction, self.successResultOf(house.begin()))

    def test_unknown_recipients_are_told_at_rcpt(self):
        for service in ("mx", "submission", "lmtp"):
            error = self.refusal(Address("nobody", "example.test"), service)
            assert (str(error.status), error.text) == ("5.1.1", "No such user here")

    def test_foreign_domains_are_not_relayed_to(self):
        foreign = Address("friend", "example.org")
        assert str(self.refusal(foreign)) == "5.7.1 Relaying denied"
        assert str(self.refusal(foreign, "submission").status) == "5.7.1"
        assert str(self.refusal(foreign, "lmtp").status) == "5.1.2"

    def test_never_an_open_relay_by_any_spelling(self):
        houses: list = [
            {},
            {"routes": ()},
            {"routes": ({"via": "smtp:127.0.0.1:2525"},)},
            {"routes": ({"to": "example.org", "via": "mx"}, {"to": "*.example.org", "via": "lmtp:tcp:localhost:24"})},
            {"routes": (), "relay_networks": ("198.51.100.0/24", "::/64")},
        ]
        for options in houses:
            for service in ("mx", "lmtp") if options else ("mx", "submission", "lmtp"):
                for spelling in SPELLINGS:
                    error = self.refusal(parse_forward_path(spelling), service, **options)
                    assert not error.is_temporary, (spelling, options)

    def test_never_an_open_relay_through_a_catch_all(self):
        domains = (DomainSettings("example.test", catch_all="alice"),)
        for spelling in SPELLINGS:
            house = make_house(routes=(), domains=domains)
            transaction = self.successResultOf(house.begin())
            transaction.add_recipient(parse_forward_path(spelling)).addErrback(lambda failure: failure.trap(MailError))
            for recipient in transaction._recipients:
                assert recipient.onward == (), spelling
                assert [target.account for target in recipient.targets] == [ALICE], spelling

    def test_users_send_elsewhere_and_still_no_routes_in_local_parts(self):
        for spelling in SPELLINGS:
            path = parse_forward_path(spelling)
            house = make_house("submission", routes=())
            transaction = self.successResultOf(house.begin(ALICE, Account(ALICE)))
            adding = transaction.add_recipient(path)
            if path.domain == "example.test":
                assert str(self.failureResultOf(adding, MailError).value.status) == "5.1.1", spelling
            else:
                self.successResultOf(adding)

    def test_r_auth_7_a_directory_that_is_down_is_never_an_unknown_user(self):
        for service in ("mx", "submission", "lmtp"):
            house = make_house(service)
            account = Account(ALICE) if service == "submission" else None
            transaction = self.successResultOf(house.begin(ALICE if account else SENDER, account))
            house.directory.is_down = True
            for name in ("alice", "nobody"):
                failure = self.failureResultOf(transaction.add_recipient(Address(name, "example.test")), MailError)
                assert str(failure.value.status) == "4.3.0"

    def test_postmaster_and_subaddresses_are_taken(self):
        house = make_house()
        transaction = self.successResultOf(house.begin())
        for spelling in ("<Postmaster>", "<postmaster@example.test>", "<alice+lists@example.test>"):
            self.successResultOf(transaction.add_recipient(parse_forward_path(spelling)))

    def test_an_alias_that_also_leads_elsewhere_is_refused_and_not_half_delivered(self):
        error = self.refusal(Address("outside", "example.test"))
        assert str(error.status) == "5.7.1"

    def test_a_full_mailbox_is_told_at_rcpt(self):
        house = make_house()
        transaction = self.successResultOf(house.begin(size=201))
        self.failureResultOf(transaction.add_recipient(FULL), OverQuota)
        self.successResultOf(transaction.add_recipient(ALICE))
        fits = self.successResultOf(house.begin(size=200))
        self.successResultOf(fits.add_recipient(FULL))
        assert house.store.account(FULL).reserved_octets == 0

    def test_so_is_one_over_the_quota_that_everybody_has(self):
        house = make_house()
        house.store.settings = StoreSettings(quota_octets=200)
        transaction = self.successResultOf(house.begin(size=201))
        self.failureResultOf(transaction.add_recipient(ALICE), OverQuota)
        fits = self.successResultOf(house.begin(size=200))
        self.successResultOf(fits.add_recipient(ALICE))

    def test_and_where_the_user_is_known_without_asking(self):
        house = make_house()
        house.store.settings = StoreSettings(quota_octets=200)
        transaction = self.successResultOf(house.begin(size=201))
        known = Found((LocalRecipient(DirectoryUser(ALICE)),))
        transaction._parts.policy.find_at_hand = lambda *arguments, **options: known
        self.failureResultOf(transaction.add_recipient(ALICE), OverQuota)

    def test_r_lim_2_accounts_of_one_message_have_a_limit(self):
        house = make_house(accounts_per_message=2)
        transaction = self.successResultOf(house.begin())
        self.successResultOf(transaction.add_recipient(Address("both", "example.test")))
        self.successResultOf(transaction.add_recipient(ALICE))
        error = self.failureResultOf(transaction.add_recipient(FULL), MailError).value
        assert str(error.status) == "4.5.3"
        self.successResultOf(transaction.add_recipient(BOB))


class SenderTests(SynchronousTestCase):
    def test_submission_needs_a_login(self):
        house = make_house("submission")
        error = self.failureResultOf(house.begin(ALICE, None), MailError).value
        assert str(error) == "5.7.0 Authentication required"

    def test_the_envelope_sender_must_be_the_users_own(self):
        house = make_house("submission")
        alias = Address("info", "example.test")
        self.successResultOf(house.begin(alias, Account(ALICE, (alias,))))
        self.successResultOf(house.begin(None, Account(ALICE)))
        error = self.failureResultOf(house.begin(BOB, Account(ALICE)), MailError).value
        assert str(error) == "5.7.1 The sender address is not yours"
        down = self.failureResultOf(house.begin(ALICE, Account(ALICE, is_down=True)), MailError).value
        assert str(down.status) == "4.3.0"

    def test_anybody_may_send_to_the_mx_under_any_name(self):
        house = make_house()
        for reverse_path in (SENDER, ALICE, None):
            self.successResultOf(house.begin(reverse_path))

    def test_no_filters_are_asked_where_there_are_none(self):
        house = make_house()
        assert not any(house.receiver._parts.filters.wants(phase) for phase in Phase)
        self.successResultOf(house.receiver.connected(house.session()))
        self.successResultOf(house.receiver.greeted(house.session()))
