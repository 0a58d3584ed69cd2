"""How an audio file is laid out: what a decoder is given of it, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Layout:
    """What there is to decode in a file.

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
