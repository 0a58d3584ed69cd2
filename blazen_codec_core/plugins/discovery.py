"""Discovery of installed plugins; a broken one is recorded and does not affect the others."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import importlib_metadata
import pluggy

from ..api_version import IncompatiblePlugin
from ..errors import PluginError, reason
from ..forks import cached_property, held_off
from ..specs import CodecSpec
from . import hookspecs
from .hookspecs import PROJECT

if TYPE_CHECKING:
    from ..tokens.formats import TokenFormat
    from ..tokens.layouts import TokenLayout

DISABLE = "BLAZEN_CODEC_DISABLE"
"""Environment variable with a comma-separated list of plugins that are not imported."""


@dataclass(frozen=True)
class PluginRecord:
    """Outcome of loading one entry point."""

    name: str
    distribution: str
    version: str
    error: str | None = None
    """Reason why the plugin is not used; `None` if it is."""
    disabled: bool = False

    @property
    def in_use(self) -> bool:
        """True if the plugin works and is not disabled."""
        return self.error is None and not self.disabled


class Plugins:
    """The working plugins, with one method per hook, and a record of every plugin found."""

    def __init__(self, manager: pluggy.PluginManager, records: Iterable[PluginRecord]) -> None:
        self._manager = manager
        self._found = {record.name: record for record in records}
        self._specs: dict[str, tuple[CodecSpec, ...]] = {}
        for record in [r for r in self._found.values() if r.in_use]:
            try:
                self._specs[record.name] = _checked_specs(self._call("blazen_codec_specs", record.name))
            except (Exception, SystemExit) as error:
                self._manager.unregister(name=record.name)
                self._found[record.name] = replace(record, error=_reason(error, record.distribution))

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """Record of every plugin found, also of those that are not in use."""
        return tuple(self._found[name] for name in sorted(self._found))

    def specs(self) -> Mapping[str, tuple[CodecSpec, ...]]:
        """Return the specs of each plugin."""
        return self._specs

    @cached_property
    def formats(self) -> tuple[TokenFormat, ...]:
        """Token file formats of the plugins.

        Raises:
            PluginError: A plugin returned another type.
        """
        from ..tokens.formats import TokenFormat

        return tuple(self._collect("blazen_codec_formats", TokenFormat))

    @cached_property
    def layouts(self) -> tuple[TokenLayout, ...]:
        """Token layouts of the plugins; raises the errors of `formats`."""
        from ..tokens.layouts import TokenLayout

        return tuple(self._collect("blazen_codec_layouts", TokenLayout))

    def _collect(self, hook: str, kind: type[Any]) -> Iterable[Any]:
        for name in self._specs:
            try:
                items = list(self._call(hook, name))
            except (Exception, SystemExit) as error:
                raise PluginError(f"plugin {name} failed in {hook}: {_reason(error, self._found[name].distribution)}") from error
            for item in items:
                if not isinstance(item, kind):
                    raise PluginError(f"plugin {name} returned {item!r} from {hook}; it must be a {kind.__name__}")
            yield from items

    def _call(self, hook: str, name: str) -> list[Any]:
        """Call a hook of one plugin and return its items."""
        others = [plugin for other, plugin in self._manager.list_name_plugin() if other != name]
        results = self._manager.subset_hook_caller(hook, others)()
        return [item for result in results for item in result]


@held_off()
def discover(
    entry_points: Iterable[importlib_metadata.EntryPoint] | None = None, disabled: Collection[str] | None = None
) -> Plugins:
    """Discover the installed plugins.

    Args:
        entry_points: Entry points; by default those of the group `blazen_codec`.
        disabled: Names of disabled plugins; by default those in `BLAZEN_CODEC_DISABLE`.
    """
    if entry_points is None:
        entry_points = importlib_metadata.entry_points(group=PROJECT)
    if disabled is None:
        disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",")}
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    records: dict[str, PluginRecord] = {}
    found = ((entry_point.name, *_identity(entry_point.dist), entry_point) for entry_point in entry_points)
    for name, distribution, version, entry_point in sorted(found, key=lambda one: one[:2]):
        record = _register(manager, entry_point, PluginRecord(name, distribution, version), disabled)
        if record.name in records:
            record = replace(record, name=f"{record.name} ({record.distribution})")
        records[record.name] = record
    return Plugins(manager, records.values())


def _identity(distribution: Any) -> tuple[str, str]:
    """Return the name and version of a distribution. The library's parser of metadata takes longer to import than this."""
    if distribution is None:
        return "unknown", "unknown"
    headers = (distribution.read_text("METADATA") or "").partition("\n\n")[0]
    name, version = (re.search(rf"^{key}: (.+)$", headers, re.MULTILINE) for key in ("Name", "Version"))
    return name[1] if name else distribution.name, version[1] if version else distribution.version


def _register(
    manager: pluggy.PluginManager, entry_point: importlib_metadata.EntryPoint, record: PluginRecord, disabled: Collection[str]
) -> PluginRecord:
    if entry_point.name in disabled:
        return replace(record, disabled=True)
    taken = manager.has_plugin(entry_point.name)
    try:
        if taken:
            raise PluginError(f"another distribution already provides a plugin called {entry_point.name}")
        plugin = entry_point.load()
        manager.register(plugin, name=entry_point.name)
        _check_hook_names(plugin)
        manager.check_pending()
    except (Exception, SystemExit) as error:
        if not taken and manager.has_plugin(entry_point.name):
            manager.unregister(name=entry_point.name)
        return replace(record, error=_reason(error, record.distribution))
    return record


def _check_hook_names(plugin: Any) -> None:
    """Raise `PluginError` for unmarked or misspelt hooks, which pluggy would ignore silently."""
    known = {name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_")}
    for name in dir(plugin):
        if not name.startswith(f"{PROJECT}_") or not callable(getattr(plugin, name)):
            continue
        if name not in known:
            raise PluginError(f"{name} is not a hook; expected one of {', '.join(sorted(known))}")
        if not hasattr(getattr(plugin, name), f"{PROJECT}_impl"):
            raise PluginError(f"{name} is not marked with @blazen_codec_core.hookimpl")


def _checked_specs(items: Iterable[Any]) -> tuple[CodecSpec, ...]:
    specs: list[CodecSpec] = []
    for item in items:
        if not isinstance(item, CodecSpec):
            raise PluginError(f"blazen_codec_specs returned {item!r}; it must return CodecSpec objects")
        if item.name in {spec.name for spec in specs}:
            raise PluginError(f"blazen_codec_specs returned {item.name} twice")
        specs.append(item)
    return tuple(specs)


def _reason(error: BaseException, distribution: str) -> str:
    if isinstance(error, IncompatiblePlugin):
        return error.sentence(distribution)
    return f"{type(error).__name__}: {reason(error)}"
