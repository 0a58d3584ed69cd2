"""Tokens of the authors' own tool, which codes long audio window by window: each window is decoded as a signal of its own, with
padding or without, and what comes out is laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blazen_codec_core import CodecTokens, InvalidTokens
from blazen_codec_core.nn import Chain, CodecNetwork, State, StreamSetup
from blazen_codec_core.nn.session import TileDecoderSession

from .network import decoder
from .specs import WINDOW_FRAMES, WINDOW_PADDED, DacArchitecture, DacSpec


@dataclass(frozen=True)
class Windows:
    """How tokens are cut: in windows of so many frames, padded or not; the last may be shorter."""

    architecture: DacArchitecture
    frames: int
    padded: bool

    @classmethod
    def of(cls, spec: DacSpec, tokens: CodecTokens) -> Windows | None:
        """What the tokens say; `None` where they are of one signal.

        Raises:
            InvalidTokens: They say what no windows can be.
        """
        if not tokens.extra:
            return None
        frames, padded = tokens.extra.get(WINDOW_FRAMES), tokens.extra.get(WINDOW_PADDED)
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1 or not isinstance(padded, bool):
            raise InvalidTokens(
                f"{WINDOW_FRAMES} is a number of frames and {WINDOW_PADDED} whether they were padded; these tokens say "
                f"{dict(tokens.extra)}"
            )
        windows = cls(spec.architecture, frames, padded)
        if windows.samples(frames) < 1:
            raise InvalidTokens(f"windows of {frames} frames without padding leave nothing to decode")
        return windows

    def samples(self, frames: int) -> int:
        """How many samples come out of so many frames in all."""
        whole, rest = divmod(frames, self.frames)
        one = self.architecture.window_samples(self.frames, padded=self.padded)
        last = self.architecture.window_samples(rest, padded=self.padded) if rest else 0
        return whole * one + max(0, last)


class WindowPlayer:
    """A network that decodes window by window; see `blazen_codec_core.nn.session.TokenPlayer`."""

    def __init__(self, network: CodecNetwork, windows: Windows) -> None:
        self._quantizer, self._windows = network.quantizer, windows
        self._decoder = alone(network, windows)

    def decoder_state(self, setup: StreamSetup) -> WindowState:
        return WindowState(setup)

    def decode_step(self, indices: Sequence[Tensor], state: WindowState, last: bool) -> Tensor:
        """One window, or what is left of one; whatever came before has no part in it."""
        frames = indices[0].shape[1]
        if not frames or self._windows.architecture.window_samples(frames, padded=self._windows.padded) < 1:
            return state.setup.zeros(0, 1)
        return self._decoder.step(self._quantizer.decode(indices), self._decoder.init_state(state.setup), True)

    def samples_decoded(self, frames: int, last: bool) -> int:
        return self._windows.samples(frames)


@dataclass
class WindowState(State):
    setup: StreamSetup


def alone(network: CodecNetwork, windows: Windows) -> Chain:
    """The network's decoder as the authors' tool runs it on a window, with the same weights."""
    with torch.device("meta"):
        twin = decoder(windows.architecture, padded=windows.padded, mirrored=False)
    twin.load_state_dict(network.decoder.state_dict(), assign=True)
    return twin.requires_grad_(False)


class DacDecoderSession(TileDecoderSession):
    """A session that decodes tokens as they say they were coded."""

    def _begin(self, tokens: CodecTokens) -> None:
        spec: Any = self._backend.spec
        if windows := Windows.of(spec, tokens):
            self._network = WindowPlayer(self._network, windows)
            self._tile = windows.frames
        super()._begin(tokens)
