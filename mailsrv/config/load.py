"""From the file to settings: read, structure, check; every mistake is told at once."""

from __future__ import annotations

import os.path
import tomllib
from collections.abc import Mapping
from typing import Any

from mailsrv.app.endpoints import EndpointError, resolve_unix_path
from mailsrv.config.places import SYSTEM_PATH
from mailsrv.config.problems import ConfigurationError, Problem
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
    settings: Settings = structurer.record(Settings, _with_whole_endpoints(table, folder), "")
    # What is sound is looked at all the same, so that all mistakes are told at once.
    problems = [*structurer.problems, *check_rules(settings)]
    if problems:
        raise ConfigurationError(path, problems)
    return settings


def _with_whole_endpoints(table: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    """The file with paths in endpoint strings that start at its folder; what is malformed there stays."""
    listeners = table.get("listen")
    if not isinstance(listeners, list):
        return table
    return {**table, "listen": [_with_whole_endpoint(each, folder) for each in listeners]}


def _with_whole_endpoint(listener: object, folder: str) -> object:
    if not (isinstance(listener, dict) and isinstance(listener.get("endpoint"), str)):
        return listener
    try:
        return {**listener, "endpoint": resolve_unix_path(listener["endpoint"], folder)}
    except EndpointError:
        return listener
