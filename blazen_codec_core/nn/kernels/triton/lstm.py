"""Recurrent layers as one kernel that goes through all frames. Starting kernels for each frame takes longer than running them.

Programs share the channels, each its own, and wait for each other after every frame: they are started together, and are no more
than there are multiprocessors.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..memory_format import whole
from .gemm_conv import GemmConv1d, rounded
from .launch import INTERPRETED, launch, stages
from .vecmath import exponential_less_one, to_tf32

ROWS = 32
"""Signals at a time; always as many, since other blocks would round in another way."""
PROGRAMS = 64
"""At most."""
DEPTH = 64
LEAST_UNITS = 8
"""A program, of the channels."""
STAGES = 8
"""Of loading ahead: what a frame needs is all under way at once."""


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    e = exponential_less_one(-2.0 * tl.abs(x))
    value = -e / (2.0 + e)
    return tl.where(x >= 0, value, -value)


@triton.jit
def _together(counter, target):  # type: ignore[no-untyped-def]
    """Waits until all programs have come here."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass
    tl.debug_barrier()


@triton.jit(do_not_specialize=["rows", "frames"])
def _recur(  # type: ignore[no-untyped-def]
    gates, weight, rest, cell, outputs, counter, rows, frames, gates_row, outputs_row,
    EXACT: tl.constexpr, CHANNELS: tl.constexpr, UNITS: tl.constexpr, PROGRAMS: tl.constexpr, ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """Gates `(rows, frames, programs * 4 * units)` hold what the input gives; `outputs[:, 0]` is the output before the first."""
    program = tl.program_id(0)
    unit = program * UNITS + tl.arange(0, UNITS)
    own = program * 4 * UNITS + tl.arange(0, 4 * UNITS)
    step = tl.arange(0, DEPTH)
    for frame in range(frames):
        for group in range(tl.cdiv(rows, ROWS)):
            row = group * ROWS + tl.arange(0, ROWS)
            there = row < rows
            row = row.to(tl.int64)
            given = gates + (row * gates_row + frame * (4 * CHANNELS))[:, None] + own[None, :]
            entries = tl.load(given, mask=there[:, None], other=0.0).to(tl.float32)  # which are under way while the rest is done
            kept = cell + (row * CHANNELS)[:, None] + unit[None, :]
            c = tl.load(kept, mask=there[:, None], other=0.0)
            before = outputs + (row * outputs_row + frame * CHANNELS)[:, None] + step[None, :]
            total = tl.zeros((ROWS, 4 * UNITS), tl.float32)
            for start in range(0, CHANNELS, DEPTH):
                a = tl.load(before + start, mask=there[:, None], other=0.0, cache_modifier=".cg")
                place = own[None, :] * CHANNELS + (start + step)[:, None]
                b = tl.load(weight + place)
                if EXACT:
                    high = to_tf32(a)
                    part = tl.dot(a - high, b, input_precision="tf32")
                    part = tl.dot(high, tl.load(rest + place), part, input_precision="tf32")
                    part = tl.dot(high, b, part, input_precision="tf32")
                    total = total + part
                else:
                    total = tl.dot(a, b, total, input_precision="tf32")
            pairs = tl.permute(tl.reshape(total + entries, (ROWS, 2, 2, UNITS)), (0, 3, 1, 2))
            entry_new, forget_out = tl.split(pairs)
            entry, new = tl.split(entry_new)
            forget, out = tl.split(forget_out)
            c = _sigmoid(forget) * c + _sigmoid(entry) * _tanh(new)
            tl.store(kept, c, mask=there[:, None])
            h = _sigmoid(out) * _tanh(c)
            after = outputs + (row * outputs_row + (frame + 1) * CHANNELS)[:, None] + unit[None, :]
            tl.store(after, h.to(outputs.dtype.element_ty), mask=there[:, None])
        if PROGRAMS > 1:
            _together(counter, (frame + 1) * PROGRAMS)


@functools.cache
def _most_programs(device: torch.device) -> int:
    if INTERPRETED:
        return 1  # they run one after the other
    return min(PROGRAMS, torch.cuda.get_device_properties(device).multi_processor_count)


def _units(channels: int, device: torch.device) -> int | None:
    """Number of units of one program, a power of two; `None` if the channels cannot be shared out."""
    most = _most_programs(device)
    shares = (LEAST_UNITS << more for more in range(channels.bit_length()))
    return next((units for units in shares if channels % units == 0 and channels // units <= most), None)


def supports_lstm(of_hidden: Tensor) -> bool:
    """Tell whether the kernel runs a layer with these weights, `(4 * channels, channels)`."""
    channels = of_hidden.shape[1]
    return channels % DEPTH == 0 and _units(channels, of_hidden.device) is not None


class Recurrence:
    """One layer of a long short-term memory.

    Args:
        of_input, of_hidden: `(4 * channels, channels)`, gates in PyTorch's order: in, forget, new, out.
        bias: `(4 * channels,)`
        rough: TF32 will do for float32.
    """

    def __init__(self, of_input: Tensor, of_hidden: Tensor, bias: Tensor, *, rough: bool) -> None:
        channels = of_hidden.shape[1]
        units = _units(channels, of_hidden.device)
        assert units is not None
        self._units, self._programs = units, channels // units
        of_programs = torch.arange(4 * channels, device=bias.device).reshape(4, self._programs, self._units)
        order = of_programs.transpose(0, 1).flatten()
        self._entry = GemmConv1d(of_input[order].t()[None], bias[order], 1, 1, rough=rough)
        weight = of_hidden.detach()[order].contiguous()
        self._exact = weight.dtype == torch.float32 and not rough
        self._weight = rounded(weight) if weight.dtype == torch.float32 else weight
        self._rest = rounded(weight - self._weight) if self._exact else self._weight
        loaded = weight.element_size() * DEPTH * (ROWS + 4 * self._units * (1 + self._exact))
        self._stages = stages(STAGES, loaded, weight.device)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor, last: bool) -> Tensor:
        """`(rows, frames, channels)` and the state before them to the outputs, the first of which is `hidden`; changes `cell`."""
        rows, frames, channels = x.shape
        outputs = x.new_empty(rows, 1 + frames, channels)
        outputs[:, 0] = hidden
        gates = self._entry(whole(x), frames)
        kept = cell.float().contiguous()
        counter = torch.zeros(1, dtype=torch.int32, device=x.device)
        launch(
            _recur, (self._programs,), gates, self._weight, self._rest, kept, outputs, counter,
            rows, frames, gates.stride(0), outputs.stride(0),
            EXACT=self._exact, CHANNELS=channels, UNITS=self._units, PROGRAMS=self._programs, ROWS=ROWS, DEPTH=DEPTH,
            num_warps=4, num_stages=self._stages, launch_cooperative_grid=self._programs > 1,
        )  # fmt: skip
        cell.copy_(kept)
        return outputs
