"""Subject of the contracts: a model with its weights and device."""

from __future__ import annotations

from dataclasses import dataclass

from ..api import load
from ..forks import cached_property
from ..plugins.registry import Registry
from ..provider import DynCodecProvider
from ..specs import CodecSpec
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .signals import recording


@dataclass(frozen=True)
class Subject:
    """A model with weights and a device.

    Attributes:
        name: Name of the model.
        weights: As `LoadOptions.weights`; by default the weights in the plugin, or else `random:0`.
        device: As `LoadOptions.device`.
        rounding: Tolerance of audio for another order of summation.
    """

    name: str
    weights: str | None = None
    device: str = "cpu"
    rounding: float = 1e-5

    @cached_property
    def spec(self) -> CodecSpec:
        return Registry().find(self.name).spec

    def load(self, **options: object) -> DynCodecProvider:
        """Return a new provider without loading weights; options are those of `LoadOptions`."""
        weights = self.weights if self.weights or self.spec.weights.package else "random:0"
        return load(self.name, **{"weights": weights, "device": self.device, **options})  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Duration of test audio in seconds: more than two tiles, and at least a second."""
        return max(2.4 * self.spec.tile_frames * self.spec.hop_length / self.spec.sample_rate, 1.0)

    @property
    def unit(self) -> int:
        """Smallest number of frames in a part of tokens."""
        return self.spec.tile_frames if self.spec.segment else self.spec.block_frames

    def recording(self, seconds: float | None = None, seed: int = 0, channels: int | None = None) -> Pcm:
        """Return voices for the model, `(channels, samples)`."""
        return recording(self.spec, self.seconds if seconds is None else seconds, seed, channels)

    def recordings(self) -> list[Pcm]:
        """Return recordings of boundary lengths of blocks and tiles, and one of two streams for mono models."""
        block, tile = (frames * self.spec.hop_length for frames in (self.spec.block_frames, self.spec.tile_frames))
        lengths = [1, block - 1, block, block + 1, tile, tile + 1, None]
        seconds = 2.4 * tile / self.spec.sample_rate
        items = [self.recording(seconds, seed)[:, :length] for seed, length in enumerate(lengths)]
        streams = [self.recording(0.3, 8, channels=2)] if self.spec.channels == 1 else []
        return [item for item in (*items, *streams) if item.size]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Whole:
    """A recording with its tokens and decoded audio."""

    pcm: Pcm
    tokens: CodecTokens
    audio: Pcm

    @classmethod
    def of(cls, codec: DynCodecProvider, pcm: Pcm) -> Whole:
        tokens = codec.encode(pcm, codec.sample_rate)
        return cls(pcm, tokens, codec.decode(tokens))
