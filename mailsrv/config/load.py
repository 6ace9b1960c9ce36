"""From the file to settings: read, structure, check; every mistake is told at once."""

from __future__ import annotations

import os.path
import tomllib

import attrs

from mailsrv.app.endpoints import resolve_unix_path
from mailsrv.app.settings import ListenSettings
from mailsrv.config.places import SYSTEM_PATH
from mailsrv.config.problems import ConfigurationError, Problem
from mailsrv.config.rules import check_rules
from mailsrv.config.schema import Settings
from mailsrv.config.structure import Structurer

# For what has to be set and is missing or wrong, while the rest is looked at.
_PLACEHOLDERS = {"hostname": "localhost", "state_dir": "/"}


def load(path: str) -> Settings:
    """The settings of a file. Raises :class:`ConfigurationError`."""
    return parse(read(path), path)


def read(path: str) -> str:
    """The text of a configuration file. Raises :class:`ConfigurationError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        hint = "; --config or $MAILSRV_CONFIG names another" if path == SYSTEM_PATH else ""
        raise ConfigurationError(path, [Problem("", f"cannot be read: {error.strerror}{hint}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(path, [Problem("", f"is not UTF-8: octet {error.start}")]) from error


def parse(text: str, path: str) -> Settings:
    """The settings that ``text`` says; relative paths start at the folder of ``path``."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(path, [Problem("", f"is not TOML: {error}")]) from error
    folder = os.path.dirname(os.path.abspath(path))
    structurer = Structurer(folder)
    settings: Settings | None = structurer.record(Settings, table, "")
    problems = structurer.problems
    wrong = {problem.section for problem in problems}
    if settings is None:
        # What is well-formed is looked at all the same, so that all mistakes are told at once.
        rest = {key: value for key, value in table.items() if key not in wrong}
        settings = Structurer(folder).record(Settings, {**_PLACEHOLDERS, **rest}, "")
    if settings is not None:
        settings = attrs.evolve(settings, listen=_resolve_endpoints(settings.listen, folder))
        problems = [*problems, *check_rules(settings, wrong)]
    if problems or settings is None:
        raise ConfigurationError(path, problems)
    return settings


def _resolve_endpoints(listeners: tuple[ListenSettings, ...], folder: str) -> tuple[ListenSettings, ...]:
    return tuple(attrs.evolve(each, endpoint=resolve_unix_path(each.endpoint, folder)) for each in listeners)
