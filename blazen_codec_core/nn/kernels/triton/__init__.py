"""GPU kernels in Triton, which ships with PyTorch's CUDA builds. Nothing else imports triton.

Every value is computed by the same operations in the same order, for any length and any neighbours in a batch. So tokens do not
depend on tiles and batches on a GPU either, to the bit.

With `TRITON_INTERPRET=1` the kernels run on the CPU, slowly, for tests without a GPU.
"""

from .backend import TritonBackend

__all__ = ["TritonBackend"]
