"""Backend of the codec: builds the network, and maps the names of published weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

from .network import TemplateNetwork


class TemplateBackend(TorchCodecBackend):
    """The codec's backend; core provides loading, devices, sessions and batches."""

    def new_network(self) -> CodecNetwork:
        return TemplateNetwork(self.spec)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return state_dicts.tensors(content, origin)  # the file already has the network's names
