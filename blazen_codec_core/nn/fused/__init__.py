"""Loops of our own, compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and recurrent layers are blocks of sums that stay in
registers.
"""

from __future__ import annotations

from . import kept
from .convolutions import convolution
from .noise import normals
from .norm import Norm
from .panels import suits_blocks
from .pointwise import apply, join, suits
from .recurrence import in_blocks, recur, suits_recurrence
from .search import Search

__all__ = [
    "Norm",
    "Search",
    "apply",
    "convolution",
    "in_blocks",
    "join",
    "kept",
    "normals",
    "recur",
    "suits",
    "suits_blocks",
    "suits_recurrence",
]
