"""Which hosts are asked, in which order, and what it means that one cannot be."""

import pytest

from mailsrv.interfaces.envelope import DeliverBy
from mailsrv.interfaces.queue import AttemptProblem, Declined, Taken
from mailsrv.relay.hops import arrange_addresses
from mailsrv.relay.settings import AddressFamilies, RelaySettings
from mailsrv.testing.next_hop import Fault, Kind, NextHop
from tests.relay.relay_harness import NOW, World, host, make_world


def two_hosts(**changes) -> World:
    world = make_world(**changes)
    world.add_domain("example.net", (20, "second.example.net"), (10, "mx.example.net"))
    world.add_host("second.example.net", "192.0.2.2")
    return world


def declined(outcome) -> tuple[str, AttemptProblem, bool]:
    assert isinstance(outcome, Declined), outcome
    assert outcome.reply.isascii()
    assert outcome.reply.isprintable()
    assert len(outcome.reply) <= 512
    return str(outcome.status), outcome.problem, outcome.is_asked


def test_the_host_of_least_preference_gets_the_message():
    world = two_hosts()
    outcome = world.send("mx:example.net", "bob@example.net")
    assert outcome == Taken(1, "mx.example.net", "250 2.0.0 Taken", offers_dsn=True)
    assert world.network.dialled == ["192.0.2.1"]
    assert world.contents[1].is_closed


def test_a_host_that_is_down_is_followed_by_the_next():
    world = two_hosts()
    host(world).is_up = False
    assert world.send("mx:example.net", "bob@example.net").host == "second.example.net"
    assert world.network.dialled == ["192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize("reply", [b"421 busy\r\n", b"450 later\r\n", b"554 no\r\n", b"521 never\r\n", b"250 ?\r\n"])
def test_a_greeting_that_refuses_leads_to_the_next_host(reply):
    world = two_hosts()
    host(world).faults = [Fault("greeting", Kind.REPLY, reply)]
    assert world.send("mx:example.net", "bob@example.net").host == "second.example.net"


@pytest.mark.parametrize(
    ("reply", "status"),
    [(b"554 5.7.1 Reputation\r\n", "4.7.1"), (b"521 No mail here\r\n", "5.3.2"), (b"450 later\r\n", "4.2.0")],
)
def test_only_521_is_final_for_a_whole_host(reply, status):
    world = make_world()
    host(world).faults = [Fault("greeting", Kind.REPLY, reply)]
    assert declined(world.send("mx:example.net", "bob@example.net")) == (status, AttemptProblem.DESTINATION, True)


def test_what_a_host_says_of_a_recipient_is_final():
    world = two_hosts()
    host(world).refused = {"bob@example.net": "550 5.1.1 No such user", "eve@example.net": "451 4.7.1 Greylisted"}
    bob, eve, ann = world.send("mx:example.net", "bob@example.net", "eve@example.net", "ann@example.net")
    assert declined(bob) == ("5.1.1", AttemptProblem.RECIPIENT, True)
    assert bob.reply == "550 5.1.1 No such user"
    assert bob.host == "mx.example.net"
    assert declined(eve) == ("4.7.1", AttemptProblem.RECIPIENT, True)
    assert isinstance(ann, Taken)
    assert world.network.dialled == ["192.0.2.1"]


def test_at_most_two_sessions_and_five_addresses_are_tried():
    world = make_world()
    names = [f"mx{number}.example.net" for number in range(9)]
    world.add_domain("example.net", *((number, name) for number, name in enumerate(names)))
    for number, name in enumerate(names):
        world.add_host(name, f"192.0.2.{10 + number}", hop=NextHop(is_up=False))
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "4.4.1"
    assert len(world.network.dialled) == 5
    world.network.dialled.clear()
    for hop in world.network.hops.values():
        hop.is_up = True
        hop.faults = [Fault("greeting", Kind.REPLY, b"450 4.3.2 later\r\n", times=9)]
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "4.3.2"
    assert len(world.network.dialled) == 2


def test_r_dns_every_failure_of_the_dns_is_temporary():
    world = make_world()
    world.resolver.broken = {"example.net"}
    assert declined(world.send("mx:example.net", "bob@example.net")) == ("4.4.3", AttemptProblem.DESTINATION, True)
    world.resolver.broken = {"mx.example.net"}
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "4.4.3"
    world.resolver.broken = set()
    world.policies.broken = {"mx.example.net"}
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "4.4.3"


def test_r_dns_a_host_that_never_takes_mail_does_not_speak_for_one_the_dns_does_not_tell():
    world = make_world()
    world.add_domain("example.net", (10, "mx.example.net"), (20, "second.example.net"))
    host(world).faults = [Fault("greeting", Kind.REPLY, b"521 no mail here\r\n", times=9)]
    world.resolver.broken = {"second.example.net"}
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "4.4.3"


@pytest.mark.parametrize(
    ("domain", "status"),
    [("nowhere.example", "5.1.2"), ("null.example", "5.1.10"), ("loop.example", "5.4.6"), ("bare.example", "5.4.4")],
)
def test_what_the_dns_knows_for_certain_is_permanent(domain, status):
    world = make_world()
    world.add_domain("null.example", (0, ""))
    world.add_domain("loop.example", (10, "mail.example.test"), (20, "mx.example.net"))
    world.add_domain("bare.example", (10, "gone.example.net"))
    assert declined(world.send(f"mx:{domain}", f"bob@{domain}"))[0] == status
    assert world.network.dialled == []


def test_hosts_behind_ourselves_are_not_asked():
    world = make_world(own_names=("relay.example.test",))
    world.add_domain("example.net", (10, "mx.example.net"), (20, "relay.example.test"), (30, "third.example.net"))
    host(world).is_up = False
    world.add_host("third.example.net", "192.0.2.3")
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "4.4.1"
    assert world.network.dialled == ["192.0.2.1"]


def test_ourselves_known_by_address_is_a_loop():
    world = make_world(own_addresses=("192.0.2.1",))
    assert declined(world.send("mx:example.net", "bob@example.net"))[0] == "5.4.6"


def test_a_domain_without_mx_is_its_own_host():
    world = make_world()
    world.add_host("plain.example", "192.0.2.7")
    assert world.send("mx:plain.example", "bob@plain.example").host == "plain.example"


@pytest.mark.parametrize(("literal", "where"), [("[192.0.2.9]", "192.0.2.9"), ("[ipv6:2001:db8::1]", "2001:db8::1")])
def test_an_address_literal_is_spoken_to_without_the_dns(literal, where):
    world = make_world()
    world.network.hops[where] = NextHop()
    assert isinstance(world.send(f"mx:{literal}", f"bob@{literal}"), Taken)
    assert world.resolver.asked == []


def test_equals_are_shuffled():
    firsts = set()
    for _ in range(60):
        world = make_world()
        world.add_domain("example.net", (10, "mx.example.net"), (10, "second.example.net"))
        world.add_host("second.example.net", "192.0.2.2")
        firsts.add(world.send("mx:example.net", "bob@example.net").host)
    assert firsts == {"mx.example.net", "second.example.net"}


def test_families_take_turns():
    found = ("2001:db8::1", "2001:db8::2", "192.0.2.1")
    settings = RelaySettings()
    assert arrange_addresses(found, settings, "h") == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]
    only = RelaySettings(address_families=AddressFamilies.IPV4)
    assert arrange_addresses(found, only, "h") == ["192.0.2.1"]


@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "::1", "fe80::1", "169.254.169.254", "::ffff:127.0.0.1"])
def test_private_addresses_are_refused_where_that_is_set(private):
    world = make_world(refuses_private_addresses=True)
    world.add_host("inside.example", private)
    assert declined(world.send("mx:inside.example", "bob@inside.example"))[0] == "5.4.4"
    literal = f"[{private}]" if "." in private and ":" not in private else f"[ipv6:{private}]"
    assert declined(world.send(f"mx:{literal}", f"bob@{literal}"))[0] == "5.4.4"
    assert world.network.dialled == []


def test_deliver_by_is_told_as_what_is_left():
    world = make_world()
    host(world).keywords["DELIVERBY"] = "30"
    entry = world.entry(deliver_by=DeliverBy(int(NOW) + 600, must_return=True, is_traced=True))
    world.send("mx:example.net", "bob@example.net", entry=entry)
    assert "BY=600;RT" in host(world).messages[0].mail_parameters
    late = world.entry(deliver_by=DeliverBy(int(NOW) + 20, must_return=True))
    assert declined(world.send("mx:example.net", "bob@example.net", entry=late))[0] == "5.4.7"


@pytest.mark.parametrize("must_return", [True, False])
def test_rfc_2852_4_1_4_mode_r_goes_only_where_it_is_kept(must_return):
    world = make_world()
    world.add_domain("example.net", (10, "mx.example.net"), (20, "mx2.example.net"))
    second = world.add_host("mx2.example.net", "192.0.2.2")
    by = DeliverBy(int(NOW) + 600, must_return=must_return)
    outcome = world.send("mx:example.net", "bob@example.net", entry=world.entry(deliver_by=by))
    if must_return:
        assert (str(outcome.status), outcome.problem) == ("5.4.7", AttemptProblem.MESSAGE)
        assert len(second.conversations) == 1
        second.keywords["DELIVERBY"] = ""
        world.clock.advance(30)
        world.run()
        outcome = world.send("mx:example.net", "bob@example.net", entry=world.entry(deliver_by=by))
        assert "BY=" in second.messages[0].mail_parameters
        assert outcome.offers_deliver_by
    else:
        assert isinstance(outcome, Taken)
        assert not outcome.offers_deliver_by
