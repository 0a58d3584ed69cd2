"""The trait for DAC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from blazen_codec_core import CodecTokens
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.backend import TorchCodecBackend

from .checkpoint import from_published
from .network import DacNetwork
from .player import DacDecoderSession
from .specs import DacSpec
from .windows import Windows


class DacBackend(TorchCodecBackend):
    """DAC on this project's layers."""

    tile_decoder = DacDecoderSession

    @property
    def spec(self) -> DacSpec:
        return cast(DacSpec, self._spec)

    def new_network(self) -> DacNetwork:
        return DacNetwork(self.spec.architecture)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return from_published(self.spec, network, content, origin)

    def check_tokens(self, tokens: CodecTokens, *, part: bool = False) -> None:
        super().check_tokens(tokens, part=part)
        Windows.of(self.spec, tokens)

    def decoded_samples(self, tokens: CodecTokens) -> int:
        windows = Windows.of(self.spec, tokens)
        return windows.samples(tokens.frames) if windows else super().decoded_samples(tokens)
