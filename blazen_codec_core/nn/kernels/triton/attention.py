"""Causal attention over a ring buffer.

Keys are read in blocks that begin at fixed positions of the signal, and each query takes them in the order of positions. A block
that a query does not see leaves its sums as they were, to the bit. So an output depends on its position, and not on how many are
computed at once (Milakov & Gimelshein 2018, "Online normalizer calculation for softmax").
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..interface import AttentionProblem
from ..memory_format import frame_contiguous
from .launch import launch
from .vecmath import cosine_sine, float32_product

QUERIES = 16
"""Queries of a program, the fewest that tensor cores take. The number is fixed, since other tiles would round differently."""
TILE_VALUES = 4096
"""Values of a block of keys. So the number of keys, which affects rounding, depends on the channels of a head alone."""
MIN_KEYS, MAX_KEYS = 16, 64
"""Fewest and most keys of a block."""
FRAMES = 32
"""Frames of a program that writes keys and values."""
STAGES = 2
"""Pipeline stages. With two, the loads of a block fit into shared memory on every device."""
MAX_CHANNELS = 256
"""Most channels of a head, so that they do."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@triton.jit
def _rotated(source, mask, position, turns, HALF_CHANNELS: tl.constexpr, FACTOR: tl.constexpr):  # type: ignore[no-untyped-def]
    """Both halves of the channels of some frames, times a factor, turned by their positions."""
    first = tl.load(source, mask=mask, other=0.0).to(tl.float32) * FACTOR
    second = tl.load(source + HALF_CHANNELS, mask=mask, other=0.0).to(tl.float32) * FACTOR
    cos, sin = cosine_sine(position.to(tl.float64)[:, None], turns[None, :])
    # which product is fused is not left to the compiler, which could choose another one in another kernel
    return tl.fma(first, cos, -(second * sin)), tl.fma(second, cos, first * sin)


@triton.jit(do_not_specialize=["frames", "first", "slots"])
def _write_keys(  # type: ignore[no-untyped-def]
    qkv, keys, values, position, quarter_turns, frames, first, slots, qkv_batch,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF_CHANNELS: tl.constexpr, RING: tl.constexpr,
    FRAMES: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """Write rotated keys, and values, of the frames from `first` on: to the ring buffers, or to slots in their order."""
    signal, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    frame = first + tl.program_id(0) * FRAMES + tl.arange(0, FRAMES)
    channel = tl.arange(0, HALF)
    mask = (frame < frames)[:, None] & (channel < HALF_CHANNELS)[None, :]
    turns = tl.load(quarter_turns + channel, mask=channel < HALF_CHANNELS, other=0.0)
    row = frame.to(tl.int64) * ((HEADS + 2 * KV_HEADS) * 2 * HALF_CHANNELS)
    source = qkv + signal * qkv_batch + (HEADS + head) * (2 * HALF_CHANNELS) + row[:, None] + channel[None, :]
    positions = tl.load(position + signal) + frame
    low, high = _rotated(source, mask, positions, turns, HALF_CHANNELS, 1.0)
    slot = (positions % slots if RING else frame.to(tl.int64))[:, None]
    begin = (signal * KV_HEADS + head) * (2 * HALF_CHANNELS) * slots
    target = keys + begin + channel.to(tl.int64)[None, :] * slots + slot
    tl.store(target, low.to(keys.dtype.element_ty), mask=mask)
    tl.store(target + HALF_CHANNELS * slots, high.to(keys.dtype.element_ty), mask=mask)
    source += KV_HEADS * (2 * HALF_CHANNELS)
    target = values + begin + slot * (2 * HALF_CHANNELS) + channel[None, :]
    tl.store(target, tl.load(source, mask=mask), mask=mask)
    tl.store(target + HALF_CHANNELS, tl.load(source + HALF_CHANNELS, mask=mask), mask=mask)


@triton.jit(do_not_specialize=["frames"])
def _attend(  # type: ignore[no-untyped-def]
    qkv, keys, values, new_keys, new_values, position, quarter_turns, out, frames, qkv_batch,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, CHANNELS: tl.constexpr, CONTEXT: tl.constexpr, CAPACITY: tl.constexpr,
    SCALE: tl.constexpr, IN_RING: tl.constexpr, TF32X3: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    HALF: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Attend with some queries of one head. The keys of the frames are in the ring buffers (`IN_RING`), or in `new_keys`."""
    signal, head, begin = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0) * QUERIES
    shared = signal * KV_HEADS + head * KV_HEADS // HEADS
    start = tl.load(position + signal)
    frame = tl.minimum(begin + tl.arange(0, QUERIES), frames - 1)
    query = start + frame
    half, wide, number = tl.arange(0, HALF), tl.arange(0, WIDE), tl.arange(0, KEYS)
    half_valid, wide_valid = half < CHANNELS // 2, wide < CHANNELS
    turns = tl.load(quarter_turns + half, mask=half_valid, other=0.0)
    row = frame.to(tl.int64) * ((HEADS + 2 * KV_HEADS) * CHANNELS)
    source = qkv + signal * qkv_batch + head * CHANNELS + row[:, None] + half[None, :]
    low, high = _rotated(source, tl.broadcast_to(half_valid[None, :], (QUERIES, HALF)), query, turns, CHANNELS // 2, SCALE)
    keys += shared * (CHANNELS * CAPACITY)
    values += shared * (CHANNELS * CAPACITY)
    new_keys += shared * CHANNELS * frames
    new_values += shared * CHANNELS * frames
    oldest, newest = tl.maximum(start + begin - (CONTEXT - 1), 0), start + tl.minimum(begin + QUERIES, frames) - 1
    first_block = oldest // KEYS
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    weight_sum = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, WIDE), tl.float32)
    for block in range((newest // KEYS - first_block + 1).to(tl.int32)):
        block_start = (first_block + block) * KEYS
        key = block_start + number
        needed = (key >= oldest) & (key <= newest)
        old = needed if IN_RING else needed & (key < start)
        slot = ((block_start % CAPACITY).to(tl.int32) + number) % CAPACITY
        old_keys = keys + half[:, None] * CAPACITY + slot[None, :]
        old_mask = half_valid[:, None] & old[None, :]
        key_low = tl.load(old_keys, mask=old_mask, other=0.0)
        key_high = tl.load(old_keys + (CHANNELS // 2) * CAPACITY, mask=old_mask, other=0.0)
        value = tl.load(values + slot[:, None] * CHANNELS + wide[None, :], mask=old[:, None] & wide_valid[None, :], other=0.0)
        if not IN_RING:
            new = needed & (key >= start)
            later = key - start
            later_keys = new_keys + half.to(tl.int64)[:, None] * frames + later[None, :]
            later_mask = half_valid[:, None] & new[None, :]
            key_low += tl.load(later_keys, mask=later_mask, other=0.0)
            key_high += tl.load(later_keys + (CHANNELS // 2) * frames.to(tl.int64), mask=later_mask, other=0.0)
            value += tl.load(
                new_values + later[:, None] * CHANNELS + wide[None, :], mask=new[:, None] & wide_valid[None, :], other=0.0
            )
        scores = float32_product(low, key_low.to(tl.float32), TF32X3) + float32_product(high, key_high.to(tl.float32), TF32X3)
        seen = (key[None, :] <= query[:, None]) & (key[None, :] > query[:, None] - CONTEXT)
        scores = tl.where(seen, scores, float("-inf"))
        peak = tl.maximum(largest, tl.max(scores, 1))
        base = tl.where(peak == float("-inf"), 0.0, peak)  # no key was seen yet
        weight, decay = tl.exp(scores - base[:, None]), tl.exp(largest - base)
        weight_sum = tl.fma(weight_sum, decay, tl.sum(weight, 1))
        product = float32_product(weight, value.to(tl.float32), TF32X3)
        total = tl.fma(total, tl.broadcast_to(decay[:, None], (QUERIES, WIDE)), product)
        largest = peak
    offset = (signal * frames + begin + tl.arange(0, QUERIES)) * (HEADS * CHANNELS) + head * CHANNELS
    valid = (begin + tl.arange(0, QUERIES) < frames)[:, None] & wide_valid[None, :]
    tl.store(out + offset[:, None] + wide[None, :], (total / weight_sum[:, None]).to(out.dtype.element_ty), mask=valid)


def supports(problem: AttentionProblem, dtype: torch.dtype) -> bool:
    """Tell whether a block of keys of these channels fits into shared memory, and the dtype has tensor cores."""
    return dtype in DTYPES and problem.head_channels <= MAX_CHANNELS


class RingAttention:
    """Attention of float32 and half-precision signals; see `interface.AttentionKernel`. Sums are in float32.

    Keys of as many frames as the ring buffers have slots to spare are written there first; those of more frames, to a buffer.
    """

    def __init__(self, problem: AttentionProblem, device: torch.device) -> None:
        p = self._problem = problem
        self._quarter_turns = torch.from_numpy(p.frequencies / (math.pi / 2)).to(device)
        self._half = max(QUERIES, triton.next_power_of_2(p.head_channels // 2))
        self._keys = max(MIN_KEYS, min(MAX_KEYS, TILE_VALUES // (2 * self._half)))

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
        p, qkv = self._problem, frame_contiguous(qkv)
        batch, frames, _ = qkv.shape
        rings = (
            (keys, (batch, p.kv_heads, p.head_channels, p.capacity)),
            (values, (batch, p.kv_heads, p.capacity, p.head_channels)),
        )
        for ring, wanted in rings:
            if ring.shape != wanted or not ring.is_contiguous():
                raise ValueError(f"ring buffer is {tuple(ring.shape)} with strides {ring.stride()}; expected contiguous {wanted}")
        out = qkv.new_empty(batch, frames, p.channels)
        if not out.numel():
            return out
        position = position.contiguous()
        in_ring = frames + p.context - 1 <= p.capacity
        new_keys, new_values = keys, values
        if not in_ring:
            new_keys = keys.new_empty(batch, p.kv_heads, p.head_channels, frames)
            new_values = values.new_empty(batch, p.kv_heads, frames, p.head_channels)
        self._write(qkv, new_keys, new_values, position, ring=in_ring)
        launch(
            _attend, (triton.cdiv(frames, QUERIES), p.heads, batch), qkv, keys, values, new_keys, new_values, position,
            self._quarter_turns, out, frames, qkv.stride(0),
            HEADS=p.heads, KV_HEADS=p.kv_heads, CHANNELS=p.head_channels, CONTEXT=p.context, CAPACITY=p.capacity,
            SCALE=1 / math.sqrt(p.head_channels), IN_RING=in_ring, TF32X3=qkv.dtype == torch.float32, QUERIES=QUERIES,
            KEYS=self._keys, HALF=self._half, WIDE=2 * self._half, num_warps=4, num_stages=STAGES,
        )  # fmt: skip
        if not in_ring:
            self._write(qkv, keys, values, position, ring=True)
        return out

    def _write(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor, *, ring: bool) -> None:
        """Write keys and values of the last frames that have slots."""
        p, (batch, frames, _), slots = self._problem, qkv.shape, keys.shape[3]
        first = max(0, frames - slots)
        launch(
            _write_keys, (triton.cdiv(frames - first, FRAMES), p.kv_heads, batch), qkv, keys, values, position,
            self._quarter_turns, frames, first, slots, qkv.stride(0),
            HEADS=p.heads, KV_HEADS=p.kv_heads, HALF_CHANNELS=p.head_channels // 2, RING=ring, FRAMES=FRAMES,
            HALF=self._half, num_warps=4,
        )  # fmt: skip
