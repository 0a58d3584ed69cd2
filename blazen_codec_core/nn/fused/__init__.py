"""Loops of our own, compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and recurrent layers are blocks of sums that stay in
registers.
"""

from __future__ import annotations

import torch

_THREADS = torch.get_num_threads()

from .convolutions import convolution  # noqa: E402
from .noise import normals  # noqa: E402
from .norm import Norm  # noqa: E402
from .panels import suits_blocks  # noqa: E402
from .pointwise import apply, join, suits  # noqa: E402
from .recurrence import in_blocks, recur, suits_recurrence  # noqa: E402
from .search import Search  # noqa: E402

__all__ = [
    "Norm",
    "Search",
    "apply",
    "convolution",
    "in_blocks",
    "join",
    "normals",
    "recur",
    "suits",
    "suits_blocks",
    "suits_recurrence",
]

torch.set_num_threads(_THREADS)  # which loading a parallel loop has set to all that there are, for all of OpenMP
