"""Runs of queue and relay together, over hosts that fail at every step (see :mod:`tests.relay.relay_world`).

A failing run names its seed. To replay it alone::

    MAILSRV_RELAY_SEED=1234 pytest tests/relay/test_relay_simulation.py

MAILSRV_RELAY_RUNS sets the number of runs, MAILSRV_RELAY_FIRST_SEED the first seed (0).
"""

from __future__ import annotations

import os

import pytest

from mailsrv.interfaces.queue import Declined, Taken
from mailsrv.relay import carriage
from mailsrv.relay.outcomes import Judged, judge
from mailsrv.smtp.client.session import SmtpClientSession
from mailsrv.testing.queue_account import LostAccount
from tests.relay.relay_world import RelayWorld

RUNS = int(os.environ.get("MAILSRV_RELAY_RUNS", "10000"))
FIRST = int(os.environ.get("MAILSRV_RELAY_FIRST_SEED", "0"))
CHUNKS = 100


def _seeds(chunk: int) -> range:
    only = os.environ.get("MAILSRV_RELAY_SEED")
    if only is not None:
        return range(int(only), int(only) + (chunk == 0))
    size = RUNS // CHUNKS
    return range(FIRST + chunk * size, FIRST + (chunk + 1) * size)


@pytest.mark.parametrize("chunk", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, CHUNKS))])
def test_r_q_2_every_accepted_recipient_is_delivered_or_bounced_exactly_once(chunk):
    crashes = uncertain = delivered = bounced = events = 0
    for seed in _seeds(chunk):
        world = RelayWorld(seed).run()
        crashes += world.crashes
        uncertain += world.account.uncertain.total()
        delivered += world.account.delivered.total()
        bounced += len(world.kept.mailboxes)
        events += world.events
    print(f"{events} events, {crashes} crashes, {delivered} delivered, {uncertain} uncertain, {bounced} notices")  # noqa: T201


@pytest.mark.parametrize("seed", [26372, 32714, 35793])
def test_a_host_that_keeps_the_recipients_of_a_refused_message(seed):
    RelayWorld(seed).run()


def test_a_seed_repeats_itself():
    for seed in range(20):
        first, second = RelayWorld(seed).run(), RelayWorld(seed).run()
        assert (first.events, first.crashes, first.account.delivered) == (
            second.events,
            second.crashes,
            second.account.delivered,
        )


# That the account would show it: mistakes made on purpose.


def _first_complaint(first: int = 0, worlds: int = 300) -> str:
    for seed in range(first, first + worlds):
        try:
            RelayWorld(seed).run()
        except LostAccount as complaint:
            return str(complaint)
    return ""


@pytest.mark.parametrize(
    "is_mistaken", [lambda declined: declined.is_uncertain, lambda declined: declined.status.is_temporary]
)
def test_what_is_taken_for_delivered_by_mistake_is_noticed(monkeypatch, is_mistaken):
    def mistaken(*arguments, **more):
        judged = judge(*arguments, **more)
        outcome = judged.outcome
        if isinstance(outcome, Declined) and is_mistaken(outcome):
            return Judged(Taken(outcome.recipient_id, outcome.host, outcome.reply))
        return judged

    monkeypatch.setattr(carriage, "judge", mistaken)
    assert "delivered 0" in _first_complaint()


def test_a_transaction_that_goes_on_in_the_next_is_noticed(monkeypatch):
    end = SmtpClientSession._end_transaction

    def end_without_reset(session, **more):
        end(session, **more)
        session._needs_reset = False

    monkeypatch.setattr(SmtpClientSession, "_end_transaction", end_without_reset)
    assert "seed" in _first_complaint(1010)
