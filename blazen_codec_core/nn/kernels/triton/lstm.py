"""Persistent LSTM: one kernel runs all frames, as launching kernels for each frame takes longer than running them.

Each program computes its own channels, with a grid barrier after every frame. So programs are launched cooperatively, at most one
on each multiprocessor.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..memory_format import frame_contiguous
from .gemm_conv import GemmConv1d, round_to_tf32
from .launch import INTERPRETED, launch, stages
from .vecmath import expm1, to_tf32

ROWS = 32
"""Signals of a tile. The number is fixed, since other tiles would round differently."""
PROGRAMS = 64
"""Largest number of programs."""
DEPTH = 64
"""Terms of a product that is added to others."""
MIN_UNITS = 8
"""Fewest channels of a program."""
STAGES = 8
"""Pipeline stages: all loads of a frame are in flight at once."""


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    e = expm1(-2.0 * tl.abs(x))
    value = -e / (2.0 + e)
    return tl.where(x >= 0, value, -value)


@triton.jit
def _grid_sync(counter, target):  # type: ignore[no-untyped-def]
    """Barrier of all programs of the grid."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < target:
        pass
    tl.debug_barrier()


@triton.jit(do_not_specialize=["rows", "frames"])
def _lstm(  # type: ignore[no-untyped-def]
    gates, weight, weight_low, cell, outputs, counter, rows, frames, gates_row, outputs_row,
    TF32X3: tl.constexpr, CHANNELS: tl.constexpr, UNITS: tl.constexpr, PROGRAMS: tl.constexpr, ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """Run all frames.

    `gates` are the contribution of the input, `(rows, frames, programs * 4 * units)`, and `outputs[:, 0]` is the initial output.
    """
    program = tl.program_id(0)
    unit = program * UNITS + tl.arange(0, UNITS)
    gate_rows = program * 4 * UNITS + tl.arange(0, 4 * UNITS)
    step = tl.arange(0, DEPTH)
    for frame in range(frames):
        for group in range(tl.cdiv(rows, ROWS)):
            row = group * ROWS + tl.arange(0, ROWS)
            valid = row < rows
            row = row.to(tl.int64)
            gate_ptr = gates + (row * gates_row + frame * (4 * CHANNELS))[:, None] + gate_rows[None, :]
            # in flight while the recurrent product is computed
            from_input = tl.load(gate_ptr, mask=valid[:, None], other=0.0).to(tl.float32)
            cell_row = cell + (row * CHANNELS)[:, None] + unit[None, :]
            c = tl.load(cell_row, mask=valid[:, None], other=0.0)
            hidden = outputs + (row * outputs_row + frame * CHANNELS)[:, None] + step[None, :]
            total = tl.zeros((ROWS, 4 * UNITS), tl.float32)
            for start in range(0, CHANNELS, DEPTH):
                a = tl.load(hidden + start, mask=valid[:, None], other=0.0, cache_modifier=".cg")
                offset = gate_rows[None, :] * CHANNELS + (start + step)[:, None]
                b = tl.load(weight + offset)
                if TF32X3:
                    high = to_tf32(a)
                    product = tl.dot(a - high, b, input_precision="tf32")
                    product = tl.dot(high, tl.load(weight_low + offset), product, input_precision="tf32")
                    product = tl.dot(high, b, product, input_precision="tf32")
                    total = total + product
                else:
                    total = tl.dot(a, b, total, input_precision="tf32")
            pairs = tl.permute(tl.reshape(total + from_input, (ROWS, 2, 2, UNITS)), (0, 3, 1, 2))
            i_g, f_o = tl.split(pairs)
            i, g = tl.split(i_g)
            f, o = tl.split(f_o)
            c = _sigmoid(f) * c + _sigmoid(i) * _tanh(g)
            tl.store(cell_row, c, mask=valid[:, None])
            h = _sigmoid(o) * _tanh(c)
            next_hidden = outputs + (row * outputs_row + (frame + 1) * CHANNELS)[:, None] + unit[None, :]
            tl.store(next_hidden, h.to(outputs.dtype.element_ty), mask=valid[:, None])
        if PROGRAMS > 1:
            _grid_sync(counter, (frame + 1) * PROGRAMS)


@functools.cache
def _most_programs(device: torch.device) -> int:
    if INTERPRETED:
        return 1  # the interpreter runs programs one after the other
    return min(PROGRAMS, torch.cuda.get_device_properties(device).multi_processor_count)


def _units(channels: int, device: torch.device) -> int | None:
    """Channels of one program, a power of two; `None` if the programs would be too many."""
    limit = _most_programs(device)
    sizes = (MIN_UNITS << more for more in range(channels.bit_length()))
    return next((units for units in sizes if channels % units == 0 and channels // units <= limit), None)


def supports_lstm(weight_hh: Tensor) -> bool:
    """Tell whether the kernel runs a layer with these weights, `(4 * channels, channels)`."""
    channels = weight_hh.shape[1]
    return channels % DEPTH == 0 and _units(channels, weight_hh.device) is not None


class PersistentLSTM:
    """One layer of a long short-term memory.

    Args:
        weight_ih, weight_hh: `(4 * channels, channels)`, gates in PyTorch's order i, f, g, o.
        bias: `(4 * channels,)`.
        allow_tf32: Float32 may be computed in TF32.
    """

    def __init__(self, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor, *, allow_tf32: bool) -> None:
        channels = weight_hh.shape[1]
        units = _units(channels, weight_hh.device)
        assert units is not None
        self._units, self._programs = units, channels // units
        by_program = torch.arange(4 * channels, device=bias.device).reshape(4, self._programs, self._units)
        order = by_program.transpose(0, 1).flatten()
        self._input_gemm = GemmConv1d(weight_ih[order].t()[None], bias[order], 1, 1, allow_tf32=allow_tf32)
        weight = weight_hh.detach()[order].contiguous()
        self._tf32x3 = weight.dtype == torch.float32 and not allow_tf32
        self._weight = round_to_tf32(weight) if weight.dtype == torch.float32 else weight
        self._weight_low = round_to_tf32(weight - self._weight) if self._tf32x3 else self._weight
        loaded = weight.element_size() * DEPTH * (ROWS + 4 * self._units * (1 + self._tf32x3))
        self._stages = stages(STAGES, loaded, weight.device)

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor, last: bool) -> Tensor:
        """Outputs `(rows, 1 + frames, channels)`, the first of which is `hidden`; updates `cell` in place."""
        rows, frames, channels = x.shape
        outputs = x.new_empty(rows, 1 + frames, channels)
        outputs[:, 0] = hidden
        gates = self._input_gemm(frame_contiguous(x), frames)
        next_cell = cell.float().contiguous()
        counter = torch.zeros(1, dtype=torch.int32, device=x.device)
        launch(
            _lstm, (self._programs,), gates, self._weight, self._weight_low, next_cell, outputs, counter,
            rows, frames, gates.stride(0), outputs.stride(0),
            TF32X3=self._tf32x3, CHANNELS=channels, UNITS=self._units, PROGRAMS=self._programs, ROWS=ROWS, DEPTH=DEPTH,
            num_warps=4, num_stages=self._stages, launch_cooperative_grid=self._programs > 1,
        )  # fmt: skip
        cell.copy_(next_cell)
        return outputs
