"""Causal attention over a ring buffer in PyTorch's operations, with or without gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exporting import is_symbolic
from ..interface import AttentionProblem

QUERIES = 256
"""Positions whose scores are in memory at a time."""


class AtenAttention:
    """Attention of whole blocks of positions; see `interface.AttentionKernel`."""

    def __init__(self, problem: AttentionProblem) -> None:
        self.problem = problem
        self._frequencies: dict[torch.device, Tensor] = {}

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
        if qkv.device.type != "cpu" or torch.is_grad_enabled() or qkv.shape[0] == 1:
            return self._attend(qkv, keys, values, position)
        signals = [slice(row, row + 1) for row in range(qkv.shape[0])]  # PyTorch's operations round by shape
        return torch.cat([self._attend(qkv[row], keys[row], values[row], position[row]) for row in signals])

    def _attend(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
        p, (batch, frames, _) = self.problem, qkv.shape
        q, k, v = (
            x.reshape(batch, frames, -1, p.head_channels).transpose(1, 2)
            for x in torch.split(qkv, [p.channels, p.kv_channels, p.kv_channels], dim=2)
        )
        cos, sin = self._rotation(position, frames, qkv)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        past = p.context - 1
        slots = (position[:, None] + torch.arange(-past, 0, device=qkv.device)) % p.capacity
        slots = slots[:, None, :, None].expand(-1, p.kv_heads, -1, p.head_channels)
        all_keys = torch.cat([keys.transpose(2, 3).gather(2, slots), k], dim=2)
        all_values = torch.cat([values.gather(2, slots), v], dim=2)
        blocks = []
        for start, end in [(0, frames)] if is_symbolic(frames) else _blocks(frames):
            span = slice(start, end + past)
            query = torch.arange(end - start, device=qkv.device)[:, None]
            key = torch.arange(end - start + past, device=qkv.device)
            visible = (key >= query) & (key <= query + past) & ((position + start)[:, None, None] + key >= past)
            y = F.scaled_dot_product_attention(
                q[:, :, start:end], all_keys[:, :, span], all_values[:, :, span], visible[:, None], enable_gqa=True
            )
            blocks.append(y.transpose(1, 2).flatten(2))
        self._write(keys, values, k, v, position)
        return torch.cat(blocks, dim=1) if len(blocks) != 1 else blocks[0]

    def _write(self, keys: Tensor, values: Tensor, k: Tensor, v: Tensor, position: Tensor) -> None:
        """Write the last of some frames `(batch, kv_heads, frames, head_channels)` to the ring buffers."""
        frames, capacity = k.shape[2], self.problem.capacity
        if is_symbolic(frames):  # the signal's last
            return
        first = max(0, frames - capacity)
        slots = (position[:, None] + torch.arange(first, frames, device=k.device)) % capacity
        index = slots[:, None, :, None].expand_as(k[:, :, first:])
        values.scatter_(2, index, v[:, :, first:])
        keys.scatter_(3, index.transpose(2, 3), k[:, :, first:].transpose(2, 3))

    def _rotation(self, position: Tensor, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `(batch, 1, frames, head_channels / 2)` of the angles of frames, at least in float32."""
        device = torch.device("cpu") if like.device.type == "mps" else like.device  # which has no float64
        positions = position.to(device)[:, None] + torch.arange(frames, device=device)
        angles = positions[:, None, :, None] * self._frequencies_on(device)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return angles.cos().to(like.device, dtype), angles.sin().to(like.device, dtype)

    def _frequencies_on(self, device: torch.device) -> Tensor:
        """Frequencies on a device, where no step has to copy them to."""
        if device not in self._frequencies:
            with torch.inference_mode(False):
                self._frequencies[device] = torch.from_numpy(self.problem.frequencies).to(device)
        return self._frequencies[device]


def _blocks(frames: int) -> list[tuple[int, int]]:
    """Ranges of at most `QUERIES` positions."""
    return [(start, min(start + QUERIES, frames)) for start in range(0, frames, QUERIES)]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of channels of `(batch, heads, frames, head_channels)`."""
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
