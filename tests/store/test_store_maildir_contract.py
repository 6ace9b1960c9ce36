"""The Maildir store keeps the contract."""

from __future__ import annotations

from mailsrv.store.mail_store import MailStore
from mailsrv.store.settings import StoreSettings
from tests.contracts.store import StoreContract
from tests.store.store_setting import StoreSetting


class MaildirStoreTests(StoreContract):
    def make_store(self, settings: StoreSettings) -> MailStore:
        setting = StoreSetting(settings)
        self.setting = setting
        self.addCleanup(setting.stop)
        return setting.store


del StoreContract
