"""Loops of our own, compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and recurrent layers are blocks of sums that stay in
registers.
"""

from __future__ import annotations

from . import compile_cache
from .codebook_search import Search
from .conv import convolution
from .elementwise import apply, join, suits
from .group_norm import Norm
from .lstm import in_blocks, recur, suits_recurrence
from .packing import suits_blocks
from .random_normal import normals

__all__ = [
    "Norm",
    "Search",
    "apply",
    "compile_cache",
    "convolution",
    "in_blocks",
    "join",
    "normals",
    "recur",
    "suits",
    "suits_blocks",
    "suits_recurrence",
]
