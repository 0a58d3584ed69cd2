"""DAC's backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from blazen_codec_core import CodecTokens
from blazen_codec_core.architectures import Architecture
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.torch_backend.backend import TorchCodecBackend
from blazen_codec_core.weights import WeightFile

from .checkpoint import METADATA, SETTINGS, STATE, from_published, own_settings, to_published
from .chunked_decoder import WindowedDecoder
from .chunks import Windows
from .network import DacNetwork
from .specs import DacArchitecture, DacSpec, custom


class DacBackend(TorchCodecBackend):
    """DAC with this project's layers."""

    @property
    def spec(self) -> DacSpec:
        return cast(DacSpec, self._spec)

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> DacSpec:
        return custom(cast(DacArchitecture, architecture), **fields)

    @classmethod
    def described_by(cls, found: WeightFile) -> tuple[Any, str]:
        """Read the settings from the file, as saved by the authors' trainer, or from the config beside it."""
        if found.path.suffix != ".safetensors" and (settings := own_settings(state_dicts.read(found.path))) is not None:
            return settings, str(found.path)
        return super().described_by(found)

    def new_network(self) -> DacNetwork:
        return DacNetwork(self.spec.architecture)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return from_published(self.spec, network, content, origin, described=bool(self.options.architecture))

    def to_published(self, network: CodecNetwork) -> Mapping[str, Tensor]:
        return to_published(network)

    def published_content(self, state: Mapping[str, Tensor]) -> Any:
        return {STATE: dict(state), METADATA: {SETTINGS: self.published_config()}}

    def published_config(self) -> Mapping[str, Any]:
        return self.spec.architecture.model_dump(mode="json")

    def check_tokens(self, tokens: CodecTokens, *, part: bool = False) -> None:
        super().check_tokens(tokens, part=part)
        Windows.of(self.spec, tokens)

    def decoder_variant(self, tokens: CodecTokens) -> Windows | None:
        return Windows.of(self.spec, tokens)

    def decoder_of(self, network: CodecNetwork, tokens: CodecTokens) -> CodecNetwork | WindowedDecoder:
        windows = self.decoder_variant(tokens)
        return WindowedDecoder(network, windows) if windows else network

    def decoded_samples(self, tokens: CodecTokens) -> int:
        windows = Windows.of(self.spec, tokens)
        return windows.samples(tokens.frames) if windows else super().decoded_samples(tokens)
