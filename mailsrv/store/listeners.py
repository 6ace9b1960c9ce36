"""Functions to call when something happened, each until it is taken back."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger


class Listeners:
    """Calls all of them; one that fails does not keep the others from hearing."""

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[], None]] = {}

    def add(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Answers with what takes it back."""
        token = object()
        self._listeners[token] = listener

        def remove() -> None:
            self._listeners.pop(token, None)

        return remove

    def call(self) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener()
            except Exception:
                self._log.failure("a listener failed")

    def __bool__(self) -> bool:
        return bool(self._listeners)
