"""Queued mail for addresses of ours: resolved when its turn comes, by the rules of RCPT."""

from attrs import define
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.address import Address
from mailsrv.delivery.queued import QueuedRecipients
from mailsrv.errors import MailError

from .conftest import ALICE, BOB, NOW, REWRITING, SENDER, make_house

FRIEND = Address("friend", "example.org")


@define
class Entry:
    reverse_path: Address | None = None


class QueuedTests(SynchronousTestCase):
    def resolve(self, address, reverse_path=None):
        house = make_house(routes=())
        queued = QueuedRecipients(house.receiver.policy)
        return Deferred.fromCoroutine(queued.resolve(address, Entry(reverse_path)))  # type: ignore[arg-type]

    def test_mailboxes_and_ways_out(self):
        found = self.successResultOf(self.resolve(Address("both", "example.test")))
        assert [each.account for each in found.local] == [ALICE, BOB]
        assert not found.onward
        found = self.successResultOf(self.resolve(Address("outside", "example.test"), ALICE))
        (onward,) = found.onward
        assert (onward.address, str(onward.destination)) == (FRIEND, "mx:example.org")
        assert onward.original_recipient == "rfc822;outside@example.test"

    def test_notices_go_to_senders_elsewhere_and_to_rewritten_ones(self):
        found = self.successResultOf(self.resolve(FRIEND))
        assert str(found.onward[0].destination) == "mx:example.org"
        assert found.onward[0].original_recipient == ""
        found = self.successResultOf(self.resolve(REWRITING.rewrite(SENDER, "example.test", NOW)))
        assert found.onward[0].address == SENDER

    def test_nobody_is_nobody(self):
        self.failureResultOf(self.resolve(Address("nobody", "example.test")), MailError)
