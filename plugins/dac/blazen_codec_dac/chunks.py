"""Windows in which the authors' tool encodes long audio. Imports no torch.

Each window is decoded as a separate signal, with or without padding, and the results are concatenated.
"""

from __future__ import annotations

from dataclasses import dataclass

from blazen_codec_core import CodecTokens, InvalidTokens

from .specs import WINDOW_FRAMES, WINDOW_PADDED, DacArchitecture, DacSpec


@dataclass(frozen=True)
class Windows:
    """Segmentation of tokens into windows of `frames` frames, padded or not; the last may be shorter."""

    architecture: DacArchitecture
    frames: int
    padded: bool

    @classmethod
    def of(cls, spec: DacSpec, tokens: CodecTokens) -> Windows | None:
        """Return the windows of tokens; `None` if they are a single signal.

        Raises:
            InvalidTokens: The tokens' window parameters are invalid.
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
        """Return the number of samples decoded from `frames` frames.

        Windows that are too short for decoding without padding yield no samples.
        """
        whole, rest = divmod(frames, self.frames)
        counts = ((whole, self.frames), (1, rest) if rest else (0, 0))
        return sum(count * max(0, self.architecture.window_samples(length, padded=self.padded)) for count, length in counts)
