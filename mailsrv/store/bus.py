"""The change bus of one process (DESIGN decision 10): a call, and nothing can get lost."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.interfaces.changes import ChangeNotice, IChangeBus


@implementer(IChangeBus)
class LocalChangeBus:
    """Tells the listeners of this process."""

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: dict[str, dict[object, Callable[[ChangeNotice], None]]] = {}

    def publish(self, notice: ChangeNotice) -> None:
        listeners = self._listeners.get(notice.account)
        if not listeners:
            return
        for listener in list(listeners.values()):
            try:
                listener(notice)
            except Exception:
                self._log.failure("a listener of the change bus failed")

    def listen(self, account: str, listener: Callable[[ChangeNotice], None]) -> Callable[[], None]:
        token = object()
        self._listeners.setdefault(account, {})[token] = listener

        def end() -> None:
            listeners = self._listeners.get(account)
            if listeners is not None:
                listeners.pop(token, None)
                if not listeners:
                    del self._listeners[account]

        return end

    def publish_everything(self) -> None:
        """Tell every listener that anything about its account may have changed."""
        for account in list(self._listeners):
            self.publish(ChangeNotice(account, 0, 0))
