"""Decoding of tokens that were encoded in windows; see `chunks`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from blazen_codec_core.nn import CodecNetwork, ConvBase, Layer, State, StreamingModule, StreamSetup

from .chunks import Windows
from .network import decoder


@dataclass
class WindowedDecoderState(State):
    """State of a stream: its position in the current window, and the decoder's state."""

    setup: StreamSetup
    decoder: State
    frames: int = 0


class WindowedDecoder:
    """A network that decodes in windows; see `blazen_codec_core.torch_backend.sessions.StreamingDecoder`."""

    def __init__(self, network: CodecNetwork, windows: Windows) -> None:
        self._latent, self._windows = network.latent, windows
        self._decoder: Layer = window_decoder(network, windows)

    def decoder_state(self, setup: StreamSetup) -> WindowedDecoderState:
        return WindowedDecoderState(setup, self._decoder.init_state(setup))

    def decode_step(self, indices: Sequence[Tensor], state: WindowedDecoderState, last: bool) -> Tensor:
        """Decode the next frames; the decoder is finished and restarted at the end of each window."""
        frames, start = indices[0].shape[1], 0
        setup = replace(state.setup, batch=len(indices[0]))  # the state may be a join of several
        parts = [setup.zeros(0, 1)]
        while start < frames or (last and state.frames):
            end = min(frames, start + self._windows.frames - state.frames)
            state.frames += end - start
            ends = state.frames == self._windows.frames or (last and end == frames)
            z = self._latent([index[:, start:end] for index in indices])
            parts.append(self._decoder.step(z, state.decoder, ends))
            if ends:
                state.decoder, state.frames = self._decoder.init_state(setup), 0
            start = end
        return torch.cat(parts, dim=1)

    def samples_decoded(self, frames: int, last: bool) -> int:
        if last:
            return self._windows.samples(frames)
        rest = frames % self._windows.frames
        return self._windows.samples(frames - rest) + self._decoder.frames_out(rest, False)


def window_decoder(network: CodecNetwork, windows: Windows) -> Layer:
    """Build the decoder with which the authors' tool decodes a window; it shares the network's weights."""
    with torch.device("meta"):
        twin = decoder(windows.architecture, padded=windows.padded, mirrored=False)
    sources = dict(network.decoder.named_modules())
    for name, module in reversed(list(twin.named_modules())):
        if isinstance(module, ConvBase):
            module.share_kernel_with(cast(ConvBase, sources[name]))
        elif isinstance(module, StreamingModule):
            for parameter, value in sources[name].named_parameters(recurse=False) if name in sources else ():
                setattr(module, parameter, value)
            module.prepare()
    return twin.requires_grad_(False)
