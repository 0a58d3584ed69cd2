"""ONNX Runtime on exported graphs: whole signals, and streams that keep their state between tiles. It needs no PyTorch."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..counter_noise import normal_values
from ..errors import EngineNotAvailable
from ..forks import held_off
from ..specs import Half
from .manifest import NEXT, STATE, Graph, Manifest, Part, Stream

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Arrays = dict[str, NDArray[Any]]
"""Inputs or outputs by name."""
CPU = "CPUExecutionProvider"


class Noise:
    """Noise of one signal: each layer has its own sequence of values.

    Args:
        seed: Seed of the generator; `None` for zeros.
    """

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self._positions: dict[int, int] = {}

    def inputs(self, graph: Graph, units: int) -> Arrays:
        """The next values for a graph."""
        return {source.name: self._next(source.layer, source.count(units)) for source in graph.noise}

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

    def run(self, graph: Graph, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs of a graph."""
        names = [value.name for value in graph.outputs]
        wanted = {value.name for value in graph.inputs}
        outputs = self._session(graph).run(names, {name: array for name, array in inputs.items() if name in wanted})
        return dict(zip(names, outputs, strict=True))

    def _session(self, graph: Graph) -> InferenceSession:
        if graph.file not in self._sessions:
            ort = load_onnxruntime()
            options = ort.SessionOptions()
            options.log_severity_level = 3
            self._sessions[graph.file] = ort.InferenceSession(self._folder / graph.file, options, providers=self._providers)
        return self._sessions[graph.file]


def load_onnxruntime() -> Any:
    """The package onnxruntime.

    Raises:
        EngineNotAvailable: It is not installed.
    """
    try:
        with held_off():
            import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineNotAvailable("exported graphs need ONNX Runtime: pip install 'blazen-codec-core[onnx]'") from error
    return onnxruntime


def units_of(part: Part, inputs: Mapping[str, NDArray[Any]]) -> int:
    """Units of inputs."""
    name, size = next(iter(part.unit.items()))
    return int(inputs[name].shape[-1]) // size


def run_whole(runtime: Runtime, half: Half, inputs: Arrays, seed: int | None) -> Arrays:
    """Outputs for a whole signal."""
    part = runtime.manifest.parts[half]
    assert part.whole is not None
    return runtime.run(part.whole, {**inputs, **Noise(seed).inputs(part.whole, units_of(part, inputs))})


class GraphStream:
    """One signal in tiles.

    Args:
        seed: As for `Noise`.
    """

    def __init__(self, runtime: Runtime, half: Half, seed: int | None) -> None:
        self._runtime, self._half, self._seed = runtime, half, seed
        self._part = runtime.manifest.parts[half]
        assert self._part.stream is not None
        self._graphs: Stream = self._part.stream
        self._noise, self._pending, self._has_begun = Noise(seed), Arrays(), False
        self._state = Arrays()

    def push(self, inputs: Arrays) -> list[Arrays]:
        """Outputs of all tiles that these inputs complete."""
        self._pending = {
            name: np.concatenate([self._pending[name], array], -1) if self._pending and name in self._part.unit else array
            for name, array in inputs.items()
        }
        outputs = []
        while units_of(self._part, self._pending) >= (graph := self._next_graph).units:
            outputs.append(self._run(graph, graph.units))
        return outputs

    @property
    def _next_graph(self) -> Graph:
        return self._graphs.step if self._has_begun else self._graphs.begin

    def finish(self) -> list[Arrays]:
        """Outputs of the rest."""
        units = units_of(self._part, self._pending)
        if not self._has_begun:
            return [run_whole(self._runtime, self._half, self._pending, self._seed)]
        graph = self._graphs.end
        return [] if graph is None or units < graph.units else [self._run(graph, units)]

    def _run(self, graph: Graph, units: int) -> Arrays:
        """Run a graph on the first units that are pending."""
        sizes = {name: units * size for name, size in self._part.unit.items()}
        inputs = {name: array[..., : sizes[name]] if name in sizes else array for name, array in self._pending.items()}
        self._pending = {name: array[..., sizes[name] :] if name in sizes else array for name, array in self._pending.items()}
        outputs = self._runtime.run(graph, {**inputs, **self._state, **self._noise.inputs(graph, units)})
        self._state = {f"{STATE}{name.removeprefix(NEXT)}": outputs.pop(name) for name in list(outputs) if name.startswith(NEXT)}
        self._has_begun = True
        return outputs


def seed_of(noise: bool, seed: int | None) -> int | None:
    """Seed of `Noise` for the load options `noise` and `noise_seed`."""
    return (secrets.randbits(64) if seed is None else seed) if noise else None
