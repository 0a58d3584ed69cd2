"""Export of a codec: a folder of ONNX graphs that are compared with the codec before the folder gets its name."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from ..checks import check_tile
from ..errors import InvalidInput, NotYetImplemented
from ..files import make_folder, unwritten
from ..installation import missing
from ..nn.codec_network import CodecNetwork
from ..nn.kernels.exporting import exporting
from ..nn.layers.base import prepare_modules
from ..provider import DynCodecProvider
from ..specs import CodecSpec, Half
from ..torch_backend.backend import TorchCodecBackend
from ..torch_backend.guard import inference_guard
from ..torch_backend.sessions import inherits
from .check import Report, check_export
from .half_networks import CPU, HALVES, HalfNetwork
from .int8 import in_int8
from .manifest import FILE, README, WEIGHTS, Graph, Manifest, NoiseInput, Part, Stream, Value, What
from .precisions import Precision, find_precision
from .readme import readme
from .shared_weights import SharedWeights
from .stages import WHOLE, stream_steps
from .tracing import Step, forget_source, trace

if TYPE_CHECKING:
    from onnx_ir import Model


def export(
    codec: DynCodecProvider,
    folder: str | PathLike[str],
    *,
    what: What | None = None,
    parts: Half | None = None,
    dtype: str = "float32",
    tile_frames: int | None = None,
    check: bool = True,
    force: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Report | None:
    """Export a codec; see `api.export`.

    Args:
        say: Function that is told what is being done.

    Returns:
        Report of the check.
    """
    spec, target = codec.spec, Path(folder)
    kinds = _kinds(spec, what)
    if parts is not None and parts not in HALVES:
        raise InvalidInput(f"parts is {parts!r}; expected {' or '.join(map(repr, HALVES))}, or None for both")
    precision = find_precision(dtype, parts)
    tile = check_tile(spec, "lowest", tile_frames)
    _check_packages()
    backend = _exportable(codec)
    with _new_folder(target, force) as unfinished:
        with inference_guard(inference=False), exporting():
            network = _plain_network(backend, precision.dtype)
            with SharedWeights(unfinished / WEIGHTS) as shared:
                graphs = {
                    part: _export_half(kind(spec, network, precision.dtype), precision, kinds, tile, shared, unfinished, say)
                    for part, kind in HALVES.items()
                    if part in ([parts] if parts else _loaded_parts(backend))
                }
        manifest = Manifest(
            codec=spec.model_copy(update={"padded": True}), label=backend.weights_label, dtype=dtype, parts=graphs
        )
        (unfinished / FILE).write_text(manifest.model_dump_json(indent=1), "utf-8")
        (unfinished / README).write_text(readme(manifest), "utf-8")
        say("comparing the graphs with the codec")
        return check_export(codec, unfinished, manifest) if check else None


def _exportable(codec: DynCodecProvider) -> TorchCodecBackend:
    """Backend of a codec of which graphs can be made; this loads its weights."""
    backend, spec = codec.backend, codec.spec
    if not isinstance(backend, TorchCodecBackend) or not isinstance(network := backend.loaded().network, CodecNetwork):
        raise NotYetImplemented(f"{spec.name} cannot be exported, because its network is not made of this package's layers")
    if not inherits(network, "encode_step", "encode_many", "decode_step", "decode_many"):
        raise NotYetImplemented(f"{spec.name} cannot be exported, because its network has steps of its own")
    return backend


def _loaded_parts(backend: TorchCodecBackend) -> tuple[Half, ...]:
    return (backend.half,) if backend.half else get_args(Half)


def _kinds(spec: CodecSpec, what: What | None) -> What:
    """Kinds of graphs; all that the codec has by default."""
    spec.check_has_tokens()
    segment = spec.segment
    if what is None:
        return "whole" if segment else "both"
    if what not in get_args(What):
        raise InvalidInput(f"what is {what!r}; expected {' or '.join(map(repr, get_args(What)))}")
    if segment and what != "whole":
        raise NotYetImplemented(
            f"{spec.name} has no step graphs: it runs segments of {segment.length} samples, each normalized over all of its "
            "samples; export it with what='whole'"
        )
    return what


def _check_packages() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing(f"exporting needs {error.name}", "export") from error


def _plain_network(backend: TorchCodecBackend, dtype: torch.dtype) -> CodecNetwork:
    """Copy of the network with kernels of PyTorch's operations."""
    network = backend.copy_network().requires_grad_(False).eval()
    network.place(CPU, dtype)
    prepare_modules(network)
    return network


def _export_half(
    half: HalfNetwork,
    precision: Precision,
    kinds: What,
    tile_frames: int,
    shared: SharedWeights,
    folder: Path,
    say: Callable[[str], object],
) -> Part:
    def graph(role: str, step: Step) -> Graph:
        say(f"tracing {role} of the {half.part}")
        traced = trace(half, step)
        model = in_int8(traced.model) if half.part in precision.in_int8 else traced.model
        return _write(model, step, traced.noise, f"{half.part}_{role}.onnx", shared, folder)

    stream = None
    if kinds != "whole":
        steps = stream_steps(half, tile_frames)
        stream = Stream(
            latency_samples=steps.latency_samples,
            begin=graph("begin", steps.begin),
            step=graph("step", steps.step),
            end=graph("end", steps.end) if steps.end else None,
        )
    whole = graph("whole", WHOLE) if kinds != "step" else None
    return Part(block=half.block, block_samples=half.hop, whole=whole, stream=stream)


def _write(model: Model, step: Step, noise: tuple[NoiseInput, ...], name: str, shared: SharedWeights, folder: Path) -> Graph:
    forget_source(model)
    shared.save(model, folder / name)
    return Graph(
        file=name,
        blocks=step.blocks,
        is_dynamic=step.is_dynamic,
        noise=noise,
        inputs=tuple(_value(value) for value in model.graph.inputs),
        outputs=tuple(_value(value) for value in model.graph.outputs),
    )


def _value(value: Any) -> Value:
    """Name, shape and type of an `onnx_ir.Value`."""
    shape = tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
    return Value(name=value.name, shape=shape, dtype=str(value.dtype.numpy()))


@contextmanager
def _new_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yield a folder that gets its name if the block succeeds, and is removed otherwise.

    Raises:
        InvalidInput: The target exists, or cannot be written.
    """
    if os.path.lexists(target) and not (force and (target / FILE).is_file()):
        remedy = "--force (force=True) replaces it" if (target / FILE).is_file() else "name a folder that does not exist"
        raise InvalidInput(f"{target} exists; {remedy}")
    make_folder(target.absolute().parent)
    unfinished = target.absolute().with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        unfinished.mkdir()
        yield unfinished
        if os.path.lexists(target):
            shutil.rmtree(target)
        unfinished.rename(target)
    except OSError as error:
        raise unwritten(target, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
