"""Mimi's backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from blazen_codec_core.architectures import Architecture
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

from .checkpoint import from_published, to_published
from .network import MimiNetwork
from .specs import MimiArchitecture, MimiSpec, custom


class MimiBackend(TorchCodecBackend):
    """Mimi with this project's layers."""

    @property
    def spec(self) -> MimiSpec:
        return cast(MimiSpec, self._spec)

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> MimiSpec:
        return custom(cast(MimiArchitecture, architecture), **fields)

    def new_network(self) -> MimiNetwork:
        return MimiNetwork(self.spec.architecture)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return from_published(network, conversion.tensors(content, origin), origin)

    def to_published(self, network: CodecNetwork) -> Mapping[str, Tensor]:
        return to_published(network)

    def published_config(self) -> Mapping[str, Any]:
        return {"model_type": "mimi", **self.spec.architecture.model_dump(mode="json")}
