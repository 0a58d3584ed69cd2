"""ONNX Runtime on exported graphs: whole signals, and streams that keep their state between tiles. It needs no PyTorch."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..counter_noise import normal_values
from ..errors import CorruptFile, InferenceError, InvalidInput, reason
from ..forks import Anew, held_off
from ..installation import missing
from .manifest import NEXT, STATE, Graph, Manifest, Part

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Arrays = dict[str, NDArray[Any]]
"""Inputs or outputs by name."""
CPU = "CPUExecutionProvider"
PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": 0}}
"""Options of execution providers: float32 is computed in full precision."""
FATAL = 4
"""Severity from which ONNX Runtime logs."""


class Noise:
    """Noise of one signal: each layer has its own sequence of values.

    Args:
        seed: Seed of the generator; `None` for zeros.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._positions: dict[int, int] = {}

    def inputs(self, graph: Graph, blocks: int) -> Arrays:
        """The next values for a graph."""
        return {source.name: self._next(source.layer, source.count(blocks)) for source in graph.noise}

    def _next(self, layer: int, count: int) -> NDArray[np.float32]:
        position = self._positions.get(layer, 0)
        self._positions[layer] = position + count
        return np.zeros(count, np.float32) if self._seed is None else normal_values(self._seed, layer, position, count)


class Runtime:
    """Sessions of ONNX Runtime for the graphs of a folder, each loaded at its first use.

    Args:
        providers: Execution providers, best first.
    """

    def __init__(self, folder: Path, manifest: Manifest, providers: Sequence[str] = (CPU,)) -> None:
        self._folder, self.manifest, self._providers = folder, manifest, list(providers)
        self._sessions: dict[str, InferenceSession] = {}
        self._lock = Anew(threading.Lock)

    def run(self, graph: Graph, inputs: Mapping[str, NDArray[Any]], noise: Noise, blocks: int) -> Arrays:
        """Outputs of a graph for a number of blocks."""
        names = [value.name for value in graph.outputs]
        session = self._session(graph)
        try:
            given = {**inputs, **noise.inputs(graph, blocks)}
            outputs = session.run(names, {value.name: given[value.name] for value in graph.inputs})
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise InferenceError(f"{graph.file} failed: {reason(error)}") from error
        return dict(zip(names, outputs, strict=True))

    def _session(self, graph: Graph) -> InferenceSession:
        with self._lock.own:
            if graph.file not in self._sessions:
                self._sessions[graph.file] = self._load(self._folder / graph.file)
            return self._sessions[graph.file]

    def _load(self, path: Path) -> InferenceSession:
        ort = load_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = FATAL  # errors are raised
        try:
            given = [(provider, PROVIDER_OPTIONS.get(provider, {})) for provider in self._providers]
            return ort.InferenceSession(path, options, providers=given)
        except Exception as error:
            raise CorruptFile(f"{path} cannot be loaded: {reason(error)}") from error


def load_onnxruntime() -> Any:
    """The package onnxruntime.

    Raises:
        EngineNotAvailable: It is not installed.
    """
    try:
        with held_off():
            import onnxruntime
    except ModuleNotFoundError as error:
        raise missing("exported graphs need ONNX Runtime", "onnx") from error
    return onnxruntime


def blocks_of(part: Part, inputs: Mapping[str, NDArray[Any]]) -> int:
    """Number of blocks in inputs."""
    name, size = next(iter(part.block.items()))
    return int(inputs[name].shape[-1]) // size


def run_whole(runtime: Runtime, part: Part, inputs: Arrays, seed: int | None) -> Arrays:
    """Outputs of a whole signal.

    Raises:
        InvalidInput: No graph of whole signals was exported.
    """
    if part.whole is None:
        raise InvalidInput(
            f"the signal ends before the {part.existing_stream.begin.blocks} blocks with which a stream begins, and graphs of "
            "whole signals were not exported; export the codec with what='both'"
        )
    return runtime.run(part.whole, inputs, Noise(seed), blocks_of(part, inputs))


class GraphStream:
    """One signal in tiles.

    Args:
        seed: As for `Noise`.
    """

    def __init__(self, runtime: Runtime, part: Part, seed: int | None) -> None:
        self._runtime, self._part, self._graphs, self._seed = runtime, part, part.existing_stream, seed
        self._noise, self._has_begun = Noise(seed), False
        self._pending, self._state = Arrays(), Arrays()

    def run(self, inputs: Arrays, last: bool) -> list[Arrays]:
        """Outputs of the tiles that inputs complete, and of the rest if the signal ends with them."""
        self._pending = {
            name: np.concatenate([self._pending[name], array], -1) if self._pending and name in self._part.block else array
            for name, array in inputs.items()
        }
        outputs = []
        while blocks_of(self._part, self._pending) >= (graph := self._next_graph).blocks:
            outputs.append(self._run_graph(graph, graph.blocks))
        if last:
            outputs += self._run_rest(blocks_of(self._part, self._pending))
        return outputs

    @property
    def _next_graph(self) -> Graph:
        return self._graphs.step if self._has_begun else self._graphs.begin

    def _run_rest(self, blocks: int) -> list[Arrays]:
        if not self._has_begun:
            return [run_whole(self._runtime, self._part, self._pending, self._seed)]
        end = self._graphs.end
        return [] if end is None or blocks < end.blocks else [self._run_graph(end, blocks)]

    def _run_graph(self, graph: Graph, blocks: int) -> Arrays:
        """Run a graph on the first blocks that are pending."""
        sizes = {name: blocks * size for name, size in self._part.block.items()}
        inputs = {name: array[..., : sizes[name]] if name in sizes else array for name, array in self._pending.items()}
        self._pending = {name: array[..., sizes[name] :] if name in sizes else array for name, array in self._pending.items()}
        outputs = self._runtime.run(graph, {**inputs, **self._state}, self._noise, blocks)
        self._state = {f"{STATE}{name.removeprefix(NEXT)}": outputs.pop(name) for name in list(outputs) if name.startswith(NEXT)}
        self._has_begun = True
        return outputs


def seed_of(noise: bool, seed: int | None) -> int | None:
    """Seed of `Noise` for the load options `noise` and `noise_seed`."""
    return (secrets.randbits(64) if seed is None else seed) if noise else None
