"""Arguments of compiled kernels: their structures, their addresses, and the checks before an address is taken.

Numba is slow to take a structure from Python, and fast to take a tuple of integers. So each structure has one function here that
makes the tuple, and the kernel's first lines name its fields: `x = Signal(*signal)`. An address has neither type nor length, so
nothing behind these functions can detect a wrong one. Strides are counted in values, addresses in bytes.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ..epilogue import IDENTITY, NONE, WITH_PARAMETERS, Epilogue
from ..memory_format import frame_contiguous

_FLOAT32 = torch.float32
allocate = functools.partial(torch.empty, dtype=_FLOAT32, device=torch.device("cpu"))
"""Allocator of everything that kernels write to, and of packed weights. Tests replace it by one with guard pages."""


class Signal(NamedTuple):
    """Signals with contiguous frames, `batch_stride` values apart."""

    address: int
    batch_stride: int
    batch: int
    frames: int
    channels: int


class Rows(NamedTuple):
    """Rows of values: the address of the first, and the values from one to the next."""

    address: int
    stride: int


class Terms(NamedTuple):
    """Terms of one sum: `depth` consecutive values of each of `taps` taps, `tap` values apart."""

    taps: int
    tap: int
    depth: int


class DirectFilter(NamedTuple):
    """Filter of a direct convolution: the sum of `parts` of the same `Terms`, whose weights lie apart.

    Attributes:
        vectors: Width of a panel in vectors.
        panel: Weights from one panel to the next.
        part: Weights from one part to the next.
        row: Values of the signal from one window to the next.
        reach: Values of the signal from one part to the next.
    """

    vectors: int
    panel: int
    parts: int
    part: int
    row: int
    reach: int
    taps: int
    tap: int
    depth: int
    weight: int
    bias: int


class DepthwiseFilter(NamedTuple):
    taps: int
    dilation: int
    weight: int
    bias: int


class Kn2rowFilter(NamedTuple):
    """Filter of kn2row; `vectors` hold all taps of all output channels."""

    vectors: int
    taps: int
    dilation: int
    weight: int
    bias: int
    zeros: int


class WinogradFilter(NamedTuple):
    """Filter of a Winograd convolution.

    Attributes:
        transform: Number of the transform.
        tap: Number of the untransformed tap, or -1.
        frames: Outputs of one transform, m.
        window: Inputs of one transform.
        channels: Values of an input block.
        weight: Transformed weight `(panels, points, channels, width)`.
        untransformed: Weight of the untransformed tap, `(panels, channels, width)`.
        zeros: Address of `width` zeros.
    """

    transform: int
    tap: int
    frames: int
    window: int
    points: int
    channels: int
    width: int
    dilation: int
    weight: int
    untransformed: int
    bias: int
    zeros: int


class WinogradScratch(NamedTuple):
    """Scratch of a tile of `rows` rows of `signals` signals.

    It is `(points, stride)` before and after the GEMMs, and the windows past the ends.
    """

    signals: int
    rows: int
    transformed_stride: int
    products_stride: int
    transformed: int
    products: int
    input_edge: int
    output_edge: int


class Activation(NamedTuple):
    """An activation's number, and the addresses of its parameters."""

    kind: int
    alpha: int
    inverse: int


class EpilogueArgs(NamedTuple):
    """An `Epilogue`; addresses are 0 for what there is none of."""

    kind: int
    alpha: int
    inverse: int
    scale: int
    head: int
    head_batch: int
    head_frames: int
    residual: int
    residual_batch: int


class Assembly(NamedTuple):
    """Signals `[tail | left zeros | activation(x) | zeros]` and the one that they are written to.

    Attributes:
        lengths: Address of the int32 frames of `x` that each signal has; 0 if all have `frames`.
    """

    batch: int
    channels: int
    tail: int
    tail_batch: int
    tail_frames: int
    left: int
    x: int
    x_batch: int
    frames: int
    lengths: int
    kind: int
    alpha: int
    inverse: int
    out: int
    out_batch: int
    out_frames: int


class Norm(NamedTuple):
    """Weight and bias of a norm, and scratch `(2, channels)`."""

    affine: int
    weight: int
    bias: int


class ChannelNormArgs(NamedTuple):
    """Weight and bias of a norm over channels; the mean is subtracted if it `is_centered`."""

    is_centered: int
    weight: int
    bias: int


class AttentionShape(NamedTuple):
    """Sizes of an `AttentionProblem`, and addresses of float64 values.

    Attributes:
        frequencies: `(head_channels / 2,)`.
        table: Cosines and sines of the first positions, `(2, attention.STEPS, head_channels / 2)`.
    """

    heads: int
    kv_heads: int
    head_channels: int
    context: int
    capacity: int
    frequencies: int
    table: int


class AttentionArgs(NamedTuple):
    """Queries, keys and values of signals, `qkv_batch` values apart; see `interface.AttentionKernel` for the others."""

    batch: int
    frames: int
    qkv: int
    qkv_batch: int
    keys: int
    values: int
    position: int
    out: int


class Codebook(NamedTuple):
    """Packed table and offset of a codebook; `vectors` in a panel."""

    channels: int
    entries: int
    vectors: int
    table: int
    offset: int


class Search(NamedTuple):
    """Vectors `(queries, channels)` to search, scratch `(strip, entries)`, and int64 indices `(queries,)`."""

    queries: int
    strip: int
    rows: int
    scores: int
    indices: int


class Recurrence(NamedTuple):
    """A layer of LSTM.

    Attributes:
        gates: Input contribution to the gates, bias included, `(rows, frames, 4 * channels)`.
        weight: From `lstm.pack_recurrent_weight`.
        cell: `(rows, channels)`, the cell before the first frame; overwritten by that after the last.
        outputs: `(rows, 1 + frames, channels)`, whose first frame is the output before; the others are written.
        scratch: `(rows, 4 * LANES)`.
    """

    rows: int
    frames: int
    channels: int
    gates: int
    weight: int
    cell: int
    outputs: int
    scratch: int


def signature(*arguments: Any) -> str:
    """Signature of a kernel with these structures and numbers as arguments, for numba."""
    numbers: dict[Any, str] = {int: "i8", float: "f8"}
    return f"void({', '.join(numbers.get(kind) or f'UniTuple(i8, {len(kind._fields)})' for kind in arguments)})"


class Packed:
    """Constants of a kernel, whose addresses are taken once. A copy of the kernel shares them."""

    def __init__(self, *values: Tensor) -> None:
        self._values = [allocate(value.shape).copy_(value.detach()) for value in values]
        self.addresses = tuple(value.data_ptr() for value in self._values)

    def __getitem__(self, number: int) -> Tensor:
        return self._values[number]

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("prepared kernels cannot be pickled: they hold addresses")


def require_float32(x: Tensor) -> None:
    """Raise `TypeError` unless a tensor is float32 on the CPU."""
    if x.dtype is not _FLOAT32 or not x.is_cpu:
        raise TypeError(f"signal is {x.dtype} on {x.device}; compiled kernels expect torch.float32 on the CPU")


def signal_args(x: Tensor, frames: int = 0, channels: int = 0) -> tuple[int, ...]:
    """`Signal` of at least `frames` frames of `channels` channels; 0 for any.

    Raises:
        TypeError: It is not float32 on the CPU.
        ValueError: It is too short, has other channels, or its frames are not contiguous.
    """
    if x.dtype is not _FLOAT32 or not x.is_cpu:
        require_float32(x)
    batch, length, width = x.shape
    if length < frames or width != (channels or width):
        raise ValueError(f"signal has {length} frames of {width} channels; expected at least {frames} of {channels or width}")
    if not x.is_contiguous() and frame_contiguous(x) is not x:
        raise ValueError(f"frames of the signal are not contiguous: strides {x.stride()} for shape {tuple(x.shape)}")
    return x.data_ptr(), x.stride(0), batch, length, width


def ring_args(keys: Tensor, values: Tensor, position: Tensor, batch: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Addresses of ring buffers of `(kv_heads, head_channels, capacity)`, and of the positions.

    Raises:
        TypeError: A buffer is not float32 on the CPU, or the positions are not int64.
        ValueError: A shape differs, or a tensor is not contiguous.
    """
    heads, channels, capacity = shape
    for ring, wanted in ((keys, (batch, heads, channels, capacity)), (values, (batch, heads, capacity, channels))):
        require_float32(ring)
        if ring.shape != wanted or not ring.is_contiguous():
            raise ValueError(f"ring buffer is {tuple(ring.shape)} with strides {ring.stride()}; expected contiguous {wanted}")
    if position.dtype != torch.int64 or not position.is_cpu:
        raise TypeError(f"positions are {position.dtype} on {position.device}; expected torch.int64 on the CPU")
    if position.shape != (batch,) or not position.is_contiguous():
        raise ValueError(f"positions are {tuple(position.shape)}; expected {batch} contiguous")
    return keys.data_ptr(), values.data_ptr(), position.data_ptr()


def vector_address(values: Tensor, count: int, *, may_be_longer: bool = False) -> int:
    """Address of a vector of `count` values.

    Raises:
        TypeError: It is not float32 on the CPU.
        ValueError: It has another shape, or is not contiguous.
    """
    require_float32(values)
    length = values.shape[0] if values.dim() == 1 else -1
    if not values.is_contiguous() or length < count or (length > count and not may_be_longer):
        least = "at least " if may_be_longer else ""
        raise ValueError(f"expected {least}{count} contiguous values, not {tuple(values.shape)} with strides {values.stride()}")
    return values.data_ptr()


NO_EPILOGUE: tuple[tuple[int, ...], list[Tensor]] = tuple(EpilogueArgs(NONE, *[0] * 8)), []
"""`epilogue_args` of `IDENTITY`."""


def _activation_args(epilogue: Epilogue, channels: int) -> tuple[int, int, int]:
    """`Activation` of an epilogue. It is kept in `native`, so that parameters, one value a channel each, are checked once."""
    if epilogue.activation not in WITH_PARAMETERS:
        return epilogue.activation, 0, 0
    found = epilogue.native.get(channels)
    if found is None:
        if epilogue.parameters is None:
            raise ValueError("the activation has no parameters; expected two")
        alpha, inverse = (vector_address(values, channels) for values in epilogue.parameters)
        found = epilogue.native[channels] = epilogue.activation, alpha, inverse
    return found


def epilogue_args(epilogue: Epilogue, output: tuple[int, ...]) -> tuple[tuple[int, ...], list[Tensor]]:
    """`EpilogueArgs` for an output given as `Signal`, and copies that must stay alive until the kernel has run.

    Raises:
        TypeError: A tensor is not float32 on the CPU.
        ValueError: A tensor has not the output's signals or channels, or too few frames.
    """
    copies: list[Tensor] = []
    if epilogue is IDENTITY:
        return NO_EPILOGUE
    _, _, batch, frames, channels = output
    kind, alpha, inverse = _activation_args(epilogue, channels)
    if epilogue.scale is None and epilogue.residual is None and epilogue.residual_head is None:
        return (kind, alpha, inverse, 0, 0, 0, 0, 0, 0), copies
    scale = 0 if epilogue.scale is None else vector_address(epilogue.scale, frames, may_be_longer=True)
    addends = []
    for x in (epilogue.residual_head, epilogue.residual):
        if x is None or not x.shape[1]:
            addends.append((0, 0, 0))
            continue
        if x.dtype is not _FLOAT32 or not x.is_cpu:
            require_float32(x)
        if x.shape[0] != batch or x.shape[2] != channels:
            raise ValueError(f"residual is {tuple(x.shape)}; the output has {batch} signals of {channels} channels")
        if not x.is_contiguous():
            copies.append(frame_contiguous(x))
        signal = x if x.is_contiguous() else copies[-1]
        addends.append((signal.data_ptr(), signal.stride(0), signal.shape[1]))
    (head, head_batch, head_frames), (residual, residual_batch, residual_frames) = addends
    if head_frames + residual_frames < frames and (epilogue.residual is not None or head_frames):
        raise ValueError(f"residual has {head_frames} and {residual_frames} frames; the output has {frames}")
    return (kind, alpha, inverse, scale, head, head_batch, head_frames, residual, residual_batch), copies


def assembly_args(
    tail: Tensor, x: Tensor, left: int, activation: Epilogue, out: Tensor, lengths: Tensor | None
) -> tuple[int, ...]:
    """`Assembly`; `lengths` are int32.

    Raises:
        TypeError: A signal is not float32 on the CPU, or the lengths are not int32.
        ValueError: The signals have different batches or channels, frames are not contiguous, or the output is too short.
    """
    batch, frames, channels = x.shape
    out_frames, tail_frames = out.shape[1], tail.shape[1]
    for signal in (tail, x, out):
        if signal.dtype is not _FLOAT32 or not signal.is_cpu:
            require_float32(signal)
        if signal.shape[0] != batch or signal.shape[2] != channels:
            raise ValueError(f"signal is {tuple(signal.shape)}; expected {batch} signals of {channels} channels")
        if not signal.is_contiguous() and frame_contiguous(signal) is not signal:
            raise ValueError(f"frames of a signal {tuple(signal.shape)} are not contiguous: strides {signal.stride()}")
    if left < 0 or tail_frames + left + frames > out_frames:
        raise ValueError(f"output has {out_frames} frames; the parts have {tail_frames}, {left} and {frames}")
    if lengths is not None and (lengths.dtype != torch.int32 or lengths.shape != (batch,) or not lengths.is_contiguous()):
        raise ValueError(f"lengths are {lengths.dtype} {tuple(lengths.shape)}; expected {batch} contiguous torch.int32")
    kind, alpha, inverse = _activation_args(activation, channels)
    return (
        batch, channels, tail.data_ptr(), tail.stride(0), tail_frames, left, x.data_ptr(), x.stride(0), frames,
        0 if lengths is None else lengths.data_ptr(), kind, alpha, inverse, out.data_ptr(), out.stride(0), out_frames,
    )  # fmt: skip
