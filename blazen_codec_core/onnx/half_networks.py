"""The halves of a network as modules with plain tensors in and out: audio to codes, and codes to audio, with explicit state."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import State, StreamSetup
from ..specs import CodecSpec, Half
from .manifest import AUDIO, NUM_CODEBOOKS, block_of, outputs_of, times

CPU = torch.device("cpu")


class NoiseInputs:
    """Noise that is an input of a graph: a `NoiseSource` that hands out given values.

    Args:
        dtype: Floating dtype of the signal.

    Attributes:
        values: Noise `(count,)` of each layer; `None` while only the counts are noted, and all noise is zero.
        counts: Number of values that each layer asked for last.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.values: Mapping[int, Tensor] | None = None
        self.counts: dict[int, int] = {}

    def __call__(self, layer: int, position: Any, count: int) -> Tensor:
        if self.values is None:
            self.counts[layer] = count
            return torch.zeros(1, count, 1, dtype=self._dtype)
        return self.values[layer].to(self._dtype).reshape(1, -1, 1)


class HalfNetwork(nn.Module):
    """One half of a network for one signal, whose length is counted in blocks of frames.

    Attributes:
        block: Size of a block in the last axis of each input, by name.
        hop: Samples of a block.
        least_samples: Samples of the least input that can be pushed.
    """

    part: Half
    least_samples: int

    def __init__(self, spec: CodecSpec, network: CodecNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.spec, self.network, self.dtype = spec, network, dtype
        self.block, self.output_names = block_of(spec, self.part), outputs_of(spec, self.part)
        self.hop = spec.block_frames * spec.hop_length
        self.noise, self.generator = NoiseInputs(dtype), torch.Generator().manual_seed(0)

    @property
    def setup(self) -> StreamSetup:
        return StreamSetup(1, CPU, self.dtype, self.noise)

    @abstractmethod
    def shapes(self, blocks: Any) -> dict[str, tuple[Any, ...]]:
        """Shapes of the inputs of a number of blocks, which may be a `torch.export.Dim`, by name."""

    @abstractmethod
    def example(self, blocks: int) -> list[Tensor]:
        """Random inputs."""

    def blocks_of(self, frames: int) -> int:
        """Units of a number of frames."""
        return frames * self.spec.hop_length // self.hop

    @abstractmethod
    def init_state(self) -> State:
        """State of a new stream."""

    @abstractmethod
    def step(self, inputs: Sequence[Tensor], state: Any, last: bool) -> list[Tensor]:
        """Outputs of the next blocks."""

    @abstractmethod
    def samples_covered(self, blocks: int, last: bool) -> int:
        """Samples that the output covers once a number of blocks have gone in."""


class EncoderHalf(HalfNetwork):
    """Audio `(1, channels, samples)` to codes `(1, frames / stride)` of each codebook, int64."""

    part = "encoder"

    def __init__(self, spec: CodecSpec, network: CodecNetwork, dtype: torch.dtype) -> None:
        super().__init__(spec, network, dtype)
        self.least_samples = 1

    def shapes(self, blocks: Any) -> dict[str, tuple[Any, ...]]:
        return {AUDIO: (1, self.spec.channels, times(blocks, self.hop))}

    def example(self, blocks: int) -> list[Tensor]:
        return [torch.rand(shape, generator=self.generator, dtype=torch.float32) - 0.5 for shape in self.shapes(blocks).values()]

    def init_state(self) -> State:
        return self.network.encoder_state(self.setup)

    def step(self, inputs: Sequence[Tensor], state: Any, last: bool) -> list[Tensor]:
        return self.network.encode_step(inputs[0].transpose(1, 2).to(self.dtype), state, last)

    def samples_covered(self, blocks: int, last: bool) -> int:
        return self.network.frames_encoded(blocks * self.hop, last) * self.spec.hop_length


class DecoderHalf(HalfNetwork):
    """Codes `(1, frames / stride)` of each codebook, int64, to audio `(1, channels, samples)`."""

    part = "decoder"

    def __init__(self, spec: CodecSpec, network: CodecNetwork, dtype: torch.dtype) -> None:
        super().__init__(spec, network, dtype)
        self.least_samples = self.hop
        self.takes_fewer = len(spec.usable_codebooks) > 1

    def shapes(self, blocks: Any) -> dict[str, tuple[Any, ...]]:
        shapes: dict[str, tuple[Any, ...]] = {name: (1, times(blocks, size)) for name, size in self.block.items()}
        return {**shapes, NUM_CODEBOOKS: (1,)} if self.takes_fewer else shapes

    def example(self, blocks: int) -> list[Tensor]:
        shapes = self.shapes(blocks)
        count = torch.tensor([self.spec.num_codebooks])
        codes = [
            torch.randint(self.spec.codebook_size, shape, generator=self.generator)
            for name, shape in shapes.items()
            if name != NUM_CODEBOOKS
        ]
        return [*codes, count] if self.takes_fewer else codes

    def init_state(self) -> State:
        return self.network.decoder_state(self.setup)

    def step(self, inputs: Sequence[Tensor], state: Any, last: bool) -> list[Tensor]:
        codes, used = (inputs[:-1], inputs[-1]) if self.takes_fewer else (inputs, None)
        z = self.network.quantizer.decode(codes, used).to(self.dtype)
        return [self.network.decoder.step(z, state, last).float().transpose(1, 2)]

    def samples_covered(self, blocks: int, last: bool) -> int:
        return self.network.samples_decoded(blocks * self.spec.block_frames, last)


HALVES: dict[Half, type[HalfNetwork]] = {"encoder": EncoderHalf, "decoder": DecoderHalf}
