"""Layers stream exactly and match PyTorch's layers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import (
    Conv1d,
    ConvTranspose1d,
    CounterNoise,
    LocalAttention,
    NoiseBlock,
    Residual,
    Sequential,
    Snake,
    StreamSetup,
    Tanh,
    prepare,
    reset_parameters,
)
from blazen_codec_core.nn.kernels import dispatch
from blazen_codec_core.nn.kernels.aten.conv import AtenConv1d
from tests.helpers.streaming import CPU, sizes, streamed, whole


@st.composite
def convolutions(draw: st.DrawFn) -> Conv1d:
    kernel, dilation = draw(st.integers(1, 9)), draw(st.sampled_from([1, 1, 2, 9]))
    stride = draw(st.integers(1, min(5, (kernel - 1) * dilation + 1)))
    channels = draw(st.sampled_from([(1, 6), (4, 8), (24, 24), (24, 1), (20, 40)]))
    groups = draw(st.sampled_from([g for g in (1, 2, 4, channels[0]) if not (channels[0] % g or channels[1] % g)]))
    padding = (draw(st.integers(0, 20)), draw(st.integers(0, 20)))
    layer = Conv1d(*channels, kernel, stride=stride, dilation=dilation, groups=groups, padding=padding, bias=draw(st.booleans()))
    reset_parameters(layer, draw(st.integers(0, 99)))
    return layer


@given(layer=convolutions(), length=st.integers(1, 120), batch=st.integers(1, 3), sizes=sizes)
def test_conv1d_matches_pytorch_and_streams(layer, length, batch, sizes):
    x = torch.randn(batch, length, layer.in_channels, generator=torch.Generator().manual_seed(length))
    padded = F.pad(x.transpose(1, 2), (layer.padding.left, layer.padding.right))
    if padded.shape[2] < layer.span:
        wanted = x.new_zeros(batch, 0, layer.out_channels)
    else:
        wanted = F.conv1d(
            padded, layer.unpack(layer.weight), layer.bias, stride=layer.stride, dilation=layer.dilation, groups=layer.groups
        ).transpose(1, 2)
    for got in (whole(layer, x), streamed(layer, x, sizes), layer(x)):
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)


@given(
    stride=st.integers(1, 6),
    taps=st.integers(1, 3),
    channels=st.sampled_from([(1, 3), (16, 8), (24, 1), (16, 16)]),
    crops=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    length=st.integers(1, 50),
    sizes=sizes,
    bias=st.booleans(),
    prepared=st.booleans(),
)
def test_conv_transpose1d_matches_pytorch_and_streams(stride, taps, channels, crops, length, sizes, bias, prepared):
    left, right = (min(crop, (taps - 1) * stride) for crop in crops)
    depthwise = channels[0] == channels[1]
    layer = ConvTranspose1d(*channels, stride * taps, stride=stride, crop=(left, right), bias=bias, depthwise=depthwise)
    reset_parameters(layer, length)
    x = torch.randn(2, length, channels[0], generator=torch.Generator().manual_seed(length))
    weight = layer.unpack(layer.weight)
    assert torch.equal(layer.pack(weight), layer.weight)
    full = F.conv_transpose1d(x.transpose(1, 2), weight, layer.bias, stride=stride, groups=16 if depthwise else 1)
    wanted = full[..., left : full.shape[-1] - right].transpose(1, 2).detach()
    if prepared:
        prepare(layer)
    for got in (whole(layer, x), streamed(layer, x, sizes), layer(x)):
        assert got.shape == wanted.shape
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)


def test_conv_transpose1d_refuses_a_kernel_of_partial_strides():
    with pytest.raises(ValueError, match="multiple of stride"):
        ConvTranspose1d(1, 1, 5, stride=2)


def test_conv_transpose1d_refuses_other_channels_if_depthwise():
    with pytest.raises(ValueError, match="as many output channels"):
        ConvTranspose1d(2, 4, 4, stride=2, depthwise=True)


def test_conv1d_refuses_a_stride_that_skips_samples():
    with pytest.raises(ValueError, match="skip"):
        Conv1d(1, 1, 2, stride=3)


def everything() -> Sequential:
    """Build a chain with one of each layer, residuals, up- and downsampling."""
    unit = Residual(
        16, Sequential([Snake(16), Conv1d(16, 16, 7, dilation=3, padding=9, groups=16), Snake(16), Conv1d(16, 16, 1)])
    )
    chain = Sequential(
        [
            Conv1d(1, 16, 7, padding=3),
            unit,
            Conv1d(16, 32, 4, stride=2, padding=1),
            LocalAttention(32, 8, head_channels=16),
            Snake(32),
            ConvTranspose1d(32, 16, 6, stride=3, crop=(2, 1)),
            NoiseBlock(16, 0),
            Conv1d(16, 1, 7, padding=3),
            Tanh(),
        ]
    )
    reset_parameters(chain, 0)
    return chain


@given(blocks=st.integers(1, 6), sizes=sizes)
def test_a_deep_chain_streams(blocks, sizes):
    chain = everything()
    x = torch.randn(2, 16 * blocks, 1, generator=torch.Generator().manual_seed(blocks))
    setup = StreamSetup(2, CPU, noise=CounterNoise(5))
    with torch.inference_mode():
        wanted = chain.step(x, chain.init_state(setup), True)
    torch.testing.assert_close(streamed(chain, x, sizes, setup), wanted, atol=1e-5, rtol=1e-4)


def test_streams_are_independent():
    chain = everything()
    x, y = torch.randn(2, 1, 64, 1)
    alone = streamed(chain, x, [5])
    setup = StreamSetup(1, CPU)
    first, second = chain.init_state(setup), chain.init_state(setup)
    parts = []
    with torch.inference_mode():
        for at in range(0, 64, 5):
            parts.append(chain.step(x[:, at : at + 5], first, False))
            chain.step(y[:, at : at + 5], second, False)
        parts.append(chain.step(x[:, :0], first, True))
    assert torch.equal(torch.cat(parts, 1), alone)


def test_selected_rows_of_a_state_continue():
    chain = everything()
    x = torch.randn(3, 64, 1)
    state = chain.init_state(StreamSetup(3, CPU))
    with torch.inference_mode():
        head = chain.step(x[:, :37], state, False)
        taken = state.take([2, 0])
        tail = chain.step(x[[2, 0], 37:], taken, True)
        together = torch.cat([head[[2, 0]], tail], 1)
    torch.testing.assert_close(together, whole(chain, x)[[2, 0]], atol=1e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient():
    chain = everything()
    setup = StreamSetup(4, CPU, noise=CounterNoise(1))
    chain.step(torch.randn(4, 64, 1), chain.init_state(setup), True).square().mean().backward()
    without = [name for name, p in chain.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def test_gradients_match_pytorch():
    layer = Conv1d(20, 24, 6, stride=3, padding=2).double()
    reset_parameters(layer.float(), 0)
    layer = layer.double()
    x = torch.randn(2, 24, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_kernels_of_other_devices_agree(monkeypatch):
    chain = everything()
    x = torch.randn(2, 64, 1)
    products = whole(chain, x)
    monkeypatch.setattr(dispatch, "conv1d", lambda p: AtenConv1d(p.weight, p.bias, p.stride, p.dilation, p.groups))
    torch.testing.assert_close(whole(chain, x), products, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(streamed(chain, x, [7]), products, atol=1e-5, rtol=1e-4)


def test_attention_refuses_partial_windows():
    from blazen_codec_core import InvalidInput

    with pytest.raises(InvalidInput, match="3 frames too many"):
        LocalAttention(16, 8, head_channels=8)(torch.zeros(1, 11, 16))


class TestNoise:
    def test_any_range_can_be_generated(self):
        whole = CounterNoise(7)(2, 0, 1000)
        for start, count in ((0, 1), (1, 7), (8, 8), (333, 400), (999, 1)):
            assert torch.equal(CounterNoise(7)(2, start, count), whole[:, start : start + count])

    def test_seeds_and_layers_differ(self):
        draws = [CounterNoise(seed)(layer, 0, 64) for seed in (0, 1, 2**64 - 1) for layer in (0, 1)]
        assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 6

    def test_noise_is_standard_normal_and_white(self):
        x = CounterNoise(0)(0, 0, 200_000).flatten()
        assert abs(x.mean()) < 0.01
        assert abs(x.std() - 1) < 0.01
        assert abs((x**4).mean() - 3) < 0.1
        assert abs((x[1:] * x[:-1]).mean()) < 0.01
        assert abs((x[::2] * x[1::2]).mean()) < 0.01

    def test_kernels_match_operations(self, monkeypatch):
        noise = CounterNoise(3)(1, 13, 100_000)
        monkeypatch.setattr(dispatch, "backends_for", lambda device: [dispatch.ATEN])
        torch.testing.assert_close(CounterNoise(3)(1, 13, 100_000), noise, rtol=2e-7, atol=0)

    def test_no_noise_keeps_the_signal(self):
        block = NoiseBlock(4, 0)
        reset_parameters(block, 0)
        x = torch.randn(1, 9, 4)
        assert torch.equal(whole(block, x), x)
        with torch.inference_mode():
            assert not torch.equal(block.step(x, block.init_state(StreamSetup(1, CPU, noise=CounterNoise(0))), True), x)


def test_a_setup_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StreamSetup(1, CPU).batch = 2  # type: ignore[misc]
