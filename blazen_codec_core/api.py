"""Entry points: `load` a codec by name, `export` it, and list the installed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from .forks import held_off
from .plugins.registry import Registry
from .specs import CodecSpec, LoadOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import TypedDict

    from .onnx.check import Report
    from .onnx.manifest import What
    from .provider import DynCodecProvider
    from .specs import ArchitectureSource, Engine, Half

    class WeightOptions(TypedDict, total=False):
        weights: str | PathLike[str] | None
        revision: str | None
        cache_dir: str | PathLike[str] | None
        offline: bool
        trust_pickle: bool
        architecture: ArchitectureSource | None

    class Options(WeightOptions, total=False):
        device: str
        dtype: str
        engine: Engine
        noise: bool
        noise_seed: int | None
        strict_weights: bool
        parts: Half | None
        graphs: bool
else:
    Options = WeightOptions = dict[str, Any]


def load(name: str | PathLike[str], **options: Unpack[Options]) -> DynCodecProvider:
    """Find a codec by name, alias or `plugin:name`, in any case, with dashes or underscores. The first use loads its weights.

    Args:
        name: Name such as `snac_tiny`; `list_codecs` lists them all. Or a folder that `export` has written.
        device: `auto` for the best available device, or a PyTorch device such as `cpu` or `cuda:1`.
        dtype: Floating type of the network, a name or a `torch.dtype`. Only `float32` guarantees the authors' tokens.
        engine: `native`, `upstream` for the authors' package, or `onnx` for exported graphs, whose folder is `weights`.
        weights: A file, a folder, a Hub id (`owner/name`), `random:SEED`, or `None` for the published weights.
        revision: Revision of the Hub repository, instead of the spec's.
        cache_dir: Folder for downloads; the Hub's default if not given.
        offline: Never use the network; weights that are not here are an error at once. `HF_HUB_OFFLINE=1` does the same.
        trust_pickle: Read published pickles without a known digest or commit.
        noise: Let decoders with noise blocks add noise.
        noise_seed: Seed of the noise, 0 by default; `None` draws a new seed for every decode.
        strict_weights: Refuse tokens made with other weights; otherwise warn with `OtherWeightsNotice`.
        architecture: `from-weights` for a model with other settings than the published ones.
        parts: `encoder` or `decoder` to load only that half, with the quantizer.
        graphs: Capture the steps of single signals as CUDA graphs, for sessions with small tiles.

    `LoadOptions` has more on each.

    Raises:
        UnknownCodec: No installed plugin has the codec. The message names similar ones, or the package to install.
        AmbiguousCodec: Several plugins have a codec of this name.
        InvalidInput: An option is invalid.
        WeightsUnavailable: The weights are a path that does not exist, or are not on this machine and may not be downloaded.
    """
    with held_off():  # here, because listing codecs does not need it
        from .weights import check_at_hand

    codec = Registry().provider(name, LoadOptions.of(**options))
    check_at_hand(codec.spec, codec.options)
    return codec


def export(
    name: str,
    folder: str | PathLike[str],
    *,
    what: What | None = None,
    parts: Half | None = None,
    dtype: str = "float32",
    tile_frames: int | None = None,
    check: bool = True,
    force: bool = False,
    say: Callable[[str], object] = lambda text: None,
    **options: Unpack[WeightOptions],
) -> Report | None:
    """Export a codec as ONNX graphs, with a JSON and a README beside them that say how to drive them.

    Args:
        name: Name as for `load`.
        folder: Folder to write.
        what: `whole` for graphs of whole signals, `step` for graphs of streams with their state as inputs and outputs, or `both`,
            the default. Codecs that run segments have `whole` alone.
        parts: `encoder` or `decoder`; both by default.
        dtype: Floating type of the network, `float32` or `float16`, while the quantizer stays in float32; or `int8` for
            large layers of the decoder in int8.
        tile_frames: Frames of a step; the fewest by default.
        check: Compare the graphs, run by ONNX Runtime, with the codec.
        force: Replace a folder of an earlier export.
        say: Function that is told what is being done.
        options: Options of `load` that choose the weights.

    Returns:
        Report of the comparison; `None` without `check`.

    Raises:
        EngineNotAvailable: A package that exporting needs is not installed; the extra `export` has them.
        InvalidInput: An option is invalid, or the folder exists.
        NotYetImplemented: The codec has no such graphs.
        InferenceError: The graphs differ from the codec, or tracing failed. No folder is left behind.
    """
    codec = load(name, device="cpu", **options)
    with held_off():
        from .onnx.export import export as export_codec

    return export_codec(
        codec, folder, what=what, parts=parts, dtype=dtype, tile_frames=tile_frames, check=check, force=force, say=say
    )


def list_codecs() -> list[CodecSpec]:
    """List the specs of the models of all installed plugins."""
    return [entry.spec for entry in Registry()]
