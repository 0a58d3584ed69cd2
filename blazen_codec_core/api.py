"""Entry points: `load` a codec by name, and list the installed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from .plugins.registry import Registry
from .specs import CodecSpec, LoadOptions

if TYPE_CHECKING:
    from os import PathLike
    from typing import TypedDict

    from .provider import DynCodecProvider
    from .specs import ArchitectureSource, Engine, Half

    class Options(TypedDict, total=False):
        device: str
        dtype: str
        engine: Engine
        weights: str | PathLike[str] | None
        revision: str | None
        cache_dir: str | PathLike[str] | None
        offline: bool
        trust_pickle: bool
        noise: bool
        noise_seed: int | None
        strict_weights: bool
        architecture: ArchitectureSource | None
        parts: Half | None
        graphs: bool
else:
    Options = dict[str, Any]


def load(name: str, **options: Unpack[Options]) -> DynCodecProvider:
    """Find a codec by name, alias or `plugin:name`. The first use loads its weights.

    Args:
        name: Name such as `snac_tiny`; `list_codecs` lists them all.
        options: Fields of `LoadOptions`.

    Raises:
        UnknownCodec: No installed plugin has the codec. The message names similar ones, or the package to install.
        AmbiguousCodec: Several plugins have a codec of this name.
        InvalidInput: An option is invalid.
    """
    return Registry().provider(name, LoadOptions.of(**options))


def list_codecs() -> list[CodecSpec]:
    """List the specs of the models of all installed plugins."""
    return [entry.spec for entry in Registry()]
