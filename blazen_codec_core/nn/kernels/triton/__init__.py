"""Kernels for GPUs, written in Triton, which PyTorch's builds for them bring. Nothing else imports triton.

Every value is made by the same operations in the same order, however long the signal is and whatever runs beside it. So on a GPU
too, tokens do not depend on tiles and batches, to the bit.

With `TRITON_INTERPRET=1` they run on the CPU, slowly, to be tested without a GPU.
"""

from .backend import TritonBackend

__all__ = ["TritonBackend"]
