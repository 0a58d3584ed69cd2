"""A codec of two layers, for tests of what is not about any real codec."""

from __future__ import annotations

import blazen_codec_core as bc
from blazen_codec_core.nn import (
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    FactorizedQuantizer,
    ResidualVectorQuantizer,
    Sequential,
    Tanh,
)
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

SPEC = bc.CodecSpec(
    api_version=1,
    name="toy_8khz",
    family="toy",
    description="A toy",
    backend="toy:ToyBackend",
    sample_rate=8000,
    hop_length=4,
    strides=(2, 1),
    codebook_size=16,
    block_frames=2,
    tile_frames=16,
    weights=bc.WeightSource(repo="me/toy", file="model.safetensors"),
    license="MIT",
)


class ToyNetwork(CodecNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Sequential([Conv1d(1, 8, 8, stride=4, padding=2)])
        self.quantizer = ResidualVectorQuantizer(8, [FactorizedQuantizer(8, 16, 4, stride) for stride in (2, 1)])
        self.decoder = Sequential([ConvTranspose1d(8, 1, 8, stride=4, crop=(2, 2)), Tanh()])


class ToyBackend(TorchCodecBackend):
    """Counts how often it was built."""

    builds = 0

    def new_network(self) -> ToyNetwork:
        return ToyNetwork()

    def from_published(self, network, content, origin):
        return state_dicts.tensors(content, origin)

    def build(self, found) -> ToyNetwork:
        type(self).builds += 1
        return super().build(found)
