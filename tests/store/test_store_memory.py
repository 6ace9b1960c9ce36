"""The memory store keeps the contract."""

from __future__ import annotations

from mailsrv.interfaces.content import InlineContent
from mailsrv.interfaces.journal import (
    Applied,
    DeliveryKey,
    JournaledMessage,
    LocalDelivery,
    NotApplied,
    PendingDelivery,
)
from mailsrv.store.memory import MemoryApplier, MemoryMailStore
from mailsrv.store.settings import StoreSettings
from tests.contracts.store import ALICE, PLAIN, StoreContract


class MemoryStoreTests(StoreContract):
    def make_store(self, settings: StoreSettings) -> MemoryMailStore:
        return MemoryMailStore(settings)

    def test_a_key_is_delivered_once(self):
        applier = MemoryApplier(self.store)
        delivery = LocalDelivery(ALICE, flags=frozenset({"\\Flagged"}))
        message = JournaledMessage(InlineContent(PLAIN), (delivery,), 1000)
        pending = PendingDelivery(DeliveryKey(bytes(16), 0, 0), message, delivery)
        [first] = applier.apply([pending])
        [again] = applier.apply([pending])
        assert isinstance(first, Applied)
        assert first == again
        assert list(self.select().uids) == [1]

    def test_a_delivery_to_nowhere_is_not_applied(self):
        delivery = LocalDelivery(ALICE, "Nowhere")
        message = JournaledMessage(InlineContent(PLAIN), (delivery,), 1000)
        [answer] = MemoryApplier(self.store).apply([PendingDelivery(DeliveryKey(bytes(16), 0, 0), message, delivery)])
        assert isinstance(answer, NotApplied)


del StoreContract
