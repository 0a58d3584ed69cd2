"""Backend of Qwen3-TTS-Tokenizer-12Hz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from blazen_codec_core.architectures import Architecture
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

from .checkpoint import from_published, to_published
from .network import Qwen3TtsNetwork
from .specs import Qwen3TtsArchitecture, Qwen3TtsSpec, custom


class Qwen3TtsBackend(TorchCodecBackend):
    """Qwen3-TTS-Tokenizer-12Hz with this project's layers."""

    @property
    def spec(self) -> Qwen3TtsSpec:
        return cast(Qwen3TtsSpec, self._spec)

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> Qwen3TtsSpec:
        return custom(cast(Qwen3TtsArchitecture, architecture), **fields)

    def new_network(self) -> Qwen3TtsNetwork:
        return Qwen3TtsNetwork(self.spec.architecture)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return from_published(cast(Qwen3TtsNetwork, network), conversion.tensors(content, origin), origin)

    def to_published(self, network: CodecNetwork) -> Mapping[str, Tensor]:
        return to_published(cast(Qwen3TtsNetwork, network))

    def published_config(self) -> Mapping[str, Any]:
        config = self.spec.architecture.model_dump(mode="json")
        config["encoder_config"]["model_type"] = "mimi"
        return {"model_type": "qwen3_tts_tokenizer_12hz", **config}
