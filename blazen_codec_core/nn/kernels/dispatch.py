"""Kernel selection by shape, device and processor; all choices give the same sums.

Matrix products on shifted views of a `(time, channels)` signal need no copy of it and run near the speed of the
machine's own matrix product; `conv1d` on a CPU does not. For GPUs there are kernels of our own, if Triton is there to
compile them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from . import epilogue as functions
from .aten import prepacked_conv
from .aten.conv import (
    AtenConv1d,
    ChannelsLastConv2d,
    Conv1dKernel,
    GemmPerTapConv1d,
    Im2colConv1d,
    Kn2rowConv1d,
    add,
    dispatch_by_length,
)
from .aten.group_norm import moments
from .aten.winograd_conv import TAPS, AtenWinogradConv1d
from .backends import gpu_kernels_for, load_loops
from .epilogue import Epilogue

_SMALL = 16
"""Below this many channels a product per tap is too thin; the taps are joined into one."""


@dataclasses.dataclass(frozen=True)
class CrossoverPoints:
    """Crossover points between algorithms, measured on one kind of processor.

    Attributes:
        wide: From so many channels on, products cost so much more than additions that fewer of them pay,
        taps: for at least so many taps,
        rows: of a signal of at least so many frames a dilation,
        frames: and so many frames in all.
        heavy: A weight of so many values is worth bringing into the product's own order,
        brief: below so many frames.
        lasting: From so many frames on, one tap is faster with its bias than before it.
        pictures: Weights that are not heavy are faster as a picture's than as a product's, where the signal is not brief.
    """

    wide: int
    taps: int
    rows: int
    frames: int
    heavy: int
    brief: float
    lasting: int
    pictures: bool


PLAIN = CrossoverPoints(wide=96, taps=3, rows=64, frames=1, heavy=1 << 18, brief=128, lasting=1024, pictures=False)
PACKED = CrossoverPoints(wide=128, taps=7, rows=28, frames=256, heavy=1 << 17, brief=math.inf, lasting=1, pictures=True)
"""Where plain products make do with vectors of half the processor's length, and packed ones do not."""
PICTURE_FRAMES = 128
"""From so many frames on, a picture's weight is brought into order in no time beside the work with it."""

MANY_VALUES = 1 << 14
"""From here on a few plain passes over memory cost less than one slow one."""
KEPT_BYTES = (32 << 20) - (64 << 10)
"""The largest block that glibc learns from, with room for its own header."""
ROUND_BITS = 3
"""Of a round number of frames; all after them are zero."""
FEW_FRAMES = 8
"""Below this many, preparing the library's recurrent kernel costs more than it saves."""


@functools.cache
def limits() -> CrossoverPoints:
    """Those of this processor, which do not change from run to run: other ways round otherwise."""
    return PACKED if torch.backends.cpu.get_cpu_capability() == "AVX512" and prepacked_conv.is_available() else PLAIN


def products_are_faster(device: torch.device) -> bool:
    """Tell whether this device runs matrix products on views faster than the library's convolution."""
    return device.type == "cpu"


def steps_are_faster(x: Tensor) -> bool:
    """Tell whether this device runs a recurrent layer over so few frames faster step by step than through the library's call."""
    return x.device.type == "cpu" and x.shape[1] < FEW_FRAMES


def run_bucketed(kernel: Conv1dKernel, x: Tensor, frames: int, stride: int) -> Tensor:
    """Run a kernel on the end of a signal, padded to a round number of frames, and cut the output to `frames`.

    Signals end anywhere. The library prepares itself for each number of frames, which takes as long as some of the products, and
    keeps what it has prepared, which is hundreds of megabytes in the end. Of round numbers there are few.
    """
    spare = -frames % (1 << max(0, frames.bit_length() - ROUND_BITS))
    if not spare or x.device.type != "cpu" or torch.is_grad_enabled() or getattr(kernel, "any_length", False):
        return kernel(x, frames)
    return kernel(F.pad(x, (0, 0, 0, spare * stride)), frames + spare)[:, :frames]


def power_of_two_chunks(x: Tensor) -> list[Tensor]:
    """The same for what goes from frame to frame: a signal in parts whose lengths are powers of two, the longest first."""
    frames = x.shape[1]
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return [x]
    return list(torch.split(x, [1 << bit for bit in reversed(range(frames.bit_length())) if frames >> bit & 1], dim=1))


def convolution(
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    lasting: bool,
    rough: bool = False,
    careful: bool = True,
) -> Conv1dKernel:
    """The fastest way for a shape, on the device where the weight is.

    Args:
        weight: `(kernel, in / groups, out)`.
        lasting: The weight stays as it is, so that it may be brought into another form at some expense.
        rough: TF32 will do for float32, on devices that have it.
        careful: It rounds about as little as a plain sum.
    """
    kernel, channels, out = weight.shape
    if lasting and (gpu := gpu_kernels_for(weight.device)):
        if stride == 1 and channels == 1 and groups == out:
            return cast(Conv1dKernel, gpu.Depthwise(weight[:, 0], bias, dilation, rough=rough))
        if groups == 1 and kernel % stride == 0 and 1 in {stride, dilation}:
            taps = weight.reshape(kernel // stride, stride * channels, out)
            return cast(Conv1dKernel, gpu.GemmConv1d(taps, bias, stride, dilation, rough=rough))
    products, depthwise = products_are_faster(weight.device), stride == 1 and channels == 1 < groups == out
    if lasting and (groups == 1 or depthwise) and (made := _in_loops(weight, bias, stride, dilation, groups, careful)):
        return made
    if products and depthwise:
        return ChannelsLastConv2d(weight[:, 0].unbind(), bias, dilation)
    if not products or groups > 1 or kernel % stride or (stride > 1 and dilation > 1):
        return AtenConv1d(weight, bias, stride, dilation, groups, rough)
    if is_learning(lasting) or (is_half(weight.dtype) and kernel > stride):
        return ChannelsLastConv2d(weight.reshape(kernel // stride, stride * channels, out).unbind(), bias, dilation)
    if kernel > 1 and channels < _SMALL:
        return Im2colConv1d(weight, bias, stride, dilation)
    if kernel > 1 and out < _SMALL and stride == 1:
        return Kn2rowConv1d(weight, bias, dilation)
    direct = gemm_conv1d(
        weight.reshape(kernel // stride, stride * channels, out).unbind(), bias, stride, dilation, lasting=lasting
    )
    least = limits()
    few = stride > 1 or kernel < least.taps or kernel % (TAPS + 1) != TAPS or min(channels, out) < least.wide
    if few or not _may_be_packed(weight, lasting):
        return direct
    return dispatch_by_length(
        AtenWinogradConv1d(weight, bias, dilation, _product), direct, max(least.rows * dilation, least.frames)
    )


def gemm_conv1d(
    taps: Sequence[Tensor],
    bias: Tensor | None,
    stride: int = 1,
    dilation: int = 1,
    *,
    lasting: bool,
    rough: bool = False,
    careful: bool = True,
) -> Conv1dKernel:
    """The fastest way to compute `GemmPerTapConv1d` of these."""
    if lasting and (gpu := gpu_kernels_for(taps[0].device)):
        return cast(Conv1dKernel, gpu.GemmConv1d(torch.stack(list(taps)), bias, stride, dilation, rough=rough))
    if lasting and stride == 1 and (made := _in_loops(torch.stack(list(taps)), bias, 1, dilation, 1, careful)):
        return made
    if is_learning(lasting) or (is_half(taps[0].dtype) and len(taps) > 1):
        return ChannelsLastConv2d(taps, bias, dilation)
    direct, least = GemmPerTapConv1d(taps, bias, stride, dilation), limits()
    single, heavy = len(taps) == 1, sum(tap.numel() for tap in taps) >= least.heavy
    if not (single or heavy or least.pictures) or not _may_be_packed(taps[0], lasting) or not prepacked_conv.is_available():
        return direct
    product = prepacked_conv.PrepackedConv1d(taps, bias, dilation)
    if single:
        return dispatch_by_length(product, direct, 1 if heavy else least.lasting)
    if heavy:
        return dispatch_by_length(direct, product, least.brief)
    return dispatch_by_length(ChannelsLastConv2d(taps, bias, dilation), product, PICTURE_FRAMES)


def _in_loops(weight: Tensor, bias: Tensor | None, stride: int, dilation: int, groups: int, careful: bool) -> Conv1dKernel | None:
    """Compiled loops for a weight that stays as it is, where there are any."""
    loops = load_loops() if products_are_faster(weight.device) else None
    return loops.convolution(weight, bias, stride, dilation, groups, careful=careful) if loops else None


def is_learning(lasting: bool) -> bool:
    """Tell whether gradients will be asked for.

    The library computes those of a picture's convolution several times as fast as those of products on shifted views.
    """
    return torch.is_grad_enabled() and not lasting


def is_half(dtype: torch.dtype) -> bool:
    """Tell whether sums in this type would lose what each of their terms has: they are left to kernels that add up in float32."""
    return dtype.itemsize < torch.float32.itemsize


def _may_be_packed(weight: Tensor, lasting: bool) -> bool:
    return lasting and products_are_faster(weight.device) and weight.dtype == torch.float32


def _product(taps: Sequence[Tensor], bias: Tensor | None, dilation: int) -> Conv1dKernel:
    """Choose the kernel for few frames, as many as stay in cache with their output."""
    if (taps[0].numel() >= limits().heavy or limits().pictures) and prepacked_conv.is_available():
        return prepacked_conv.PrepackedConv1d(taps, bias, dilation)
    return GemmPerTapConv1d(taps, bias, dilation=dilation)


Search = Callable[[Tensor], Tensor]
"""Vectors `(..., channels)` to the indices of entries."""


def search(table: Tensor, offset: Tensor | None, *, lasting: bool) -> Search:
    """Choose the search for the codebook entry with the largest sum of its product with a vector and its own offset.

    Args:
        table: `(channels, entries)`.
        lasting: The entries stay as they are.
    """
    if lasting and (gpu := gpu_kernels_for(table.device)):
        return cast(Search, gpu.Search(table, offset))
    if lasting and products_are_faster(table.device) and (loops := load_loops()) and loops.supports_direct_conv(table):
        made: Search = loops.Search(table, offset)
        return made
    return lambda codes: add(torch.matmul(codes, table), offset).argmax(-1)


def retain_malloc_arena() -> None:
    """Lets the C library keep what tensors leave free, instead of fetching it anew from the system, page by page, at every step.

    glibc takes the largest block that it was ever given back, up to 32 MiB, for the size from which on blocks are the system's,
    and twice that for what it keeps (mallopt(3), M_MMAP_THRESHOLD). This block is never written, so it costs no memory.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)


def pointwise_for(*signals: Tensor) -> Any:
    """`triton` or `cpu`, if it does to such signals what is done to each value by itself: `apply` and `join`."""
    if gpu := gpu_kernels_for(signals[0].device):
        return gpu
    loops = load_loops()
    return loops if loops and loops.suits(*signals) else None


def snake(x: Tensor, alpha: Tensor, inverse: Tensor, out: Tensor) -> None:
    """`x + sin(alpha x)^2 * inverse`."""
    if by := pointwise_for(x, out):
        by.apply(Epilogue(kind=functions.SNAKE, parameters=(alpha, inverse)), x, out)
    else:
        wave = torch.mul(x, alpha, out=out).sin_()
        torch.addcmul(x, wave.mul_(wave), inverse, out=out)


def elu(x: Tensor, out: Tensor) -> None:
    """`exp(x) - 1` below zero, x above; the library's own takes the exponential in a slower and there needlessly exact way."""
    if by := pointwise_for(x, out):
        by.apply(Epilogue(kind=functions.ELU), x, out)
    elif x.device.type != "cpu" or x.numel() < MANY_VALUES:
        out.copy_(F.elu(x))
    else:
        torch.maximum(x, torch.clamp(x, max=0, out=out).exp_().sub_(1), out=out)


Norm = Callable[..., Tensor]
"""`(x, after, inplace=...)`: `normalize`, of float32 signals `(batch, frames, channels)`, and what comes after it."""


def norm(weight: Tensor, bias: Tensor, epsilon: float) -> Norm | None:
    """Choose a kernel that normalizes and finishes signals, with constant weights; `None` if nothing is faster than PyTorch."""
    if gpu := gpu_kernels_for(weight.device):
        return cast(Norm, gpu.Norm(weight, bias, epsilon))
    if products_are_faster(weight.device) and (loops := load_loops()) and loops.supports_direct_conv(weight):
        return cast(Norm, loops.Norm(weight, bias, epsilon))
    return None


def normalize(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, *, inplace: bool) -> Tensor:
    """Each signal with mean 0 and variance 1 over its frames and channels, times a weight a channel and added to a bias.

    Args:
        inplace: The signal may be written over.
    """
    inplace = inplace and not torch.is_grad_enabled()
    mean, variance = moments(x)
    factor = (weight * torch.rsqrt(variance + epsilon)).to(x.dtype)
    offset = torch.addcmul(bias, mean.to(x.dtype), factor, value=-1)
    return torch.addcmul(offset, x, factor, out=x if inplace else None)
