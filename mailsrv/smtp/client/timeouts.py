"""Which setting bounds which phase (RFC 5321 4.5.3.2); phases that are not here may last."""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.smtp.client.events import Phase
from mailsrv.smtp.client.settings import SmtpClientSettings

TIMEOUTS: dict[Phase, Callable[[SmtpClientSettings], float]] = {
    Phase.GREETING: lambda settings: settings.greeting_timeout,
    Phase.COMMAND: lambda settings: settings.command_timeout,
    Phase.TLS: lambda settings: settings.tls_timeout,
    Phase.DATA_START: lambda settings: settings.data_start_timeout,
    Phase.DATA_BLOCK: lambda settings: settings.data_block_timeout,
    Phase.DATA_END: lambda settings: settings.data_end_timeout,
    Phase.QUIT: lambda settings: settings.quit_timeout,
}
