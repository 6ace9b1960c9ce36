"""From USER and PASS (RFC 1939 7) or AUTH (RFC 5034) to what a log-in is asked with, and whether it may come now.

Each step gives the reply that asks for more, or the event that asks the shell to log in. Raises
MailError where the client is to be refused; what is no answer of a mechanism ends the exchange and is
no failed log-in.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.errors import MailError
from mailsrv.pop3.errors import CommandRefused
from mailsrv.pop3.events import LoginRequested
from mailsrv.pop3.replies import format_capabilities, format_challenge, format_ok
from mailsrv.sasl import Challenge, OfferedMechanisms, ResponseGiven, ResponseOffered, SaslExchange, Step


class Authentication:
    """Of one session, as long as nobody is logged in."""

    def __init__(
        self, mechanisms: OfferedMechanisms, *, is_encrypted: bool, may_start_tls: bool, may_log_in_plainly: bool
    ) -> None:
        self.may_start_tls = may_start_tls and not is_encrypted
        self.may_log_in = is_encrypted or may_log_in_plainly
        self._is_encrypted = is_encrypted
        self._mechanisms = mechanisms
        self._name: str | None = None
        self.exchange: SaslExchange | None = None
        """Under way: the next line is a response."""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """That can be had now."""
        return self._mechanisms(self._is_encrypted)

    def capabilities(self, *, is_over: bool) -> bytes:
        """The answer to CAPA; ``is_over``: somebody is logged in."""
        return format_capabilities(
            may_log_in=self.may_log_in and not is_over,
            may_start_tls=self.may_start_tls and not is_over,
            mechanisms=self.mechanisms,
        )

    def tls_started(self) -> None:
        """Forgets what was said before."""
        self._name = None
        self.may_start_tls = False
        self.may_log_in = True
        self._is_encrypted = True

    def _check_may_log_in(self) -> None:
        if not self.may_log_in:
            raise CommandRefused("Log-in needs TLS" + (", use STLS first" if self.may_start_tls else ""))

    def take_name(self, name: str) -> bytes:
        """+OK to any name: who exists is nobody's business (R-AUTH-6)."""
        self._check_may_log_in()
        self._name = name
        return format_ok("Password, please")

    def take_password(self, password: str) -> LoginRequested:
        """One try for each USER."""
        self._check_may_log_in()
        if self._name is None:
            raise CommandRefused("USER comes first")
        name, self._name = self._name, None
        return LoginRequested(name, password)

    def begin(self, mechanism: str, initial_response: bytes | None) -> bytes | LoginRequested | ResponseOffered:
        """AUTH; without a mechanism the list of them."""
        self._check_may_log_in()
        if not mechanism:
            return ("+OK Mechanisms\r\n" + "".join(f"{name}\r\n" for name in self.mechanisms) + ".\r\n").encode()
        if mechanism not in self.mechanisms:
            raise CommandRefused("No such mechanism")
        self.exchange = exchange = SaslExchange(mechanism)
        return self._advance(exchange, lambda: exchange.begin(initial_response))

    def receive(self, line: bytes) -> bytes | LoginRequested | ResponseOffered:
        """The next line of the exchange under way."""
        exchange = self.exchange
        if exchange is None:
            raise RuntimeError("no exchange is under way")
        return self._advance(exchange, lambda: exchange.receive(line))

    def _advance(self, exchange: SaslExchange, step: Callable[[], Step]) -> bytes | LoginRequested | ResponseOffered:
        """One step of RFC 5034 4."""
        is_first = not exchange.is_conversing
        try:
            answer = step()
        except MailError as error:
            self.exchange = None
            if is_first:
                raise
            # Somebody waits for the response; the error comes back as the answer.
            return ResponseOffered(exchange.mechanism_name, error, is_first=False)
        if isinstance(answer, Challenge):
            return format_challenge(answer.octets)
        self._name = None
        if isinstance(answer, ResponseGiven):
            return ResponseOffered(exchange.mechanism_name, answer.octets, is_first)
        self.exchange = None
        return LoginRequested(answer.authcid, answer.password, answer.authzid)
