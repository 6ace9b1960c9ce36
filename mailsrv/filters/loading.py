"""From ``[[filter]]`` tables to filters.

``use = "name"`` looks among the plugins: every object in a module of ``twisted/plugins/`` (of any
installed distribution) that provides ``IPlugin`` and :class:`IFilter`. ``use =
"package.module:object"`` imports, for a filter that is kept elsewhere. A name is never guessed:
what cannot be found is a :class:`FilterNotFound` that says which names there are.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence

from attrs import frozen
from twisted.plugin import getPlugins
from zope.interface import Attribute, Interface

from mailsrv.filters.settings import FilterSettings
from mailsrv.interfaces.filter import IFilter


class FilterNotFound(Exception):
    """A ``[[filter]]`` that cannot be used; its text is one sentence for the administrator."""


class IConfigurableFilter(Interface):
    """Provided beside :class:`IFilter` by a filter that takes ``arguments``."""

    arguments_help: str = Attribute("What the arguments are, in one line.")

    def with_arguments(arguments: Sequence[str]) -> IFilter:
        """The filter to ask, made for these arguments. Raises ValueError with what is wrong about them."""


@frozen
class LoadedFilter:
    """A filter with its settings: what the pipeline is made of."""

    filter: IFilter
    settings: FilterSettings

    @property
    def name(self) -> str:
        """For the log: the filter's own name."""
        return self.filter.name


def available_filters() -> dict[str, IFilter]:
    """All filter plugins by name. Of two with one name the first stands, as twisted.plugin finds them."""
    found: dict[str, IFilter] = {}
    for plugin in getPlugins(IFilter):
        found.setdefault(plugin.name, plugin)
    return found


def load_filters(settings: Iterable[FilterSettings]) -> tuple[LoadedFilter, ...]:
    """The filters in order. Raises :class:`FilterNotFound` at the first that cannot be used."""
    wanted = tuple(settings)
    plugins = available_filters() if any(":" not in each.use for each in wanted) else {}
    return tuple(LoadedFilter(_find(each, plugins), each) for each in wanted)


def _find(settings: FilterSettings, plugins: dict[str, IFilter]) -> IFilter:
    found = _imported(settings.use) if ":" in settings.use else _plugin(settings.use, plugins)
    if not settings.arguments:
        return found
    if not IConfigurableFilter.providedBy(found):
        raise FilterNotFound(f"filter {settings.use!r} takes no arguments")
    try:
        return IConfigurableFilter(found).with_arguments(settings.arguments)
    except ValueError as error:
        raise FilterNotFound(f"filter {settings.use!r}, arguments: {error}") from error


def _plugin(name: str, plugins: dict[str, IFilter]) -> IFilter:
    if name in plugins:
        return plugins[name]
    close = difflib.get_close_matches(name, plugins, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(plugins)) or 'none'}"
    raise FilterNotFound(f"no filter is named {name!r}; {hint}")


def _imported(path: str) -> IFilter:
    module_name, _, object_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), object_name)
    except (ImportError, ValueError, AttributeError) as error:
        raise FilterNotFound(f"filter {path!r} cannot be imported: {error}") from error
    if not IFilter.providedBy(found):
        raise FilterNotFound(f"{path!r} is not a filter; a function needs @filter_function above it")
    return IFilter(found)
