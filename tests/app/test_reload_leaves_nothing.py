"""A reload replaces most of what a server consists of; what was replaced goes, however often it is done."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mailsrv.app.build import MailServer, build_server
from mailsrv.app.garbage import SETTLE_SECONDS, Collector
from mailsrv.config.load import parse
from tests.smallest_config import SMALLEST

reactor: Any = _reactor
_RELOADS = 20


class ReloadTests(TestCase):
    timeout = 60

    def test_of_many_reloads_one_graph_is_left(self) -> Deferred[None]:
        async def run() -> None:
            folder = Path(self.mktemp())
            folder.mkdir(parents=True)
            (folder / "users").write_text("alice@example.test:{PLAIN}secret::::::\n")
            path = str(folder / "mailsrv.toml")
            server = build_server(parse(SMALLEST, path), reactor)
            clock, thresholds = Clock(), gc.get_threshold()
            collector = Collector(clock, 512)
            collector.start()
            try:
                await server.start()
                await self.reload_often(server, path, clock, collector)
            finally:
                collector.stop()
                gc.set_threshold(*thresholds)
                await server.stop()

        return Deferred.fromCoroutine(run())

    async def reload_often(self, server: MailServer, path: str, clock: Clock, collector: Collector) -> None:
        replaced: list[weakref.ref[object]] = []
        for _ in range(_RELOADS):
            policy = server._policy
            parts = (policy, policy.directory, policy.realm, *policy.checkers, *policy.receivers.values())
            replaced += [weakref.ref(part) for part in parts if hasattr(type(part), "__weakref__")]
            del policy, parts
            await server.reload(parse(SMALLEST, path))
            collector.look_after_reload()
            clock.advance(SETTLE_SECONDS)
        assert len(replaced) >= 3 * _RELOADS
        assert [there for ref in replaced if (there := ref()) is not None] == []
