"""What a server reads from the disk and must not be without: before it starts, before it reloads, and its supervisor.

Everything here waits for the disk and only reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from mailsrv.app.mechanisms import check_keytab
from mailsrv.app.server import CannotStart
from mailsrv.auth.tickets import KeytabUnusable
from mailsrv.config.schema import Settings
from mailsrv.filters.loading import FilterNotFound, LoadedFilter, load_filters
from mailsrv.mailauth.key_store import KeyStoreError, SigningKeys, load_signing_keys
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.contexts import TlsContexts
from mailsrv.wire.tls_mode import TlsMode

UNUSABLE_FILE = (TlsError, FilterNotFound, KeyStoreError, KeytabUnusable)
"""With a text that names the file and says what is wrong with it."""


@frozen
class PolicyFiles:
    """What a policy is made with."""

    filters: Sequence[LoadedFilter]
    signing_keys: SigningKeys = field(repr=False)


def load_policy_files(settings: Settings) -> PolicyFiles:
    """Raises one of UNUSABLE_FILE."""
    check_keytab(settings)
    return PolicyFiles(load_filters(settings.filter), load_signing_keys(settings.dkim, settings.state_dir))


def uses_tls(settings: Settings) -> bool:
    """Whether any listener speaks TLS."""
    return any(listen.tls is not TlsMode.NONE for listen in settings.listen)


def check_files(settings: Settings) -> None:
    """What a supervisor looks at before workers are given settings: keys, certificates, filters.

    Raises :class:`CannotStart`.
    """
    try:
        load_policy_files(settings)
        if uses_tls(settings):
            TlsContexts(settings.tls)
    except UNUSABLE_FILE as error:
        raise CannotStart(str(error)) from error
