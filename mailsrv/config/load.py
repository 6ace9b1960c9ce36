"""From the file to settings: read, structure, check; every mistake is told at once."""

from __future__ import annotations

import os.path
import tomllib

import attrs

from mailsrv.app.endpoints import EndpointError, resolve_unix_path
from mailsrv.app.settings import ListenSettings
from mailsrv.config.problems import ConfigurationError, Problem, show_value
from mailsrv.config.rules import check_rules
from mailsrv.config.schema import Settings
from mailsrv.config.structure import Structurer


def load(path: str) -> Settings:
    """The settings of a file. Raises :class:`ConfigurationError`."""
    return parse(read(path), path)


def read(path: str) -> str:
    """The text of a configuration file. Raises :class:`ConfigurationError`."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(path, [Problem("", f"cannot be read: {error.strerror}")]) from error
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
    settings = structurer.record(Settings, table, "")
    if settings is None:
        raise ConfigurationError(path, structurer.problems)
    problems: list[Problem] = []
    settings = attrs.evolve(settings, listen=_resolve_endpoints(settings.listen, folder, problems))
    if not problems:
        problems.extend(check_rules(settings))
    if problems:
        raise ConfigurationError(path, problems)
    checked: Settings = settings
    return checked


def _resolve_endpoints(
    listeners: tuple[ListenSettings, ...], folder: str, problems: list[Problem]
) -> tuple[ListenSettings, ...]:
    resolved = []
    for index, listen in enumerate(listeners):
        try:
            resolved.append(attrs.evolve(listen, endpoint=resolve_unix_path(listen.endpoint, folder)))
        except EndpointError as error:
            problems.append(Problem(f"listen[{index}].endpoint", str(error), show_value("", listen.endpoint)))
    return tuple(resolved)
