"""Names of mailboxes of others: one for each, and each is one mailbox's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address, AddressError
from mailsrv.interfaces.mailbox import NoSuchSharedMailbox
from mailsrv.sharing.names import account_name, full_name, is_others, may_begin_with, split_name

LOCAL_PARTS = st.text(st.sampled_from("abzAB09=/%*&'+-.\\\" \u00fc\u3042"), min_size=1, max_size=12)
LEVELS = st.text(st.sampled_from("abINBOXinbox=%* \u00fc"), min_size=1, max_size=8)


def _maybe_address(local_part: str) -> Address | None:
    try:
        return Address(local_part, "example.test")
    except AddressError:
        return None


ADDRESSES = LOCAL_PARTS.map(_maybe_address).filter(lambda address: address is not None)
MAILBOXES = st.lists(LEVELS, min_size=1, max_size=3).map("/".join)


@given(first=ADDRESSES, second=ADDRESSES)
def test_addresses_have_names_of_their_own_of_one_level(first: Address, second: Address) -> None:
    names = [account_name(address) for address in (first, second)]
    assert (names[0] == names[1]) is (first == second)
    for name in names:
        assert name.count("/") == 1
        assert not set(name) & set("%*\\")
        assert is_others(name)


@given(address=ADDRESSES, mailbox=MAILBOXES)
def test_what_a_mailbox_is_called_leads_back_to_it(address: Address, mailbox: str) -> None:
    account = account_name(address)
    level = mailbox.partition("/")[0]
    if level.upper() == "INBOX" and (level != "INBOX" or mailbox == "INBOX"):
        if mailbox == "INBOX":
            assert full_name(account, mailbox) == account
            assert split_name(account) == (account, "INBOX")
        with pytest.raises(NoSuchSharedMailbox):
            split_name(f"{account}/{mailbox}")
        return
    name = full_name(account, mailbox)
    assert split_name(name) == (account, mailbox)
    assert may_begin_with(account, name)
    assert may_begin_with(account, name[:3])


@given(name=st.text(st.sampled_from("Other Users/abINBOX=/"), max_size=30))
def test_any_name_is_one_mailbox_or_none(name: str) -> None:
    if not is_others(name):
        return
    try:
        account, mailbox = split_name(name)
    except NoSuchSharedMailbox:
        return
    assert full_name(account, mailbox) == name


@pytest.mark.parametrize(
    "name",
    [
        "Other Users",
        "Other Users/",
        "Other Users//Sent",
        "Other Users/a@example.test/",
        "Other Users/a@example.test/INBOX",
        "Other Users/a@example.test/inbox/x",
    ],
)
def test_these_are_nobodys(name: str) -> None:
    with pytest.raises(NoSuchSharedMailbox):
        split_name(name)


def test_others_begin_at_a_level() -> None:
    assert not is_others("Other Users2")
    assert not is_others("Other")
    assert account_name(Address("a/b=c", "example.test")) == "Other Users/a=2Fb=3Dc@example.test"
    assert not may_begin_with("Other Users/a@example.test", "Other Users/a@example.tests")
