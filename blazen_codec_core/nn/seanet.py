"""SEANet: an encoder and a decoder of convolutions that halve or double the channels at each stride.

Sources: Tagliasacchi et al. 2020, "SEANet: a multi-modal speech enhancement network"; as a codec, Zeghidour et al. 2021,
"SoundStream", and Défossez et al. 2022, "High Fidelity Neural Audio Compression".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .layers.activation import ELU
from .layers.base import Layer
from .layers.containers import Residual, Sequential, Tiling


class ConvBuilder(Protocol):
    """Builds a convolution with its padding, and with its norm if there is one."""

    def __call__(
        self, channels: int, out: int, kernel: int, stride: int = 1, *, dilation: int = 1, gain: float = 1.25
    ) -> Layer: ...


@dataclass(frozen=True, kw_only=True)
class Seanet:
    """Settings of an encoder and its decoder.

    Attributes:
        audio_channels: Channels of the audio.
        filters: Channels next to the audio.
        hidden: Channels of the latent.
        ratios: Strides of the decoder; the encoder has them in reverse order.
        kernel, last_kernel, residual_kernel: Taps of the first convolution, the last one, and those of residual units.
        residual_layers: Residual units of a stage.
        dilation_growth: Ratio of the dilations of consecutive residual units.
        compress: Ratio of a residual unit's outer and inner channels.
        has_conv_shortcut: Shortcuts of residual units are convolutions.
        convolution: Builds a convolution.
        upsampling: Builds a transposed convolution, from input channels, output channels and stride.
        recurrent: Makes the recurrent layers at the latent's rate, for a number of channels.
        tile_samples: Samples of a tile of the two stages next to the audio, which need the most memory; `None` for no tiles.
    """

    filters: int
    hidden: int
    ratios: Sequence[int]
    kernel: int
    last_kernel: int
    residual_kernel: int
    residual_layers: int
    dilation_growth: int
    compress: int
    has_conv_shortcut: bool
    convolution: ConvBuilder
    upsampling: Callable[[int, int, int], Layer]
    recurrent: Callable[[int], Sequence[Layer]] = lambda channels: ()
    audio_channels: int = 1
    tile_samples: int | None = None

    @property
    def stage_layers(self) -> int:
        """Layers of a stage: activation, resampling convolution and residual units, in encoder or decoder order."""
        return 2 + self.residual_layers

    def encoder(self) -> Sequential:
        """Encoder from audio `(batch, samples, audio_channels)` to the latent `(batch, samples / prod(ratios), hidden)`."""
        channels = self.filters
        layers: list[Layer] = [self.convolution(self.audio_channels, channels, self.kernel)]
        for stride in reversed(self.ratios):
            layers += [*self.residual_units(channels), ELU(), self.convolution(channels, 2 * channels, 2 * stride, stride)]
            channels *= 2
        layers += [*self.recurrent(channels), ELU(), self.convolution(channels, self.hidden, self.last_kernel)]
        near = min(2, len(self.ratios))
        return Sequential(layers, self._in_tiles(slice(1 + near * self.stage_layers), 1))

    def decoder(self) -> Sequential:
        """Decoder from the latent `(batch, frames, hidden)` to audio `(batch, frames * prod(ratios), audio_channels)`."""
        channels = self.filters << len(self.ratios)
        layers: list[Layer] = [self.convolution(self.hidden, channels, self.kernel), *self.recurrent(channels)]
        head = len(layers)
        for stride in self.ratios:
            layers += [ELU(), self.upsampling(channels, channels // 2, stride), *self.residual_units(channels // 2)]
            channels //= 2
        layers += [ELU(), self.convolution(channels, self.audio_channels, self.last_kernel, gain=0.3)]
        far = max(0, len(self.ratios) - 2)
        return Sequential(layers, self._in_tiles(slice(head + far * self.stage_layers, None), math.prod(self.ratios[far:])))

    def _in_tiles(self, layers: slice, hop: int) -> Tiling | None:
        """Tile layers whose input has a frame for every `hop` samples."""
        return None if self.tile_samples is None else Tiling(layers, self.tile_samples // hop)

    def residual_units(self, channels: int) -> list[Layer]:
        """Residual units of a stage, with increasing dilation."""
        return [self.residual_unit(channels, self.dilation_growth**number) for number in range(self.residual_layers)]

    def residual_unit(self, channels: int, dilation: int) -> Residual:
        hidden = channels // self.compress
        branch = [
            ELU(),
            self.convolution(channels, hidden, self.residual_kernel, dilation=dilation),
            ELU(),
            self.convolution(hidden, channels, 1),
        ]
        shortcut = self.convolution(channels, channels, 1) if self.has_conv_shortcut else None
        return Residual(channels, Sequential(branch), shortcut=shortcut)
