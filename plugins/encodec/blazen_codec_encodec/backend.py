"""EnCodec's backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from blazen_codec_core.architectures import Architecture
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

from . import audiocraft
from .checkpoint import AUTHORS, HUB, averages, from_published, to_published
from .network import EncodecNetwork
from .specs import EncodecArchitecture, EncodecSpec, custom


class EncodecBackend(TorchCodecBackend):
    """EnCodec with this project's layers."""

    @property
    def spec(self) -> EncodecSpec:
        return cast(EncodecSpec, self._spec)

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> EncodecSpec:
        return custom(cast(EncodecArchitecture, architecture), **fields)

    def new_network(self) -> EncodecNetwork:
        return EncodecNetwork(self.spec.architecture)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        audiocraft.check(content, self.spec.architecture, origin, self.spec.name)
        return from_published(network, conversion.tensors(content, origin), origin)

    def to_published(self, network: CodecNetwork) -> Mapping[str, Tensor]:
        layout = HUB if self.spec.weights.repo else AUTHORS
        state = to_published(network, weight_norm=self.spec.architecture.norm_type == "weight_norm", layout=layout)
        return {**state, **averages(state)}

    def published_config(self) -> Mapping[str, Any]:
        return {"model_type": "encodec", **self.spec.architecture.model_dump(mode="json")}
