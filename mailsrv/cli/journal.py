"""``mailsrvctl journal``: accepted mail that its account could not take, and that was put aside.

Works on the files, whether the server runs or not. The server tries all of it again at a reload.
"""

from __future__ import annotations

import os

import click

from mailsrv.cli.output import json_option, moment, say, to_json
from mailsrv.cli.root import CommandContext
from mailsrv.disk import RealDisk
from mailsrv.journal.stuck import StuckDelivery, StuckFolder


@click.group("journal")
def journal_group() -> None:
    """Look at mail on its way into the mailboxes."""


@journal_group.command("stuck")
@json_option()
@click.pass_obj
def stuck(context: CommandContext, as_json: bool) -> None:
    """List deliveries that were put aside, with the reason; a reload of the server tries them again."""
    directory = os.path.join(context.settings.state_dir, "journal", "stuck")
    try:
        found = StuckFolder(RealDisk(), directory).list()
    except OSError as error:
        click.echo(f"mailsrvctl: {directory}: {error.strerror}", err=True)
        raise SystemExit(1) from error
    if as_json:
        click.echo(to_json([_row(each) for each in found], indent=2))
        return
    for each in found:
        row = _row(each)
        say(
            f"{row['name']}  {row['date']}  {each.account} {each.mailbox}  {each.size} octets  "
            f"from <{each.reverse_path}>  {each.error}" + ("" if each.is_content_complete else "  (content is damaged)")
        )


def _row(delivery: StuckDelivery) -> dict[str, object]:
    return {
        "name": delivery.name,
        "date": moment(delivery.internal_date),
        "account": str(delivery.account),
        "mailbox": delivery.mailbox,
        "recipient": delivery.recipient,
        "reverse_path": delivery.reverse_path,
        "transaction_id": delivery.transaction_id,
        "size_octets": delivery.size,
        "error": delivery.error,
        "is_content_complete": delivery.is_content_complete,
    }
