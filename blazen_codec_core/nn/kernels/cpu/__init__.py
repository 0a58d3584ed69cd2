"""CPU kernels compiled by numba: the extra `fast`. Nothing else imports numba.

Activations pass over a signal once instead of four times, and convolutions and LSTMs are built on one GEMM micro-kernel.
"""

from __future__ import annotations

from . import compile_cache
from .codebook_search import CodebookSearch
from .conv import select_conv1d
from .elementwise import assemble_input, supports, write_activation
from .group_norm import GroupNorm
from .lstm import lstm_forward, pack_recurrent_weight, supports_lstm
from .packing import supports_direct_conv
from .random_normal import box_muller

__all__ = [
    "CodebookSearch",
    "GroupNorm",
    "assemble_input",
    "box_muller",
    "compile_cache",
    "lstm_forward",
    "pack_recurrent_weight",
    "select_conv1d",
    "supports",
    "supports_direct_conv",
    "supports_lstm",
    "write_activation",
]
