"""What is left of STARTTLS in a TCP transport when the connection is lost."""

from __future__ import annotations

from mailsrv.wire.tls_end import let_go_of_tls


class Transport:
    def getHandle(self) -> str:
        return "socket"


def test_methods_of_the_tls_half_answer_nothing_any_more():
    transport = Transport()
    transport.getHandle = lambda: "TLS"  # type: ignore[method-assign]
    transport.getPeerCertificate = lambda: "certificate"  # type: ignore[attr-defined]
    let_go_of_tls(transport)
    assert transport.getHandle() is None
    assert transport.getPeerCertificate() is None  # type: ignore[attr-defined]


def test_a_transport_without_tls_stays_as_it_is():
    transport = Transport()
    let_go_of_tls(transport)
    assert transport.getHandle() == "socket"
    let_go_of_tls(object())
    let_go_of_tls(None)
