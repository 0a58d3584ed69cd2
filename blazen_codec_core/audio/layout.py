"""Layout of an audio file: the parts that a decoder is given, and the audio that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Layout:
    """Parts of an audio file to decode, and the audio that it lacks.

    Attributes:
        links: Files for a decoder, whose audio follows one upon the other; `None` for the file as it is.
        missing: What the container says and what there is, in words, where there is less; `None` where all is there.
        exact: Whether the container is, so that less is an error.
        remarks: What a listener should know besides.
        positions: Samples after which each link ends, as its last page says. Where that is not its length, seeking goes astray.
    """

    links: tuple[BinaryIO, ...] | None = None
    missing: str | None = None
    exact: bool = True
    remarks: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()


AS_IT_IS = Layout()
