"""The command itself: ``mailsrvctl [--config FILE] GROUP COMMAND``."""

from __future__ import annotations

import importlib
import sys
from functools import cached_property
from typing import Any

import click

from mailsrv import __version__
from mailsrv.config.load import load
from mailsrv.config.places import default_path
from mailsrv.config.problems import ConfigurationError
from mailsrv.config.schema import Settings

# Group → where it is; loading only what is asked for keeps the command quick.
_GROUPS = {
    "auth": ("mailsrv.cli.auth", "auth_group"),
    "app-password": ("mailsrv.cli.app_password", "app_password_group"),
    "config": ("mailsrv.cli.config", "config_group"),
    "dkim": ("mailsrv.cli.dkim", "dkim_group"),
    "dns": ("mailsrv.cli.dns", "dns_group"),
    "journal": ("mailsrv.cli.journal", "journal_group"),
    "ldap": ("mailsrv.cli.ldap", "ldap_group"),
    "mailbox": ("mailsrv.cli.mailbox", "mailbox_group"),
    "queue": ("mailsrv.cli.queue", "queue_group"),
    "rates": ("mailsrv.cli.rates", "rates_group"),
    "route": ("mailsrv.cli.route", "route_command"),
    "status": ("mailsrv.cli.status", "status_command"),
    "tls-policy": ("mailsrv.cli.tls_policy", "tls_policy_command"),
    "user": ("mailsrv.cli.user", "user_group"),
}


class LazyGroups(click.Group):
    """Command groups that are imported at first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _GROUPS:
            return None
        module, name = _GROUPS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


class CommandContext:
    """What every command gets: where the configuration is, and the configuration for those who ask."""

    def __init__(self, config_path: str) -> None:
        self.config_path = config_path

    @cached_property
    def settings(self) -> Settings:
        """Raises :class:`ConfigurationError`."""
        return load(self.config_path)


@click.command(cls=LazyGroups, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mailsrvctl")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    help="The configuration file.  [default: $MAILSRV_CONFIG, then /etc/mailsrv/mailsrv.toml]",
)
@click.pass_context
def root(context: click.Context, config_path: str | None) -> None:
    """Look after a mailsrv mail server."""
    context.obj = CommandContext(config_path or default_path())


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the script. A mistake in the configuration is told like the server would tell it."""
    try:
        status: Any = root.main(args=arguments, prog_name="mailsrvctl", standalone_mode=False)
    except click.exceptions.Abort:
        status = 1
    except click.UsageError as error:
        error.show()
        status = 2
    except click.ClickException as error:
        error.show()
        status = 1
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)
