"""What the store does every few seconds, beside everybody's work."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsrv.address import Address
from mailsrv.store.settings import StoreSettings
from tests.store.store_setting import StoreSetting


def test_accounts_nobody_uses_are_forgotten_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A message to a long list leaves thousands: others have their turn in between."""
    setting = StoreSetting(StoreSettings(path=str(tmp_path / "{local}")))
    for number in range(3000):
        setting.table.account(Address(f"u{number}", "example.test"))
    kept = Address("kept", "example.test")
    setting.store.open_account(kept)
    in_one_go: list[int] = []
    forget = setting.table.forget_unused

    def counted(addresses, is_used):
        in_one_go.append(len(addresses))
        forget(addresses, is_used)

    monkeypatch.setattr(setting.table, "forget_unused", counted)
    setting.reactor.advance(5)
    assert sum(in_one_go) == 3001
    assert max(in_one_go) <= 300
    assert setting.table.addresses() == (kept,)
    # And again five seconds later.
    setting.reactor.advance(5)
    assert sum(in_one_go) == 3002
    setting.stop()
    assert not setting.reactor.getDelayedCalls()
