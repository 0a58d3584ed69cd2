"""Interface of a kernel back end: what layers ask for, and what they are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .epilogue import IDENTITY, Epilogue


@dataclasses.dataclass(frozen=True)
class Conv1dProblem:
    """A convolution to compute. A transposed one is the convolution of its flipped taps; see `layers.conv.ConvTranspose1d`.

    Attributes:
        weight: `(kernel, in / groups, out)`, on the device of the signal and in its dtype.
        bias: `(out,)`, or `None`.
        stride: Frames from one window to the next.
        dilation: Frames from one tap to the next.
        groups: 1, the number of channels (depthwise), or a common divisor of input and output channels.
        frozen: The weight will not change, so a kernel may transform or repack it.
        allow_tf32: Float32 may be computed in TF32, on devices that have it.
        high_accuracy: Use algorithms that round about as little as a plain sum.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    frozen: bool = False
    allow_tf32: bool = False
    high_accuracy: bool = True

    @property
    def kernel(self) -> int:
        """Number of taps."""
        return int(self.weight.shape[0])

    @property
    def in_channels(self) -> int:
        """Input channels of a group."""
        return int(self.weight.shape[1])

    @property
    def out_channels(self) -> int:
        """Output channels of all groups."""
        return int(self.weight.shape[2])

    @property
    def is_depthwise(self) -> bool:
        """Each channel has its own filter, at stride 1."""
        return self.stride == 1 and self.in_channels == 1 < self.groups == self.out_channels

    @property
    def has_block_taps(self) -> bool:
        """The kernel is a whole number of strides, so that it is a convolution of stride 1 over blocks of `stride` frames."""
        return self.groups == 1 and self.kernel % self.stride == 0 and 1 in {self.stride, self.dilation}

    def block_taps(self) -> Tensor:
        """The weight as taps of blocks of `stride` frames, `(kernel / stride, stride * in, out)`."""
        return self.weight.reshape(self.kernel // self.stride, self.stride * self.in_channels, self.out_channels)


@dataclasses.dataclass(frozen=True)
class AttentionProblem:
    """Causal self-attention over the last `context` positions, with rotary positions (Su et al. 2021, "RoFormer").

    Channel i of the first half of a head and channel i of the second are a pair, which is turned by the position times
    `base ** (-2 * i / head_channels)` radians. Angles are computed in float64, so that they stay exact for days.

    Attributes:
        heads: Heads of queries.
        kv_heads: Heads of keys and values, a divisor of `heads`; each serves a group of consecutive heads of queries.
        head_channels: Channels of a head, an even number.
        context: Positions that a query sees, its own included.
        base: Base of the frequencies.
    """

    heads: int
    kv_heads: int
    head_channels: int
    context: int
    base: float

    @property
    def capacity(self) -> int:
        """Positions of the ring buffers: the context and `RING_SLACK`, rounded up to whole vectors."""
        return -(-(self.context + RING_SLACK) // RING_MULTIPLE) * RING_MULTIPLE

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return self.heads * self.head_channels

    @property
    def kv_channels(self) -> int:
        """Channels of all keys, or of all values."""
        return self.kv_heads * self.head_channels

    @property
    def frequencies(self) -> NDArray[np.float64]:
        """Radians a position of each pair of channels."""
        steps: NDArray[np.float64] = np.arange(0, self.head_channels, 2, dtype=np.float64) / self.head_channels
        return self.base**-steps


RING_MULTIPLE = 16
"""The capacity of ring buffers is a multiple of this: float32 values of the longest vector of CPUs."""
RING_SLACK = 3
"""Positions that may be written before the last query that sees the oldest one is computed."""


class AttentionKernel(Protocol):
    """Attention of an `AttentionProblem`."""

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
        """Output `(batch, frames, heads * head_channels)` of the next frames of each signal.

        Position p is in slot `p % capacity` of the ring buffers, which are updated in place.

        Args:
            qkv: Queries, keys and values of the frames, `(batch, frames, (heads + 2 * kv_heads) * head_channels)`, not rotated.
            keys: Rotated keys, `(batch, kv_heads, head_channels, capacity)`.
            values: `(batch, kv_heads, capacity, head_channels)`.
            position: Position of the first frame of each signal, int64 `(batch,)`. Slots of positions before 0 are not read.
        """


ChannelNormKernel = Callable[[Tensor], Tensor]
"""Normalization of each frame of `(batch, frames, channels)` over its channels, with a gain and a bias a channel."""


class Conv1dKernel(Protocol):
    """A convolution with its bias.

    A kernel with a false attribute `needs_bucketing` prepares nothing for each number of frames; see `bucketing.run_bucketed`.
    """

    def __call__(self, x: Tensor, frames: int) -> Tensor:
        """`(batch, (frames - 1) * stride + (kernel - 1) * dilation + 1, in)` to `(batch, frames, out)`, newly allocated."""


class FusedConv1d:
    """A `Conv1dKernel` that applies an `Epilogue`. A plain class, as `isinstance` against an ABC is slower."""

    def __call__(self, x: Tensor, frames: int, epilogue: Epilogue = IDENTITY) -> Tensor:
        """Compute `frames` output frames of `x`, and apply the epilogue."""
        raise NotImplementedError


@runtime_checkable
class HoldsWeights(Protocol):
    """A kernel that holds the weights that it was made with, in its own order; their layer then releases its own."""

    def weights(self) -> tuple[Tensor, ...]:
        """Copies of the weights, the same to the bit: the one of a convolution, or the input and recurrent ones of an LSTM."""


LSTMKernel = Callable[[Tensor, Tensor, Tensor, bool], Tensor]
"""One layer: `(x, hidden, cell, last)` to outputs `(rows, 1 + frames, channels)`, the first of which is `hidden`.

`x` is `(rows, frames, channels)`, the states are `(rows, channels)`; `cell` is updated in place. `last` tells that a
signal of any length ends.
"""
CodebookSearch = Callable[[Tensor], Tensor]
"""From vectors `(..., channels)` to indices of entries `(...)`."""


class GroupNormKernel(Protocol):
    """Group norm with one group over time, an affine map, and an epilogue; see `aten.group_norm.normalize`."""

    def __call__(self, x: Tensor, epilogue: Epilogue = IDENTITY, *, inplace: bool = False) -> Tensor:
        """Normalize `(batch, frames, channels)`; `inplace` if `x` may be overwritten."""


class Elementwise(Protocol):
    """Elementwise kernels, which write to memory that they are given; a module may implement it."""

    def write_activation(self, activation: Epilogue, x: Tensor, out: Tensor) -> None:
        """Write the activation of `x` to `out`, of the same shape."""

    def assemble_input(
        self,
        tail: Tensor,
        x: Tensor,
        left: int,
        activation: Epilogue,
        out: Tensor,
        lengths: Tensor | None = None,
        *,
        allow_tf32: bool = False,
    ) -> None:
        """Write `[tail | left zeros | activation(x) | zeros]` to `out`; see `layers.padding.assemble_input`."""


class KernelBackend:
    """A set of kernels for some devices.

    A method returns `None` if this back end has no kernel for a problem; the next back end is asked then. All kernels compute the
    same sums.
    """

    @property
    def is_batch_exact(self) -> bool:
        """A signal of a batch gets the same values as by itself, to the bit, whatever the lengths of the others."""
        return False

    def supports(self, device: torch.device) -> bool:
        """Tell whether any of the kernels run on a device."""
        raise NotImplementedError

    def conv1d(self, problem: Conv1dProblem) -> Conv1dKernel | None:
        """Choose a convolution."""
        return None

    def lstm(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> LSTMKernel | None:
        """Choose one LSTM layer with frozen weights `(4 * channels, channels)`, gates in PyTorch's order i, f, g, o."""
        return None

    def group_norm(self, weight: Tensor, bias: Tensor, epsilon: float) -> GroupNormKernel | None:
        """Choose a group norm with frozen weights `(channels,)`."""
        return None

    def channel_norm(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> ChannelNormKernel | None:
        """Choose a norm over channels with frozen weights `(channels,)`; without a bias, the mean is not subtracted (RMSNorm)."""
        return None

    def attention(self, problem: AttentionProblem, device: torch.device, dtype: torch.dtype) -> AttentionKernel | None:
        """Choose an attention for signals of this dtype."""
        return None

    def codebook_search(self, table: Tensor, offset: Tensor | None) -> CodebookSearch | None:
        """Choose the argmax over entries of `vector @ table + offset`, for a frozen table `(channels, entries)`."""
        return None

    def elementwise(self, device: torch.device, dtype: torch.dtype) -> Elementwise | None:
        """Choose elementwise kernels for signals `(batch, frames, channels)`."""
        return None

    def random_normal(
        self, seed: int, layer: int, positions: NDArray[np.int64], count: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor | None:
        """Normal noise `(rows, count)` of the counter-based generator of `layers.noise.CounterNoise`."""
        return None
