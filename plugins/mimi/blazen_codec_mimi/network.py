"""Mimi's encoder, quantizer and decoder.

Source: Défossez et al. 2024, "Moshi: a speech-text foundation model for real-time dialogue".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blazen_codec_core.nn import CodecNetwork, SplitResidualVectorQuantizer, seanet_transformer

if TYPE_CHECKING:
    from .specs import MimiArchitecture


class MimiNetwork(CodecNetwork):
    """The three parts of a Mimi model; all train through autograd."""

    quantizer: SplitResidualVectorQuantizer

    def __init__(self, architecture: MimiArchitecture) -> None:
        super().__init__()
        self.encoder = seanet_transformer.encoder(architecture)
        self.quantizer = seanet_transformer.quantizer(architecture)
        self.decoder = seanet_transformer.decoder(architecture)
