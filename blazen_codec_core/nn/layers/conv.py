"""Convolutions and transposed convolutions that stream."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.bucketing import run_bucketed
from ..kernels.epilogue import IDENTITY, Epilogue
from ..kernels.exporting import is_exporting
from ..kernels.interface import Conv1dKernel, Conv1dProblem, FusedConv1d, HoldsWeights
from .base import State, StreamSetup
from .fusion import FusableLayer, activate
from .padding import LengthState, Padding, SignalLengths, ZeroPadding, assemble_input
from .released import ReleasedParameter


@dataclasses.dataclass
class TailState(State):
    """State of a convolution.

    Attributes:
        tail: Last frames of the input, which the next windows still cover.
    """

    tail: Tensor


@dataclasses.dataclass
class ConvState(TailState):
    padding: Any
    dynamic_length: bool


class ConvBase(FusableLayer):
    """A convolution, computed by the fastest kernel for its shape and device."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    allow_tf32 = False
    """Float32 may be computed in TF32, on devices that have it."""
    high_accuracy = True
    """Tokens depend on this layer, so its kernel must round about as little as a plain sum."""
    _prepared: Conv1dKernel | None = None

    @abstractmethod
    def select_kernel(self, frozen: bool) -> Conv1dKernel:
        """Choose a kernel for the current weights; `frozen` if they will not change."""

    def prepare(self) -> None:
        kernel = self._prepared = self.select_kernel(frozen=True)
        if isinstance(kernel, HoldsWeights):
            self.weight = ReleasedParameter(self.weight, partial(_weight_of, kernel, self._in_kernel_order))

    def share_kernel_with(self, other: ConvBase) -> None:
        """Use the parameters and the prepared kernel of a layer of the same shape, instead of `prepare`."""
        self.weight, self.bias, self._prepared = other.weight, other.bias, other._prepared

    @staticmethod
    def _in_kernel_order(weight: Tensor) -> Tensor:
        """The weight as a kernel takes it, and back."""
        return weight

    @property
    def takes_epilogue(self) -> bool:
        return isinstance(self._prepared, FusedConv1d)

    def run_kernel(self, x: Tensor, frames: int, stride: int, dynamic_length: bool, epilogue: Epilogue = IDENTITY) -> Tensor:
        """Run the kernel for `frames` output frames; `dynamic_length` if these end a signal of any length."""
        if not frames:  # PyTorch refuses an empty convolution
            return x.new_zeros(x.shape[0], 0, self.weight.shape[-1])
        kernel = self._prepared or self.select_kernel(frozen=False)
        if isinstance(kernel, FusedConv1d):
            return kernel(x, frames, epilogue)
        return run_bucketed(kernel, x, frames, stride) if dynamic_length else kernel(x, frames)


def _weight_of(kernel: HoldsWeights, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    (weight,) = kernel.weights()
    return reorder(weight)


class Conv1d(ConvBase):
    """A convolution.

        left padding | x x x x x x x x x | right padding
        [ kernel ]
          stride -> [ kernel ]                                 the tail is what the next window still covers

    Args:
        in_channels, out_channels: Numbers of channels.
        kernel: Taps.
        padding: Zeros before and after the signal, one number for both, or a padding layer. Causal is
            `(dilation * (kernel - 1), 0)`.
        groups: 1, or `channels` for a depthwise convolution, or any common divisor.

    The weight is `(kernel, in / groups, out)`: PyTorch's order reversed, so that a tap is a matrix. `pack` and
    `unpack` convert.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding: int | tuple[int, int] | Padding = 0,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel = in_channels, out_channels, kernel
        self.stride, self.dilation, self.groups, self.gain = stride, dilation, groups, gain
        pair = (padding, padding) if isinstance(padding, int) else padding
        self.padding = ZeroPadding(*pair) if isinstance(pair, tuple) else pair
        self.span = (kernel - 1) * dilation + 1
        self._is_pointwise = kernel == 1 and pair == (0, 0)
        if stride > self.span:
            raise ValueError(f"stride {stride} would skip samples between windows of {self.span}")
        self.weight = nn.Parameter(torch.zeros(kernel, in_channels // groups, out_channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out_channels, dtype=torch.float32)) if bias else None

    @staticmethod
    def pack(weight: Tensor) -> Tensor:
        """PyTorch's `(out, in / groups, kernel)` to ours."""
        return weight.permute(2, 1, 0).contiguous()

    @staticmethod
    def unpack(weight: Tensor) -> Tensor:
        """Our weight to PyTorch's `(out, in / groups, kernel)`."""
        return weight.permute(2, 1, 0).contiguous()

    def reset_parameters(self, generator: torch.Generator) -> None:
        fan_in = self.kernel * self.in_channels // self.groups
        self.weight.normal_(0.0, self.gain / math.sqrt(fan_in), generator=generator)
        if self.bias is not None:
            self.bias.uniform_(-0.05, 0.05, generator=generator)

    def select_kernel(self, frozen: bool) -> Conv1dKernel:
        return dispatch.conv1d(
            Conv1dProblem(
                self.weight,
                self.bias,
                stride=self.stride,
                dilation=self.dilation,
                groups=self.groups,
                frozen=frozen,
                allow_tf32=self.allow_tf32,
                high_accuracy=self.high_accuracy,
            )
        )

    @property
    def takes_prologue(self) -> bool:
        return self.span > 1

    def init_state(self, setup: StreamSetup) -> ConvState:
        return ConvState(setup.zeros(0, self.in_channels), self.padding.init_state(setup), setup.dynamic_length)

    def frames_out(self, frames: int, last: bool) -> int:
        return max(0, (self.padding.frames_out(frames, last) - self.span) // self.stride + 1)

    def project(self, x: Tensor, last: bool = True, epilogue: Epilogue = IDENTITY) -> Tensor:
        """`step` of a convolution of one tap, which has no state; only a layer that `takes_epilogue` may get one."""
        if is_exporting():  # channels stay last, and there may be no frames
            return F.linear(x, self.weight[0].t(), self.bias)
        return self.run_kernel(x, x.shape[1], 1, last, epilogue)

    def step_fused(self, prologue: Epilogue, x: Tensor, state: ConvState, last: bool, epilogue: Epilogue) -> Tensor:
        if self._is_pointwise:  # there is neither padding nor a tail
            x = x if prologue is IDENTITY else activate(prologue, x)
            frames = x.shape[1]
        else:
            x = self.padding.assemble(state.tail, x, state.padding, last, prologue, allow_tf32=self.allow_tf32)
            frames = max(0, (x.shape[1] - self.span) // self.stride + 1)
            state.tail = x[:, frames * self.stride :].clone()
            x = x[:, : (frames - 1) * self.stride + self.span]
        if frames and isinstance(kernel := self._prepared, FusedConv1d):
            return kernel(x, frames, epilogue)
        return self.run_kernel(x, frames, self.stride, last and state.dynamic_length, epilogue)


class ConvTranspose1d(ConvBase):
    """A transposed convolution whose kernel is a whole number of strides.

    With `taps = kernel / stride`, each input frame adds to `taps` consecutive blocks of `stride` output samples. So the
    blocks are an ordinary convolution of the input, padded with `taps - 1` frames of zeros. Its output `(time, stride * out)` is
    the output `(time * stride, out)` in memory.

    Args:
        crop: Output samples dropped at the start and at the end of the signal: PyTorch's `padding`, and
            `padding - output_padding`.
        depthwise: Each channel has its own filter.

    The weight is `(taps, in / groups, stride * out)`; `pack` and `unpack` convert from and to PyTorch's
    `(in, out / groups, kernel)`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int,
        crop: tuple[int, int] = (0, 0),
        bias: bool = True,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        if depthwise and in_channels != out_channels:
            raise ValueError(f"a depthwise convolution has as many output channels as input channels, not {out_channels}")
        if kernel % stride or max(crop) > kernel - stride:
            raise ValueError(f"kernel {kernel} must be a multiple of stride {stride}, and crop {crop} at most their difference")
        self.in_channels, self.out_channels, self.stride, self.crop = in_channels, out_channels, stride, crop
        self.taps, self.depthwise = kernel // stride, depthwise
        fan_in = 1 if depthwise else in_channels
        self.weight = nn.Parameter(torch.zeros(self.taps, fan_in, stride * out_channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out_channels, dtype=torch.float32)) if bias else None

    def pack(self, weight: Tensor) -> Tensor:
        """PyTorch's `(in, out / groups, kernel)` to ours."""
        if self.depthwise:
            weight = weight.transpose(0, 1)
        parts = weight.reshape(self.weight.shape[1], self.out_channels, self.taps, self.stride)
        return parts.permute(2, 0, 3, 1).reshape(self.weight.shape).contiguous()

    def unpack(self, weight: Tensor) -> Tensor:
        """Our weight to PyTorch's `(in, out / groups, kernel)`."""
        parts = weight.reshape(self.taps, self.weight.shape[1], self.stride, self.out_channels)
        unpacked = parts.permute(1, 3, 0, 2).reshape(self.weight.shape[1], self.out_channels, -1)
        return (unpacked.transpose(0, 1) if self.depthwise else unpacked).contiguous()

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.normal_(0.0, 1 / math.sqrt(self.weight.shape[1] * self.taps), generator=generator)
        if self.bias is not None:
            self.bias.uniform_(-0.05, 0.05, generator=generator)

    @staticmethod
    def _in_kernel_order(weight: Tensor) -> Tensor:
        return weight.flip(0)

    def select_kernel(self, frozen: bool) -> Conv1dKernel:
        bias = None if self.bias is None else self.bias.repeat(self.stride)
        problem = Conv1dProblem(
            self._in_kernel_order(self.weight),
            bias,
            groups=self.stride * self.in_channels if self.depthwise else 1,
            frozen=frozen,
            allow_tf32=self.allow_tf32,
            high_accuracy=self.high_accuracy,
        )
        return dispatch.conv1d(problem)

    @property
    def takes_prologue(self) -> bool:
        return self.taps > 1

    @property
    def takes_epilogue(self) -> bool:
        return False  # what the kernel returns is not the output: frames are split, and cropped

    def init_state(self, setup: StreamSetup) -> TransposeState:
        tail = setup.zeros(self.taps - 1, self.in_channels)
        return TransposeState(SignalLengths(setup.lengths), 0, tail, self.crop[0], setup.dynamic_length)

    def frames_out(self, frames: int, last: bool) -> int:
        if last:
            return max(0, (frames + self.taps - 1) * self.stride - sum(self.crop))
        return max(0, frames * self.stride - self.crop[0])

    def step_fused(self, prologue: Epilogue, x: Tensor, state: TransposeState, last: bool, epilogue: Epilogue) -> Tensor:
        lengths, right = (state.remaining(), self.taps - 1) if last else (None, 0)
        state.seen += x.shape[1]
        x = assemble_input(state.tail, x, 0, right, prologue, lengths=lengths, allow_tf32=self.allow_tf32)
        blocks = x.shape[1] - self.taps + 1
        state.tail = x[:, blocks:].clone()
        if self.depthwise:
            x = x.repeat(1, 1, self.stride)
        y = self.run_kernel(x, blocks, 1, last and state.dynamic_length, epilogue).reshape(x.shape[0], -1, self.out_channels)
        drop = state.to_drop if last else min(state.to_drop, y.shape[1])  # the tail alone is longer than the crop
        state.to_drop -= drop
        return y[:, drop : y.shape[1] - (self.crop[1] if last else 0)]


@dataclasses.dataclass
class TransposeState(LengthState):
    tail: Tensor
    """Last frames of the input, which the next outputs still depend on."""
    to_drop: int
    """Output samples of the left crop still to be dropped."""
    dynamic_length: bool
