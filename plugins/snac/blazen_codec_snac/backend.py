"""SNAC's backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from blazen_codec_core.architectures import Architecture
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

from .checkpoint import from_published, to_published
from .network import SnacNetwork
from .specs import SnacArchitecture, SnacSpec, custom


class SnacBackend(TorchCodecBackend):
    """SNAC with this project's layers."""

    @property
    def spec(self) -> SnacSpec:
        return cast(SnacSpec, self._spec)

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> SnacSpec:
        return custom(cast(SnacArchitecture, architecture), **fields)

    def new_network(self) -> SnacNetwork:
        return SnacNetwork(self.spec.architecture)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return from_published(network, conversion.tensors(content, origin), origin)

    def to_published(self, network: CodecNetwork) -> Mapping[str, Tensor]:
        return to_published(network)

    def published_config(self) -> Mapping[str, Any]:
        return self.spec.architecture.model_dump(mode="json")
