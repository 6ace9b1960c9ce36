"""Connections that are kept, smarthosts with log-in, and LMTP."""

import base64

import pytest
from twisted.internet.defer import fail

from mailsrv.interfaces.queue import AttemptProblem, Destination, Taken
from mailsrv.interfaces.resolver import TlsaRecord
from mailsrv.interfaces.tls_policy import HostTlsPolicy, TlsLevel
from mailsrv.relay.agent import DestinationAgent
from mailsrv.relay.smarthost_agent import SmarthostAgent, split_target
from mailsrv.routing.rules import Smarthost
from mailsrv.testing.next_hop import EVERYTHING, Fault, Kind, NextHop
from mailsrv.testing.resolver import MemoryResolver as DnsInMemory
from mailsrv.tls.policy import TlsPolicies
from mailsrv.tls.policy_settings import TlsPolicySettings
from tests.relay.relay_harness import World, host, make_world

BOB = "bob@example.net"


def test_many_messages_go_over_one_connection():
    world = make_world(messages_a_connection=10)
    for _ in range(25):
        assert isinstance(world.send("mx:example.net", BOB), Taken)
    assert len(world.network.dialled) == 3
    assert len(host(world).messages) == 25
    assert world.resolver.asked.count("MX example.net") == 3


def test_idle_connections_end_with_quit():
    world = make_world(idle_seconds=5.0)
    world.send("mx:example.net", BOB)
    world.clock.advance(4.9)
    assert len(world.parts.cache) == 1
    world.clock.advance(0.2)
    world.run()
    assert len(world.parts.cache) == 0
    assert bytes(host(world).conversations[0].transcript).endswith(b"QUIT\r\n")
    assert not world.clock.getDelayedCalls()


def test_idle_connections_are_bounded_in_all():
    world = make_world(idle_connections=3)
    for number in range(6):
        world.add_host(f"h{number}.example", f"192.0.2.{20 + number}")
        world.send(f"mx:h{number}.example", f"bob@h{number}.example")
    assert len(world.parts.cache) == 3
    world.send("mx:h5.example", "bob@h5.example")
    assert len(world.network.dialled) == 6


def test_a_connection_gets_too_old():
    world = make_world(connection_seconds=10.0, idle_seconds=60.0)
    world.send("mx:example.net", BOB)
    world.clock.advance(11)
    world.send("mx:example.net", BOB)
    world.send("mx:example.net", BOB)
    assert len(world.network.dialled) == 2


def test_limits_of_the_host_are_kept():
    world = make_world()
    host(world).keywords["LIMITS"] = "RCPTMAX=2 MAILMAX=3"
    world.send("mx:example.net", *(f"r{number}@example.net" for number in range(5)))
    assert [len(message.recipients) for message in host(world).messages] == [2, 2, 1]
    world.send("mx:example.net", BOB)
    assert len(world.network.dialled) == 2


@pytest.mark.parametrize("reply", [b"452 4.5.3 Too many\r\n", b"552 Too many recipients\r\n", b"452 enough\r\n"])
def test_rfc_5321_4_5_3_1_10_recipients_that_were_too_many_come_in_another_transaction(reply):
    world = make_world()
    host(world).faults = [Fault("RCPT", Kind.REPLY, reply, skip=2, times=2)]
    outcomes = world.send("mx:example.net", *(f"r{number}@example.net" for number in range(4)))
    assert all(isinstance(outcome, Taken) for outcome in outcomes)
    assert [len(message.recipients) for message in host(world).messages] == [2, 2]


def test_a_mailbox_that_is_full_is_not_too_many_recipients():
    world = make_world()
    host(world).refused = {"full@example.net": "552 5.2.2 Mailbox full"}
    _bob, full = world.send("mx:example.net", BOB, "full@example.net")
    assert str(full.status) == "5.2.2"
    assert len(host(world).messages) == 1


def test_a_refused_transaction_is_followed_by_rset():
    world = make_world()
    host(world).refused = {BOB: "550 5.1.1 No"}
    world.send("mx:example.net", BOB)
    world.send("mx:example.net", "eve@example.net")
    assert b"RSET\r\nMAIL" in host(world).conversations[0].transcript
    assert len(host(world).messages) == 1


def test_stopping_says_quit_and_takes_no_more():
    world = make_world()
    agent = DestinationAgent({Destination.parse("mx:x").transport: world.mx})
    world.send("mx:example.net", BOB)
    agent.stop()
    world.run()
    assert bytes(host(world).conversations[0].transcript).endswith(b"QUIT\r\n")
    outcome = world.send("mx:example.net", BOB)
    assert not outcome.is_asked
    assert outcome.status.is_temporary


def test_stopping_waits_for_what_is_under_way_but_not_for_ever():
    world = make_world(stop_seconds=20.0)
    host(world).faults = [Fault("MAIL", Kind.SILENT)]
    world.begin(world.consign("mx:example.net", BOB))
    stopped: list[object] = []
    world.mx.stop().addCallback(stopped.append)
    world.clock.advance(19)
    assert not stopped
    world.clock.advance(2)
    assert stopped == [None]


def test_a_transport_without_agent_postpones():
    agent = DestinationAgent({})
    outcomes: list = []
    agent.attempt(make_world().consign("mx:example.net", BOB)).addCallback(outcomes.extend)
    assert outcomes[0].status.is_temporary


# -- smarthosts


def smarthost_world(port: int = 587, tls: TlsLevel = TlsLevel.VERIFY, **keywords: str) -> World:
    target = f"smtp.provider.example:{port}"
    known = Smarthost("smtp.provider.example", port, "ann", "/etc/secret", tls)
    world = make_world(smarthosts={Destination.parse(f"smtp:{target}"): known})
    hop = NextHop(keywords={**EVERYTHING, "STARTTLS": ""}, tls_keywords={**EVERYTHING, **keywords})
    world.add_host("smtp.provider.example", "192.0.2.50", hop=hop)
    return world


@pytest.mark.parametrize("port", [587, 465])
@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
def test_a_smarthost_is_logged_into_inside_tls(port, mechanisms):
    world = smarthost_world(port, AUTH=mechanisms)
    outcome = world.send(f"smtp:smtp.provider.example:{port}", BOB)
    assert isinstance(outcome, Taken)
    hop = host(world, "192.0.2.50")
    assert hop.messages[0].is_tls
    said = bytes(hop.conversations[0].transcript)
    if mechanisms == "LOGIN":
        assert b"AUTH LOGIN\r\n%b\r\n%b\r\n" % (base64.b64encode(b"ann"), base64.b64encode(b"secret")) in said
    else:
        assert b"AUTH PLAIN " + base64.b64encode(b"\0ann\0secret") in said
    assert (b"STARTTLS" in said) is (port != 465)


@pytest.mark.parametrize("case", ["refused", "not offered", "in the clear", "no file"])
def test_a_log_in_that_fails_bounces_nothing(case):
    world = smarthost_world(587, TlsLevel.NONE if case == "in the clear" else TlsLevel.VERIFY, AUTH="PLAIN")
    hop = host(world, "192.0.2.50")
    if case == "refused":
        hop.faults = [Fault("AUTH", Kind.REPLY, b"535 5.7.8 Wrong\r\n")]
    elif case == "not offered":
        hop.tls_keywords = {}
    elif case == "no file":
        agent = SmarthostAgent(world.parts, world.smarthost._known, read=lambda path: fail(OSError("gone")))
        world.smarthost = agent
    outcome = world.send("smtp:smtp.provider.example:587", BOB)
    assert (str(outcome.status), outcome.problem) == ("4.7.8", AttemptProblem.DESTINATION)
    assert b"ann" not in bytes(b"".join(bytes(one.transcript) for one in hop.conversations)) or case == "refused"
    assert hop.messages == []


def test_a_smarthost_without_address_bounces_nothing():
    world = make_world()
    assert world.send("smtp:gone.example:25", BOB).status.is_temporary


def test_a_smarthost_may_be_an_address():
    world = make_world()
    assert isinstance(world.send("smtp:192.0.2.1:2525", BOB), Taken)
    assert isinstance(world.send("smtp:[192.0.2.1]:25", BOB), Taken)


def test_rfc_7672_a_smarthost_by_dane_has_its_tlsa_records_looked_up():
    world = smarthost_world(587, TlsLevel.DANE, AUTH="PLAIN")
    resolver = DnsInMemory(secure={"smtp.provider.example", "_587._tcp.smtp.provider.example"})
    resolver.add_addresses("smtp.provider.example", "192.0.2.50")
    world.parts.policies = TlsPolicies([TlsPolicySettings("*", TlsLevel.NONE)], resolver)
    checked: list[HostTlsPolicy] = []
    world.tls.seen = checked
    # Where there is no record, the level stays and the check says no (as ClientTls does).
    assert isinstance(world.send("smtp:smtp.provider.example:587", BOB), Taken)
    assert (checked[-1].level, checked[-1].tlsa) == (TlsLevel.DANE, ())
    record = TlsaRecord(3, 1, 1, bytes(32))
    resolver.add_tlsa("_587._tcp.smtp.provider.example", record)
    world.clock.advance(30)
    world.run()
    assert isinstance(world.send("smtp:smtp.provider.example:587", BOB), Taken)
    assert (checked[-1].level, checked[-1].source, checked[-1].tlsa) == (TlsLevel.DANE, "dane", (record,))


@pytest.mark.parametrize(
    ("target", "found"),
    [("h.example:587", ("h.example", 587)), ("h.example", ("h.example", 25)), ("[2001:db8::1]", ("[2001:db8::1]", 25)),
     ("[2001:db8::1]:26", ("[2001:db8::1]", 26))],
)  # fmt: skip
def test_targets(target, found):
    assert split_target(target) == found


# -- LMTP


def lmtp_world() -> tuple[World, NextHop]:
    world = make_world()
    hop = world.network.hops["unix:/run/lmtp"] = NextHop(is_lmtp=True)
    return world, hop


@pytest.mark.parametrize("keywords", [EVERYTHING, {"PIPELINING": ""}, {"CHUNKING": ""}, {}])
def test_rfc_2033_each_recipient_has_its_answer(keywords):
    world, hop = lmtp_world()
    hop.keywords = dict(keywords)
    hop.refused = {"no@example.net": "550 5.1.1 No"}
    hop.refused_at_end = {"full@example.net": "452 4.2.2 Full"}
    outcomes = world.send("lmtp:unix:/run/lmtp", BOB, "no@example.net", "full@example.net", "eve@example.net")
    bob, no, full, eve = outcomes
    assert isinstance(bob, Taken)
    assert bob.is_local
    assert isinstance(eve, Taken)
    assert (str(no.status), str(full.status)) == ("5.1.1", "4.2.2")
    assert hop.messages[0].recipients == (BOB, "eve@example.net")
    assert isinstance(world.send("lmtp:unix:/run/lmtp", BOB), Taken)
    assert len(hop.conversations) == 1


def test_requiretls_stays_on_this_machine():
    world, _hop = lmtp_world()
    assert isinstance(world.send("lmtp:unix:/run/lmtp", BOB, entry=world.entry(requires_tls=True)), Taken)
    world.network.hops["tcp:host=192.0.2.9:port=24"] = NextHop(is_lmtp=True)
    outcome = world.send("lmtp:tcp:host=192.0.2.9:port=24", BOB, entry=world.entry(requires_tls=True))
    assert str(outcome.status) == "5.7.30"
