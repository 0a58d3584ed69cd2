"""CPU kernels compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and recurrent layers are blocks of sums that stay in
registers.
"""

from __future__ import annotations

from . import compile_cache
from .codebook_search import Search
from .conv import convolution
from .elementwise import apply, join, suits
from .group_norm import Norm
from .lstm import pack_recurrent_weight, recur, supports_lstm
from .packing import supports_direct_conv
from .random_normal import normals

__all__ = [
    "Norm",
    "Search",
    "apply",
    "compile_cache",
    "convolution",
    "join",
    "normals",
    "pack_recurrent_weight",
    "recur",
    "suits",
    "supports_direct_conv",
    "supports_lstm",
]
