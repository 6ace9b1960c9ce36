"""TLS as the policies want it, and what is told of it."""

import pytest
from twisted.internet.defer import succeed

from mailsrv.interfaces.queue import AttemptProblem, Declined, Taken
from mailsrv.interfaces.tls_policy import DomainTlsPolicy, TlsLevel
from mailsrv.testing.next_hop import EVERYTHING, Fault, Kind, NextHop
from tests.relay.relay_harness import World, host, make_world

TLS = {**EVERYTHING, "STARTTLS": ""}


def tls_world(level: TlsLevel = TlsLevel.OPPORTUNISTIC, **keywords: str) -> World:
    world = make_world()
    host(world).keywords = {**TLS, **keywords}
    world.policies.levels["mx.example.net"] = level
    return world


def send(world: World, **changes):
    return world.send("mx:example.net", "bob@example.net", entry=world.entry(**changes))


def results(world: World) -> list[str]:
    return [result.result_type for result in world.policies.results]


@pytest.mark.parametrize("level", [TlsLevel.OPPORTUNISTIC, TlsLevel.ENCRYPT, TlsLevel.VERIFY, TlsLevel.DANE])
def test_mail_goes_inside_tls_and_that_is_reported(level):
    world = tls_world(level)
    assert isinstance(send(world), Taken)
    assert host(world).messages[0].is_tls
    assert results(world) == [""]
    assert bytes(host(world).conversations[0].transcript).count(b"EHLO") == 2


def test_level_none_never_asks():
    world = tls_world(TlsLevel.NONE)
    assert isinstance(send(world), Taken)
    assert not host(world).messages[0].is_tls
    assert results(world) == []


@pytest.mark.parametrize("level", [TlsLevel.ENCRYPT, TlsLevel.VERIFY, TlsLevel.DANE])
def test_where_tls_is_due_a_host_without_it_is_no_host(level):
    world = tls_world(level)
    del host(world).keywords["STARTTLS"]
    outcome = send(world)
    assert (str(outcome.status), outcome.problem) == ("4.7.4", AttemptProblem.DESTINATION)
    assert "TLS is required" in outcome.reply
    assert results(world) == ["starttls-not-supported"]


def test_opportunistic_falls_back_on_a_fresh_connection():
    world = tls_world()
    host(world).breaks_handshake = True
    assert isinstance(send(world), Taken)
    assert world.network.dialled == ["192.0.2.1", "192.0.2.1"]
    assert not host(world).messages[0].is_tls
    assert results(world) == ["validation-failure"]


def wait_for_quit(world: World) -> None:
    """Until the connection is no longer kept."""
    world.clock.advance(30)
    world.run()


def test_a_host_whose_tls_is_broken_is_remembered_for_some_minutes():
    world = tls_world()
    host(world).breaks_handshake = True
    send(world)
    wait_for_quit(world)
    assert isinstance(send(world), Taken)
    assert world.network.dialled == ["192.0.2.1"] * 3
    assert results(world) == ["validation-failure"] * 2
    assert [message.is_tls for message in host(world).messages] == [False, False]
    host(world).breaks_handshake = False
    world.clock.advance(600)
    assert isinstance(send(world), Taken)
    assert host(world).messages[-1].is_tls
    assert results(world)[-1] == ""


def test_where_tls_is_due_a_broken_host_is_tried_all_the_same():
    world = tls_world()
    host(world).breaks_handshake = True
    send(world)
    wait_for_quit(world)
    host(world).breaks_handshake = False
    world.policies.levels["mx.example.net"] = TlsLevel.ENCRYPT
    assert isinstance(send(world), Taken)
    assert host(world).messages[-1].is_tls


@pytest.mark.parametrize("settings", [{"broken_tls_seconds": 0.0}, {"broken_tls_hosts": 1}])
def test_what_is_remembered_is_bounded_and_can_be_switched_off(settings):
    world = make_world(**settings)
    host(world).keywords = TLS
    host(world).breaks_handshake = True
    send(world)
    world.add_domain("other.example", (10, "mx.other.example"))
    other = world.add_host("mx.other.example", "192.0.2.9", hop=NextHop(keywords=dict(TLS)))
    other.breaks_handshake = True
    world.send("mx:other.example", "bob@other.example")
    wait_for_quit(world)
    send(world)
    assert world.network.dialled.count("192.0.2.1") == 4


def test_rfc_8460_our_own_address_is_reported():
    world = tls_world()
    host(world).breaks_handshake = True
    send(world)
    assert world.policies.results[0].local_address == "192.0.2.200"


def test_opportunistic_goes_on_where_starttls_is_refused():
    world = tls_world()
    host(world).faults = [Fault("STARTTLS", Kind.REPLY, b"454 4.7.0 Not now\r\n")]
    assert isinstance(send(world), Taken)
    assert world.network.dialled == ["192.0.2.1"]


@pytest.mark.parametrize("level", [TlsLevel.ENCRYPT, TlsLevel.VERIFY])
def test_a_broken_handshake_is_no_way_where_tls_is_due(level):
    world = tls_world(level)
    host(world).breaks_handshake = True
    assert str(send(world).status) == "4.7.5"
    assert host(world).messages == []


def test_a_bad_certificate_gets_no_mail_and_no_envelope():
    world = tls_world(TlsLevel.VERIFY)
    world.tls.bad.add("mx.example.net")
    outcome = send(world)
    assert str(outcome.status) == "4.7.5"
    assert "too old" in outcome.reply
    assert results(world) == ["certificate-expired"]
    assert b"MAIL" not in host(world).conversations[0].transcript


def test_a_policy_that_is_tested_is_reported_and_mail_flows():
    world = tls_world(TlsLevel.VERIFY)
    world.policies.testing.add("mx.example.net")
    world.tls.bad.add("mx.example.net")
    assert isinstance(send(world), Taken)
    assert results(world) == ["certificate-expired"]
    host(world).breaks_handshake = True
    world.clock.advance(30)
    world.run()
    assert isinstance(send(world), Taken)
    assert not host(world).messages[1].is_tls


def test_a_host_that_mta_sts_does_not_name_is_passed_over():
    world = tls_world(TlsLevel.VERIFY)
    world.policies.forbidden.add("mx.example.net")
    outcome = send(world)
    assert outcome.status.is_temporary
    assert "MTA-STS" in outcome.reply
    assert world.network.dialled == []


@pytest.mark.parametrize("extra", [b"250 X\r\n", b"2", b"\r\n"])
def test_r_tls_2_octets_behind_the_answer_to_starttls_abort(extra):
    world = tls_world(TlsLevel.ENCRYPT)
    host(world).faults = [Fault("STARTTLS", Kind.REPLY, b"220 go\r\n" + extra)]
    outcome = send(world)
    assert isinstance(outcome, Declined)
    assert outcome.status.is_temporary
    assert host(world).messages == []


def test_r_tls_2_what_was_offered_in_the_clear_is_forgotten():
    world = tls_world()
    host(world).tls_keywords = {}
    assert isinstance(send(world), Taken)
    assert host(world).messages[0].mail_parameters == ""


def test_requiretls_goes_only_where_it_is_kept():
    world = tls_world(TlsLevel.VERIFY, REQUIRETLS="")
    assert isinstance(send(world, requires_tls=True), Taken)
    assert "REQUIRETLS" in host(world).messages[0].mail_parameters


@pytest.mark.parametrize("case", ["not verified", "not offered", "testing"])
def test_requiretls_is_refused_where_it_is_not_kept(case):
    world = tls_world(TlsLevel.OPPORTUNISTIC if case == "not verified" else TlsLevel.VERIFY, REQUIRETLS="")
    if case == "not offered":
        del host(world).keywords["REQUIRETLS"]
    if case == "testing":
        world.policies.testing.add("mx.example.net")
    outcome = send(world, requires_tls=True)
    assert (str(outcome.status), outcome.problem) == ("5.7.30", AttemptProblem.MESSAGE)
    assert host(world).messages == []


def test_a_connection_for_ordinary_mail_is_not_used_for_requiretls():
    world = tls_world(TlsLevel.VERIFY, REQUIRETLS="")
    send(world)
    send(world, requires_tls=True)
    assert world.network.dialled == ["192.0.2.1", "192.0.2.1"]


WAIVED = b"From: a@example.test\r\ntls-required:  no \r\nSubject: x\r\n\r\nHello\r\n"


@pytest.mark.parametrize("level", [TlsLevel.ENCRYPT, TlsLevel.VERIFY, TlsLevel.DANE])
def test_a_message_may_waive_what_the_domain_demands(level):
    # RFC 8689 3, RFC 8460 3: the report about broken TLS arrives in spite of it.
    world = tls_world(level)
    del host(world).keywords["STARTTLS"]
    outcome = world.send("mx:example.net", "bob@example.net", entry=world.entry(WAIVED))
    assert isinstance(outcome, Taken)
    # Other mail is not sent over a connection that was opened for less.
    assert str(send(world).status) == "4.7.4"
    assert len(host(world).messages) == 1


def test_what_is_waived_is_also_asked_of_tlsa_records_and_the_hosts_a_policy_names():
    world = tls_world(TlsLevel.VERIFY)
    world.policies.forbidden = {"mx.example.net"}
    assert isinstance(world.send("mx:example.net", "bob@example.net", entry=world.entry(WAIVED)), Taken)
    world.policies.broken = {"mx.example.net"}
    assert isinstance(world.send("mx:example.net", "bob@example.net", entry=world.entry(WAIVED)), Taken)


@pytest.mark.parametrize(
    "octets",
    [
        WAIVED.replace(b" no ", b" yes"),
        WAIVED.replace(b"tls-", b"X-tls-"),
        WAIVED.replace(b"Subject: x", b"TLS-Required: No"),
        WAIVED.replace(b"\r\ntls-", b"\r\n\r\ntls-"),
    ],
)
def test_only_the_one_field_waives(octets):
    world = tls_world(TlsLevel.ENCRYPT)
    del host(world).keywords["STARTTLS"]
    assert str(world.send("mx:example.net", "bob@example.net", entry=world.entry(octets)).status) == "4.7.4"


def test_nothing_is_waived_of_what_the_administrator_or_the_envelope_demands(monkeypatch):
    world = tls_world(TlsLevel.ENCRYPT)
    del host(world).keywords["STARTTLS"]
    required = world.entry(WAIVED, requires_tls=True)
    assert not isinstance(world.send("mx:example.net", "bob@example.net", entry=required), Taken)
    configured = DomainTlsPolicy("example.net", TlsLevel.ENCRYPT, "configured", tries_dane=False)
    monkeypatch.setattr(type(world.policies), "for_domain", lambda *_: succeed(configured))
    assert str(world.send("mx:example.net", "bob@example.net", entry=world.entry(WAIVED)).status) == "4.7.4"
