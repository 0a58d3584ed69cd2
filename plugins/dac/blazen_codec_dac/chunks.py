"""Tokens of the authors' own tool, which codes long audio window by window: each window is decoded as a signal of its own, with
padding or without, and what comes out is laid end to end. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from blazen_codec_core import CodecTokens, InvalidTokens

from .specs import WINDOW_FRAMES, WINDOW_PADDED, DacArchitecture, DacSpec


@dataclass(frozen=True)
class Windows:
    """Windows of `frames` frames that tokens are cut into, padded or not; the last may be shorter."""

    architecture: DacArchitecture
    frames: int
    padded: bool

    @classmethod
    def of(cls, spec: DacSpec, tokens: CodecTokens) -> Windows | None:
        """Windows that the tokens say they are cut into; `None` if they are of one signal.

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
        return cls(spec.architecture, frames, padded)

    def samples(self, frames: int) -> int:
        """Number of samples that are decoded from `frames` frames in all.

        Windows that are too short to be decoded without padding make none.
        """
        whole, rest = divmod(frames, self.frames)
        counts = ((whole, self.frames), (1, rest) if rest else (0, 0))
        return sum(count * max(0, self.architecture.window_samples(each, padded=self.padded)) for count, each in counts)
