"""Sender rewriting: there and back, and nobody else's addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address, AddressError
from mailsrv.routing.srs import SenderRewriting, SrsError, is_srs

DAY = 86400.0
NOW = 1_700_000_000.0
OURS = "example.test"
SENDER = Address("sender", "example.net")
KEYS = SenderRewriting([b"secret"])


def test_there_and_back():
    ours = KEYS.rewrite(SENDER, OURS, NOW)
    assert ours.domain == OURS
    assert ours.local_part.startswith("SRS0=")
    assert ours.local_part.endswith("=example.net=sender")
    assert is_srs(ours)
    assert KEYS.restore(ours, NOW) == SENDER
    assert KEYS.restore(Address(ours.local_part.lower(), OURS), NOW) == SENDER


def test_the_second_and_third_forwarder_lead_back_to_the_first():
    first = SenderRewriting([b"first"])
    third = SenderRewriting([b"third"])
    at_first = first.rewrite(Address("s", "a.example"), "f.example", NOW)
    at_second = KEYS.rewrite(at_first, OURS, NOW)
    assert at_second.local_part.startswith("SRS1=")
    at_third = third.rewrite(at_second, "t.example", NOW)
    assert at_third.local_part.startswith("SRS1=")
    # From the third straight to the first.
    assert third.restore(at_third, NOW) == at_first
    assert KEYS.restore(at_second, NOW) == at_first
    assert first.restore(at_first, NOW) == Address("s", "a.example")


def test_addresses_grow_old():
    ours = KEYS.rewrite(SENDER, OURS, NOW)
    assert KEYS.restore(ours, NOW + 21 * DAY) == SENDER
    assert KEYS.restore(ours, NOW - DAY) == SENDER
    for days in (22, 100, 1000):
        with pytest.raises(SrsError):
            KEYS.restore(ours, NOW + days * DAY)


def test_secrets_rotate():
    ours = KEYS.rewrite(SENDER, OURS, NOW)
    assert SenderRewriting([b"newer", b"secret"]).restore(ours, NOW) == SENDER
    with pytest.raises(SrsError):
        SenderRewriting([b"newer"]).restore(ours, NOW)


def test_what_does_not_fit_is_left_alone():
    long = Address("a" * 60, "example.net")
    assert KEYS.rewrite(long, OURS, NOW) == long


@pytest.mark.parametrize(
    "local_part",
    [
        "srs0=",
        "SRS0=aaaaaa=aa=example.org=friend",
        "SRS1=aaaaaa=example.org==x=y=z",
        "SRS0=x=example.org=friend",
        "srs1-",
    ],
)
def test_a_forged_address_is_nobodys(local_part):
    address = Address(local_part, OURS)
    assert is_srs(address)
    with pytest.raises(SrsError) as raised:
        KEYS.restore(address, NOW)
    assert str(raised.value.status) == "5.1.1"


@pytest.mark.parametrize("local_part", ["srs", "srs0", "srs2=x", "alice", "srsx=a"])
def test_ordinary_names_are_ordinary(local_part):
    assert not is_srs(Address(local_part, OURS))


def address_or_none(local_part, domain):
    try:
        return Address(local_part, domain)
    except AddressError:
        return None


LOCAL_PARTS = st.text(min_size=1, max_size=30)
ADDRESSES = st.builds(
    address_or_none, LOCAL_PARTS, st.sampled_from(["example.net", "a.b", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
).filter(lambda address: address is not None)


@given(ADDRESSES, st.floats(0, 4e9), st.floats(0, 20 * DAY))
def test_any_address_comes_back(address, now, later):
    ours = KEYS.rewrite(address, OURS, now)
    if ours == address or is_srs(address):
        return
    assert KEYS.restore(ours, now + later) == address


@given(ADDRESSES, st.data())
def test_no_change_of_a_letter_is_taken(address, data):
    ours = KEYS.rewrite(address, OURS, NOW)
    text = ours.local_part
    place = data.draw(st.integers(5, len(text) - 1)) if ours != address else 0
    changed = text[:place] + ("a" if text[place].lower() != "a" else "b") + text[place + 1 :]
    forged = address_or_none(changed, OURS)
    if ours == address or forged is None:
        return
    with pytest.raises(SrsError):
        KEYS.restore(forged, NOW)
