"""Kernels for GPUs, written in Triton, which PyTorch's builds for them bring. Nothing else imports triton.

Every value is made by the same operations in the same order, however long the signal is and whatever runs beside it. So on a GPU
too, tokens do not depend on tiles and batches, to the bit.

With `TRITON_INTERPRET=1` they run on the CPU, slowly, to be tested without a GPU.
"""

from .depthwise_conv import Depthwise
from .elementwise import apply, join
from .gemm_conv import GemmConv1d, Search
from .group_norm import Norm
from .launch import runs_on
from .lstm import Recurrence, supports_lstm
from .philox import normals

__all__ = [
    "Depthwise",
    "GemmConv1d",
    "Norm",
    "Recurrence",
    "Search",
    "apply",
    "join",
    "normals",
    "runs_on",
    "supports_lstm",
]
