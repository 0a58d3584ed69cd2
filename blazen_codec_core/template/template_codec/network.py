"""The network: an encoder and a decoder of one layer each, and a residual vector quantizer between them."""

from blazen_codec_core import CodecSpec
from blazen_codec_core.nn import (
    CodecNetwork,
    Conv1d,
    ConvTranspose1d,
    FactorizedQuantizer,
    ResidualVectorQuantizer,
    Sequential,
    Tanh,
)

from .specs import LATENT_CHANNELS


class TemplateNetwork(CodecNetwork):
    """One convolution each way: windows of two hops, with half a hop of zero padding at both ends."""

    def __init__(self, spec: CodecSpec) -> None:
        super().__init__()
        hop = spec.hop_length
        self.encoder = Sequential([Conv1d(1, LATENT_CHANNELS, 2 * hop, stride=hop, padding=hop // 2)])
        self.quantizer = ResidualVectorQuantizer(
            LATENT_CHANNELS, [FactorizedQuantizer(LATENT_CHANNELS, spec.codebook_size, 8, stride) for stride in spec.strides]
        )
        self.decoder = Sequential([ConvTranspose1d(LATENT_CHANNELS, 1, 2 * hop, stride=hop, crop=(hop // 2, hop // 2)), Tanh()])
