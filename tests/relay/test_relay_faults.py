"""Something goes wrong at every step, in every way, with every set of extensions: what an attempt says stays true."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone

from mailsrv.interfaces.queue import AttemptProblem, Declined, Taken
from mailsrv.testing.next_hop import EVERYTHING, Fault, Kind, NextHop
from mailsrv.testing.next_hop_network import MemoryTransport
from tests.relay.relay_harness import MESSAGE, MemoryContent, World, host, make_world

STEPS = [
    "greeting",
    "EHLO",
    "LHLO",
    "HELO",
    "STARTTLS",
    "MAIL",
    "RCPT",
    "DATA",
    "BDAT",
    "content",
    "end",
    "RSET",
    "QUIT",
]
KEYWORDS = {
    "everything": EVERYTHING,
    "nothing": {},
    "pipelining": {"PIPELINING": ""},
    "chunks": {"CHUNKING": ""},
    "tls": {**EVERYTHING, "STARTTLS": ""},
}
REPLIES = (
    b"421 4.3.2 closing\r\n",
    b"451 4.3.0 later\r\n",
    b"550 5.7.1 no\r\n",
    b"250 2.0.0 what?\r\n",
    b"354 go\r\n",
    b"220 x\r\n250 y\r\n",
    b"junk\r\n",
    b"250-endless\r\n" * 300,
    b"250 " + b"x" * 5000,
    b"250-a\r\n550 b\r\n",
)
CONTENT = MESSAGE + (b"text " * 15 + b"\r\n") * 1_800


def check(world: World, outcomes: list, recipients: tuple[str, ...]) -> None:
    """One outcome each, and none of them contradicts what the hosts know."""
    assert [outcome.recipient_id for outcome in outcomes] == list(range(1, len(recipients) + 1))
    held: dict[str, int] = {}
    for hop in dict.fromkeys(world.network.hops.values()):
        for message in hop.messages:
            for recipient in message.recipients:
                held[recipient] = held.get(recipient, 0) + 1
    for recipient, outcome in zip(recipients, outcomes, strict=True):
        copies = held.get(recipient, 0)
        if isinstance(outcome, Taken):
            assert copies == 1, (recipient, outcome)
        else:
            assert copies == 0 or (outcome.is_uncertain and copies == 1), (recipient, outcome)
            assert len(outcome.reply) <= 512
            assert outcome.reply.isascii()
            assert outcome.reply.isprintable()
            if outcome.is_uncertain:
                assert outcome.status.is_temporary


def faulty_world(keywords: dict[str, str], faults: list[Fault], *, is_lmtp: bool = False) -> World:
    world = make_world()
    world.add_domain("example.net", (10, "mx.example.net"), (20, "second.example.net"))
    hop = NextHop(keywords=dict(keywords), is_lmtp=is_lmtp, faults=faults)
    world.add_host("mx.example.net", "192.0.2.1", hop=hop)
    world.network.hops["unix:/run/lmtp"] = hop
    world.add_host("second.example.net", "192.0.2.2")
    return world


def is_lie(fault: Fault) -> bool:
    """Yes to what the host did not take, or no to a message that it goes on to take: nobody could know."""
    if fault.kind not in {Kind.REPLY, Kind.REPLY_AND_CLOSE}:
        return False
    if fault.step == "content" and fault.kind is Kind.REPLY:
        return True
    return fault.step in {"RCPT", "end", "content"} and fault.octets.startswith(b"2")


@pytest.mark.parametrize("name", KEYWORDS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("is_lmtp", [False, True], ids=["smtp", "lmtp"])
def test_r_smtp_one_fault_at_each_step(name, step, is_lmtp):
    kinds = [Fault(step, kind) for kind in (Kind.LOSE_BEFORE, Kind.LOSE_AFTER, Kind.SILENT)]
    kinds += [Fault(step, kind, reply) for kind, reply in product((Kind.REPLY, Kind.REPLY_AND_CLOSE), REPLIES)]
    recipients = ("bob@example.net", "eve@example.net")
    for fault, is_large in product(kinds, (False, True)):
        if is_lie(fault) or (is_large and fault.octets not in {b"", *REPLIES[:3]}):
            continue
        world = faulty_world(KEYWORDS[name], [fault], is_lmtp=is_lmtp)
        entry = world.entry(MemoryContent(CONTENT, is_large=True) if is_large else MESSAGE)
        outcomes = world.send("lmtp:unix:/run/lmtp" if is_lmtp else "mx:example.net", *recipients, entry=entry)
        check(world, outcomes, recipients)
        assert world.contents[entry.id].is_closed
        for _ in range(3):
            world.clock.advance(700)
            world.run()
        assert not world.clock.getDelayedCalls(), (fault, world.clock.getDelayedCalls())


@given(
    st.lists(
        st.builds(
            Fault,
            st.sampled_from(STEPS),
            st.sampled_from(Kind),
            st.sampled_from(REPLIES),
            st.integers(0, 2),
            st.integers(1, 2),
        ).filter(lambda fault: not is_lie(fault)),
        max_size=4,
    ),
    st.sampled_from(sorted(KEYWORDS)),
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_messages_one_after_the_other_through_faults(faults, name, messages):
    world = faulty_world(KEYWORDS[name], faults)
    for number, (count, is_large) in enumerate(messages):
        recipients = tuple(f"r{number}-{one}@example.net" for one in range(count))
        entry = world.entry(MemoryContent(CONTENT, is_large=True) if is_large else MESSAGE)
        outcomes = world.send("mx:example.net", *recipients, entry=entry)
        check(world, outcomes if isinstance(outcomes, list) else [outcomes], recipients)


def test_a_lost_answer_to_the_end_of_data_is_uncertain_and_never_tried_elsewhere():
    world = faulty_world(EVERYTHING, [Fault("end", Kind.LOSE_AFTER)])
    outcome = world.send("mx:example.net", "bob@example.net")
    assert isinstance(outcome, Declined)
    assert outcome.is_uncertain
    assert outcome.status.is_temporary
    assert world.network.dialled == ["192.0.2.1"]


def test_a_silent_end_of_data_is_waited_for_ten_minutes():
    world = faulty_world({}, [Fault("end", Kind.SILENT)])
    outcomes = world.begin(world.consign("mx:example.net", "bob@example.net"))
    world.clock.advance(599)
    assert outcomes == []
    world.clock.advance(2)
    assert outcomes[0][0].is_uncertain


@pytest.mark.parametrize(
    ("step", "seconds"), [("greeting", 300), ("EHLO", 300), ("MAIL", 300), ("RCPT", 300), ("DATA", 120)]
)
def test_each_phase_has_its_timeout(step, seconds):
    world = faulty_world({}, [Fault(step, Kind.SILENT)])
    world.network.hops["192.0.2.2"].is_up = False
    outcomes = world.begin(world.consign("mx:example.net", "bob@example.net"))
    world.clock.advance(seconds - 1)
    assert outcomes == []
    world.clock.advance(2)
    world.run()
    assert outcomes[0][0].problem is AttemptProblem.DESTINATION
    assert not outcomes[0][0].is_uncertain


def test_a_host_that_answers_octet_by_octet_does_not_get_more_time():
    world = faulty_world({}, [Fault("MAIL", Kind.SILENT)])
    world.network.hops["192.0.2.2"].is_up = False
    outcomes = world.begin(world.consign("mx:example.net", "bob@example.net"))
    (timer,) = world.clock.getDelayedCalls()
    protocol: Any = timer.func.__self__._passed.__self__  # type: ignore[attr-defined]
    for _ in range(301):
        world.clock.advance(1)
        if not outcomes:
            protocol.dataReceived(b"2")
    world.run()
    assert outcomes


def test_content_that_cannot_be_read_is_not_ended():
    world = faulty_world({}, [])
    entry = world.entry(MemoryContent(CONTENT, is_large=True, broken_at=100_000))
    outcome = world.send("mx:example.net", "bob@example.net", entry=entry)
    assert (str(outcome.status), outcome.problem) == ("4.3.0", AttemptProblem.MESSAGE)
    assert not outcome.is_uncertain
    assert host(world).messages == []


def test_a_connection_that_ends_while_the_message_is_made_ready_is_replaced_unseen():
    world = faulty_world(EVERYTHING, [])
    world.network.hops["192.0.2.2"].is_up = False
    assert isinstance(world.send("mx:example.net", "bob@example.net"), Taken)
    (idle,) = world.parts.cache._all.values()

    class Content(MemoryContent):
        def read(self, offset, count):
            idle.connection.protocol.transport.lose(ConnectionDone())
            return super().read(offset, count)

    host(world).keywords.pop("BINARYMIME")
    entry = world.entry(Content(CONTENT, is_large=True))
    assert isinstance(world.send("mx:example.net", "bob@example.net", entry=entry), Taken)
    assert world.network.dialled == ["192.0.2.1", "192.0.2.1"]


def test_a_stale_connection_is_replaced_unseen():
    world = faulty_world(EVERYTHING, [Fault("MAIL", Kind.LOSE_BEFORE, skip=1)])
    assert isinstance(world.send("mx:example.net", "bob@example.net"), Taken)
    world.clock.advance(2)
    assert isinstance(world.send("mx:example.net", "bob@example.net"), Taken)
    assert world.network.dialled == ["192.0.2.1", "192.0.2.1"]
    assert b"BDAT" not in bytes(host(world).conversations[0].transcript).split(b"MAIL")[2]


def test_421_to_an_idle_connection_closes_it():
    world = faulty_world(EVERYTHING, [])
    world.send("mx:example.net", "bob@example.net")
    assert len(world.parts.cache) == 1
    (connection,) = (idle.connection for idle in world.parts.cache._all.values())
    connection.protocol.dataReceived(b"421 4.4.2 Too long idle\r\n")
    assert len(world.parts.cache) == 0
    assert isinstance(world.send("mx:example.net", "bob@example.net"), Taken)


def test_a_handshake_that_never_ends_is_given_up_and_mail_goes_without():
    world = faulty_world(KEYWORDS["tls"], [])
    world.network.hops["192.0.2.1"].breaks_handshake = True

    def hang(self: Any) -> None:
        """The host says nothing more."""

    original = MemoryTransport._shake_hands
    MemoryTransport._shake_hands = hang  # type: ignore[method-assign]
    try:
        outcomes = world.begin(world.consign("mx:example.net", "bob@example.net"))
        world.clock.advance(59)
        world.run()
        assert outcomes == []
        world.clock.advance(2)
        world.run()
    finally:
        MemoryTransport._shake_hands = original  # type: ignore[method-assign]
    assert isinstance(outcomes[0][0], Taken)
    assert not host(world).messages[0].is_tls


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (b"451 Temporary local problem - please try later\r\n", AttemptProblem.MESSAGE),
        (b"451 4.3.0 Filter has no answer\r\n", AttemptProblem.MESSAGE),
        (b"452 Out of disk\r\n", AttemptProblem.DESTINATION),
        (b"451 4.3.2 Please come back\r\n", AttemptProblem.DESTINATION),
        (b"421 Closing\r\n", AttemptProblem.DESTINATION),
    ],
)
@pytest.mark.parametrize("step", ["MAIL", "end"])
def test_only_trouble_of_the_whole_host_lets_other_mail_wait(step, reply, problem):
    world = faulty_world(EVERYTHING, [Fault(step, Kind.REPLY, reply, times=9)])
    world.network.hops["192.0.2.2"].is_up = False
    outcome = world.send("mx:example.net", "bob@example.net")
    assert (outcome.status.kind, outcome.problem) == (4, problem)


def test_a_host_that_refused_over_a_kept_connection_is_not_asked_again():
    world = faulty_world(EVERYTHING, [Fault("MAIL", Kind.REPLY, b"451 4.7.0 later\r\n", skip=1, times=5)])
    assert world.send("mx:example.net", "bob@example.net").host == "mx.example.net"
    assert world.send("mx:example.net", "bob@example.net").host == "second.example.net"
    assert world.network.dialled == ["192.0.2.1", "192.0.2.2"]


def test_each_answer_has_its_time_to_itself():
    # RFC 5321 4.5.3.2.3: minutes for every RCPT, however many there are.
    world = faulty_world({}, [])
    world.network.latency = 50.0
    recipients = [f"user{number}@example.net" for number in range(50)]
    outcomes = world.begin(world.consign("mx:example.net", *recipients))
    for _ in range(150):
        world.clock.advance(50)
    assert all(isinstance(outcome, Taken) for outcome in outcomes[0])
    assert len(host(world).messages) == 1


def test_a_host_that_takes_a_message_too_slowly_is_left():
    world = faulty_world({"CHUNKING": ""}, [])
    world.network.latency = 90.0
    entry = world.entry(MemoryContent(CONTENT * 6, is_large=True))
    outcomes = world.begin(world.consign("mx:example.net", "bob@example.net", entry=entry))
    for _ in range(40):
        world.clock.advance(90)
    assert "timed out" in outcomes[0][0].reply
    assert not outcomes[0][0].is_uncertain
    assert host(world).messages == []


def test_lmtp_without_an_accepted_recipient():
    for keywords in KEYWORDS.values():
        world = faulty_world(keywords, [], is_lmtp=True)
        host(world).refused = {"bob@example.net": "550 5.1.1 No", "eve@example.net": "450 4.2.0 Later"}
        for _ in range(2):
            bob, eve = world.send("lmtp:unix:/run/lmtp", "bob@example.net", "eve@example.net")
            assert (str(bob.status), str(eve.status)) == ("5.1.1", "4.2.0")
        assert len(host(world).conversations) == 1


@pytest.mark.parametrize("destination", ["lmtp:unix:/run/lmtp", "smtp:mx.example.net:25"])
def test_the_only_host_is_not_asked_twice_in_an_attempt(destination):
    later = Fault("MAIL", Kind.REPLY, b"451 4.7.0 later\r\n", skip=1, times=5)
    world = faulty_world(EVERYTHING, [later], is_lmtp=destination.startswith("lmtp"))
    assert isinstance(world.send(destination, "bob@example.net"), Taken)
    assert str(world.send(destination, "bob@example.net").status) == "4.7.0"
    assert len(host(world).conversations) == 1
