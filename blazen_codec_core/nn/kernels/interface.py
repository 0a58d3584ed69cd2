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
