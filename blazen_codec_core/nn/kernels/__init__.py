"""Kernels behind the layers: one dispatcher, and implementations in ATen, numba and Triton."""
