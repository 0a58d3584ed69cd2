"""Types that networks are exported in, and how much their graphs may differ from the codec."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import InvalidInput
from ..specs import Half


@dataclass(frozen=True)
class Precision:
    """A row of `PRECISIONS`.

    Attributes:
        dtype: Floating type of the network; the quantizer is in float32.
        least_agreement: Least share of tokens that agree; the others are ties within the rounding.
        most_pcm_error: Largest error of audio, as a share of its peak where that is above 1.
        in_int8: Halves whose large layers multiply int8 by int8.
    """

    dtype: torch.dtype
    least_agreement: float
    most_pcm_error: float
    in_int8: tuple[Half, ...] = ()


PRECISIONS = {
    "float32": Precision(torch.float32, 0.999, 1e-4),
    "float16": Precision(torch.float16, 0.5, 3e-2),
    "int8": Precision(torch.float32, 0.999, 0.25, in_int8=("decoder",)),
}


def find_precision(name: str, parts: Half | None) -> Precision:
    """Row of a name, for one half or both.

    Raises:
        InvalidInput: There is none, or it would change nothing.
    """
    if name not in PRECISIONS:
        raise InvalidInput(f"dtype is {name!r}; graphs are exported in {', '.join(PRECISIONS)}")
    found = PRECISIONS[name]
    if found.in_int8 and parts and parts not in found.in_int8:
        raise InvalidInput(
            f"dtype is {name!r}, which is for decoders alone, because tokens would change; export the {parts} in float32"
        )
    return found
