"""Large messages are converted in a thread, one at a time, and not at all past the bound."""

from __future__ import annotations

import threading

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mailsrv.interfaces.envelope import BodyType
from mailsrv.relay.adaptation import Adapted, Adapter, Unsuitable
from mailsrv.smtp.client.capabilities import Capabilities
from tests.relay.relay_harness import MemoryContent

OFFERED = Capabilities({"SIZE": ()})
LARGE = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "Grüße aus Köln\r\n".encode() * 20_000


class ConversionTests(TestCase):
    def test_in_a_thread(self) -> Deferred[None]:
        adapter = Adapter(1 << 20)
        before = threading.current_thread()

        async def one() -> Adapted:
            content = MemoryContent(LARGE, is_large=True)
            adapted = await adapter.adapt(content, BodyType.EIGHT_BIT, OFFERED, wants_smtputf8=False)
            assert threading.current_thread() is before
            return adapted

        async def run() -> None:
            for adapted in await gatherResults([Deferred.fromCoroutine(one()) for _ in range(3)]):
                octets = adapted.content.octets
                assert octets is not None
                assert octets.isascii()
                assert adapted.body is BodyType.SEVEN_BIT
                assert adapted.content.size == len(octets)

        return Deferred.fromCoroutine(run())

    def test_past_the_bound(self) -> Deferred[None]:
        async def run() -> None:
            with pytest.raises(Unsuitable) as refusal:
                await Adapter(1000).adapt(
                    MemoryContent(LARGE, is_large=True), BodyType.EIGHT_BIT, OFFERED, wants_smtputf8=False
                )
            assert str(refusal.value.status) == "5.6.3"

        return Deferred.fromCoroutine(run())
