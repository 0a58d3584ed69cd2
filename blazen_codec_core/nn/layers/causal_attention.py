"""Causal self-attention that streams, over the last positions of a signal."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..kernels import dispatch
from ..kernels.aten.attention import AtenAttention
from ..kernels.interface import AttentionKernel, AttentionProblem
from .base import Layer, State, StreamSetup
from .conv import Conv1d


@dataclasses.dataclass
class AttentionState(State):
    """Ring buffers of the last positions; see `interface.AttentionKernel`.

    Attributes:
        keys: Rotated keys, `(batch, kv_heads, head_channels, capacity)`.
        values: `(batch, kv_heads, capacity, head_channels)`.
        position: Positions so far, int64 `(batch,)`; signals of a batch may have begun at different times.
    """

    keys: Tensor
    values: Tensor
    position: Tensor


class CausalAttention(Layer):
    """Multi-head attention of each position to the last `context` positions, its own included, with rotary positions.

    Sources: Vaswani et al. 2017, "Attention is all you need"; Su et al. 2021, "RoFormer"; Ainslie et al. 2023, "GQA".

    Args:
        heads: Heads of queries.
        context: Positions that a query sees; the state has as many.
        kv_heads: Heads of keys and values, a divisor of `heads`; as many by default.
        head_channels: Channels of a head; all heads together have `channels` by default.
        base: Base of the frequencies of rotary positions.
        bias: The projections have biases.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context: int,
        *,
        kv_heads: int | None = None,
        head_channels: int | None = None,
        base: float = 10_000.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        kv_heads, head_channels = kv_heads or heads, head_channels or channels // heads
        if heads % kv_heads or head_channels % 2 or context < 1:
            raise ValueError(
                f"heads {heads} must be a multiple of kv_heads {kv_heads}, head_channels {head_channels} even, and context "
                f"{context} at least 1"
            )
        self.channels = channels
        self.problem = problem = AttentionProblem(heads, kv_heads, head_channels, context, base)
        self.to_qkv = Conv1d(channels, problem.channels + 2 * problem.kv_channels, 1, bias=bias)
        self.to_out = Conv1d(problem.channels, channels, 1, bias=bias)
        self._differentiable = AtenAttention(problem)
        self._is_prepared = False

    def prepare(self) -> None:
        self._is_prepared = True
        dispatch.attention(self.problem, torch.device("cpu"), torch.float32)  # compiles its kernel now, not in the first step

    def init_state(self, setup: StreamSetup) -> AttentionState:
        p = self.problem
        keys = setup.zeros(p.kv_channels, p.capacity).reshape(setup.batch, p.kv_heads, p.head_channels, p.capacity)
        values = keys.new_zeros(setup.batch, p.kv_heads, p.capacity, p.head_channels)
        return AttentionState(keys, values, torch.zeros(setup.batch, device=setup.device, dtype=torch.int64))

    def step(self, x: Tensor, state: AttentionState, last: bool) -> Tensor:
        return self.to_out.project(self.attend(self.to_qkv.project(x, last), state), last)

    def attend(self, qkv: Tensor, state: AttentionState) -> Tensor:
        """Attention of the next positions between the two projections."""
        if not qkv.shape[1]:
            return qkv[:, :, : self.problem.channels]
        kernel: AttentionKernel
        if self._is_prepared and not torch.is_grad_enabled():
            kernel = dispatch.attention(self.problem, qkv.device, qkv.dtype)
        else:
            kernel = self._differentiable
        y = kernel(qkv, state.keys, state.values, state.position)
        state.position = state.position + qkv.shape[1]
        return y
