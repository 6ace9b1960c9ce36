"""Everything adjustable about log-ins."""

from __future__ import annotations

import enum
from typing import Any

from attrs import Attribute, Factory, frozen, validators

from mailsrv.address.setting_check import is_domain_or_empty
from mailsrv.auth.access_settings import LoginService
from mailsrv.setting import setting
from mailsrv.wire.networks import are_networks


class ScramUse(enum.Enum):
    """Whether SCRAM is offered."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def _is_separator(_record: object, attribute: Attribute[Any], value: str) -> None:
    # Letters and digits are in everybody's name, "@" and "." in every address.
    if (
        not value
        or len(value) > 8
        or any(each.isalnum() or each in "@.-_+" or not "!" <= each <= "~" for each in value)
    ):
        raise ValueError('expected a mark that is in nobody\'s name, such as "*"', attribute)


@frozen
class ImpersonationSettings:
    """``[auth.impersonation]``: administrators who open other users' mailboxes with their own password."""

    enabled: bool = setting(
        False,
        "Whether administrators (passwd-file: administrator=yes; LDAP: members of a group) may log in as "
        "somebody else: as alice*admin, or by the authorization identity of PLAIN, SCRAM and tokens.",
    )
    separator: str = setting("*", "What stands between the user's name and the administrator's.", check=_is_separator)
    services: tuple[LoginService, ...] = setting(
        (LoginService.IMAP, LoginService.POP3),
        "Where they may. With submission they may also send mail as somebody else.",
    )
    administrators: bool = setting(False, "Whether other administrators' accounts may be opened this way, too.")


class SecondFactor(enum.Enum):
    """Of whom a second factor is demanded."""

    DIRECTORY = "directory"
    ALL = "all"


class CertificateName(enum.Enum):
    """What of a client's certificate names its account."""

    EMAIL = "email"
    UPN = "upn"
    SUBJECT_EMAIL = "subject-email"
    SUBJECT_UID = "subject-uid"
    SUBJECT_CN = "subject-cn"


@frozen
class AuthSettings:
    """``[auth]``: who may log in how, and how guessing is slowed down."""

    plaintext_networks: tuple[str, ...] = setting(
        (), "Networks from which log-ins without TLS are allowed.", check=are_networks, example=("127.0.0.1/32",)
    )
    default_domain: str = setting(
        "", "The domain of users who log in without one.", check=is_domain_or_empty, example="example.test"
    )
    scram: ScramUse = setting(
        ScramUse.AUTO,
        "auto: log-in by SCRAM is offered as soon as every user has keys for it (passwords set before "
        "there were keys have to be set again); on: as soon as one user has, and others' clients may choose "
        "what cannot work for them; off: never.",
    )
    second_factor: SecondFactor = setting(
        SecondFactor.DIRECTORY,
        "Who may not log in by the directory's password, but by app passwords, tokens and client "
        "certificates only. directory: users whom their directory marks so, and those of second_factor_groups; "
        "all: everybody.",
    )
    second_factor_groups: tuple[str, ...] = setting(
        (), "Groups of whose members it is demanded as well.", example=("Staff",)
    )
    app_passwords_per_user: int = setting(20, "How many app passwords a user may have.", at_least=0)
    app_password_use_seconds: float = setting(
        60.0, "How often, at most, the last use of an app password is written down.", at_least=1, unit="s"
    )
    app_password_queue: int = setting(
        200,
        "Log-ins by app passwords that may wait for the disk, in each worker; past it the answer is a "
        "temporary failure.",
        at_least=1,
    )
    certificate_names: tuple[CertificateName, ...] = setting(
        (CertificateName.EMAIL,),
        "What of a client certificate names its account; the first that the certificate has counts. "
        "email: the address among the alternative names (also an internationalized one); upn: Microsoft's user "
        "principal name there; subject-email, subject-uid, subject-cn: attributes of the subject, a user name or "
        "an address.",
        check=validators.min_len(1),
    )
    cache_seconds: float = setting(
        60.0,
        "How long a verified log-in is remembered: clients that connect often cost no hash; 0: not.",
        at_least=0,
        unit="s",
    )
    outage_seconds: float = setting(
        0.0,
        "While a directory does not answer, who has logged in within this time is let in by the password that was "
        "right then, also if it was changed or the account disabled meanwhile; 0: nobody is.",
        at_least=0,
        unit="s",
    )
    cache_entries: int = setting(10_000, "How many verified log-ins are remembered.", at_least=0)
    failure_delay_seconds: float = setting(
        2.0, "Delay of the answer to a first failed log-in; it doubles with each failure.", at_least=0, unit="s"
    )
    failure_delay_limit_seconds: float = setting(15.0, "The delay grows no further than this.", at_least=0, unit="s")
    failure_decay_seconds: float = setting(
        120.0, "After this time without a failure the delay halves.", above=0, unit="s"
    )
    failures_per_user: int = setting(
        10, "Different wrong passwords for one user from one network in an hour; then log-ins are refused.", at_least=1
    )
    failures_per_network: int = setting(
        50,
        "Different failed log-ins from one network in a day; then log-ins from it are refused, "
        "unless somebody logged in from it lately.",
        at_least=1,
    )
    success_memory_seconds: float = setting(
        86_400.0, "How long a successful log-in keeps its network from being refused as a whole.", at_least=0, unit="s"
    )
    throttle_entries: int = setting(
        20_000,
        "How many users, networks, and pairs of both are remembered; the oldest are forgotten. Of all "
        "workers together; settled at the start, and all is forgotten when it changes.",
        at_least=1,
    )
    impersonation: ImpersonationSettings = setting(
        Factory(ImpersonationSettings),
        "Administrators who open other users' mailboxes with their own password, for support.",
    )
