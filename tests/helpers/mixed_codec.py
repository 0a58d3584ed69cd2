"""A small codec with a layer of every kind that keeps state, for exports that take seconds."""

from __future__ import annotations

import blazen_codec_core as bc
from blazen_codec_core.nn import (
    ELU,
    LSTM,
    CausalAttention,
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    EdgePadding,
    FactorizedQuantizer,
    Layer,
    LocalAttention,
    NoiseBlock,
    ReflectPadding,
    Residual,
    ResidualVectorQuantizer,
    Sequential,
    Snake,
    Tanh,
)
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

SPEC = bc.CodecSpec(
    api_version=1,
    name="mixed_8khz",
    family="mixed",
    description="A codec of many layers",
    backend="mixed:MixedBackend",
    sample_rate=8000,
    hop_length=4,
    strides=(2, 1),
    codebook_size=16,
    codebook_choices=(1, 2),
    block_frames=4,
    tile_frames=32,
    weights=bc.WeightSource(repo="me/mixed", file="model.safetensors"),
    license="MIT",
)


def unit(channels: int) -> Residual:
    branch: list[Layer] = [Snake(channels), Conv1d(channels, channels, 3, dilation=3, padding=3)]
    return Residual(channels, Sequential(branch))


class MixedNetwork(CodecNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Sequential([
            Conv1d(1, 8, 7, padding=ReflectPadding(8 // 8, 4, 2)),
            unit(8),
            ELU(),
            Conv1d(8, 16, 8, stride=4, padding=EdgePadding(8, 4, 0, 4, silent=False)),
            LSTM(16, 2),
        ])  # fmt: skip
        self.quantizer = ResidualVectorQuantizer(16, [FactorizedQuantizer(16, 16, 4, stride) for stride in (2, 1)])
        self.decoder = Sequential([
            Conv1d(16, 16, 3, padding=1),
            LocalAttention(16, 4, head_channels=8),
            CausalAttention(16, 2, 10, kv_heads=1),
            ConvTranspose1d(16, 8, 8, stride=4, crop=(2, 2)),
            NoiseBlock(8, 0),
            unit(8),
            Conv1d(8, 1, 7, padding=3, gain=0.2),
            Tanh(),
        ])  # fmt: skip


class MixedBackend(TorchCodecBackend):
    def new_network(self) -> MixedNetwork:
        return MixedNetwork()

    def from_published(self, network, content, origin):
        return state_dicts.tensors(content, origin)


def mixed_codec(
    kind: type[TorchCodecBackend] = MixedBackend, spec: bc.CodecSpec = SPEC, **options: object
) -> bc.DynCodecProvider:
    """Return a provider of the codec with random weights."""
    chosen = bc.LoadOptions.of(weights="random:0", device="cpu", **options)
    handle = bc.CodecBackendHandle(f"{spec.family}:{spec.name}", spec, chosen, lambda: kind(spec, chosen))
    return handle.into_dyn(lambda name, options: mixed_codec(kind, spec))
