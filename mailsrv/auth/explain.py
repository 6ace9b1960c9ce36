"""What would become of a log-in, step by step, as the server decides it; nothing is counted, noted or remembered.

The steps are made of the parts that decide: rules, throttle, directory, mechanisms. No step holds the password.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from mailsrv.auth.app_passwords.form import read_secret
from mailsrv.auth.app_passwords.judge import AppPasswordJudge
from mailsrv.auth.checker import is_possible_password
from mailsrv.auth.impersonation import Claim
from mailsrv.auth.offer import MechanismOffer
from mailsrv.auth.rules import LoginRules, Standing
from mailsrv.auth.throttle import LoginThrottle
from mailsrv.errors import MailError
from mailsrv.interfaces.account import PasswordCredentials
from mailsrv.interfaces.directory import DirectoryUser, IDirectory
from mailsrv.sasl import MECHANISM_NAMES
from mailsrv.sasl.external import EXTERNAL
from mailsrv.sasl.gssapi import GSSAPI
from mailsrv.sasl.scram import PLUS
from mailsrv.sasl.scram_keys import DIGESTS, find_keys
from mailsrv.wire.networks import NetworkSet, network_key

_UNAVAILABLE = "a temporary failure: 454 4.7.0 by SMTP, NO [UNAVAILABLE] by IMAP, -ERR [SYS/TEMP] by POP3"


@frozen
class Step:
    """One thing that is looked at; ``is_good`` None where it decides nothing by itself."""

    what: str
    result: str
    is_good: bool | None = None


@frozen
class LoginParts:
    """What decides about log-ins."""

    directory: IDirectory
    rules: LoginRules
    throttle: LoginThrottle
    offer: MechanismOffer
    app_passwords: AppPasswordJudge | None
    plaintext_networks: NetworkSet
    tickets_are_enough: bool
    """For those of whom a second factor is demanded."""
    takes_certificates: bool
    """Some listener asks for them."""


class Explanation:
    """Of one log-in. ``credentials.password`` "" where none is tried."""

    def __init__(self, parts: LoginParts, credentials: PasswordCredentials) -> None:
        self._parts = parts
        self._credentials = credentials
        self._reason = ""
        """Why it fails, as the log would say; the first reason counts."""

    async def steps(self) -> AsyncIterator[Step]:
        """In the order the server looks."""
        credentials, parts = self._credentials, self._parts
        claim = parts.rules.claim(credentials.authcid, credentials.authzid)
        yield self._name(claim)
        for step in self._throttle(claim):
            yield step
        try:
            standing = await parts.rules.standing(parts.directory, claim, credentials)
        except MailError as error:
            yield Step("directory", error.cause or error.text, False)
            yield Step("outcome", _UNAVAILABLE, False)
            return
        for step in self._standing(standing):
            yield step
        user = standing.user
        if user is not None and not standing.objection:
            yield self._second_factor(user)
            for step in self._mechanisms(user):
                yield step
        if credentials.password:
            try:
                yield await self._password(claim, standing)
            except MailError as error:
                yield Step("password", error.cause or error.text, False)
                yield Step("outcome", _UNAVAILABLE, False)
                return
        yield self._outcome(standing)

    def _fails(self, reason: str) -> bool:
        self._reason = self._reason or reason
        return False

    def _name(self, claim: Claim) -> Step:
        if claim.address is None:
            return Step("name", f"{claim.name} can be nobody's name", self._fails("no user name"))
        acting = "" if claim.acting_for is None else f", to act as {claim.acting_for}"
        return Step("name", f"{claim.address}{acting}", True)

    def _throttle(self, claim: Claim) -> Sequence[Step]:
        throttle, credentials = self._parts.throttle, self._credentials
        where = credentials.client_address or "a Unix socket"
        if throttle.is_exempt(credentials.client_address):
            return [Step("failures", f"{where} is exempt from delays and blocks (limits.exempt_networks)", True)]
        failures, now = throttle.failures, throttle.now()
        network = network_key(credentials.client_address)
        pair = f"{network} {claim.name}"
        delay = failures.delay(claim.name, network, now)
        text = (
            f"{failures.pair_used(pair, now):.0f} of {failures.per_pair.burst} wrong passwords from {where} in an hour"
        )
        if network:
            trusted = ", trusted: somebody logged in from there lately" if failures.is_trusted(network, now) else ""
            text += f"; {failures.network_used(network, now):.0f} of {failures.per_network.burst} in a day{trusted}"
        # A password that was right there lately passes all limits: without one, take one that never was.
        attempt = throttle.begin(
            claim.name, credentials.client_address, credentials.password or secrets.token_urlsafe(24)
        )
        attempt.abandoned()
        if attempt.is_refused:
            return [Step("failures", f"{text}: refused without a look", self._fails("too many failures"))]
        return [Step("failures", f"{text}; a failure now is answered after {delay:.0f} s", True)]

    def _standing(self, standing: Standing) -> Sequence[Step]:
        user = standing.user
        if user is None:
            return [Step("directory", "nobody logs in by this name", self._fails(standing.objection))]
        steps = [Step("directory", _about(user), True)]
        if standing.objection:
            steps.append(Step("permission", standing.objection, self._fails(standing.objection)))
            return steps
        rule = self._parts.rules.access_decision(user, self._credentials).rule
        text = f"may log in to {self._credentials.service} from {self._credentials.client_address or 'a Unix socket'}"
        steps.append(Step("permission", text + (f" (access rule {rule})" if rule else ""), True))
        if standing.target is not None:
            steps.append(Step("acting", f"as an administrator, for {_about(standing.target)}", True))
        return steps

    def _second_factor(self, user: DirectoryUser) -> Step:
        if not self._parts.rules.second_factor.demands(user):
            return Step("second factor", "not demanded", None)
        return Step("second factor", "demanded: app passwords, tokens and client certificates only", None)

    def _mechanisms(self, user: DirectoryUser) -> Sequence[Step]:
        address = self._credentials.client_address
        is_plain = not address or address in self._parts.plaintext_networks
        readable = "without TLS, too (auth.plaintext_networks)" if is_plain else "under TLS only"
        offered = self._parts.offer(True)
        if self._parts.takes_certificates:
            offered = (EXTERNAL, *offered)
        steps = [Step("mechanisms", f"offered: {' '.join(offered)}; {readable}", None)]
        demands = self._parts.rules.second_factor.demands(user)
        steps += [Step(f"mechanism {name}", self._prospect(name, user, demands=demands), None) for name in offered]
        return steps

    def _prospect(self, mechanism: str, user: DirectoryUser, *, demands: bool) -> str:
        """Whether a mechanism can let the user in. ``demands``: a second factor is asked of them."""
        name = mechanism.removesuffix(PLUS)
        if name in DIGESTS:
            if demands:
                return "fails: a second factor is demanded"
            return "works" if find_keys(name, (user.secret, *user.verifiers)) is not None else "fails: no keys for it"
        if mechanism in MECHANISM_NAMES:
            return "works: with an app password" if demands else "works"
        if mechanism == GSSAPI:
            works = not demands or self._parts.tickets_are_enough
            return "works: with a good ticket" if works else "fails: a ticket is no second factor here"
        if mechanism == EXTERNAL:
            return "works: with a good certificate, where a listener asks for one"
        return "works: with a good token"

    async def _password(self, claim: Claim, standing: Standing) -> Step:
        parts, credentials = self._parts, self._credentials
        if not is_possible_password(credentials.password):
            return Step("password", "nobody could have it", self._fails("no password anybody could have"))
        secret = read_secret(credentials.password)
        if secret is not None:
            return await self._app_password(claim, standing, secret)
        user = standing.user
        if user is None or standing.objection:
            return Step("password", "not looked at", None)
        if parts.rules.second_factor.demands(user):
            return Step(
                "password", "not looked at: a second factor is demanded", self._fails("a second factor is demanded")
            )
        if await parts.directory.check_password(user, credentials.password):
            return Step("password", "right", True)
        return Step("password", "wrong, or the directory has shut the account", self._fails("wrong password"))

    async def _app_password(self, claim: Claim, standing: Standing, secret: str) -> Step:
        judge = self._parts.app_passwords
        if not secret or judge is None:
            return Step("password", "mistyped app password", self._fails("mistyped app password"))
        account = claim.name if standing.user is None else str(standing.user.address)
        found = await judge.find(account, secret, self._credentials.service)
        if found.password is None:
            return Step("password", found.reason, self._fails(found.reason))
        if standing.target is not None:
            reason = "asks to act for somebody else by an app password"
            return Step("password", reason, self._fails(reason))
        return Step("password", f"right: the app password {found.password.name}", True)

    def _outcome(self, standing: Standing) -> Step:
        if self._reason:
            return Step("outcome", f'refused ("Authentication failed"); the log says: {self._reason}', False)
        account = standing.target or standing.user
        if account is None:
            return Step("outcome", "refused", False)
        if not self._credentials.password:
            return Step("outcome", f"nothing speaks against it; no password was tried for {account.address}", True)
        by = "" if standing.target is None or standing.user is None else f" (by {standing.user.address})"
        return Step("outcome", f"logged in as {account.address}{by}", True)


def _about(user: DirectoryUser) -> str:
    groups = f", in {', '.join(user.groups)}" if user.groups else ""
    administrator = ", an administrator" if user.is_administrator else ""
    where = f" in {user.directory}" if user.directory else ""
    return f"{user.address}{where}{groups}{administrator}"
