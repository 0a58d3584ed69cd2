"""Settings of the C library's allocator."""

from __future__ import annotations

import ctypes
import sys

import torch

MAX_MMAP_THRESHOLD = (32 << 20) - (64 << 10)
"""Largest block that glibc adapts its threshold to, less room for its header."""


def retain_malloc_arena() -> None:
    """Raise glibc's mmap threshold, so that freed tensors stay in the arena and their pages are not faulted in at every step.

    glibc sets the threshold to the largest block that was ever freed, up to 32 MiB, and keeps twice that (mallopt(3),
    M_MMAP_THRESHOLD). This block is never written, so it costs no memory.
    """
    torch.empty(MAX_MMAP_THRESHOLD, dtype=torch.uint8)


def return_free_memory() -> None:
    """Return the pages of freed blocks to the system, wherever they lie in the heap (malloc_trim(3)); on glibc only."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
