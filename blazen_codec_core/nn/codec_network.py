"""Structure that codecs share: an encoder, a quantizer and a decoder, run as two streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from .layers.base import Layer, State, StreamingModule, StreamSetup
from .layers.conv import ConvBase
from .layers.lstm import LSTM
from .layers.quantization import QuantizerState, ResidualVectorQuantizer
from .pipeline import Join, Split, Step


@dataclasses.dataclass
class EncoderState(State):
    encoder: State
    quantizer: QuantizerState


class CodecNetwork(StreamingModule):
    """A codec as two streams: audio to tokens, and tokens to audio. Subclasses set the three parts.

    The encoder and the decoder may be in half precision. The quantizer stays in float32: it is a small part of the work, and in
    half precision neighbouring entries would coincide.
    """

    encoder: Layer
    quantizer: ResidualVectorQuantizer
    decoder: Layer

    def place(self, device: torch.device, dtype: torch.dtype, allow_tf32: bool = False) -> None:
        """Move the network to a device, and the encoder and decoder to a dtype.

        Args:
            allow_tf32: Float32 may be computed in TF32, on devices that have it.
        """
        self.to(device)
        for part in (self.encoder, self.decoder):
            part.to(dtype)
            for module in part.modules():
                if isinstance(module, ConvBase | LSTM):
                    module.allow_tf32 = allow_tf32
                if isinstance(module, ConvBase):
                    module.high_accuracy = part is self.encoder

    def latent_of(self, y: Tensor) -> Tensor:
        """Latent signal `(batch, frames, channels)` of the encoder's output."""
        return y

    def encoder_state(self, setup: StreamSetup, num_codebooks: int | None = None) -> EncoderState:
        """State of a new stream that uses the first `num_codebooks` codebooks; all by default."""
        return EncoderState(self.encoder.init_state(setup), self.quantizer.init_state(setup, num_codebooks))

    def encode_step(self, x: Tensor, state: EncoderState, last: bool) -> list[Tensor]:
        """Encode audio `(batch, samples, channels)` to indices `(batch, frames / stride)` of each codebook."""
        return self.encode_many([x], [state], [last])[0]

    def encoder_steps(self, state: EncoderState) -> list[Step | Split | Join]:
        """`encode_step` as functions that run in turn; see `Layer.steps`."""
        quantizer = self.quantizer
        return [
            *self.encoder.steps(state.encoder),
            lambda z, last: quantizer.step(z.to(quantizer.dtype), state.quantizer),
        ]

    def encode_many(self, xs: Sequence[Tensor], states: Sequence[EncoderState], lasts: Sequence[bool]) -> list[list[Tensor]]:
        """`encode_step` of several streams; the output of each is the same as by itself."""
        latents = self.encoder.step_many(xs, [state.encoder for state in states], lasts)
        return [
            self.quantizer.step(z.to(self.quantizer.dtype), state.quantizer) for z, state in zip(latents, states, strict=True)
        ]

    def frames_encoded(self, samples: int, last: bool) -> int:
        """Frames that have come out once `samples` have gone in."""
        return self.quantizer.frames_out(self.encoder.frames_out(samples, last))

    def decoder_state(self, setup: StreamSetup) -> State:
        return self.decoder.init_state(setup)

    def decode_step(self, indices: Sequence[Tensor], state: State, last: bool) -> Tensor:
        """Decode indices `(batch, frames / stride)` of each codebook to audio `(batch, samples, channels)`."""
        return self.decode_many([indices], [state], [last])[0]

    def decoder_steps(self, state: State) -> list[Step | Split | Join]:
        """`decode_step` as functions that run in turn; see `Layer.steps`."""
        dtype, quantizer = next(self.decoder.parameters()).dtype, self.quantizer
        return [lambda indices, last: quantizer.decode(indices).to(dtype), *self.decoder.steps(state)]

    def decode_many(self, indices: Sequence[Sequence[Tensor]], states: Sequence[State], lasts: Sequence[bool]) -> list[Tensor]:
        """`decode_step` of several streams; the output of each is the same as by itself."""
        return self.decoder.step_many([self.latent(codes) for codes in indices], states, lasts)

    def latent(self, indices: Sequence[Tensor]) -> Tensor:
        """Latent that the decoder reads for indices, `(batch, frames, channels)`."""
        return self.quantizer.decode(indices).to(next(self.decoder.parameters()).dtype)

    def samples_decoded(self, frames: int, last: bool) -> int:
        """Samples that have come out once `frames` have gone in."""
        return self.decoder.frames_out(frames, last)


class ContinuousNetwork(CodecNetwork):
    """A codec without a quantizer, such as a VAE; subclasses set the encoder and the decoder.

    An encoder may have more than `latent_channels` channels: a VAE's has the mean, and then the scale. The mean is the latent.
    """

    latent_channels: int

    def latent_of(self, y: Tensor) -> Tensor:
        return y[..., : self.latent_channels]
