"""Own and others' mailboxes together keep the contract of stores, over each store there is."""

from __future__ import annotations

from typing import Any

from mailsrv.store.memory import MemoryMailStore
from mailsrv.store.settings import StoreSettings
from tests.contracts.store import ALICE, BOB, StoreContract
from tests.sharing.sharing_setting import SUPPORT, SharingStore
from tests.store.store_setting import StoreSetting


class SharingOverMemoryTests(StoreContract):
    def make_store(self, settings: StoreSettings) -> Any:
        store = SharingStore(MemoryMailStore(settings))
        store.grant(ALICE, SUPPORT, may_write=True)
        store.grant(BOB, SUPPORT, may_write=False)
        return store

    def names(self) -> list[str]:
        return [name for name in super().names() if not name.startswith("Other Users/")]

    def setUp(self) -> None:
        super().setUp()
        listed = self.mail.list_mailboxes

        def own(prefix: str = "") -> Any:
            return listed(prefix).addCallback(
                lambda infos: [info for info in infos if not info.name.startswith("Other Users")]
            )

        # The suite counts mailboxes.
        self.mail.list_mailboxes = own


class SharingOverMaildirTests(SharingOverMemoryTests):
    def make_store(self, settings: StoreSettings) -> Any:
        setting = StoreSetting(settings)
        self.addCleanup(setting.stop)
        store = SharingStore(setting.store)
        store.grant(ALICE, SUPPORT, may_write=True)
        store.grant(BOB, SUPPORT, may_write=False)
        return store


del StoreContract
