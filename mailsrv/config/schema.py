"""All settings of a server: which section of the file is which record.

The records stand beside the code that uses them; here is only where they stand in the file. An
attribute has the name of its key.
"""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from mailsrv.app.settings import ListenSettings, LogSettings, ServerSettings
from mailsrv.auth.access_settings import AccessSettings
from mailsrv.auth.gssapi_settings import GssapiSettings
from mailsrv.auth.oauth_settings import OAuthSettings
from mailsrv.auth.session_settings import SessionSettings
from mailsrv.auth.settings import AuthSettings
from mailsrv.delivery.settings import DeliverySettings, SendmailSettings
from mailsrv.delivery.submission_settings import SubmissionSettings
from mailsrv.directory.list_settings import ListSettings
from mailsrv.directory.settings import DirectorySettings, DomainSettings, PasswordSettings
from mailsrv.directory.shared_settings import SharedSettings
from mailsrv.dns.settings import DnsSettings
from mailsrv.filters.settings import FilterSettings
from mailsrv.imap.settings import ImapSettings
from mailsrv.journal.settings import JournalSettings
from mailsrv.mailauth.settings import DkimSettings
from mailsrv.pop3.settings import Pop3Settings
from mailsrv.queue.settings import QueueSettings
from mailsrv.relay.settings import RelaySettings
from mailsrv.routing.settings import RouteSettings
from mailsrv.setting import required, setting
from mailsrv.sharing.settings import SharingSettings
from mailsrv.smtp.settings import SmtpSettings
from mailsrv.store.settings import StoreSettings
from mailsrv.tls.client_settings import MtaStsSettings, TlsClientSettings, TlsReportSettings
from mailsrv.tls.policy_settings import TlsPolicySettings
from mailsrv.tls.settings import TlsSettings
from mailsrv.wire.settings import LimitsSettings


def _is_a_folder(_record: object, _attribute: Attribute[Any], value: str) -> None:
    if not value:
        raise ValueError("expected the path of a folder")


@frozen
class Settings:
    """A whole configuration file."""

    hostname: str = required(
        "The name this server gives itself: in greetings, EHLO and Received fields.", example="mail.example.test"
    )
    state_dir: str = required(
        "Folder of the journal, the spool and the sockets between workers; made with mode 0700. "
        "It must be on a local disk.",
        example="/var/lib/mailsrv",
        check=_is_a_folder,
    )
    workers: int = setting(
        1,
        "Processes that serve; with more than one, twistd's process watches over them. About one a core.",
        at_least=1,
        at_most=256,
    )
    listen: tuple[ListenSettings, ...] = ()
    domain: tuple[DomainSettings, ...] = ()
    directory: tuple[DirectorySettings, ...] = ()
    filter: tuple[FilterSettings, ...] = ()
    list: tuple[ListSettings, ...] = ()
    shared: tuple[SharedSettings, ...] = ()
    route: tuple[RouteSettings, ...] = ()
    tls_policy: tuple[TlsPolicySettings, ...] = ()
    oauth: tuple[OAuthSettings, ...] = ()
    access: tuple[AccessSettings, ...] = ()
    tls: TlsSettings = field(factory=TlsSettings)
    auth: AuthSettings = field(factory=AuthSettings)
    gssapi: GssapiSettings = field(factory=GssapiSettings)
    sessions: SessionSettings = field(factory=SessionSettings)
    sharing: SharingSettings = field(factory=SharingSettings)
    limits: LimitsSettings = field(factory=LimitsSettings)
    store: StoreSettings = field(factory=StoreSettings)
    journal: JournalSettings = field(factory=JournalSettings)
    delivery: DeliverySettings = field(factory=DeliverySettings)
    submission: SubmissionSettings = field(factory=SubmissionSettings)
    sendmail: SendmailSettings = field(factory=SendmailSettings)
    queue: QueueSettings = field(factory=QueueSettings)
    relay: RelaySettings = field(factory=RelaySettings)
    dns: DnsSettings = field(factory=DnsSettings)
    tls_client: TlsClientSettings = field(factory=TlsClientSettings)
    mta_sts: MtaStsSettings = field(factory=MtaStsSettings)
    tls_reports: TlsReportSettings = field(factory=TlsReportSettings)
    dkim: DkimSettings = field(factory=DkimSettings)
    smtp: SmtpSettings = field(factory=SmtpSettings)
    imap: ImapSettings = field(factory=ImapSettings)
    pop3: Pop3Settings = field(factory=Pop3Settings)
    passwords: PasswordSettings = field(factory=PasswordSettings)
    server: ServerSettings = field(factory=ServerSettings)
    log: LogSettings = field(factory=LogSettings)
