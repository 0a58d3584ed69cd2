"""Self-attention inside fixed windows."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InvalidInput
from ..kernels.exporting import is_exporting
from .base import Layer, State, StreamSetup
from .conv import Conv1d

LONGEST_PERIOD = 10_000.0


@dataclasses.dataclass
class WindowState(State):
    pending: Tensor


class LocalAttention(Layer):
    """Multi-head attention within windows of `window` frames, with rotary positions (Su et al. 2021, "RoFormer").

    It has a layer norm before it and a residual connection around it. The signal must be an integer number of windows.
    """

    def __init__(self, channels: int, window: int, head_channels: int = 64) -> None:
        super().__init__()
        self.channels, self.window = channels, window
        self.head_channels, self.heads = head_channels, channels // head_channels
        self.norm = nn.LayerNorm(channels, dtype=torch.float32)
        self.to_qkv = Conv1d(channels, 3 * channels, 1, bias=False)
        self.to_out = Conv1d(channels, channels, 1, bias=False, gain=0.3)
        angles = torch.arange(window)[:, None] * self.frequencies
        self.register_buffer("rotation", torch.cat([angles, angles], dim=1), persistent=False)

    @property
    def frequencies(self) -> Tensor:
        """Angular frequencies of the channel pairs of a head, in radians a frame."""
        return LONGEST_PERIOD ** -(torch.arange(0, self.head_channels, 2, dtype=torch.float32) / self.head_channels)

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.norm.reset_parameters()

    def init_state(self, setup: StreamSetup) -> WindowState:
        return WindowState(setup.zeros(0, self.channels))

    def frames_out(self, frames: int, last: bool) -> int:
        return frames // self.window * self.window

    def step(self, x: Tensor, state: WindowState, last: bool) -> Tensor:
        if state.pending.shape[1]:
            x = torch.cat([state.pending, x], dim=1)
        frames = x.shape[1] // self.window * self.window
        if last and frames != x.shape[1]:
            over = x.shape[1] - frames
            raise InvalidInput(f"signal has {over} frames too many; attention needs a multiple of {self.window} frames")
        state.pending = x[:, frames:].clone()
        return self._attend(x[:, :frames]) if frames else x[:, :0]

    def _attend(self, x: Tensor) -> Tensor:
        batch, frames, _ = x.shape
        qkv = self.to_qkv(self.norm(x)).reshape(batch, frames // self.window, self.window, 3, self.heads, -1)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)
        q, k = self._rotate(q), self._rotate(k)
        if is_exporting():  # ONNX's attention takes one axis of batches
            y = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).reshape(v.shape)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(y.transpose(2, 3).reshape(batch, frames, -1)) + x

    def _rotate(self, x: Tensor) -> Tensor:
        angles = self.get_buffer("rotation").to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
