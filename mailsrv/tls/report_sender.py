"""Counting TLS sessions, and once a day the reports about them (RFC 8460).

``count`` goes to :class:`mailsrv.tls.policy.TlsPolicies`. Counts go to disk from time to time, in
a thread. After a day (UTC) is over one of the processes sends a report to each domain that has
asked for them; not at midnight, when everybody does (RFC 8460 4.1). What fails is tried again
every hour; a day that is two days old is given up.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from random import SystemRandom
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.client import FileBodyProducer

from mailsrv.address import Address, AddressError, parse_mailbox
from mailsrv.errors import MailError
from mailsrv.interfaces.resolver import DnsFailure, IResolver
from mailsrv.interfaces.tls_policy import TlsResult
from mailsrv.tls.client_settings import TlsReportSettings
from mailsrv.tls.https import HttpsClient, HttpsError
from mailsrv.tls.mta_sts_policies import InThread
from mailsrv.tls.report_files import ReportFiles
from mailsrv.tls.report_mail import compress, make_message
from mailsrv.tls.reports import DayCounts, PolicyCounts, Report, make_report, parse_destinations, strings_of

SEND_SPREAD_SECONDS = 4 * 3600
TRY_AGAIN_SECONDS = 3600.0
KEEP_DAYS = 2
_POST_TIMEOUT = 60.0
_random = SystemRandom()
_POST_ANSWER_OCTETS = 65_536

SendMail = Callable[[Address, bytes], "Deferred[None]"]
"""Recipient and the whole message, to be signed and queued; the reverse-path is the contact address."""


class TlsReports:
    """Give its ``count`` to the policies; ``start`` and ``stop`` with the process.

    ``policy_strings`` gives the lines of a domain's MTA-STS policy. Raises AddressError where the contact is none.
    """

    _log = Logger()

    def __init__(
        self,
        settings: TlsReportSettings,
        folder: str,
        resolver: IResolver,
        https: HttpsClient,
        reactor: Any,
        *,
        send_mail: SendMail,
        policy_strings: Callable[[str], tuple[str, ...]] = lambda domain: (),
        in_thread: InThread | None = None,
    ) -> None:
        self._settings = settings
        self._contact = parse_mailbox(settings.contact)
        self._files = ReportFiles(folder, settings)
        self._resolver = resolver
        self._https = https
        self._send_mail = send_mail
        self._reactor = reactor
        self._policy_strings = policy_strings
        self._in_thread = in_thread or (
            lambda work, *arguments: deferToThreadPool(reactor, reactor.getThreadPool(), work, *arguments)
        )
        self._counts = DayCounts(self._today())
        self._is_changed = False
        self._flushing = LoopingCall(self.flush)
        self._flushing.clock = reactor
        self._send_call: Any = None
        self._sending: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to write counts and to send reports of days that are over."""
        self._flushing.start(self._settings.flush_seconds, now=False)
        self._plan(_random.uniform(60.0, 600.0))

    def stop(self) -> Deferred[None]:
        """Write what was counted; called when nothing more will be."""
        if self._flushing.running:
            self._flushing.stop()
        if self._send_call is not None and self._send_call.active():
            self._send_call.cancel()
        if self._sending is not None:
            self._sending.cancel()
        return self.flush()

    def count(self, result: TlsResult) -> None:
        """Count a session for today."""
        strings = strings_of(result.policy)
        if not strings and result.policy.source.startswith("mta-sts"):
            strings = self._policy_strings(result.domain)
        today = self._today()
        if today != self._counts.day:
            self.flush()
            self._counts = DayCounts(today)
        self._counts.count(result, strings, self._settings)
        self._is_changed = True

    def flush(self) -> Deferred[None]:
        """Write the counts. Never fails: what cannot be written now is written the next time."""
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        if not self._is_changed:
            return
        self._is_changed = False
        day, table = self._counts.day, self._counts.as_table()
        try:
            await self._in_thread(self._files.write, day, table)
        except OSError as error:
            self._is_changed = True
            self._log.warn("Counts for TLS reports cannot be written: {reason}", reason=error.strerror)

    def _plan(self, seconds: float) -> None:
        self._send_call = self._reactor.callLater(seconds, self._send_now)

    def _send_now(self) -> None:
        self._sending = Deferred.fromCoroutine(self._send_and_plan())
        self._sending.addErrback(lambda failure: None)

    async def _send_and_plan(self) -> None:
        is_done = False
        try:
            is_done = await self.send_due()
        except Exception:
            self._log.failure("Sending TLS reports failed")
        self._plan(self._until_tomorrow() if is_done else TRY_AGAIN_SECONDS)

    def _until_tomorrow(self) -> float:
        now = self._now()
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        # The other processes have written theirs by then.
        rest = (midnight - now).total_seconds() + 2 * self._settings.flush_seconds
        return rest + _random.uniform(0.0, SEND_SPREAD_SECONDS)

    async def send_due(self) -> bool:
        """Send what is due, if no other process does; False where something has to be tried again."""
        await self._flush()
        try:
            is_ours = await self._in_thread(self._files.lock)
        except OSError as error:
            self._log.warn("TLS reports cannot be made: {reason}", reason=error.strerror)
            return False
        if not is_ours:
            return True
        try:
            today = self._today()
            results = [await self._send_day(day) for day in await self._in_thread(self._files.days_before, today)]
        finally:
            self._files.unlock()
        return all(results)

    async def _send_day(self, day: str) -> bool:
        counts, done = await self._in_thread(self._files.read, day)
        is_whole = True
        for domain, policies in counts.domains.items():
            if domain in done:
                continue
            if await self._report(domain, day, list(policies.values())):
                await self._in_thread(self._files.note_done, day, domain)
            else:
                is_whole = False
        oldest = (self._now() - timedelta(days=KEEP_DAYS)).strftime("%Y-%m-%d")
        if is_whole or day < oldest:
            await self._in_thread(self._files.drop, day)
            return True
        return False

    async def _report(self, domain: str, day: str, policies: list[PolicyCounts]) -> bool:
        """Whether there is nothing left to do: one of the destinations took it (RFC 8460 3), or nobody wants it."""
        try:
            destinations = parse_destinations((await self._resolver.texts(f"_smtp._tls.{domain}")).records)
        except DnsFailure:
            return False
        if not destinations:
            return True
        report_id = f"{day}-{secrets.token_hex(8)}@{self._contact.domain}"
        try:
            report = make_report(domain, day, policies, self._settings, report_id)
        except ValueError:
            return True
        taken = [await self._hand_over(report, uri) for uri in destinations]
        return any(taken)

    async def _hand_over(self, report: Report, uri: str) -> bool:
        try:
            if uri.lower().startswith("mailto:"):
                recipient = parse_mailbox(unquote(uri[7:].partition("?")[0]))
                await self._send_mail(
                    recipient, make_message(report, self._contact.domain, self._contact, recipient, self._now())
                )
            else:
                await self._post(report, uri)
        except (AddressError, MailError, HttpsError) as error:
            why = str(error)
        except Exception as error:  # sockets, TLS and HTTP have many
            why = type(error).__name__
        else:
            self._log.info("TLS report about {domain} went to {uri}", domain=report.domain, uri=uri)
            return True
        self._log.warn(
            "TLS report about {domain} could not be sent to {uri}: {why}", domain=report.domain, uri=uri, why=why
        )
        return False

    async def _post(self, report: Report, uri: str) -> None:
        """RFC 8460 5.4."""
        answer = await self._https.request(
            "POST",
            uri,
            timeout=_POST_TIMEOUT,
            max_octets=_POST_ANSWER_OCTETS,
            content_type="application/tlsrpt+gzip",
            body=FileBodyProducer(BytesIO(compress(report))),
        )
        if not 200 <= answer.status < 300:
            raise HttpsError(f"it was answered with {answer.status}")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._reactor.seconds(), UTC)

    def _today(self) -> str:
        return self._now().strftime("%Y-%m-%d")
