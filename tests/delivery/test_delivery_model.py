"""Whatever happens in whatever order: nothing leaks, and mail is committed once or not at all."""

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsrv.errors import Unavailable
from mailsrv.filters.function import filter_function
from mailsrv.interfaces.filter import AddHeader, Discard, Redirect, Reject

from .conftest import ALICE, BOB, SENDER, make_house

ANSWERS = [None, AddHeader("X-A", "b"), Redirect((BOB,)), Discard(), Reject(), RuntimeError()]
MESSAGE = b"Subject: x\r\n\r\n" + b"body\r\n" * 50


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.data())
def test_nothing_leaks(data):
    waiting: list[Deferred] = []

    @filter_function(phase=["rcpt", "headers", "message"])
    def slow():
        if data.draw(st.booleans()):
            return None
        waiting.append(Deferred())
        return waiting[-1]

    house = make_house(filters=[slow], inline_limit=data.draw(st.sampled_from([10, 100_000])))
    if data.draw(st.booleans()):
        house.journal.failure = Unavailable()
    outcomes: list = []
    transactions: list = []
    house.begin(SENDER).addCallback(transactions.append)
    (transaction,) = transactions
    blocked: list = []

    def wait_for(deferred):
        """The session goes on only when it was answered, as a real one does."""
        blocked.append(deferred)
        deferred.addBoth(lambda result: blocked.remove(deferred))

    def answer():
        """One filter that was asked answers."""
        result = data.draw(st.sampled_from(ANSWERS))
        deferred = waiting.pop()
        if isinstance(result, Exception):
            deferred.errback(result)
        else:
            deferred.callback(result)

    steps: list = [
        lambda recipient=recipient: wait_for(transaction.add_recipient(recipient)) for recipient in (ALICE, BOB)
    ]
    steps += [lambda: wait_for(transaction.begin_content())]
    for start in range(0, len(MESSAGE), 100):
        steps.append(lambda piece=MESSAGE[start : start + 100]: wait_for(transaction.write(piece) or done()))
    steps += [lambda: wait_for(transaction.finish().addBoth(outcomes.append))]

    while steps or blocked:
        if data.draw(st.integers(0, 15)) == 0:
            transaction.abort()
            break
        if waiting and (blocked or data.draw(st.booleans())):
            answer()
        elif not blocked:
            steps.pop(0)()
        else:
            raise AssertionError("blocked, and nobody is asked")
    else:
        assert len(outcomes) == 1
    while waiting:
        answer()
    assert house.spool.open_writers == 0
    assert house.store.account(ALICE).reserved_octets == house.store.account(BOB).reserved_octets == 0
    assert len(house.journal.records) <= 1
    assert len(house.inbox()) + len(house.inbox(BOB)) <= 2
    if outcomes and not isinstance(outcomes[0], list):
        assert not house.journal.records


def done():
    deferred: Deferred = Deferred()
    deferred.callback(None)
    return deferred
