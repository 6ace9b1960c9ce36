"""Which networks an address is in, and under which it is counted."""

from __future__ import annotations

import pytest

from mailsrv.wire.networks import NetworkSet, network_key


def test_addresses_are_found_in_their_networks():
    networks = NetworkSet(["127.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    for inside in ["127.1.2.3", "192.0.2.7", "2001:db8:1::1", "::ffff:127.0.0.1"]:
        assert inside in networks
    for outside in ["192.0.2.8", "2001:db9::1", "", "localhost", "127.1", None]:
        assert outside not in networks


def test_networks_of_mapped_addresses_are_those_of_ipv4():
    networks = NetworkSet(["::ffff:192.0.2.0/120", "::ffff:198.51.100.7"])
    for inside in ["192.0.2.9", "::ffff:192.0.2.9", "198.51.100.7"]:
        assert inside in networks
    for outside in ["192.0.3.9", "198.51.100.8", "::ffff", "::c000:209"]:
        assert outside not in networks
    assert "192.0.2.1" in NetworkSet(["::ffff:0:0/96"])


def test_everything_and_nothing():
    assert "192.0.2.1" in NetworkSet(["0.0.0.0/0"])
    assert "::1" not in NetworkSet(["0.0.0.0/0"])
    assert "::1" in NetworkSet(["::/0"])
    assert "127.0.0.1" not in NetworkSet()
    assert not NetworkSet()


@pytest.mark.parametrize("text", ["", "localhost", "127.0.0.1/8", "1.2.3.4/33", "*"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match=r"\S"):
        NetworkSet([text])


def test_ipv6_clients_are_counted_by_64_bits():
    assert network_key("2001:db8:0:1:aaaa::1") == network_key("2001:db8:0:1::2") == "2001:db8:0:1::/64"
    assert network_key("192.0.2.1") == network_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_key("") == ""
