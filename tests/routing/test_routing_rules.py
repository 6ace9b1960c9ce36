"""Transport rules: the first that matches both ends wins, and local mail is led away only by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.interfaces.queue import Destination, Transport
from mailsrv.interfaces.tls_policy import TlsLevel
from mailsrv.routing.pattern import parse_pattern
from mailsrv.routing.rules import Smarthost, TransportRules, find_contradictions
from mailsrv.routing.settings import RouteSettings
from mailsrv.routing.via import REFUSAL, Action, parse_via, split_host_and_port

LOCAL = ("example.test", "sub.example.test")
ALICE = Address("alice", "example.test")
FRIEND = Address("friend", "example.org")
SENDER = Address("sender", "example.net")


def rules(*routes):
    return TransportRules([RouteSettings(**route) for route in routes], LOCAL)


def lead(table, recipient, sender=SENDER):
    route = table.find(sender, recipient)
    return str(route.destination or route.action.value)


def test_without_rules_local_domains_are_local_and_the_rest_goes_by_mx():
    table = rules()
    assert lead(table, ALICE) == "local"
    assert lead(table, FRIEND) == "mx:example.org"
    assert lead(table, Address("x", "[192.0.2.1]")) == "mx:[192.0.2.1]"
    assert lead(table, Address("x", "deeper.sub.example.test")) == "mx:deeper.sub.example.test"
    assert not table.has_local_rules


def test_a_smarthost_for_all_leaves_local_mail_where_it_is():
    table = rules({"via": "smtp:127.0.0.1:2626"})
    assert lead(table, FRIEND) == "smtp:127.0.0.1:2626"
    assert lead(table, ALICE) == "local"
    assert not table.has_local_rules
    assert lead(rules({"via": "reject"}), ALICE) == "local"


def test_the_first_that_matches_wins_however_exact_the_others_are():
    table = rules(
        {"to": "*.example.org", "via": "lmtp:tcp:localhost:24"},
        {"to": "friend@example.org", "via": "discard"},
        {"to": "example.org", "via": "reject:No more mail"},
        {"via": "mx"},
        {"to": "late.example", "via": "discard"},
    )
    assert lead(table, FRIEND) == "discard"
    assert lead(table, Address("FRIEND", "example.org")) == "discard"
    assert lead(table, Address("a", "b.c.example.org")) == "lmtp:tcp:localhost:24"
    refused = table.find(SENDER, Address("other", "example.org"))
    assert (refused.action, refused.text, refused.rule) == (Action.REJECT, "No more mail", 2)
    assert lead(table, Address("x", "late.example")) == "mx:late.example"


def test_senders_by_address_domain_and_null():
    table = rules(
        {"to": "example.org", "sender": "<>", "via": "discard"},
        {"sender": "boss@example.test", "via": "smtp:one.example"},
        {"sender": "example.test", "via": "smtp:two.example:2525"},
        {"sender": "*.net", "via": "smtp:[IPv6:2001:db8::1]:587"},
    )
    assert lead(table, FRIEND, None) == "discard"
    assert lead(table, FRIEND, Address("Boss", "example.test")) == "smtp:one.example:25"
    assert lead(table, FRIEND, ALICE) == "smtp:two.example:2525"
    assert lead(table, FRIEND) == "smtp:[2001:db8::1]:587"
    assert lead(table, FRIEND, FRIEND) == "mx:example.org"


def test_local_mail_is_led_away_by_a_rule_that_names_it():
    table = rules(
        {"to": "postmaster@example.test", "via": "local"},
        {"to": "example.test", "via": "lmtp:unix:/run/lmtp"},
        {"to": "*.example.test", "via": "smtp:inside.example:25"},
    )
    assert table.has_local_rules
    assert lead(table, Address("postmaster", "example.test")) == "local"
    assert lead(table, ALICE) == "lmtp:unix:/run/lmtp"
    assert lead(table, Address("a", "sub.example.test")) == "smtp:inside.example:25"
    assert table.find(SENDER, ALICE).destination == Destination(Transport.LMTP, "unix:/run/lmtp")


def test_smarthosts_by_destination():
    table = rules(
        {"via": "smtp:Mail.Example.NET:587", "username": "u", "password_file": "/x", "to": "example.org"},
        {"via": "smtp:other.example", "to": "example.com"},
    )
    assert table.smarthosts == {
        Destination(Transport.SMTP, "mail.example.net:587"): Smarthost(
            "mail.example.net", 587, "u", "/x", TlsLevel.VERIFY
        ),
        Destination(Transport.SMTP, "other.example:25"): Smarthost("other.example", 25),
    }
    with pytest.raises(ValueError, match="another log-in"):
        rules({"via": "smtp:a.example"}, {"via": "smtp:a.example:25", "tls": TlsLevel.ENCRYPT})


@pytest.mark.parametrize(
    "via",
    [
        "",
        "lokal",
        "local:x",
        "mx:example.org",
        "discard:",
        "smtp",
        "smtp:",
        "smtp::25",
        "smtp:host:0",
        "smtp:host:65536",
        "smtp:host:smtp",
        "smtp:ho st:25",
        "smtp:2001:db8::1",
        "smtp:[2001:db8::zz]:25",
        "smtp:999.1.1.1:25",
        "lmtp",
        "lmtp:",
        "lmtp:unix:lmtp.sock",
        "lmtp:unix:/run/x\r\ny",
        "reject:",
        "reject:two\nlines",
        "reject:größer",
        "Reject",
    ],
)
def test_r_inj_1_what_is_no_way_is_refused_in_the_configuration(via):
    with pytest.raises(ValueError, match="expected"):
        RouteSettings(via=via)


@pytest.mark.parametrize("pattern", ["", "@", "alice@", "@example.org", "*example.org", "a b", "*.", "**", "a@b@c"])
def test_what_is_no_pattern(pattern):
    with pytest.raises(ValueError, match="expected"):
        RouteSettings(via="mx", to=pattern)


def test_what_contradicts_itself_is_found():
    def found(*routes):
        return [(each.route, each.key) for each in find_contradictions([RouteSettings(**r) for r in routes], LOCAL)]

    assert found({"to": "example.test", "via": "local"}, {"via": "mx"}, {"to": "*.test", "via": "local"}) == []
    assert found({"via": "local"}, {"to": "example.org", "via": "local"}) == [(0, "to"), (1, "to")]
    assert found({"to": "<>", "via": "discard"}) == [(0, "to")]
    assert found({"via": "mx", "username": "x", "password_file": "/y"}) == [(0, "username"), (0, "password_file")]
    assert found({"via": "smtp:a.example", "username": "x"}) == [(0, "password_file")]
    login = {"username": "x", "password_file": "/y"}
    assert found({"via": "smtp:a.example", "tls": TlsLevel.OPPORTUNISTIC, **login}) == [(0, "tls")]
    assert found({"via": "smtp:a.example", **login}) == []
    assert found({"via": "smtp:a.example"}, {"to": "x.example", "via": "smtp:a.example", **login}) == [(1, "via")]


def test_refusals_have_a_text():
    assert parse_via("reject").argument == REFUSAL
    assert split_host_and_port("[2001:db8::1]:587") == ("2001:db8::1", 587)


LABELS = st.sampled_from(["a", "b", "example", "test", "org"])
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
ADDRESSES = st.builds(Address, st.sampled_from(["x", "Y", "z"]), DOMAINS)
PATTERNS = st.one_of(st.just("*"), st.just("<>"), DOMAINS, DOMAINS.map("*.{}".format), ADDRESSES.map(str))


def naive_match(pattern, address):
    if pattern == "*":
        return True
    if address is None or pattern == "<>":
        return address is None and pattern == "<>"
    if "@" in pattern:
        return str(address).lower() == pattern.lower()
    if pattern.startswith("*."):
        return address.domain.endswith(pattern[1:])
    return address.domain == pattern


@given(
    st.lists(st.tuples(PATTERNS.filter(lambda text: text != "<>"), PATTERNS), max_size=8),
    st.one_of(st.none(), ADDRESSES),
    ADDRESSES,
)
def test_the_table_says_what_asking_rule_by_rule_says(pairs, sender, recipient):
    table = TransportRules([RouteSettings(via="discard", to=to, sender=by) for to, by in pairs], ())
    expected = next(
        (number for number, (to, by) in enumerate(pairs) if naive_match(to, recipient) and naive_match(by, sender)),
        None,
    )
    assert table.find(sender, recipient).rule == expected
    assert all(parse_pattern(by).matches(sender) is naive_match(by, sender) for _, by in pairs)
