"""Causal attention over a ring buffer: three kernels, which rotate, attend, and write the ring buffers.

Softmax is computed block by block (Dao et al. 2022, "FlashAttention"). Blocks of keys begin at multiples of their size, counted
from the beginning of the signal, so the output of a position is the same for any chunks.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..interface import AttentionProblem
from ..memory_format import frame_contiguous
from .launch import launch

QUERIES = 16
"""Positions of a program."""
KEYS = 64
"""Keys of a block. The number is fixed, since other blocks would round differently."""


@triton.jit(do_not_specialize=["frames"])
def _rotate(  # type: ignore[no-untyped-def]
    qkv, position, frequencies, out, frames, qkv_batch, scale,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, TURNED: tl.constexpr, HALF: tl.constexpr, BLOCK_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Rotate the queries, which are scaled, and the keys: the first `TURNED` heads."""
    frame, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    i, head = tl.arange(0, BLOCK)[None, :], tl.arange(0, BLOCK_HEADS)[:, None]
    angle = (tl.load(position + row) + frame).to(tl.float64) * tl.load(frequencies + i, mask=i < HALF, other=0.0)
    cos, sin = tl.cos(angle).to(tl.float32), tl.sin(angle).to(tl.float32)
    valid = (i < HALF) & (head < TURNED)
    source = qkv + row * qkv_batch + frame * WIDTH + head * (2 * HALF) + i
    factor = tl.where(head < HEADS, scale, 1.0)
    x = tl.load(source, mask=valid, other=0.0).to(tl.float32) * factor
    y = tl.load(source + HALF, mask=valid, other=0.0).to(tl.float32) * factor
    target = out + (row * frames + frame) * (TURNED * 2 * HALF) + head * (2 * HALF) + i
    tl.store(target, (x * cos - y * sin).to(out.dtype.element_ty), mask=valid)
    tl.store(target + HALF, (y * cos + x * sin).to(out.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["frames"])
def _attend(  # type: ignore[no-untyped-def]
    turned, qkv, keys, values, position, out, frames, qkv_batch,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, CHANNELS: tl.constexpr, CONTEXT: tl.constexpr,
    CAPACITY: tl.constexpr, BLOCK: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Attention of a block of positions in one head. Keys and values are in the ring buffers before this step, else in `qkv`."""
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    shared = head * KV_HEADS // HEADS
    begin = tl.load(position + row)
    frame = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    c = tl.arange(0, BLOCK)
    turned += row * frames * ((HEADS + KV_HEADS) * CHANNELS)
    new_values = qkv + row * qkv_batch + (HEADS + KV_HEADS + shared) * CHANNELS
    keys += (row * KV_HEADS + shared) * (CHANNELS * CAPACITY)
    values += (row * KV_HEADS + shared) * (CHANNELS * CAPACITY)
    query_ptr = turned + frame[:, None] * ((HEADS + KV_HEADS) * CHANNELS) + head * CHANNELS + c[None, :]
    q = tl.load(query_ptr, mask=(frame < frames)[:, None] & (c < CHANNELS)[None, :], other=0.0)
    first = tl.maximum(begin + tl.program_id(0) * QUERIES - CONTEXT + 1, 0)
    end = begin + tl.minimum(tl.program_id(0) * QUERIES + QUERIES, frames)
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, BLOCK), tl.float32)
    for start in range(first // KEYS * KEYS, end, KEYS):
        key = start + tl.arange(0, KEYS)
        is_old, is_new = (key >= first) & (key < begin), (key >= begin) & (key < end)
        slot, new = key % CAPACITY, key - begin
        old_ptr, in_head = keys + c[:, None] * CAPACITY + slot[None, :], (c < CHANNELS)[:, None]
        k = tl.load(old_ptr, mask=in_head & is_old[None, :], other=0.0)
        new_ptr = turned + new[None, :] * ((HEADS + KV_HEADS) * CHANNELS) + (HEADS + shared) * CHANNELS + c[:, None]
        k += tl.load(new_ptr, mask=in_head & is_new[None, :], other=0.0)
        score = tl.dot(q, k, input_precision="ieee")
        distance = (begin + frame)[:, None] - key[None, :]
        score = tl.where((distance >= 0) & (distance < CONTEXT) & (key >= 0)[None, :], score, float("-inf"))
        higher = tl.maximum(largest, tl.max(score, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight, shrink = tl.exp(score - base[:, None]), tl.exp(largest - base)
        v = tl.load(values + slot[:, None] * CHANNELS + c[None, :], mask=is_old[:, None] & (c < CHANNELS)[None, :], other=0.0)
        new_ptr = new_values + new[:, None] * WIDTH + c[None, :]
        v += tl.load(new_ptr, mask=is_new[:, None] & (c < CHANNELS)[None, :], other=0.0)
        total = total * shrink + tl.sum(weight, 1)
        sums = sums * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        largest = higher
    target = out + (row * frames + frame)[:, None] * (HEADS * CHANNELS) + head * CHANNELS + c[None, :]
    averaged = (sums / total[:, None]).to(out.dtype.element_ty)
    tl.store(target, averaged, mask=(frame < frames)[:, None] & (c < CHANNELS)[None, :])


@triton.jit(do_not_specialize=["frames", "skipped"])
def _write(  # type: ignore[no-untyped-def]
    turned, qkv, keys, values, position, frames, skipped, qkv_batch,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, CHANNELS: tl.constexpr, CAPACITY: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the keys and values of a frame, from the frame `skipped` on."""
    frame, row = tl.program_id(0) + skipped, tl.program_id(1).to(tl.int64)
    slot = (tl.load(position + row) + frame) % CAPACITY
    c, head = tl.arange(0, BLOCK)[None, :], tl.arange(0, BLOCK_HEADS)[:, None]
    valid = (c < CHANNELS) & (head < KV_HEADS)
    k = tl.load(turned + (row * frames + frame) * ((HEADS + KV_HEADS) * CHANNELS) + (HEADS + head) * CHANNELS + c, mask=valid)
    v = tl.load(qkv + row * qkv_batch + frame * WIDTH + (HEADS + KV_HEADS + head) * CHANNELS + c, mask=valid)
    ring = (row * KV_HEADS + head) * (CHANNELS * CAPACITY)
    tl.store(keys + ring + c * CAPACITY + slot, k, mask=valid)
    tl.store(values + ring + slot * CHANNELS + c, v, mask=valid)


@functools.cache
def _frequencies(problem: AttentionProblem, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(problem.frequencies).to(device)


class RingAttention:
    """Attention on a GPU; see `interface.AttentionKernel`."""

    def __init__(self, problem: AttentionProblem) -> None:
        self.problem = problem

    def __call__(self, qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor) -> Tensor:
        p, (batch, frames, width) = self.problem, qkv.shape
        qkv = frame_contiguous(qkv)
        turned_heads = p.heads + p.kv_heads
        turned = qkv.new_empty(batch, frames, turned_heads * p.head_channels)
        out = qkv.new_empty(batch, frames, p.channels)
        if not batch or not frames:
            return out
        half, block = p.head_channels // 2, max(16, triton.next_power_of_2(p.head_channels))
        launch(
            _rotate, (frames, batch), qkv, position, _frequencies(p, qkv.device), turned, frames, qkv.stride(0),
            1 / math.sqrt(p.head_channels), WIDTH=width, HEADS=p.heads, TURNED=turned_heads, HALF=half,
            BLOCK_HEADS=triton.next_power_of_2(turned_heads), BLOCK=triton.next_power_of_2(half),
        )  # fmt: skip
        launch(
            _attend, (triton.cdiv(frames, QUERIES), p.heads, batch), turned, qkv, keys, values, position, out, frames,
            qkv.stride(0), WIDTH=width, HEADS=p.heads, KV_HEADS=p.kv_heads, CHANNELS=p.head_channels, CONTEXT=p.context,
            CAPACITY=p.capacity, BLOCK=block, QUERIES=QUERIES, KEYS=KEYS,
        )  # fmt: skip
        written = min(frames, p.capacity)
        launch(
            _write, (written, batch), turned, qkv, keys, values, position, frames, frames - written, qkv.stride(0), WIDTH=width,
            HEADS=p.heads, KV_HEADS=p.kv_heads, CHANNELS=p.head_channels, CAPACITY=p.capacity,
            BLOCK_HEADS=triton.next_power_of_2(p.kv_heads), BLOCK=block,
        )  # fmt: skip
        return out
