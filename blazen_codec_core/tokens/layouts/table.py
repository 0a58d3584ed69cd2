"""The layout of most language models, with delays, offsets and special ids as arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput, InvalidTokens
from ..tokens import CodecTokens
from .base import Errors, Ids, Ragged, TokenLayout, check_one_stream
from .reader import LayoutReader, check_choice
from .text import IdText
from .vocabulary import Slot, Specials, Vocabulary, slots
from .writer import LayoutWriter

if TYPE_CHECKING:
    from ...specs import CodecSpec

NONE = Specials()
NO_CODE = Specials(begin=0, end=0, padding=0)
"""Fillers of models with one special id, which is the size of the codebook."""


@dataclass(frozen=True)
class TableLayout(TokenLayout):
    """A layout as a table with one row per step, read row by row.

    A step has one slot per codebook. Codebooks of several rates have as many slots as tokens in a group of frames, depth first:
    `c0[0] c1[0] c2[0] c2[1] c1[1] c2[2] c2[3]` for strides (4, 2, 1). The id of a code is `base + slot * spacing + code`.

    Slots may start late, as in the delay pattern of Copet et al. 2023, "Simple and controllable music generation", figure 1. A
    slot has fillers before its first code and after its last one. With delays 0, 1 and 2:

        c0[0]  c0[1]  c0[2]   end    padding
        begin  c1[0]  c1[1]  c1[2]   end
        begin  begin  c2[0]  c2[1]  c2[2]

    Attributes:
        name: Name for look-ups.
        description: One-line description.
        base: Id of code 0 of the first slot.
        spacing: Ids from slot to slot, 0 if each slot has a vocabulary of its own; by default the size of the codebook.
        delays: Steps by which each slot starts late, or the steps from slot to slot.
        fillers: Specials in place of codes, counted from the size of the codebook, which is the id after a slot's last code.
        markers: Specials between steps, as ids.
        end_code: A group of this code in every slot is the end.
        num_codebooks: Number of codebooks by default, if it is not the model's.
        text: Text form of ids.
        source: Description that the layout was written from.
    """

    name: str
    description: str
    base: int = 0
    spacing: int | None = None
    delays: int | tuple[int, ...] = 0
    fillers: Specials = NONE
    markers: Specials = NONE
    end_code: int | None = None
    num_codebooks: int | None = None
    text: IdText | None = None
    source: str = ""

    def __post_init__(self) -> None:
        delays = (self.delays,) if isinstance(self.delays, int) else self.delays
        if min(delays, default=0) < 0 or self.base < 0 or (self.spacing or 0) < 0:
            raise InvalidInput(f"layout {self.name} has negative delays or ids; they start at 0")
        if any(delays) and (self.fillers.begin is None or {self.fillers.end, self.fillers.padding} == {None}):
            raise InvalidInput(f"layout {self.name} has delays; it needs fillers, begin and end or padding")

    def vocabulary(self, spec: CodecSpec, *, num_codebooks: int | None = None) -> Vocabulary:
        count = spec.codebooks_for(num_codebooks=num_codebooks if num_codebooks is not None else self.num_codebooks)
        return self.vocabulary_of(spec.strides[:count], spec.codebook_size)

    def reader(self, spec: CodecSpec, *, num_codebooks: int | None = None, errors: Errors = "raise") -> LayoutReader:
        return LayoutReader(self.vocabulary(spec, num_codebooks=num_codebooks), spec, errors)

    def writer(self, spec: CodecSpec, *, num_codebooks: int | None = None, specials: bool = False) -> LayoutWriter:
        return LayoutWriter(self.vocabulary(spec, num_codebooks=num_codebooks), specials)

    def pack(self, tokens: CodecTokens, *, specials: bool = False) -> Ids:
        check_one_stream(tokens)
        return LayoutWriter(self.vocabulary_of(tokens.strides, tokens.codebook_size), specials).push_last(tokens)

    def unpack(self, ids: Any, spec: CodecSpec, *, num_codebooks: int | None = None, ragged: Ragged = "refuse") -> CodecTokens:
        check_choice("ragged", ragged, ("refuse", "drop"))
        reader = self.reader(spec, num_codebooks=num_codebooks)
        parts = [reader.push(ids), reader.finish(ragged=ragged)]
        if not any(part.frames for part in parts):
            raise InvalidTokens(f"there is no complete frame of {reader.vocabulary.ids_per_group} ids")
        return CodecTokens.concat(parts)

    def vocabulary_of(self, strides: tuple[int, ...], size: int) -> Vocabulary:
        """Return the ids of codebooks with these strides and `size` codes; raise `InvalidTokens` if they do not fit."""
        order = slots(strides)
        count, spacing = len(order), size if self.spacing is None else self.spacing
        delays = [number * self.delays for number in range(count)] if isinstance(self.delays, int) else self.delays
        if len(delays) < count:
            raise InvalidTokens(f"layout {self.name} has {len(delays)} slots; tokens with strides {strides} need {count}")
        return Vocabulary(
            layout=self.name,
            strides=strides,
            codebook_size=size,
            slots=tuple(
                Slot(book, index, delay, self.base + number * spacing)
                for number, ((book, index), delay) in enumerate(zip(order, delays, strict=False))
            ),
            fillers=self.fillers.shifted(size),
            markers=self.markers,
            end_code=self.end_code,
            text=self.text,
        )
