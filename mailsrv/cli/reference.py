"""The manual's page of all commands, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mailsrv.cli.root import root

_HEADING = """\
Commands
========

``mailsrvctl`` looks after a server, whether it runs or not. Exit status 0: done; 1: it could not be done, or there is
nothing; 2: wrong use. ``mailsrvctl --config FILE``, or ``$MAILSRV_CONFIG``, names another file than
``/etc/mailsrv/mailsrv.toml``. ``mailsrv-sendmail`` is told in :doc:`/local-programs`, ``twistd mailsrv`` in
:doc:`/operating`.
"""


def write_commands() -> str:
    """The whole page."""
    parts = [_HEADING]
    with click.Context(root, info_name="mailsrvctl") as context:
        for name in root.list_commands(context):
            command = root.get_command(context, name)
            if command is not None:
                parts.extend(_describe(command, name, context))
    return "\n".join(parts)


def _describe(command: click.Command, name: str, context: click.Context) -> Iterator[str]:
    """A section for a group, or for a command that stands alone."""
    title = f"mailsrvctl {name}"
    yield f"{title}\n{'-' * len(title)}\n"
    with click.Context(command, info_name=name, parent=context) as inner:
        if not isinstance(command, click.Group):
            yield from _usage(command, inner)
            return
        yield f"{_text(command)}\n"
        for each in command.list_commands(inner):
            found = command.get_command(inner, each)
            if found is not None:
                with click.Context(found, info_name=each, parent=inner) as innermost:
                    yield from _usage(found, innermost)


def _usage(command: click.Command, context: click.Context) -> Iterator[str]:
    words = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"``{words}``\n    {_text(command)}\n"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in record[0]:
            yield f"    ``{record[0]}``\n        {record[1]}\n"


def _text(command: click.Command) -> str:
    return " ".join((command.help or "").replace("\b", "").split())
