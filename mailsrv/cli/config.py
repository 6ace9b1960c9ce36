"""``mailsrvctl config``: check a configuration, show what is in force, write a sample."""

from __future__ import annotations

import json
import os.path

import click

from mailsrv.cli.output import json_option
from mailsrv.cli.root import CommandContext
from mailsrv.config.load import load
from mailsrv.config.sample import write_sample
from mailsrv.config.show import as_table, flatten


@click.group("config")
def config_group() -> None:
    """Check, show or begin a configuration."""


@config_group.command("check")
@click.argument("path", metavar="[FILE]", required=False)
@click.option(
    "--files", is_flag=True, help="Also read, as the present user, the files it names: certificates, users, …"
)
@click.pass_obj
def check(context: CommandContext, path: str | None, files: bool) -> None:
    """Say everything that is wrong with the file, or that it is good."""
    file = path or context.config_path
    settings = load(file)
    problems: list[str] = []
    if files:
        # Loads most of the server, which the plain check does without.
        from mailsrv.cli.named_files import file_problems

        problems = file_problems(settings)
    for problem in problems:
        click.echo(f"{file}: {problem}", err=True)
    if problems:
        raise SystemExit(1)
    click.echo(f"{file} is good" + (", and so are the files it names" if files else ""))


@config_group.command("show")
@json_option("One JSON object.")
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.pass_obj
def show(context: CommandContext, as_json: bool, changed: bool) -> None:
    """Show every setting with the value in force, defaults included; secrets are hidden."""
    folder = os.path.dirname(os.path.abspath(context.config_path))
    table = as_table(context.settings, unlike_defaults_in=folder if changed else None)
    if as_json:
        click.echo(json.dumps(table, indent=2))
        return
    for key, value in flatten(table):
        click.echo(f"{key} = {value}")


@config_group.command("sample")
def sample() -> None:
    """Write a complete, commented configuration to standard output."""
    click.echo(write_sample(), nl=False)
