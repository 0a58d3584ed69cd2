"""Entry points: `load` a codec by name, and list what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from .plugins.registry import Registry
from .specs import CodecSpec, LoadOptions

if TYPE_CHECKING:
    from os import PathLike
    from typing import TypedDict

    from .provider import DynCodecProvider
    from .specs import ArchitectureSource, Engine

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
        graphs: bool
else:
    Options = dict[str, Any]


def load(name: str, **options: Unpack[Options]) -> DynCodecProvider:
    """Load a codec by name, alias or `plugin:name`. Its weights are loaded at the first use.

    Args:
        name: Name such as `snac_tiny`; see `list_codecs`.
        options: Options; see `LoadOptions`.

    Raises:
        UnknownCodec: No installed plugin has the codec; the message suggests names or what to install.
        AmbiguousCodec: Several plugins claim the name.
        InvalidInput: An option is unknown or invalid.
    """
    return Registry().provider(name, LoadOptions.of(**options))


def list_codecs() -> list[CodecSpec]:
    """Return the specs of all models of the installed plugins."""
    return [entry.spec for entry in Registry()]
