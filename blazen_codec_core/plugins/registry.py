"""Registry: look-up of specs, codecs, formats and layouts by name."""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import AmbiguousCodec, CodecError, EngineNotAvailable, InvalidInput, PluginError, UnknownCodec, WeightsUnavailable
from ..forks import held_off
from ..installation import how_to_install, install_command, known_plugins
from ..provider import CodecBackendHandle, DynCodecProvider
from ..specs import CodecSpec, LoadOptions
from .discovery import Plugins, discover

if TYPE_CHECKING:
    from ..backend import CodecBackend
    from ..tokens.formats import TokenFormat
    from ..tokens.layouts import TokenLayout

B = TypeVar("B", bound="CodecBackend")
CUSTOM = re.compile(r"(?P<family>[a-z0-9_]+):(?P<name>custom_[0-9a-f]{12})")
"""Pattern of identities of codecs whose settings were read from their weights."""
EXPORT_FILE = "export.json"
"""File of a folder of exported graphs; see `onnx.manifest`."""
ONNX_BACKEND = "blazen_codec_core.onnx.backend:OnnxBackend"


@dataclass(frozen=True)
class Entry:
    """A model and its plugin."""

    plugin: str
    spec: CodecSpec

    @property
    def qualified_name(self) -> str:
        """`plugin:name`, which is never ambiguous."""
        return f"{self.plugin}:{self.spec.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the model."""
        family = (self.spec.family,) if self.spec.default else ()
        return (self.qualified_name, self.spec.identity, self.spec.name, *self.spec.aliases, *family)


class Registry:
    """All models of the working plugins."""

    def __init__(self, plugins: Plugins | None = None) -> None:
        self.plugins = discover() if plugins is None else plugins
        self._qualified = {entry.qualified_name: entry for entry in self}
        self._claims: dict[str, list[Entry]] = {}
        self._folded: dict[str, list[Entry]] = {}
        for entry in self:
            for name in dict.fromkeys(entry.names):
                self._claims.setdefault(name, []).append(entry)
            for name in dict.fromkeys(map(folded, entry.names)):
                self._folded.setdefault(name, []).append(entry)

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the models, sorted by plugin, then in the plugin's order."""
        for plugin, specs in sorted(self.plugins.specs().items()):
            for spec in specs:
                yield Entry(plugin, spec)

    def __len__(self) -> int:
        return len(self._qualified)

    def __repr__(self) -> str:
        return f"<Registry of {len(self)} codecs: {', '.join(entry.spec.name for entry in self)}>"

    def find(self, name: str) -> Entry:
        """Find a model by name, then without case and with dashes as underscores, then by the folder of an export.

        Raises:
            UnknownCodec: There is no such model; the message suggests names, or what to install.
            AmbiguousCodec: Several plugins claim the name.
        """
        if not isinstance(name, str):
            raise UnknownCodec(f"codec is {name!r}; expected a name")
        if self._is_exported(name):
            return exported_entry(name, LoadOptions(weights=name))
        if name in self._qualified:
            return self._qualified[name]
        claims = self._claims.get(name) or self._folded.get(folded(name), [])
        if len(claims) > 1:
            ways = " or ".join(entry.qualified_name for entry in claims)
            raise AmbiguousCodec(f"{name} is a codec of the plugins {' and '.join(e.plugin for e in claims)}. Use {ways}")
        if not claims and CUSTOM.fullmatch(name):
            raise UnknownCodec(
                f"{name} has other settings than the published codecs. "
                "Pass its weights, and architecture='from-weights' (--weights, --architecture from-weights)"
            )
        if not claims:
            raise UnknownCodec(self._unknown(name))
        return claims[0]

    def handle(self, name: str | PathLike[str], kind: type[B], options: LoadOptions | None = None) -> CodecBackendHandle[B]:
        """Return a codec whose backend class is known.

        Raises:
            PluginError: The backend has another class.
        """
        options = options or LoadOptions()
        if self._is_exported(name):
            options = options.model_copy(update={"engine": "onnx", "weights": str(name)})
        entry = self._entry(str(name) if isinstance(name, PathLike) else name, options)

        def create() -> B:
            backend = backend_class(entry, options)(entry.spec, options)
            if not isinstance(backend, kind):
                raise PluginError(f"{entry.qualified_name} runs on {type(backend).__name__}, not {kind.__name__}")
            return backend

        return CodecBackendHandle(entry.qualified_name, entry.spec, options, create)

    def _is_exported(self, name: str | PathLike[str]) -> bool:
        """Tell whether a name is a folder of exported graphs; names of models come first, unless the folder is a path object."""
        if isinstance(name, str) and folded(name) in self._folded:
            return False
        return isinstance(name, str | PathLike) and os.path.isfile(os.path.join(name, EXPORT_FILE))

    def _entry(self, name: str, options: LoadOptions) -> Entry:
        """Find the model for the options."""
        if options.engine == "onnx":
            return exported_entry(name, options)
        return self.find(name) if options.architecture is None else self._from_weights(name, options)

    def _from_weights(self, name: str, options: LoadOptions) -> Entry:
        """Find the model of the weights in the options; the name determines the family.

        Raises:
            WeightsUnavailable: The name is a custom identity, and the weights have another one.
        """
        asked = CUSTOM.fullmatch(name) if isinstance(name, str) else None
        entry = self._any_of(asked["family"]) if asked else self.find(name)
        spec = backend_class(entry, options).spec_from_weights(entry.spec, options)
        for known in self:  # the same settings are the same codec, even with other weights
            if known.plugin == entry.plugin and known.spec.architecture == spec.architecture:
                spec = known.spec
        if asked and spec.name != asked["name"]:
            raise WeightsUnavailable(f"the weights {options.weights} are of {spec.identity}; expected weights of {name}")
        return Entry(entry.plugin, spec)

    def _any_of(self, family: str) -> Entry:
        """Return the first model of a family or a plugin."""
        for entry in self:
            if family in (entry.spec.family, entry.plugin):
                return entry
        raise UnknownCodec(self._unknown(family))

    def provider(self, name: str | PathLike[str], options: LoadOptions | None = None) -> DynCodecProvider:
        """Return a codec through the trait only."""
        with held_off():
            from ..backend import CodecBackend

        handle = self.handle(name, CodecBackend, options)  # type: ignore[type-abstract]
        return handle.into_dyn(restore)

    def format_for(self, path: str | PathLike[str]) -> TokenFormat:
        """Return the token file format for a suffix.

        Raises:
            InvalidInput: No installed plugin knows the suffix.
        """
        with held_off():
            from ..audio import SUFFIXES
            from ..tokens.formats import Container

        formats = [Container(), *self.plugins.formats]
        name = Path(path).name.lower() if isinstance(path, str | PathLike) else ""
        for format in formats:
            if name.endswith(tuple(format.suffixes)):
                return format
        known = ", ".join(suffix for format in formats for suffix in format.suffixes)
        if Path(name).suffix in SUFFIXES:
            raise InvalidInput(f"{path} has the suffix of audio; token files have one of {known}. Encode audio to get tokens")
        others = self._others()
        more = f". Other plugins have other formats: {' or '.join(install_command(*other) for other in others)}" if others else ""
        raise InvalidInput(f"{path} has no known suffix of token files; expected one of {known}{more}")

    def layout(self, name: str) -> TokenLayout:
        """Return a token layout by name.

        Raises:
            UnknownCodec: No installed plugin has it.
        """
        layouts = {folded(layout.name): layout for layout in self.plugins.layouts}
        if not isinstance(name, str) or folded(name) not in layouts:
            known = ", ".join(layout.name for layout in layouts.values())
            raise UnknownCodec(f"unknown token layout {name!r}; expected one of {known}")
        return layouts[folded(name)]

    def _others(self) -> list[tuple[str, str]]:
        """Return the project's plugins that are not installed, as extra and distribution."""
        installed = {record.distribution for record in self.plugins.records}
        return [(extra, distribution) for extra, distribution in known_plugins().items() if distribution not in installed]

    def _unknown(self, name: str) -> str:
        family = name.split(":", maxsplit=1)[0] if ":" in name else name
        for record in self.plugins.records:
            if not record.in_use and mentions(record.name, family):
                why = "is disabled" if record.disabled else f"could not be used ({record.error})"
                return f"unknown codec {name!r}: plugin {record.name} {why}. See blazen-codec plugins"
        for extra, distribution in self._others():
            if mentions(extra, family):
                return f"codec {name!r} is not installed: {install_command(extra, distribution)}"
        if not self._claims:
            return f"unknown codec {name!r}: no codec is installed. {how_to_install()}"
        near: dict[str, str] = {}
        for match in difflib.get_close_matches(folded(name), self._claims, n=12, cutoff=0.6):
            for entry in self._claims[match]:
                near.setdefault(entry.qualified_name, match)
        if near:
            return f"unknown codec {name!r}; did you mean {' or '.join(list(near.values())[:3])}?"
        return f"unknown codec {name!r}; installed are {', '.join(entry.spec.name for entry in self)}"


def exported_entry(name: str, options: LoadOptions) -> Entry:
    """Return the model of exported graphs, whose plugin need not be installed.

    Raises:
        InvalidInput: The options name no such folder, or the graphs are of another model.
    """
    with held_off():
        from ..onnx.backend import exported_spec
        from ..onnx.manifest import Manifest

    if options.weights is None:
        raise InvalidInput(f"engine='onnx' needs weights, the folder of an export; make one with blazen-codec export {name}")
    spec = exported_spec(Manifest.read(Path(options.weights)))
    entry = Entry(spec.family, spec)
    if name != options.weights and folded(name) not in map(folded, entry.names):
        raise InvalidInput(f"the graphs in {options.weights} are of {spec.name}, not of {name}")
    return entry


def folded(name: str) -> str:
    """Return a name in lower case with underscores, as names of models are."""
    return name.lower().replace("-", "_")


def mentions(plugin: str, name: str) -> bool:
    """Tell whether a codec's name looks like one of a plugin: `fam`, `fam_24khz`, `owner/fam_24khz`."""
    return re.search(rf"(^|[/_-]){re.escape(plugin.lower())}($|[_-])", name.lower()) is not None


def backend_class(entry: Entry, options: LoadOptions) -> type[CodecBackend]:
    """Return the backend class of a model for the requested engine.

    Raises:
        EngineNotAvailable: A required package is not installed, or the model does not have the engine.
        PluginError: The spec names a class that does not exist.
    """
    spec = entry.spec
    path = {"native": spec.backend, "upstream": spec.upstream, "onnx": ONNX_BACKEND}[options.engine]
    if path is None:
        raise EngineNotAvailable(f"{spec.name} has no engine {options.engine!r}; load it with engine='native'")
    module, name = path.split(":")
    try:
        with held_off():
            return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except CodecError:
        raise
    except ModuleNotFoundError as error:
        raise EngineNotAvailable(
            f"engine {options.engine!r} of {spec.name} needs the package {error.name}, which is not installed"
        ) from error
    except Exception as error:
        raise PluginError(f"plugin {entry.plugin} cannot provide {path}: {type(error).__name__}: {error}") from error


def restore(name: str, options: LoadOptions) -> DynCodecProvider:
    """Restore a pickled provider by look-up in this process."""
    return Registry().provider(name, options)
