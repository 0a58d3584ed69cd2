"""Forward pass of a codec in training: whole signals, and new noise in decoders that have noise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from blazen_codec_core.nn import CodecNetwork, StreamSetup


class Output(NamedTuple):
    """Result of a forward pass.

    Attributes:
        audio: Decoded signals `(batch, channels, samples)`.
        latents: Latents before the quantizer.
        codes: Indices of each codebook; empty without the quantizer.
        commitment, codebook: Losses of the quantizer.
    """

    audio: Tensor
    latents: Tensor
    codes: list[Tensor]
    commitment: Tensor
    codebook: Tensor


class ForwardPass(nn.Module):
    """Forward pass of a network that is not prepared."""

    def __init__(self, network: CodecNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, books: Tensor | None = None, quantize: bool = True) -> Output:
        """Encode and decode signals.

        Args:
            x: Signals `(batch, channels, samples)`.
            books: Codebooks that each signal uses, `(batch,)`; all by default.
            quantize: Use the quantizer.
        """
        z = self.network.encoder(x.transpose(1, 2))
        zero = z.new_zeros(())
        quantized, codes, commitment, codebook = z, [], zero, zero
        if quantize:
            result = self.network.quantizer(z, books)
            quantized, codes, commitment, codebook = result.z, result.indices, result.commitment, result.codebook
        setup = StreamSetup(
            x.shape[0], x.device, noise=lambda layer, at, count: torch.randn(x.shape[0], count, 1, device=x.device)
        )
        y = self.network.decoder.step(quantized, self.network.decoder.init_state(setup), True)
        return Output(y.transpose(1, 2), z, codes, commitment, codebook)
