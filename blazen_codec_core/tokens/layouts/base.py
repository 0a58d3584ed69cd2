"""The interface of layouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidTokens, NotYetImplemented
from ..tokens import CodecTokens

if TYPE_CHECKING:
    from ...specs import CodecSpec
    from .reader import LayoutReader
    from .vocabulary import Vocabulary
    from .writer import LayoutWriter

Ids = NDArray[np.int64]
Ragged = Literal["refuse", "drop"]
"""Treatment of ids that end within a group: refuse them, or leave the incomplete group out."""
Errors = Literal["raise", "drop", "repeat"]
"""Treatment of a wrong group: raise an error, leave it out, or repeat the group before it."""


class TokenLayout(ABC):
    """Mapping between the tokens of one stream and a sequence of ids.

    `pack` and `unpack` convert whole sequences. A layout that is no `TableLayout` may leave out the other methods.

    Attributes:
        name: Name for look-ups.
        description: One-line description.
    """

    name: str
    description: str

    @abstractmethod
    def pack(self, tokens: CodecTokens, *, specials: bool = False) -> Ids:
        """Convert tokens to ids, int64 `(count,)`.

        Args:
            tokens: Tokens of one stream.
            specials: Write the ids that begin and end a sequence, too.

        Raises:
            InvalidTokens: The layout cannot hold the tokens.
        """

    @abstractmethod
    def unpack(self, ids: Any, spec: CodecSpec, *, num_codebooks: int | None = None, ragged: Ragged = "refuse") -> CodecTokens:
        """Convert ids to tokens. Ids after the end are ignored.

        Args:
            ids: Sequence of ids.
            spec: Model of the tokens.
            num_codebooks: Number of codebooks in the ids; the layout's or else the model's default if not given.
            ragged: `refuse` or `drop` an incomplete group at the end, as a truncated generation leaves it.

        Raises:
            InvalidTokens: An id is out of its slot's range, or the last group is incomplete and `ragged` is `refuse`.
        """

    def vocabulary(self, spec: CodecSpec, *, num_codebooks: int | None = None) -> Vocabulary:
        """Return the ids of a model's tokens.

        Raises:
            InvalidInput: The model does not have that number of codebooks.
            NotYetImplemented: The layout has no vocabulary.
        """
        raise NotYetImplemented(f"layout {self.name} converts whole sequences only; use pack and unpack")

    def reader(self, spec: CodecSpec, *, num_codebooks: int | None = None, errors: Errors = "raise") -> LayoutReader:
        """Return a reader of ids as they come.

        Args:
            spec: Model of the tokens.
            num_codebooks: Number of codebooks in the ids; the layout's or else the model's default if not given.
            errors: `raise`, or what a group with a wrong id becomes: `drop` leaves it out, `repeat` gives the group before it
                once more, so that the audio is as long as the ids say.

        Raises:
            InvalidInput: An option is unknown, or the model does not have that number of codebooks.
            NotYetImplemented: The layout has no reader.
        """
        raise NotYetImplemented(f"layout {self.name} converts whole sequences only; use unpack")

    def writer(self, spec: CodecSpec, *, num_codebooks: int | None = None, specials: bool = False) -> LayoutWriter:
        """Return a writer of tokens as they come; options as for `reader` and `pack`.

        Raises:
            InvalidInput: The model does not have that number of codebooks.
            NotYetImplemented: The layout has no writer.
        """
        raise NotYetImplemented(f"layout {self.name} converts whole sequences only; use pack")


def check_one_stream(tokens: Any) -> CodecTokens:
    """Return the tokens; raise `InvalidTokens` if a sequence of ids cannot represent them."""
    if not isinstance(tokens, CodecTokens):
        raise InvalidTokens(f"tokens are {type(tokens).__name__}; expected CodecTokens")
    if tokens.streams != 1:
        raise InvalidTokens(f"tokens have {tokens.streams} streams; a sequence holds one. Pack .stream(0) and so on")
    if tokens.scales is not None:
        raise InvalidTokens(
            "a sequence of ids cannot hold scales. Keep tokens.scales, pack dataclasses.replace(tokens, scales=None), "
            "and restore the scales after unpacking"
        )
    if tokens.extra:
        raise InvalidTokens(f"a sequence of ids cannot hold {', '.join(tokens.extra)}, which the decoder needs")
    return tokens
