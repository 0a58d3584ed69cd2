"""Kernels for GPUs, written in Triton, which PyTorch's builds for them bring. Nothing else imports triton.

Every value is made by the same operations in the same order, however long the signal is and whatever runs beside it. So on a GPU
too, tokens do not depend on tiles and batches, to the bit.

With `TRITON_INTERPRET=1` they run on the CPU, slowly, to be tested without a GPU.
"""

from .depthwise_conv import DepthwiseConv1d
from .elementwise import assemble_input, write_activation
from .gemm_conv import CodebookSearch, GemmConv1d
from .group_norm import GroupNorm
from .launch import runs_on
from .lstm import PersistentLSTM, supports_lstm
from .philox import random_normal

__all__ = [
    "CodebookSearch",
    "DepthwiseConv1d",
    "GemmConv1d",
    "GroupNorm",
    "PersistentLSTM",
    "assemble_input",
    "random_normal",
    "runs_on",
    "supports_lstm",
    "write_activation",
]
