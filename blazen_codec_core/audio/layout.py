"""Layout of an audio file: the parts to decode, and the audio that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Layout:
    """Parts of an audio file to decode, and what is missing.

    Attributes:
        links: Consecutive streams for the decoder; `None` for the unchanged file.
        missing: Description of missing audio; `None` if the file is complete.
        exact: The container's length is exact, so missing audio is an error.
        remarks: Other anomalies.
        positions: End position of each link in samples, from its last page. Seeking is wrong if it differs from the length.
    """

    links: tuple[BinaryIO, ...] | None = None
    missing: str | None = None
    exact: bool = True
    remarks: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()


AS_IT_IS = Layout()
