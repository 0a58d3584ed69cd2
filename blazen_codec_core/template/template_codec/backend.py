"""The trait: the network behind it, and how its weights are named in a file."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from blazen_codec_core.nn import CodecNetwork
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

from .network import TemplateNetwork


class TemplateBackend(TorchCodecBackend):
    """Loading, devices, sessions and batches are core's."""

    def new_network(self) -> CodecNetwork:
        return TemplateNetwork(self.spec)

    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, Tensor]:
        return state_dicts.tensors(content, origin)  # the names in the file are the network's own
