"""Memory between pages that cannot be accessed, so that a read or a write outside a tensor ends the process."""

from __future__ import annotations

import ctypes
import math
import mmap

import torch

_PROT_NONE = 0


def _guarded_buffer(size: int) -> mmap.mmap:
    """Whole pages for `size` bytes, after one such page and before another."""
    page = mmap.PAGESIZE
    buffer = mmap.mmap(-1, -(-size // page) * page + 2 * page)
    libc = ctypes.CDLL(None, use_errno=True)
    start = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    for guard in (start, start + len(buffer) - page):
        if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), _PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    return buffer


class GuardedMemory:
    """Allocator of tensors that are full of NaN, or ones.

    Args:
        at_end: Tensors end where a guard page begins, else they begin where one ends.
    """

    def __init__(self, at_end: bool) -> None:
        self._at_end = at_end

    def allocate(self, *shape: int | torch.Size, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Like `torch.empty`."""
        counts = tuple(shape[0]) if isinstance(shape[0], torch.Size) else shape
        size = math.prod(counts) * dtype.itemsize
        if not size:
            return torch.empty(counts, dtype=dtype)
        offset = mmap.PAGESIZE + (-size % mmap.PAGESIZE if self._at_end else 0)
        values = torch.frombuffer(_guarded_buffer(size), dtype=dtype, count=math.prod(counts), offset=offset)
        return values.fill_(torch.nan if dtype.is_floating_point else 1).reshape(counts)

    def copy(self, x: torch.Tensor) -> torch.Tensor:
        return self.allocate(x.shape, dtype=x.dtype).copy_(x)

    def copy_apart(self, x: torch.Tensor, gap: int) -> torch.Tensor:
        """Copy signals `(batch, frames, channels)` so that they lie `gap` values apart."""
        batch, frames, channels = x.shape
        stride = frames * channels + gap
        values = self.allocate(max(0, (batch - 1) * stride + frames * channels))
        return values.as_strided(x.shape, (stride, channels, 1)).copy_(x)
