"""Who decides about a password, one after the other: the first that has something to say has said the last word.

==================  ==============================================================
app passwords       what has their form; it is never shown to the directory
standing            nobody, or somebody who may not log in, whatever the password
second factor       a password alone is not enough for this user
cache, directory    everything else; where the directory does not answer, what was right lately
==================  ==============================================================

Who refuses without having asked the directory spends the time that asking takes (R-AUTH-4). App passwords cost the same
search for everybody, and who gives one knows that it is one: nothing is told by their taking another time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import frozen
from twisted.logger import Logger

from mailsrv.address import Address
from mailsrv.auth.app_passwords.form import read_secret
from mailsrv.auth.app_passwords.judge import AppPasswordJudge, AppPasswordProof
from mailsrv.auth.login_cache import LoginCache
from mailsrv.auth.outage_logins import OutageLogins
from mailsrv.auth.rules import Standing
from mailsrv.auth.second_factor import SECOND_FACTOR_DEMANDED, SecondFactorRule
from mailsrv.errors import Unavailable
from mailsrv.interfaces.account import PasswordCredentials
from mailsrv.interfaces.directory import IDirectory
from mailsrv.interfaces.sessions import IProof

_log = Logger()
_MECHANISM = "PLAIN"
"""All credentials with a plain password are alike, whichever way they came (AUTH PLAIN, LOGIN, USER/PASS)."""


@frozen
class PasswordLogin:
    """A password somebody gave, and what is known of whom they say they are."""

    credentials: PasswordCredentials
    standing: Standing
    name: str
    """Under which failures are counted: the account, or what nobody is called."""
    address: Address | None = None
    """The name as an address; None where it can be nobody's."""


@frozen
class Refused:
    """The password lets nobody in."""

    reason: str
    """For the log."""


@frozen
class Right:
    """It is the user's."""

    proof: IProof | None = None
    """What it is, if it is not the directory's own password."""
    is_remembered: bool = False
    """The directory does not answer: it was right the last time."""


class NotProven(Unavailable):
    """A wrong password, as far as anybody can tell while the directory does not answer: told as that, but counted."""


Verdict = Right | Refused
Decider = Callable[[PasswordLogin], Awaitable[Verdict | None]]
"""None: somebody else decides. May raise Unavailable (R-AUTH-7)."""


def decides_app_passwords(judge: AppPasswordJudge | None) -> Decider:
    """``judge`` None: there are none, and what looks like one is wrong without having been shown to anybody."""

    async def decide(login: PasswordLogin) -> Verdict | None:
        secret = read_secret(login.credentials.password)
        if secret is None:
            return None
        if not secret:
            return Refused("mistyped app password")
        if judge is None:
            return Refused("unknown app password")
        standing, service = login.standing, login.credentials.service
        account = login.name if standing.user is None else str(standing.user.address)
        found = await judge.find(account, secret, service)
        if standing.user is None or standing.objection:
            return Refused(standing.objection)
        if found.password is None:
            return Refused(found.reason)
        if standing.target is not None:
            # It lies in some device: too little for other people's mail.
            return Refused("asks to act for somebody else by an app password")
        judge.note_use(found.password, service, login.credentials.client_address)
        return Right(AppPasswordProof(judge, found.password, service))

    return decide


def refuses_without_standing(directory: IDirectory) -> Decider:
    """A name that is nobody's is as unknown as another: the work is done all the same."""

    async def decide(login: PasswordLogin) -> Verdict | None:
        if login.standing.user is not None and not login.standing.objection:
            return None
        await directory.check_password(None, login.credentials.password)
        return Refused(login.standing.objection)

    return decide


def demands_second_factor(directory: IDirectory, rule: SecondFactorRule) -> Decider:
    """The user's own entry is not asked: nobody can guess at it here, nor get it locked by that."""

    async def decide(login: PasswordLogin) -> Verdict | None:
        user = login.standing.user
        if user is None or not rule.demands(user):
            return None
        await directory.check_password(None, login.credentials.password)
        return Refused(SECOND_FACTOR_DEMANDED)

    return decide


def asks_directory(directory: IDirectory, cache: LoginCache, outage: OutageLogins) -> Decider:
    """The directory's own password, unless it was right a moment ago (R-AUTH-2), or lately and nobody answers now."""

    async def decide(login: PasswordLogin) -> Verdict | None:
        user, credentials = login.standing.user, login.credentials
        if user is None:
            return None
        key = cache.key(_MECHANISM, credentials.service, user.address, credentials.password)
        if not cache.knows(key, user.fingerprint):
            try:
                is_right = await directory.check_password(user, credentials.password)
            except Unavailable:
                is_proven = None if login.address is None else outage.is_proven(login.address, credentials)
                if is_proven is None:
                    raise
                if not is_proven:
                    raise NotProven(cause="not the password of before the outage") from None
                _log.info(
                    "{service}: {account} is let in by the password of before the outage",
                    service=credentials.service,
                    account=str(user.address),
                    connection=credentials.connection_id,
                )
                return Right(is_remembered=True)
            if not is_right:
                return Refused("wrong password")
            cache.add(key, user.fingerprint)
        return Right()

    return decide
