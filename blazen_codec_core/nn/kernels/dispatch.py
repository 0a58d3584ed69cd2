"""Kernel selection by shape, device and processor; all kernels compute the same sums.

GEMMs on shifted views of a `(time, channels)` signal need no copy of it and run near the processor's GEMM rate; `conv1d` on a CPU
does not. GPUs have kernels of their own where Triton can compile them.
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

from . import epilogue as activations
from .aten import prepacked_conv
from .aten.conv import (
    AtenConv1d,
    ChannelsLastConv2d,
    Conv1dKernel,
    GemmPerTapConv1d,
    Im2colConv1d,
    Kn2rowConv1d,
    add_bias,
    dispatch_by_length,
)
from .aten.group_norm import var_mean
from .aten.winograd_conv import TAPS, AtenWinogradConv1d
from .backends import gpu_kernels_for, load_cpu_kernels
from .epilogue import Epilogue

_MIN_GEMM_CHANNELS = 16
"""Below this many channels, a GEMM for each tap is too thin; one GEMM takes all taps."""


@dataclasses.dataclass(frozen=True)
class CrossoverPoints:
    """Crossover points between algorithms, measured on one kind of processor.

    Attributes:
        winograd_min_channels: Winograd's F(4, 3) pays from this many channels, in and out.
        winograd_min_taps: Winograd's F(4, 3) pays from this many taps.
        winograd_min_rows: Winograd's F(4, 3) pays from this many frames for each frame of dilation.
        winograd_min_frames: Winograd's F(4, 3) pays from this many frames in all.
        prepack_min_weights: A weight of this many values is worth prepacking for short signals.
        prepack_max_frames: Signals shorter than this many frames are short.
        prepacked_1x1_min_frames: A kernel of one tap is faster prepacked, with its bias fused, from this many frames.
        prefer_conv2d: Lighter weights run as `ChannelsLastConv2d` from `CONV2D_MIN_FRAMES` frames.
    """

    winograd_min_channels: int
    winograd_min_taps: int
    winograd_min_rows: int
    winograd_min_frames: int
    prepack_min_weights: int
    prepack_max_frames: float
    prepacked_1x1_min_frames: int
    prefer_conv2d: bool


GENERIC = CrossoverPoints(
    winograd_min_channels=96,
    winograd_min_taps=3,
    winograd_min_rows=64,
    winograd_min_frames=1,
    prepack_min_weights=1 << 18,
    prepack_max_frames=128,
    prepacked_1x1_min_frames=1024,
    prefer_conv2d=False,
)
AVX512 = CrossoverPoints(
    winograd_min_channels=128,
    winograd_min_taps=7,
    winograd_min_rows=28,
    winograd_min_frames=256,
    prepack_min_weights=1 << 17,
    prepack_max_frames=math.inf,
    prepacked_1x1_min_frames=1,
    prefer_conv2d=True,
)
"""For processors on which PyTorch's GEMM uses half of a vector, and oneDNN's prepacked one all of it."""
CONV2D_MIN_FRAMES = 128
"""From this many frames, reordering the weight costs little beside the convolution."""

MIN_FUSED_VALUES = 1 << 14
"""From this many values, several vectorized passes over memory cost less than one slow pass."""
MAX_MMAP_THRESHOLD = (32 << 20) - (64 << 10)
"""Largest block that glibc adapts its threshold to, less room for its header."""
BUCKET_BITS = 3
"""Significant bits of a bucketed length."""
MIN_LSTM_FRAMES = 8
"""Below this many frames, setting up PyTorch's LSTM kernel costs more than it saves."""


@functools.cache
def crossover_points() -> CrossoverPoints:
    """Crossover points of this processor. They are fixed, not measured at run time, since kernels round differently."""
    return AVX512 if torch.backends.cpu.get_cpu_capability() == "AVX512" and prepacked_conv.is_available() else GENERIC


def prefers_gemm(device: torch.device) -> bool:
    """Tell whether this device runs GEMMs on views faster than PyTorch's convolution."""
    return device.type == "cpu"


def prefers_lstm_steps(x: Tensor) -> bool:
    """Tell whether an LSTM runs faster over these few frames step by step than in PyTorch's kernel."""
    return x.device.type == "cpu" and x.shape[1] < MIN_LSTM_FRAMES


def run_bucketed(kernel: Conv1dKernel, x: Tensor, frames: int, stride: int) -> Tensor:
    """Run a kernel on the last chunk of a signal, zero-padded to a bucketed length, and cut the output to `frames`.

    oneDNN caches a primitive for each shape. Building one takes as long as some convolutions, and the cache grows by hundreds of
    megabytes; bucketed lengths are few.
    """
    padding = -frames % (1 << max(0, frames.bit_length() - BUCKET_BITS))
    if not padding or x.device.type != "cpu" or torch.is_grad_enabled() or getattr(kernel, "dynamic_length", False):
        return kernel(x, frames)
    return kernel(F.pad(x, (0, 0, 0, padding * stride)), frames + padding)[:, :frames]


def power_of_two_chunks(x: Tensor) -> list[Tensor]:
    """Split a signal into chunks whose lengths are powers of two, longest first: `run_bucketed` for recurrent layers."""
    frames = x.shape[1]
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return [x]
    return list(torch.split(x, [1 << bit for bit in reversed(range(frames.bit_length())) if frames >> bit & 1], dim=1))


def select_conv1d(
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    frozen: bool,
    allow_tf32: bool = False,
    high_accuracy: bool = True,
) -> Conv1dKernel:
    """Choose the fastest kernel for a shape, on the weight's device.

    Args:
        weight: `(kernel, in / groups, out)`.
        frozen: The weight will not change, so a kernel may transform or repack it.
        allow_tf32: Float32 may be computed in TF32, on devices that have it.
        high_accuracy: Use algorithms that round about as little as a plain sum.
    """
    kernel, channels, out = weight.shape
    if frozen and (gpu := gpu_kernels_for(weight.device)):
        if stride == 1 and channels == 1 and groups == out:
            return cast(Conv1dKernel, gpu.DepthwiseConv1d(weight[:, 0], bias, dilation, allow_tf32=allow_tf32))
        if groups == 1 and kernel % stride == 0 and 1 in {stride, dilation}:
            taps = weight.reshape(kernel // stride, stride * channels, out)
            return cast(Conv1dKernel, gpu.GemmConv1d(taps, bias, stride, dilation, allow_tf32=allow_tf32))
    gemm, depthwise = prefers_gemm(weight.device), stride == 1 and channels == 1 < groups == out
    if frozen and (groups == 1 or depthwise) and (found := _cpu_kernel(weight, bias, stride, dilation, groups, high_accuracy)):
        return found
    if gemm and depthwise:
        return ChannelsLastConv2d(weight[:, 0].unbind(), bias, dilation)
    if not gemm or groups > 1 or kernel % stride or (stride > 1 and dilation > 1):
        return AtenConv1d(weight, bias, stride, dilation, groups, allow_tf32)
    if needs_gradients(frozen) or (is_half(weight.dtype) and kernel > stride):
        return ChannelsLastConv2d(weight.reshape(kernel // stride, stride * channels, out).unbind(), bias, dilation)
    if kernel > 1 and channels < _MIN_GEMM_CHANNELS:
        return Im2colConv1d(weight, bias, stride, dilation)
    if kernel > 1 and out < _MIN_GEMM_CHANNELS and stride == 1:
        return Kn2rowConv1d(weight, bias, dilation)
    direct = gemm_conv1d(weight.reshape(kernel // stride, stride * channels, out).unbind(), bias, stride, dilation, frozen=frozen)
    crossover = crossover_points()
    has_transform = stride == 1 and kernel >= crossover.winograd_min_taps and kernel % (TAPS + 1) == TAPS
    if not has_transform or min(channels, out) < crossover.winograd_min_channels or not _can_prepack(weight, frozen):
        return direct
    min_frames = max(crossover.winograd_min_rows * dilation, crossover.winograd_min_frames)
    return dispatch_by_length(AtenWinogradConv1d(weight, bias, dilation, _gemm_for_tile), direct, min_frames)


def gemm_conv1d(
    taps: Sequence[Tensor],
    bias: Tensor | None,
    stride: int = 1,
    dilation: int = 1,
    *,
    frozen: bool,
    allow_tf32: bool = False,
    high_accuracy: bool = True,
) -> Conv1dKernel:
    """Choose the fastest kernel that computes `GemmPerTapConv1d`; arguments as for `select_conv1d`."""
    if frozen and (gpu := gpu_kernels_for(taps[0].device)):
        return cast(Conv1dKernel, gpu.GemmConv1d(torch.stack(list(taps)), bias, stride, dilation, allow_tf32=allow_tf32))
    if frozen and stride == 1 and (found := _cpu_kernel(torch.stack(list(taps)), bias, 1, dilation, 1, high_accuracy)):
        return found
    if needs_gradients(frozen) or (is_half(taps[0].dtype) and len(taps) > 1):
        return ChannelsLastConv2d(taps, bias, dilation)
    direct, crossover = GemmPerTapConv1d(taps, bias, stride, dilation), crossover_points()
    is_pointwise, is_heavy = len(taps) == 1, sum(tap.numel() for tap in taps) >= crossover.prepack_min_weights
    pays = is_pointwise or is_heavy or crossover.prefer_conv2d
    if not pays or not _can_prepack(taps[0], frozen) or not prepacked_conv.is_available():
        return direct
    prepacked = prepacked_conv.PrepackedConv1d(taps, bias, dilation)
    if is_pointwise:
        return dispatch_by_length(prepacked, direct, 1 if is_heavy else crossover.prepacked_1x1_min_frames)
    if is_heavy:
        return dispatch_by_length(direct, prepacked, crossover.prepack_max_frames)
    return dispatch_by_length(ChannelsLastConv2d(taps, bias, dilation), prepacked, CONV2D_MIN_FRAMES)


def _cpu_kernel(
    weight: Tensor, bias: Tensor | None, stride: int, dilation: int, groups: int, high_accuracy: bool
) -> Conv1dKernel | None:
    """Compiled kernel for a frozen weight, if there is one."""
    cpu = load_cpu_kernels() if prefers_gemm(weight.device) else None
    return cpu.select_conv1d(weight, bias, stride, dilation, groups, high_accuracy=high_accuracy) if cpu else None


def needs_gradients(frozen: bool) -> bool:
    """Tell whether gradients will be asked for: those of `ChannelsLastConv2d` are several times as fast as a GEMM's per tap."""
    return torch.is_grad_enabled() and not frozen


def is_half(dtype: torch.dtype) -> bool:
    """Tell whether a dtype is too short to accumulate in: such sums are left to kernels that accumulate in float32."""
    return dtype.itemsize < torch.float32.itemsize


def _can_prepack(weight: Tensor, frozen: bool) -> bool:
    return frozen and prefers_gemm(weight.device) and weight.dtype == torch.float32


def _gemm_for_tile(taps: Sequence[Tensor], bias: Tensor | None, dilation: int) -> Conv1dKernel:
    """Choose the GEMM for the frames of one tile, which are few."""
    crossover = crossover_points()
    pays = taps[0].numel() >= crossover.prepack_min_weights or crossover.prefer_conv2d
    if pays and prepacked_conv.is_available():
        return prepacked_conv.PrepackedConv1d(taps, bias, dilation)
    return GemmPerTapConv1d(taps, bias, dilation=dilation)


CodebookSearch = Callable[[Tensor], Tensor]
"""From vectors `(..., channels)` to indices of entries `(...)`."""


def codebook_search(table: Tensor, offset: Tensor | None, *, frozen: bool) -> CodebookSearch:
    """Choose the kernel for the argmax over entries of `vector @ table + offset`.

    Args:
        table: `(channels, entries)`.
        offset: `(entries,)`.
        frozen: The entries will not change.
    """
    if frozen and (gpu := gpu_kernels_for(table.device)):
        return cast(CodebookSearch, gpu.CodebookSearch(table, offset))
    if frozen and prefers_gemm(table.device) and (cpu := load_cpu_kernels()) and cpu.supports_direct_conv(table):
        return cast(CodebookSearch, cpu.CodebookSearch(table, offset))
    return lambda codes: add_bias(torch.matmul(codes, table), offset).argmax(-1)


def retain_malloc_arena() -> None:
    """Raise glibc's mmap threshold, so that freed tensors stay in the arena and their pages are not faulted in at every step.

    glibc sets the threshold to the largest block that was ever freed, up to 32 MiB, and keeps twice that (mallopt(3),
    M_MMAP_THRESHOLD). This block is never written, so it costs no memory.
    """
    torch.empty(MAX_MMAP_THRESHOLD, dtype=torch.uint8)


def elementwise_kernels_for(*signals: Tensor) -> Any:
    """The module `triton` or `cpu` if its `write_activation` and `assemble_input` run on such signals, else `None`."""
    if gpu := gpu_kernels_for(signals[0].device):
        return gpu
    cpu = load_cpu_kernels()
    return cpu if cpu and cpu.supports(*signals) else None


def snake(x: Tensor, alpha: Tensor, inverse: Tensor, out: Tensor) -> None:
    """`x + sin(alpha x)^2 * inverse`."""
    if kernels := elementwise_kernels_for(x, out):
        kernels.write_activation(Epilogue(activation=activations.SNAKE, parameters=(alpha, inverse)), x, out)
    else:
        wave = torch.mul(x, alpha, out=out).sin_()
        torch.addcmul(x, wave.mul_(wave), inverse, out=out)


def elu(x: Tensor, out: Tensor) -> None:
    """`exp(x) - 1` where x is negative, else x. PyTorch's own uses an exponential that is slower and more exact than needed."""
    if kernels := elementwise_kernels_for(x, out):
        kernels.write_activation(Epilogue(activation=activations.ELU), x, out)
    elif x.device.type != "cpu" or x.numel() < MIN_FUSED_VALUES:
        out.copy_(F.elu(x))
    else:
        torch.maximum(x, torch.clamp(x, max=0, out=out).exp_().sub_(1), out=out)


GroupNorm = Callable[..., Tensor]
"""`(x, epilogue, inplace=...)`: `normalize` of float32 signals `(batch, frames, channels)`, then an epilogue."""


def group_norm(weight: Tensor, bias: Tensor, epsilon: float) -> GroupNorm | None:
    """Choose a kernel for `normalize` with frozen weights and an epilogue; `None` if PyTorch is fastest."""
    if gpu := gpu_kernels_for(weight.device):
        return cast(GroupNorm, gpu.GroupNorm(weight, bias, epsilon))
    if prefers_gemm(weight.device) and (cpu := load_cpu_kernels()) and cpu.supports_direct_conv(weight):
        return cast(GroupNorm, cpu.GroupNorm(weight, bias, epsilon))
    return None


def normalize(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, *, inplace: bool) -> Tensor:
    """Normalize each signal to mean 0 and variance 1 over its frames and channels, then multiply by `weight` and add `bias`.

    Args:
        weight: `(channels,)`, as `bias`.
        inplace: `x` may be overwritten.
    """
    inplace = inplace and not torch.is_grad_enabled()
    mean, variance = var_mean(x)
    factor = (weight * torch.rsqrt(variance + epsilon)).to(x.dtype)
    offset = torch.addcmul(bias, mean.to(x.dtype), factor, value=-1)
    return torch.addcmul(offset, x, factor, out=x if inplace else None)
