"""The files that a configuration names: whether the server will be able to use them.

Each is opened as the server does, by the user who asks: run it as the server's user to learn of wrong owners and
modes. Filters are loaded, too. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mailsrv.app.mechanisms import check_keytab
from mailsrv.app.policy_files import uses_tls
from mailsrv.auth.tickets import KeytabUnusable
from mailsrv.config.schema import Settings
from mailsrv.filters.loading import FilterNotFound, load_filters
from mailsrv.mailauth.key_store import KeyStoreError, load_signing_keys
from mailsrv.tls.certificates import TlsError
from mailsrv.tls.contexts import TlsContexts


def file_problems(settings: Settings) -> list[str]:
    """A sentence for each thing that is wrong."""
    return [*_server_problems(settings), *_readable_problems(settings)]


def _server_problems(settings: Settings) -> Iterator[str]:
    """What would keep the server from starting."""
    parts: list[Callable[[], object]] = [
        lambda: load_filters(settings.filter),
        lambda: load_signing_keys(settings.dkim, settings.state_dir),
        lambda: check_keytab(settings),
    ]
    if uses_tls(settings):
        parts.append(lambda: TlsContexts(settings.tls))
    for part in parts:
        try:
            part()
        except (TlsError, FilterNotFound, KeyStoreError, KeytabUnusable) as error:
            yield str(error)


def _readable_problems(settings: Settings) -> Iterator[str]:
    """What it would start without, and refuse mail for the time being."""
    named = [
        *((f"directory[{index}].path", each.path) for index, each in enumerate(settings.directory)),
        *((f"route[{index}].password_file", each.password_file) for index, each in enumerate(settings.route)),
        *((f"oauth[{index}].client_secret_file", each.client_secret_file) for index, each in enumerate(settings.oauth)),
        *((f"oauth[{index}].jwks_file", each.jwks_file) for index, each in enumerate(settings.oauth)),
        *((f"oauth[{index}].ca_file", each.ca_file) for index, each in enumerate(settings.oauth)),
        ("tls_client.ca_file", settings.tls_client.ca_file),
    ]
    for key, path in named:
        if not path:
            continue
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as error:
            yield f"{key}: {path} cannot be read: {error.strerror}"
