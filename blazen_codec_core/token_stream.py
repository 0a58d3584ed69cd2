"""The tokens of one signal as they come to a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .checks import check_blocks
from .errors import InvalidTokens
from .tokens.tokens import CodecTokens
from .validation import Pcm

if TYPE_CHECKING:
    from torch import Tensor

    from .backend import CodecBackend

Audio = TypeVar("Audio", "Pcm", "Tensor")
"""Audio `(channels, samples)`."""


class TokenStream:
    """Tokens of one stream: checks that its parts are of one recording, and counts their frames and samples.

    Attributes:
        first: First part, or `None` before it.
        frames: Frames accepted.
    """

    def __init__(self, backend: CodecBackend) -> None:
        self._backend = backend
        self._label = backend.weights_label  # at the start: a session keeps its weights
        self.first: CodecTokens | None = None
        self.frames = 0
        self._continues = True
        self._samples = self._returned = 0

    def accept(self, tokens: CodecTokens) -> CodecTokens:
        """Check and count the next tokens; return the first that were accepted.

        Raises:
            InvalidTokens: The tokens are not of this model or of another recording, or have a loudness.
        """
        self._backend.check_tokens(tokens, part=True)
        self._backend.check_weights(tokens, self._label)
        if tokens.loudness is not None:
            raise InvalidTokens(
                "tokens have a loudness, which can only be restored once all of them are decoded; use decode, or remove it with "
                "dataclasses.replace(tokens, loudness=None)"
            )
        first = tokens if self.first is None else self.first
        first.check_joins(tokens)
        if not self._continues and (tokens.num_samples or (tokens.segment and tokens.frames)):
            raise InvalidTokens("tokens follow the end of a recording; open another session for another recording")
        self.first, self._continues = first, self._continues and tokens.continues
        self.frames += tokens.frames
        self._samples += tokens.num_samples
        return first

    def check_single(self) -> None:
        """Raise `InvalidTokens` if there are several streams, of which pools take each by itself."""
        if self.first is not None and self.first.streams != 1:
            raise InvalidTokens(f"tokens have {self.first.streams} streams; open a stream of the pool for each")

    def check_complete(self) -> None:
        """Raise `InvalidTokens` unless the stream may end here."""
        if not self.frames:
            raise InvalidTokens("no tokens were pushed; push some before finish")
        check_blocks(self._backend.spec, self.frames)

    def trim(self, pcm: Audio) -> Audio:
        """Cut off samples past the end of the signal, as far as it is known."""
        pcm = pcm[:, : self._samples - self._returned]
        self._returned += pcm.shape[1]
        return pcm
