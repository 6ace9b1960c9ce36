"""Who may send to a list, at RCPT, whoever sends and whatever way the mail comes."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailsrv.address import Address
from mailsrv.delivery.submission import check_from_field, sender_field
from mailsrv.directory.list_settings import ListSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.account import IAccount, IDelegate
from mailsrv.interfaces.rights import Posters
from tests.delivery.conftest import ALICE, BOB, FULL, SENDER, Account

LIST = Address("list", "example.test")
OUTER = Address("outer", "example.test")
FRIEND = Address("friend", "example.org")


def house(make: Any, service: str = "mx", post: Posters = Posters.MEMBERS, *, more: Any = (), **changes: Any) -> Any:
    settings = changes.pop("settings", {})
    made = make(service, lists=(ListSettings(str(LIST), post, **changes), *more), **settings)
    made.directory.add_alias(LIST, [ALICE, BOB])
    made.directory.add_alias(OUTER, [LIST])
    return made


def ended(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0]


def rcpt(made: Any, sender: Address | None, account: Any = None, to: Address = LIST, **session: Any) -> str:
    """The refusal, "" for none."""
    transaction = ended(made.begin(sender, account, made.session(**session) if session else None))
    answer = ended(transaction.add_recipient(to))
    if answer is None:
        return ""
    assert isinstance(answer.value, MailError), answer
    return str(answer.value)


def test_members_send_logged_in_and_strangers_do_not_whatever_they_write(house_factory):
    made = house(house_factory)
    for sender in (ALICE, SENDER, None):
        refusal = rcpt(made, sender)
        assert refusal.startswith("5.7.2 Only its members may send to list@example.test, after a log-in")
    submission = house(house_factory, "submission")
    assert rcpt(submission, ALICE, Account(ALICE)) == ""
    # What counts is the account; the envelope sender may be another of theirs.
    alias = Address("press", "example.test")
    assert rcpt(submission, alias, Account(ALICE, (alias,))) == ""
    assert rcpt(submission, None, Account(ALICE)) == ""
    assert rcpt(submission, FULL, Account(FULL)).startswith("5.7.2 Only its members may send to list@example.test")
    # Or the address they send under, which has been compared with the log-in.
    assert rcpt(submission, BOB, Account(FULL, (BOB,))) == ""


def test_lmtp_says_nothing_about_who_it_is(house_factory):
    assert "5.7.2" in rcpt(house(house_factory, "lmtp"), ALICE)


def test_clients_that_may_write_any_name_are_believed(house_factory):
    made = house(house_factory, settings={"relay_networks": ("192.0.2.0/24",)})
    assert rcpt(made, ALICE, client_address="192.0.2.7") == ""
    assert "5.7.2" in rcpt(made, SENDER, client_address="192.0.2.7")
    assert "5.7.2" in rcpt(made, ALICE, client_address="198.51.100.7")


@pytest.mark.parametrize(
    ("post", "alice", "full", "stranger"),
    [
        (Posters.ANYBODY, True, True, True),
        (Posters.USERS, True, True, False),
        (Posters.DOMAIN, True, True, False),
        (Posters.MEMBERS, True, False, False),
        (Posters.NAMED, False, False, False),
        (Posters.NOBODY, False, False, False),
    ],
)
def test_each_word(house_factory, post, alice, full, stranger):
    submission, mx = house(house_factory, "submission", post), house(house_factory, "mx", post)
    assert (rcpt(submission, ALICE, Account(ALICE)) == "") is alice
    assert (rcpt(submission, FULL, Account(FULL)) == "") is full
    assert (rcpt(mx, ALICE) == "") is stranger


def test_posters_are_users_or_lists_and_those_refused_are_refused_in_any_case(house_factory):
    made = house(house_factory, "submission", Posters.NAMED, posters=("Full@Example.TEST",))
    assert rcpt(made, FULL, Account(FULL)) == ""
    assert "Only those it names" in rcpt(made, ALICE, Account(ALICE))
    by_list = house(house_factory, "submission", Posters.NAMED, posters=("both@example.test",), refused=(str(BOB),))
    assert rcpt(by_list, ALICE, Account(ALICE)) == ""
    assert "5.7.2" in rcpt(by_list, BOB, Account(BOB))
    open_list = house(house_factory, "mx", Posters.ANYBODY, refused=(str(SENDER),))
    assert "You may not" not in rcpt(open_list, FRIEND)
    assert "5.7.2" in rcpt(open_list, SENDER)


def test_members_elsewhere_are_believed_only_where_the_settings_say_so(house_factory):
    for believes in (False, True):
        made = house(
            house_factory,
            settings={"believe_list_senders": believes, "routes": [{"to": "*", "via": "mx"}]},
        )
        made.directory.add_alias(LIST, [ALICE, FRIEND])
        assert (rcpt(made, FRIEND) == "") is believes
        # Never one of ours.
        assert "5.7.2" in rcpt(made, ALICE)


def test_the_outermost_rule_decides_and_aliases_lead_past_none(house_factory):
    made = house(house_factory)
    assert "to list@example.test" in rcpt(made, SENDER, to=OUTER)
    own = (ListSettings(str(OUTER), Posters.ANYBODY),)
    assert rcpt(house(house_factory, more=own), SENDER, to=OUTER) == ""
    # A subaddress of the list is the list; other names of the domain are the same domain.
    assert "5.7.2" in rcpt(made, SENDER, to=Address("list+x", "example.test"))


def test_a_members_own_forwarding_leads_into_no_other_list(house_factory):
    """Who may write to the outer list may not write to whatever its members send their mail on to."""
    board, chair = Address("board", "example.test"), Address("chair", "example.test")
    rules = (ListSettings(str(board), Posters.NAMED, (str(chair),)), ListSettings(str(OUTER), Posters.USERS))

    def made(outer: list[Address]) -> Any:
        made = house(house_factory, "submission", more=rules)
        made.directory.add_user(chair, "x")
        made.directory.add_alias(board, [chair])
        # Bob is a user: his mail goes on, and it is he who says so.
        made.directory.add_alias(BOB, [board])
        made.directory.add_alias(OUTER, outer)
        return made

    refusal = "5.7.2 Only those it names may send to board@example.test"
    assert rcpt(made([ALICE, BOB]), ALICE, Account(ALICE), to=OUTER).startswith(refusal)
    assert rcpt(made([ALICE, BOB]), chair, Account(chair), to=OUTER) == ""
    assert rcpt(made([ALICE, BOB]), ALICE, Account(ALICE), to=BOB).startswith(refusal)
    # Where the outer list names the inner one, too, its rule decides, in whatever order.
    assert rcpt(made([ALICE, board]), ALICE, Account(ALICE), to=OUTER) == ""
    assert rcpt(made([BOB, board]), ALICE, Account(ALICE), to=OUTER) == ""
    assert rcpt(made([board, BOB]), ALICE, Account(ALICE), to=OUTER) == ""


def test_rfc_5321_4_5_1_mail_for_postmaster_is_taken_from_everybody(house_factory):
    made = house(house_factory, post=Posters.NOBODY)
    postmaster = Address("postmaster", "example.test")
    made.directory.add_alias(postmaster, [LIST])
    assert rcpt(made, SENDER, to=postmaster) == ""
    assert "Nobody may send to" in rcpt(made, SENDER)


def test_two_rules_on_one_list_are_a_mistake(house_factory):
    with pytest.raises(ValueError, match="twice"):
        house(house_factory, more=(ListSettings("LIST@example.test", Posters.USERS),))
    with pytest.raises(ValueError, match="expected an address"):
        ListSettings("nobody at all", Posters.USERS)


# On behalf of others


@implementer(IAccount, IDelegate)
class Secretary(Account):
    """Alice, who may write for Bob."""

    def may_send_on_behalf(self, address: Address) -> Deferred[bool]:
        return succeed(address == BOB)


def needs_sender(header: bytes, account: Any) -> Any:
    return ended(Deferred.fromCoroutine(check_from_field(account, header, ALICE)))


def test_rfc_5322_3_6_2_who_writes_for_somebody_else_is_named_in_sender():
    alice = Secretary(ALICE)
    assert needs_sender(b"From: bob@example.test\r\n\r\n", alice) is True
    assert sender_field(alice) == b"Sender: alice@example.test\r\n"
    assert needs_sender(b"From: bob@example.test\r\nSender: Alice <alice@example.test>\r\n\r\n", alice) is False
    assert needs_sender(b"From: alice@example.test\r\nSender: bob@example.test\r\n\r\n", alice) is False
    for header in (
        b"From: bob@example.test\r\nSender: bob@example.test\r\n\r\n",
        b"From: bob@example.test\r\nSender: alice@example.test\r\nSender: bob@example.test\r\n\r\n",
        b"From: bob@example.test\r\nSender: alice@example.test, bob@example.test\r\n\r\n",
        b"From: bob@example.test\r\nSender: (\r\n\r\n",
        b"From: bob@example.test, full@example.test\r\n\r\n",
    ):
        assert needs_sender(header, alice).check(MailError), header
    assert needs_sender(b"From: bob@example.test\r\n\r\n", Account(ALICE)).check(MailError)
