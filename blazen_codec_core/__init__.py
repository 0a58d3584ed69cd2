"""Neural audio codecs behind one small trait, each backend an installable plugin.

    import blazen_codec_core as bc

    codec = bc.load("snac_tiny")
    tokens = codec.encode(pcm, 24_000)
    audio = codec.decode(tokens)

Names are imported on first use, so that importing this package is cheap and does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .forks import held_off

if TYPE_CHECKING:
    from .api import export, list_codecs, load
    from .audio import read as read_audio
    from .audio import resample
    from .audio import write as write_audio
    from .audio.loudness import integrated_loudness
    from .backend import AudioBackend, CodecBackend
    from .dataset.executors.ray import Cluster
    from .dataset.rows import tokens_from_row
    from .dataset.runner import Executor, Summary, detokenize_dataset, tokenize_dataset
    from .dataset.shards import read_tokens
    from .errors import (
        AmbiguousCodec,
        CodecError,
        ConnectionLost,
        CorruptFile,
        DeviceUnavailable,
        DiskTrouble,
        EngineNotAvailable,
        InferenceError,
        InvalidInput,
        InvalidTokens,
        LicenseNotice,
        ManyChannelsNotice,
        NotYetImplemented,
        OtherWeightsNotice,
        PluginError,
        PoolFull,
        ServiceError,
        SlowerNotice,
        UnknownCodec,
        UnknownSettingsNotice,
        WeightsUnavailable,
    )
    from .plugins.discovery import PluginRecord, Plugins, discover
    from .plugins.hookspecs import hookimpl
    from .plugins.registry import Registry
    from .provider import CodecBackendHandle, DynCodecProvider
    from .sessions import DecoderSession, EncoderSession
    from .specs import CodecSpec, DeviceCapabilities, LoadOptions, Segment, WeightSource
    from .tokens.formats import TokenFormat
    from .tokens.layouts import TokenLayout
    from .tokens.tokens import CodecTokens, Source

__all__ = [
    "AmbiguousCodec",
    "AudioBackend",
    "Cluster",
    "CodecBackend",
    "CodecBackendHandle",
    "CodecError",
    "CodecSpec",
    "CodecTokens",
    "ConnectionLost",
    "CorruptFile",
    "DecoderSession",
    "DeviceCapabilities",
    "DeviceUnavailable",
    "DiskTrouble",
    "DynCodecProvider",
    "EncoderSession",
    "EngineNotAvailable",
    "Executor",
    "InferenceError",
    "InvalidInput",
    "InvalidTokens",
    "LicenseNotice",
    "LoadOptions",
    "ManyChannelsNotice",
    "NotYetImplemented",
    "OtherWeightsNotice",
    "PluginError",
    "PluginRecord",
    "Plugins",
    "PoolFull",
    "Registry",
    "Segment",
    "ServiceError",
    "SlowerNotice",
    "Source",
    "Summary",
    "TokenFormat",
    "TokenLayout",
    "UnknownCodec",
    "UnknownSettingsNotice",
    "WeightSource",
    "WeightsUnavailable",
    "detokenize_dataset",
    "discover",
    "export",
    "hookimpl",
    "integrated_loudness",
    "list_codecs",
    "load",
    "read_audio",
    "read_tokens",
    "resample",
    "tokenize_dataset",
    "tokens_from_row",
    "write_audio",
]

_MODULES = {
    "api": ("export", "list_codecs", "load"),
    "audio": ("read_audio", "resample", "write_audio"),
    "audio.loudness": ("integrated_loudness",),
    "backend": ("AudioBackend", "CodecBackend"),
    "dataset.executors.ray": ("Cluster",),
    "dataset.rows": ("tokens_from_row",),
    "dataset.runner": ("Executor", "Summary", "detokenize_dataset", "tokenize_dataset"),
    "dataset.shards": ("read_tokens",),
    "plugins.discovery": ("PluginRecord", "Plugins", "discover"),
    "plugins.hookspecs": ("hookimpl",),
    "plugins.registry": ("Registry",),
    "provider": ("CodecBackendHandle", "DynCodecProvider"),
    "sessions": ("DecoderSession", "EncoderSession"),
    "specs": ("CodecSpec", "DeviceCapabilities", "LoadOptions", "Segment", "WeightSource"),
    "tokens.formats": ("TokenFormat",),
    "tokens.layouts": ("TokenLayout",),
    "tokens.tokens": ("CodecTokens", "Source"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_RENAMED = {"read_audio": "read", "write_audio": "write"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        import importlib_metadata

        return importlib_metadata.version("blazen-codec-core")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with held_off():
        module = importlib.import_module(f".{_HOME.get(name, 'errors')}", __name__)
    return getattr(module, _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return __all__
