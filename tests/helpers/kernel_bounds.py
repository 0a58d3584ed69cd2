"""Run kernels on memory with guard pages: `python -m tests.helpers.kernel_bounds KERNEL...`.

Each shape runs twice, with all tensors before a guard page and after one, and must give what it does elsewhere.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch

from blazen_codec_core.nn import ConvTranspose1d, reset_parameters
from blazen_codec_core.nn.kernels.cpu import arguments
from blazen_codec_core.nn.kernels.cpu.attention import RingAttention
from blazen_codec_core.nn.kernels.cpu.channel_norm import ChannelNorm
from blazen_codec_core.nn.kernels.cpu.codebook_search import CodebookSearch
from blazen_codec_core.nn.kernels.cpu.conv import select_conv1d
from blazen_codec_core.nn.kernels.cpu.direct_conv import DirectConv1d
from blazen_codec_core.nn.kernels.cpu.elementwise import CpuElementwise
from blazen_codec_core.nn.kernels.cpu.group_norm import GroupNorm
from blazen_codec_core.nn.kernels.cpu.lstm import PersistentLSTM
from blazen_codec_core.nn.kernels.cpu.winograd_conv import WinogradConv1d
from blazen_codec_core.nn.kernels.epilogue import IDENTITY, Epilogue
from blazen_codec_core.nn.kernels.interface import AttentionProblem
from blazen_codec_core.nn.kernels.winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST
from tests.helpers.epilogues import ACTIVATIONS, drawn, epilogue_for
from tests.helpers.guard_pages import GuardedMemory

SHAPES = 60
"""Number of shapes for each kernel."""


class Case(NamedTuple):
    """A kernel to make and to run on inputs, tensors or an epilogue."""

    make: Callable[[], Any]
    run: Callable[..., torch.Tensor]
    inputs: tuple[Any, ...]


def any_frames(draw: random.Random) -> int:
    return draw.choice([draw.randint(1, 20), draw.randint(1, 120), draw.choice([509, 1021])])


def any_epilogue(draw: random.Random, batch: int, frames: int, channels: int) -> Epilogue:
    """An epilogue whose tensors are as short as they may be."""
    if draw.random() < 0.2:
        return IDENTITY
    head = draw.choice([0, 1, min(13, frames), frames])
    made = epilogue_for(draw.choice(ACTIVATIONS), draw.random() < 0.5, draw.random() < 0.7, batch, frames, channels, head)
    residual = None if made.residual is None else made.residual[:, : frames - head]
    return dataclasses.replace(made, residual=residual)


def convolution(make: Callable[[], Any], draw: random.Random, channels: tuple[int, int], span: int, stride: int = 1) -> Case:
    """A convolution of an input that is as short as it may be."""
    batch, frames = draw.randint(1, 3), any_frames(draw)
    x = drawn(batch, (frames - 1) * stride + span, channels[0], seed=frames)
    return Case(
        make, lambda kernel, x, epilogue: kernel(x, frames, epilogue), (x, any_epilogue(draw, batch, frames, channels[1]))
    )


def direct(draw: random.Random) -> Case:
    kernel, stride, dilation = draw.randint(1, 9), draw.randint(1, 4), draw.choice([1, 3, 9])
    channels = draw.choice([(1, 16), (5, 48), (64, 80), (130, 96), (256, 32), (12, 12), (20, 60), (130, 40)])
    weight, bias = drawn(kernel, *channels), draw.choice([None, drawn(channels[1])])
    span = max(stride, (kernel - 1) * dilation + 1)
    return convolution(lambda: DirectConv1d(weight, bias, stride, dilation), draw, channels, span, stride)


def depthwise(draw: random.Random) -> Case:
    kernel, dilation, channels = draw.randint(1, 9), draw.choice([1, 3, 9]), draw.choice([16, 20, 40, 48, 64, 512])
    weight, bias = drawn(kernel, 1, channels), draw.choice([None, drawn(channels)])
    span = (kernel - 1) * dilation + 1
    return convolution(lambda: select_conv1d(weight, bias, dilation=dilation, groups=channels), draw, (channels, channels), span)


def kn2row(draw: random.Random) -> Case:
    kernel, dilation = draw.randint(2, 9), draw.choice([1, 3])
    channels = draw.choice([(16, 1), (32, 2), (96, 1), (40, 3), (64, 4)])
    weight, bias, frames = drawn(kernel, *channels), draw.choice([None, drawn(channels[1])]), any_frames(draw)
    x = drawn(draw.randint(1, 3), frames + (kernel - 1) * dilation, channels[0])
    return Case(lambda: select_conv1d(weight, bias, dilation=dilation), lambda kernel, x: kernel(x, frames), (x,))


def winograd(draw: random.Random) -> Case:
    transform, stride = draw.choice([F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST]), draw.choice([1, 1, 2, 5])
    dilation = draw.choice([1, 2, 3, 9]) if stride == 1 else 1
    taps, channels = transform.filter_transform.shape[1], draw.choice([(1, 16), (5, 48), (64, 80), (40, 96)])
    weight, bias = drawn(taps, stride * channels[0], channels[1]), draw.choice([None, drawn(channels[1])])
    span = ((taps - 1) * dilation + 1) * stride
    return convolution(lambda: WinogradConv1d(transform, weight, bias, dilation, stride), draw, channels, span, stride)


def transposed(draw: random.Random) -> Case:
    stride, taps = draw.choice([2, 4, 5]), draw.choice([1, 2, 3])
    layer = ConvTranspose1d(draw.choice([16, 64]), draw.choice([16, 48]), taps * stride, stride=stride)
    reset_parameters(layer, 0)
    channels = (layer.in_channels, stride * layer.out_channels)
    return convolution(lambda: layer.select_kernel(frozen=True), draw, channels, taps)


def group_norm(draw: random.Random) -> Case:
    batch, frames, channels = draw.randint(1, 3), any_frames(draw), draw.choice([16, 48, 80])
    weight, bias, inplace = drawn(channels, seed=1), drawn(channels, seed=2), draw.random() < 0.5
    inputs = (drawn(batch, frames, channels) + 1, any_epilogue(draw, batch, frames, channels))
    return Case(lambda: GroupNorm(weight, bias, 1e-5), lambda norm, x, epilogue: norm(x, epilogue, inplace=inplace), inputs)


def channel_norm(draw: random.Random) -> Case:
    batch, frames, channels = draw.randint(1, 3), any_frames(draw), draw.choice([1, 40, 64, 200])
    weight, bias = drawn(channels, seed=1), draw.choice([None, drawn(channels, seed=2)])
    return Case(lambda: ChannelNorm(weight, bias, 1e-5), lambda norm, x: norm(x), (drawn(batch, frames, channels) + 1,))


def attention(draw: random.Random) -> Case:
    heads, kv_heads, channels = draw.choice([(1, 1, 16), (4, 2, 32), (2, 2, 64), (2, 1, 48)])
    p = AttentionProblem(heads, kv_heads, channels, draw.choice([1, 5, 30, 45]), 10_000.0)
    batch, frames = draw.randint(1, 3), draw.choice([0, 1, 2, 3, 5, 90])
    rings = drawn(batch, kv_heads, channels, p.capacity), drawn(batch, kv_heads, p.capacity, channels, seed=1)
    position = torch.tensor([draw.choice([0, 7, 29, 100_000]) for _ in range(batch)])
    inputs = (drawn(batch, frames, p.channels + 2 * p.kv_channels, seed=2), *rings, position)
    return Case(lambda: RingAttention(p), lambda kernel, *inputs: kernel(*inputs), inputs)


def codebook_search(draw: random.Random) -> Case:
    channels, entries, count = draw.randint(1, 40), draw.choice([16, 48, 64, 1024]), draw.choice([0, 1, 63, 64, 65, 300])
    table, offset = drawn(channels, entries), draw.choice([None, drawn(entries)])
    return Case(lambda: CodebookSearch(table, offset), lambda search, codes: search(codes), (drawn(count, channels, seed=1),))


def lstm(draw: random.Random) -> Case:
    rows, frames, channels = draw.randint(1, 9), draw.randint(1, 30), draw.choice([16, 32, 64])
    weights = drawn(4 * channels, channels, seed=1), drawn(4 * channels, channels, seed=2), drawn(4 * channels, seed=3)
    states = drawn(rows, channels, seed=4), drawn(rows, channels, seed=5)
    return Case(
        lambda: PersistentLSTM(*weights), lambda kernel, *inputs: kernel(*inputs, False), (drawn(rows, frames, channels), *states)
    )


def assemble_input(draw: random.Random) -> Case:
    batch, tail, left, frames, right = draw.randint(1, 3), *(draw.choice([0, 1, 5, 40]) for _ in range(4))
    channels, kind = draw.choice([1, 3, 16, 40, 64]), draw.choice(ACTIVATIONS)
    lengths = draw.choice([None, torch.tensor([draw.randint(0, 45) for _ in range(batch)], dtype=torch.int32)])

    def run(kernels: CpuElementwise, before: Any, x: Any, after: Epilogue, lengths: Any) -> torch.Tensor:
        out: torch.Tensor = arguments.allocate(batch, tail + left + frames + right, channels)
        kernels.assemble_input(before, x, left, after, out, lengths)
        return out

    after = epilogue_for(kind, False, False, batch, frames, channels)
    return Case(CpuElementwise, run, (drawn(batch, tail, channels), drawn(batch, frames, channels), after, lengths))


def write_activation(draw: random.Random) -> Case:
    batch, frames, channels = draw.randint(1, 3), any_frames(draw), draw.choice([1, 3, 16, 40])

    def run(kernels: CpuElementwise, x: torch.Tensor, after: Epilogue) -> torch.Tensor:
        out: torch.Tensor = arguments.allocate(batch, frames, channels)
        kernels.write_activation(after, x, out)
        return out

    after = epilogue_for(draw.choice(ACTIVATIONS), False, False, batch, frames, channels)
    return Case(CpuElementwise, run, (drawn(batch, frames, channels), after))


def overrun(draw: random.Random) -> Case:
    """A kernel that is given the address of too short an output."""

    def run(kernel: DirectConv1d, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = arguments.allocate(1, 10, 16)
        address, *others = arguments.signal_args(y)
        kernel._convolve(arguments.signal_args(x), kernel._filter, arguments.NO_EPILOGUE[0], (address, *others[:2], 11, 16), 0)
        return y

    return Case(lambda: DirectConv1d(drawn(1, 16, 16), None), run, (drawn(1, 11, 16),))


def moved(value: Any, memory: GuardedMemory, gap: int) -> Any:
    """Copy an input to guarded memory; signals of a batch lie `gap` values apart."""
    if isinstance(value, Epilogue):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return Epilogue(**{name: moved(content, memory, gap) for name, content in fields.items()})
    if isinstance(value, tuple):
        return tuple(moved(content, memory, gap) for content in value)
    if isinstance(value, torch.Tensor):
        return memory.copy_apart(value, gap) if value.dim() == 3 else memory.copy(value)
    return value


def described(value: Any) -> Any:
    """The shapes of an input."""
    if isinstance(value, Epilogue):
        return {field.name: described(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, tuple):
        return tuple(map(described, value))
    return tuple(value.shape) if isinstance(value, torch.Tensor) else value


def clones(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


@torch.inference_mode()
def check(kernel: Callable[[random.Random], Case], number: int) -> None:
    """Check one shape of a kernel; what it is, is printed before it may end the process."""
    draw = random.Random(f"{kernel.__name__} {number}")
    case, gap = kernel(draw), draw.choice([0, 0, 3])
    print(f"{kernel.__name__} {number}: inputs {described(case.inputs)}", flush=True)
    found = []
    for at_end in (True, False):
        memory = GuardedMemory(at_end)
        with mock.patch.object(arguments, "allocate", memory.allocate):
            found.append(case.run(case.make(), *(moved(value, memory, gap) for value in case.inputs)))
    wanted = case.run(case.make(), *map(clones, case.inputs))
    for got, side in zip(found, ("before", "after"), strict=True):
        assert torch.equal(got, wanted), f"the result {side} a guard page is another"


if __name__ == "__main__":
    faulthandler.enable()
    for name in sys.argv[1:]:
        for number in range(SHAPES):
            check(globals()[name], number)
