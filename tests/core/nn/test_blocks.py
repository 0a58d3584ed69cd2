"""Convolutions and recurrence as blocks of sums in registers."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import fused
from blazen_codec_core.nn.fused.blocks import Blocks
from blazen_codec_core.nn.fused.by_points import BlocksByPoints
from blazen_codec_core.nn.points import OF_THREE, OF_TWO, Points

pytestmark = pytest.mark.skipif(
    not fused.suits_blocks(torch.zeros(1, 1, 64)), reason="blocks are made for AVX2 and AVX-512, which torch does not find here"
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def plain(x, weight, bias, frames, stride=1, dilation=1):
    y = F.conv1d(x.double().transpose(1, 2), weight.double().permute(2, 1, 0), bias.double(), stride, 0, dilation)
    return y.transpose(1, 2)[:, :frames]


@pytest.mark.parametrize("points", [OF_TWO, OF_THREE, Points(2, (0.0, 1.0, -1.0)), Points(4, (0.0, 1.0, -1.0, 2.0, -2.0))])
def test_the_points_give_the_filter(points):
    generator = np.random.default_rng(0)
    taps, signal = generator.standard_normal(points.taps), generator.standard_normal(points.frames + points.taps - 1)
    made = points.to_frames @ ((points.of_taps @ taps) * (points.of_signal @ signal))
    np.testing.assert_allclose(made, np.correlate(signal, taps), atol=1e-12)


@given(
    kernel=st.integers(1, 9),
    stride=st.integers(1, 4),
    dilation=st.sampled_from([1, 3, 9]),
    channels=st.sampled_from([(1, 16), (5, 48), (64, 80), (130, 96), (256, 32)]),
    frames=st.integers(1, 70) | st.sampled_from([1021]),
    batch=st.integers(1, 2),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_blocks_are_the_convolution(kernel, stride, dilation, channels, frames, batch, more, bias):
    weight = drawn(kernel, *channels) / (kernel * channels[0]) ** 0.5
    offset = drawn(channels[1], seed=1) if bias else torch.zeros(channels[1])
    x = drawn(batch, (frames - 1) * stride + (kernel - 1) * dilation + 1 + more, channels[0], seed=frames)
    got = Blocks(weight, offset if bias else None, stride, dilation)(x, frames)
    torch.testing.assert_close(got.double(), plain(x, weight, offset, frames, stride, dilation), rtol=0, atol=2e-5)


@given(
    points=st.sampled_from([(OF_TWO, 2), (OF_THREE, 3), (OF_THREE, 7), (OF_THREE, 11)]),
    dilation=st.sampled_from([1, 2, 3, 9]),
    channels=st.sampled_from([(1, 16), (5, 48), (64, 80), (40, 96)]),
    frames=st.integers(1, 200) | st.sampled_from([1021, 2500]),
    batch=st.integers(1, 2),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_blocks_by_points_are_the_convolution(points, dilation, channels, frames, batch, more, bias):
    rule, kernel = points
    weight = drawn(kernel, *channels) / (kernel * channels[0]) ** 0.5
    offset = drawn(channels[1], seed=1) if bias else torch.zeros(channels[1])
    x = drawn(batch, frames + (kernel - 1) * dilation + more, channels[0], seed=frames)
    got = BlocksByPoints(rule, weight, offset if bias else None, dilation)(x, frames)
    torch.testing.assert_close(got.double(), plain(x, weight, offset, frames, 1, dilation), rtol=0, atol=2e-5)


def test_a_stride_is_a_frame_of_frames():
    weight, bias, x = drawn(8, 48, 224) / 20, drawn(224, seed=1), drawn(1, 4 * 77 + 4, 48, seed=2)
    way = fused.convolution(weight, bias, 4)
    assert type(way) is BlocksByPoints
    torch.testing.assert_close(way(x, 77).double(), plain(x, weight, bias, 77, 4), rtol=0, atol=2e-5)


def test_rounding_is_that_of_the_library():
    x, weight = drawn(1, 2048 + 6, 192), drawn(7, 192, 192, seed=1) / 40
    bias = torch.zeros(192)
    exact = plain(x, weight, bias, 2048)
    of_library = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0)).transpose(1, 2)
    least = (of_library - exact).square().mean().sqrt()
    for way, most in ((Blocks(weight, bias), 1.5), (BlocksByPoints(OF_THREE, weight, bias), 3)):
        assert (way(x, 2048) - exact).square().mean().sqrt() < most * least


@pytest.mark.parametrize("way", [lambda w: Blocks(w, None, 1, 3), lambda w: Blocks(w, None, 2)], ids=["dilated", "strided"])
def test_a_frame_does_not_depend_on_how_many_are_computed(way):
    weight, x = drawn(4, 96, 96), drawn(1, 5000, 96)
    kernel, stride = way(weight), way(weight)._row // 96
    whole = kernel(x, 2000)
    for start, frames in [(0, 1), (1, 13), (14, 1500), (1514, 486)]:
        part = x[:, start * stride :]
        assert torch.equal(kernel(part, frames), whole[:, start : start + frames])


@pytest.mark.parametrize("kernel", [Blocks(drawn(3, 96, 96), None), BlocksByPoints(OF_THREE, drawn(7, 96, 96), None)])
def test_the_number_of_threads_changes_nothing(kernel):
    x, results, before = drawn(1, 4000, 96), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(kernel(x, 3900))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_signals_that_do_not_lie_together_are_taken_as_they_are():
    weight, bias, x = drawn(7, 2, 32), drawn(32, seed=1), drawn(2, 2, 300, seed=2)
    for way in (Blocks(weight, bias), BlocksByPoints(OF_THREE, weight, bias)):
        got = way(x.transpose(1, 2), 290)
        torch.testing.assert_close(got.double(), plain(x.transpose(1, 2), weight, bias, 290), rtol=0, atol=2e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 11])
def test_recurrence_is_the_librarys_and_rows_do_not_meet(rows):
    lstm = torch.nn.LSTM(64, 64, batch_first=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.uniform_(-0.3, 0.3, generator=seeded(1))
        x = drawn(rows, 40, 64)
        gates = F.linear(x, lstm.weight_ih_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)
        weight = fused.in_blocks(lstm.weight_hh_l0)

        def run(part):
            outputs, cell = torch.zeros(len(part), 41, 64), torch.zeros(len(part), 64)
            fused.recur(part, weight, cell, outputs)
            return outputs[:, 1:]

        got = run(gates)
        torch.testing.assert_close(got, lstm(x)[0], atol=1e-6, rtol=1e-5)
        for row in range(rows):
            assert torch.equal(run(gates[row : row + 1].contiguous())[0], got[row])


def test_processors_with_shorter_vectors():
    """As one would find it that has AVX2 only: other blocks, in the same convolutions."""
    program = """
import torch, torch.nn.functional as F
from blazen_codec_core.nn import fused
from blazen_codec_core.nn.fused import registers
assert registers.LANES == 8
for kernel, channels, out, stride, dilation in [(7, 64, 64, 1, 9), (3, 40, 24, 1, 1), (8, 32, 96, 4, 1), (1, 5, 8, 1, 1)]:
    weight, x = torch.randn(kernel, channels, out) / (kernel * channels) ** 0.5, torch.randn(1, 600, channels)
    wanted = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), None, stride, 0, dilation).transpose(1, 2)
    got = fused.convolution(weight, None, stride, dilation)(x, wanted.shape[1])
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)
gates, outputs = torch.randn(5, 30, 256), torch.zeros(5, 31, 64)
fused.recur(gates, fused.in_blocks(torch.randn(256, 64) / 8), torch.zeros(5, 64), outputs)
assert outputs[:, 1:].isfinite().all() and outputs[:, 1:].abs().max() < 1
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_other_processors_are_left_to_the_library():
    program = """
import torch
from blazen_codec_core.nn import fused, kernels
assert not fused.suits_blocks(torch.zeros(1, 64, 64)) and not fused.suits_recurrence(torch.zeros(256, 64))
assert type(kernels.convolution(torch.zeros(2, 64, 64), None, lasting=True)).__name__ == "ShiftedProducts"
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "ATEN_CPU_CAPABILITY": "default"})
