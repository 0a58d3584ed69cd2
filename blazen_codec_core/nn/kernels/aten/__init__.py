"""Kernels in PyTorch's own operations, correct everywhere."""
