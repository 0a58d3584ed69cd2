"""Convolutions and transposed convolutions that stream."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import dispatch
from ..kernels.aten.conv import Conv1dKernel
from ..kernels.epilogue import NOTHING, Epilogue, FusedConv1d
from .base import Layer, Pointwise, State, StreamSetup
from .padding import LengthState, Padding, SignalLengths, ZeroPadding, counted


@dataclasses.dataclass
class TailState(State):
    """The end of the input, which the next frames still need."""

    tail: Tensor


@dataclasses.dataclass
class ConvState(TailState):
    padding: Any
    any_length: bool


def behind(
    tail: Tensor,
    x: Tensor,
    left: int,
    right: int,
    before: Pointwise | None,
    *,
    ends: tuple[int, ...] | None = None,
    rough: bool = False,
) -> Tensor:
    """The tail of what was before, so many zeros, the next frames, and zeros again.

    Args:
        before: Makes the next frames, in their place.
        ends: After how many of the next frames each signal has ended, so that all is zeros.
        rough: They are rounded to what TF32 has, where that is of use.
    """
    start = tail.shape[1] + left
    if not start + right and ends is None:
        return before.step(x, None, False) if before else x
    frames, end = x.shape[1], start + x.shape[1]
    joined = x.new_empty(x.shape[0], end + right, x.shape[2])
    function = before.after if before else NOTHING
    if function and not torch.is_grad_enabled() and (by := dispatch.pointwise_for(tail, x)):
        by.join(tail, x, left, function, joined, None if ends is None else counted(ends, x), rough=rough)
        return joined
    if before:
        before.into(x, joined[:, start:end])
    elif frames:
        joined[:, start:end] = x
    if tail.shape[1]:
        joined[:, : tail.shape[1]] = tail
    if left:
        joined[:, tail.shape[1] : start] = 0
    if right:
        joined[:, end:] = 0
    if ends is not None:
        joined.masked_fill_((torch.arange(end + right, device=x.device) >= start + counted(ends, x)[:, None])[:, :, None], 0)
    return joined


class ConvBase(Layer):
    """A layer that is a convolution, computed in the way that suits its shape and device."""

    weight: nn.Parameter
    rough = False
    """Whether TF32 will do for float32, on devices that have it."""
    careful = True
    """Tell whether tokens depend on it, so that it rounds about as little as a plain sum."""
    _prepared: Conv1dKernel | None = None

    @abstractmethod
    def select_kernel(self, lasting: bool) -> Conv1dKernel:
        """The way, for the weights as they are; `lasting` if they stay so."""

    def prepare(self) -> None:
        self._prepared = self.select_kernel(lasting=True)

    def share_kernel_with(self, other: ConvBase) -> None:
        """Is prepared as a layer with the same weights is."""
        self._prepared = other._prepared

    @abstractmethod
    def step_fused(self, before: Pointwise | None, x: Tensor, state: Any, last: bool, after: Epilogue = NOTHING) -> Tensor:
        """See `Layer.step_fused`."""

    def step(self, x: Tensor, state: Any, last: bool) -> Tensor:
        return self.step_fused(None, x, state, last)

    def run_kernel(self, x: Tensor, frames: int, stride: int, anywhere: bool, after: Epilogue = NOTHING) -> Tensor:
        """Run the kernel for `frames` output frames; `anywhere` if they may end a signal of any length."""
        if not frames:  # which the library refuses
            return x.new_zeros(x.shape[0], 0, self.weight.shape[-1])
        kernel = self._prepared or self.select_kernel(lasting=False)
        if isinstance(kernel, FusedConv1d):
            return kernel(x, frames, after)
        return dispatch.run_bucketed(kernel, x, frames, stride) if anywhere else kernel(x, frames)


class Conv1d(ConvBase):
    """A convolution.

        left padding | x x x x x x x x x | right padding
        [ kernel ]
          stride -> [ kernel ]                                 the tail is what the next window still needs

    Args:
        channels: In, and out.
        padding: Zeros before and after the signal; one number for both. Causal means `(dilation * (kernel - 1), 0)`. Or
            another kind of padding.
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

    def select_kernel(self, lasting: bool) -> Conv1dKernel:
        return dispatch.convolution(
            self.weight,
            self.bias,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            lasting=lasting,
            rough=self.rough,
            careful=self.careful,
        )

    @property
    def accepts_epilogue(self) -> bool:
        return isinstance(self._prepared, FusedConv1d)

    @property
    def accepts_prologue(self) -> bool:
        return self.span > 1

    def init_state(self, setup: StreamSetup) -> ConvState:
        return ConvState(setup.zeros(0, self.in_channels), self.padding.init_state(setup), setup.any_length)

    def _windows(self, frames: int) -> int:
        return max(0, (frames - self.span) // self.stride + 1)

    def frames_out(self, frames: int, last: bool) -> int:
        return self._windows(self.padding.frames_out(frames, last))

    def step_fused(self, before: Pointwise | None, x: Tensor, state: ConvState, last: bool, after: Epilogue = NOTHING) -> Tensor:
        ends = state.padding.left() if last and self.span > 1 else None
        if isinstance(self.padding, ZeroPadding):
            left, right = self.padding.now(x.shape[1], state.padding, last)
            x = behind(state.tail, x, left, right, before, ends=ends, rough=self.rough)
        elif ends is None and self.padding.plain(x.shape[1], state.padding, last) and not torch.is_grad_enabled():
            frames, (left, right) = x.shape[1], self.padding.now(x.shape[1], state.padding, last)
            x = behind(state.tail, x, left, right, before, rough=self.rough)
            end = x.shape[1] - right
            self.padding.mirror(x, slice(end - frames, end), left, right, state.padding)
        else:
            x = before.step(x, None, last) if before else x
            x = behind(state.tail, self.padding.step(x, state.padding, last), 0, 0, None)
        frames = self._windows(x.shape[1])
        if self.span > 1:  # else nothing is left over
            state.tail = x[:, frames * self.stride :].clone()
            x = x[:, : (frames - 1) * self.stride + self.span]
        return self.run_kernel(x, frames, self.stride, last and state.any_length, after)


class ConvTranspose1d(ConvBase):
    """A transposed convolution whose kernel is a whole number of strides.

    With `taps = kernel / stride`, each input frame adds to `taps` consecutive blocks of `stride` output samples, so the
    blocks are an ordinary convolution of the input with `taps - 1` frames of zeros on either side, and a
    `(time, stride * out)` block *is* the `(time * stride, out)` output.

    Args:
        crop: Output samples dropped at the start and at the end of the signal: PyTorch's `padding`, and
            `padding - output_padding`.

    The weight is `(taps, in, stride * out)`; `pack` and `unpack` convert from and to PyTorch's `(in, out, kernel)`.
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
    ) -> None:
        super().__init__()
        if kernel % stride or max(crop) > kernel - stride:
            raise ValueError(f"kernel {kernel} must be a multiple of stride {stride}, and crop {crop} at most their difference")
        self.in_channels, self.out_channels, self.stride, self.crop = in_channels, out_channels, stride, crop
        self.taps = kernel // stride
        self.weight = nn.Parameter(torch.zeros(self.taps, in_channels, stride * out_channels, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(out_channels, dtype=torch.float32)) if bias else None

    def pack(self, weight: Tensor) -> Tensor:
        """PyTorch's `(in, out, kernel)` to ours."""
        parts = weight.reshape(self.in_channels, self.out_channels, self.taps, self.stride)
        return parts.permute(2, 0, 3, 1).reshape(self.taps, self.in_channels, -1).contiguous()

    def unpack(self, weight: Tensor) -> Tensor:
        """Our weight to PyTorch's `(in, out, kernel)`."""
        parts = weight.reshape(self.taps, self.in_channels, self.stride, self.out_channels)
        return parts.permute(1, 3, 0, 2).reshape(self.in_channels, self.out_channels, -1).contiguous()

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.normal_(0.0, 1 / math.sqrt(self.in_channels * self.taps), generator=generator)
        if self.bias is not None:
            self.bias.uniform_(-0.05, 0.05, generator=generator)

    def select_kernel(self, lasting: bool) -> Conv1dKernel:
        bias = None if self.bias is None else self.bias.repeat(self.stride)
        return dispatch.gemm_conv1d(self.weight.unbind()[::-1], bias, lasting=lasting, rough=self.rough, careful=self.careful)

    @property
    def accepts_prologue(self) -> bool:
        return self.taps > 1

    def init_state(self, setup: StreamSetup) -> TransposeState:
        tail = setup.zeros(self.taps - 1, self.in_channels)
        return TransposeState(SignalLengths(setup.ends), 0, tail, self.crop[0], setup.any_length)

    def frames_out(self, frames: int, last: bool) -> int:
        if last:
            return max(0, (frames + self.taps - 1) * self.stride - sum(self.crop))
        return max(0, frames * self.stride - self.crop[0])

    def step_fused(
        self, before: Pointwise | None, x: Tensor, state: TransposeState, last: bool, after: Epilogue = NOTHING
    ) -> Tensor:
        ends, right = (state.left(), self.taps - 1) if last else (None, 0)
        state.seen += x.shape[1]
        x = behind(state.tail, x, 0, right, before, ends=ends, rough=self.rough)
        blocks = x.shape[1] - self.taps + 1
        state.tail = x[:, blocks:].clone()
        y = self.run_kernel(x, blocks, 1, last and state.any_length).reshape(x.shape[0], -1, self.out_channels)
        drop = min(state.to_drop, y.shape[1])
        state.to_drop -= drop
        return y[:, drop : y.shape[1] - (self.crop[1] if last else 0)]


@dataclasses.dataclass
class TransposeState(LengthState):
    tail: Tensor
    """The end of the input."""
    to_drop: int
    """Output samples of the left crop that are still to come."""
    any_length: bool
