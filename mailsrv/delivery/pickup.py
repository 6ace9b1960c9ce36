"""Takes the mail that ``mailsrv-sendmail`` left in the drop folder, at the start and from time to time.

Each file goes through an ordinary submission as the user who owns it, and is removed, durably, when the journal has
it. Whatever fails for now leaves the file for the next time; what is refused for good, or for too long, goes back
to its sender with a notice. One worker at a time looks (a lock in the state folder).

A crash of the machine between the journal's commit and the file's removal, a moment, has the message taken
again: it is never lost, and its Message-ID, which the command gave it, is the same.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.delivery.added_fields import RunInThread
from mailsrv.delivery.drop_folder import (
    DroppedFile,
    DroppedMessage,
    Found,
    drop,
    look,
    make_drop_folder,
    put_aside,
    remove,
)
from mailsrv.delivery.local_submission import LocalAccount, LocalPeers
from mailsrv.delivery.settings import SendmailSettings
from mailsrv.errors import MailError
from mailsrv.interfaces.delivery import IMessageReceiver, MailParameters
from mailsrv.interfaces.envelope import BodyType, EnvelopeParameters, RecipientParameters
from mailsrv.interfaces.filter import SessionView
from mailsrv.message.delivery_status import (
    Action,
    DeliveryReport,
    ReportedRecipient,
    ReturnedContent,
    format_report,
    header_section,
)
from mailsrv.status import NOT_AUTHORISED, EnhancedStatus

_ROUND_OCTETS = 32 * 1024 * 1024
_RETURNED_OCTETS = 51200
"""R-DSN-1."""
_EXPIRED = EnhancedStatus(5, 4, 7)


def spool_path(settings: SendmailSettings, state_dir: str) -> str:
    """The drop folder."""
    return settings.spool_dir or os.path.join(state_dir, "sendmail-spool")


def lock_path(state_dir: str) -> str:
    """What the worker holds that looks."""
    return os.path.join(state_dir, "sendmail.lock")


@frozen
class _Refusal:
    """A recipient who does not get the message."""

    address: Address
    error: MailError


class Pickup:
    """``receiver`` is that of service ``submission``; ``peers`` say who owns a file."""

    _log = Logger()

    def __init__(
        self,
        settings: SendmailSettings,
        *,
        path: str,
        lock: str,
        receiver: IMessageReceiver,
        peers: LocalPeers,
        hostname: str,
        postmaster: Address,
        clock: IReactorTime,
        run_in_thread: RunInThread,
    ) -> None:
        self.receiver = receiver
        """A reload puts another here."""
        self.peers = peers
        self._settings = settings
        self._path = path
        self._lock_path = lock
        self._hostname = hostname
        self._postmaster = postmaster
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._call: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._passed_over: set[str] = set()
        """Journaled, or corrupt, but still there: they could not be removed."""
        self._is_stopped = True
        self._trouble = ""

    def start(self) -> None:
        """Look now, and then from time to time."""
        self._is_stopped = False
        self._call = self._clock.callLater(0, self._look)

    def stop(self) -> Deferred[None]:
        """Fires when the message under way is done."""
        self._is_stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if self._running is None:
            return succeed(None)
        over: Deferred[None] = Deferred()
        self._running.addBoth(lambda _: over.callback(None))
        return over

    def _look(self) -> None:
        self._call = None
        self._running = running = Deferred.fromCoroutine(self.round())
        running.addErrback(lambda failure: self._log.failure("Picking up mail from {path}", failure, path=self._path))
        running.addCallback(self._round_over)

    def _round_over(self, _: object) -> None:
        self._running = None
        if not self._is_stopped:
            self._call = self._clock.callLater(self._settings.pickup_seconds, self._look)

    async def round(self) -> None:
        """Take what is there, in portions."""
        descriptor = await self._run_in_thread(self._prepare)
        if descriptor is None:
            return
        seen: set[str] = set()
        try:
            while not self._must_stop():
                found: Found = await self._run_in_thread(self._find, frozenset(seen | self._passed_over))
                self._passed_over -= found.gone
                self._passed_over.update(found.stuck)
                seen.update(found.torn)
                for name, reason in found.corrupt:
                    self._log.critical(
                        "{path}/{name} is no message and was put into corrupt/: {reason}",
                        path=self._path,
                        name=name,
                        reason=reason,
                    )
                for file in found.files:
                    seen.add(file.name)
                    await self._try(file)
                    if self._must_stop():
                        return
                if not found.waiting:
                    break
        except OSError as error:
            self._say(f"{self._path}: {error.strerror}")
        else:
            self._say("")
        finally:
            os.close(descriptor)

    async def _try(self, file: DroppedFile) -> None:
        """Whatever one file does, the others get their turn."""
        try:
            await self._take(file)
        except Exception:
            self._log.failure("Picking up {path}/{name}", path=self._path, name=file.name)

    def _must_stop(self) -> bool:
        return self._is_stopped

    def _say(self, trouble: str) -> None:
        """Trouble with the folder once, and its end."""
        if trouble and trouble != self._trouble:
            self._log.error("Mail of local programs cannot be picked up: {trouble}", trouble=trouble)
        self._trouble = trouble

    def _prepare(self) -> int | None:
        """In a thread: the lock, held while the descriptor is open; None where another worker has it."""
        try:
            make_drop_folder(self._path)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            self._say(f"{error.filename or self._path}: {error.strerror}")
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _find(self, without: frozenset[str]) -> Found:
        settings = self._settings
        return look(
            self._path,
            without=without,
            most=settings.pickup_messages,
            octets=_ROUND_OCTETS,
            message_octets=settings.message_octets,
            now=self._clock.seconds(),
        )

    async def _take(self, file: DroppedFile) -> None:
        account = self.peers.account_of_uid(file.uid)
        if account is None:
            self._log.critical(
                "{path}/{name}: user {uid} has no address", path=self._path, name=file.name, uid=file.uid
            )
            await self._put_aside(file.name)
            return
        try:
            refused = await self._submit(file.message, account)
        except MailError as error:
            is_old = self._clock.seconds() - file.modified > self._settings.max_age_seconds
            if error.is_temporary and not is_old:
                self._log.info("{name} waits: {reason}", name=file.name, reason=str(error))
                return
            if error.is_temporary:
                error = MailError(_EXPIRED, error.text, cause=error.cause)
            refused = [_Refusal(address, error) for address, _ in file.message.recipients]
            if not await self._send_back(file, account, refused):
                return
        else:
            if refused and not await self._send_back(file, account, refused):
                self._log.critical(
                    "{name} of {account} was sent to some of its recipients; nobody was told of the others",
                    name=file.name,
                    account=str(account.address),
                )
        await self._remove(file.name)

    async def _put_aside(self, name: str) -> None:
        if not await self._run_in_thread(put_aside, self._path, name):
            self._passed_over.add(name)

    async def _remove(self, name: str) -> None:
        try:
            await self._run_in_thread(remove, self._path, name)
        except OSError as error:
            self._passed_over.add(name)
            self._log.critical(
                "{path}/{name} was accepted and cannot be removed: {reason}. Remove it, or a restart takes it again",
                path=self._path,
                name=name,
                reason=error.strerror,
            )

    async def _submit(self, message: DroppedMessage, account: LocalAccount) -> Sequence[_Refusal]:
        """Hand it over for all recipients that are not refused for good; those are told.

        Raises MailError where nothing was handed over: with a temporary refusal of one recipient all wait, so that
        the others do not get it twice.
        """
        envelope = EnvelopeParameters(
            body=message.body,
            is_smtputf8=message.is_smtputf8,
            return_content=message.return_content,
            envelope_id=message.envelope_id,
        )
        parameters = MailParameters(len(message.content), envelope)
        return await self._transact(message.sender, parameters, account, message.recipients, message.content)

    async def _transact(
        self,
        sender: Address | None,
        parameters: MailParameters,
        account: LocalAccount,
        recipients: Sequence[tuple[Address, RecipientParameters]],
        content: bytes,
    ) -> Sequence[_Refusal]:
        session = SessionView("pickup", "submission", "", helo="localhost", is_extended=True, account=account.address)
        transaction = await self.receiver.begin(session, sender, parameters, account)
        refused: list[_Refusal] = []
        try:
            for address, given in recipients:
                try:
                    await transaction.add_recipient(address, given)
                except MailError as error:
                    if error.is_temporary:
                        raise
                    refused.append(_Refusal(address, error))
            if len(refused) == len(recipients):
                raise _NobodyLeft(refused)
            await transaction.begin_content()
            pause = transaction.write(content)
            if pause is not None:
                await pause
        except BaseException as error:
            transaction.abort()
            if isinstance(error, _NobodyLeft):
                return error.refused
            raise
        await transaction.finish()
        return refused

    async def _send_back(self, file: DroppedFile, account: LocalAccount, refused: Sequence[_Refusal]) -> bool:
        """Whether its sender was told, or will be, or nobody is to be."""
        message = file.message
        for each in refused:
            self._log.info(
                "{name} of {account}: {recipient} is refused: {reason}",
                name=file.name,
                account=str(account.address),
                recipient=str(each.address),
                reason=str(each.error),
            )
        if message.sender is None:
            return True
        # Who may not send under a name is told under their own.
        to = message.sender if await _may_send_as(account, message.sender) else account.address
        recipients = ((to, RecipientParameters()),)
        notice = self._notice(file, to, refused)
        server = self.peers.account_of_uid(os.geteuid())
        try:
            if server is None:
                raise MailError(NOT_AUTHORISED, "The server's own user has no address")
            for each in await self._transact(None, MailParameters(), server, recipients, notice):
                raise each.error
        except MailError as error:
            if error.is_temporary:
                return await self._drop_notice(DroppedMessage(None, recipients, notice, BodyType.EIGHT_BIT))
            self._log.critical(
                "{name} of {account} can neither be sent nor returned: {reason}. It is kept in corrupt/",
                name=file.name,
                account=str(account.address),
                reason=str(error),
            )
            await self._put_aside(file.name)
        return True

    async def _drop_notice(self, notice: DroppedMessage) -> bool:
        """Keep a notice that cannot be sent now as a file like any other, of the server's own user."""
        try:
            await self._run_in_thread(drop, self._path, notice)
        except OSError as error:
            self._say(f"{self._path}: {error.strerror}")
            return False
        return True

    def _notice(self, file: DroppedFile, to: Address, refused: Sequence[_Refusal]) -> bytes:
        message, now = file.message, int(self._clock.seconds())
        is_complete = len(message.content) <= _RETURNED_OCTETS
        returned = message.content if is_complete else header_section(message.content)[:_RETURNED_OCTETS]
        return format_report(
            DeliveryReport(
                reporting_mta=self._hostname,
                author=self._postmaster,
                to=to,
                recipients=tuple(
                    ReportedRecipient(each.address, Action.FAILED, each.error.status, each.error.text)
                    for each in refused
                ),
                report_id=file.name.partition(".")[0].replace("-", ""),
                date=now,
                transaction_id=file.name.partition("-")[0],
                arrival=int(file.modified),
                returned=ReturnedContent(returned, is_complete, message.is_smtputf8),
                envelope_id=message.envelope_id,
            )
        ).octets


async def _may_send_as(account: LocalAccount, address: Address) -> bool:
    """Whether that is certain."""
    try:
        return await account.may_send_as(address)
    except MailError:
        return False


class _NobodyLeft(MailError):
    """Every recipient is refused for good."""

    def __init__(self, refused: Sequence[_Refusal]) -> None:
        super().__init__(refused[0].error.status, refused[0].error.text)
        self.refused = refused
