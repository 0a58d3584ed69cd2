"""The shape that codecs share: an encoder, a quantizer and a decoder, run as two streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers.base import Layer, State, StreamSetup
from .layers.conv import ConvBase
from .layers.lstm import LSTM
from .layers.quantization import QuantizerState, ResidualVectorQuantizer


@dataclasses.dataclass
class EncoderState(State):
    encoder: State
    quantizer: QuantizerState


class CodecNetwork(nn.Module):
    """A codec as two streams: audio to tokens, and tokens to audio. Subclasses set the three parts.

    The encoder and the decoder may be in half precision. The quantizer stays in float32: it is a small part of the work, and in
    half precision neighbouring entries would become the same.
    """

    encoder: Layer
    quantizer: ResidualVectorQuantizer
    decoder: Layer

    def place(self, device: torch.device, dtype: torch.dtype, rough: bool = False) -> None:
        """Moves it to a device, the encoder and the decoder in a floating type; `rough` if TF32 will do for their float32."""
        self.to(device)
        for part in (self.encoder, self.decoder):
            part.to(dtype)
            for module in part.modules():
                if isinstance(module, ConvBase | LSTM):
                    module.rough = rough
                if isinstance(module, ConvBase):
                    module.careful = part is self.encoder

    def encoder_state(self, setup: StreamSetup, books: int | None = None) -> EncoderState:
        """The state of a new stream that uses the first so many codebooks; all by default."""
        return EncoderState(self.encoder.init_state(setup), self.quantizer.init_state(setup, books))

    def encode_step(self, x: Tensor, state: EncoderState, last: bool) -> list[Tensor]:
        """Audio `(batch, samples, channels)` to indices `(batch, frames / stride)` a codebook."""
        return self.encode_each([x], [state], last)[0]

    def encode_each(self, xs: Sequence[Tensor], states: Sequence[EncoderState], last: bool) -> list[list[Tensor]]:
        """`encode_step` of several streams, each as if it were alone."""
        latents = self.encoder.step_many(xs, [state.encoder for state in states], last)
        return [self.quantizer.step(z.to(self.quantizer.dtype), own.quantizer) for z, own in zip(latents, states, strict=True)]

    def frames_encoded(self, samples: int, last: bool) -> int:
        """Number of frames that have come out once `samples` have gone in."""
        return self.quantizer.frames_out(self.encoder.frames_out(samples, last))

    def decoder_state(self, setup: StreamSetup) -> State:
        return self.decoder.init_state(setup)

    def decode_step(self, indices: Sequence[Tensor], state: State, last: bool) -> Tensor:
        """Indices `(batch, frames / stride)` a codebook to audio `(batch, samples, channels)`."""
        return self.decode_each([indices], [state], last)[0]

    def decode_each(self, indices: Sequence[Sequence[Tensor]], states: Sequence[State], last: bool) -> list[Tensor]:
        """`decode_step` of several streams, each as if it were alone."""
        return self.decoder.step_many([self.latent(own) for own in indices], states, last)

    def latent(self, indices: Sequence[Tensor]) -> Tensor:
        """Latent that the decoder reads for indices, `(batch, frames, channels)`."""
        return self.quantizer.decode(indices).to(next(self.decoder.parameters()).dtype)

    def samples_decoded(self, frames: int, last: bool) -> int:
        """Number of samples that have come out once `frames` have gone in."""
        return self.decoder.frames_out(frames, last)
