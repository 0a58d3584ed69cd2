"""SnakeBeta, ConvNeXt blocks and causal blocks, against PyTorch's operations, whole and streamed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import Clamp, Sequential, SnakeBeta, convnext_block, prepare, reset_parameters
from blazen_codec_core.nn.layers import blocks
from tests.helpers.streaming import sizes, streamed, whole


def signal(batch: int, frames: int, channels: int) -> torch.Tensor:
    return torch.randn(batch, frames, channels, generator=torch.Generator().manual_seed(frames))


def snake_beta(x: torch.Tensor, layer: SnakeBeta) -> torch.Tensor:
    """The formula in double precision."""
    alpha, beta = layer.alpha.double().exp(), layer.beta.double().exp()
    return x.double() + (x.double() * alpha).sin().square() / (beta + 1e-9)


def convnext(x: torch.Tensor, block: torch.nn.Module) -> torch.Tensor:
    """The block in PyTorch's operations, on `(batch, frames, channels)`."""
    depthwise, norm, first, _, second, scale = block.branch
    padded = F.pad(x.transpose(1, 2), (depthwise.kernel - 1, 0))
    y = F.conv1d(padded, depthwise.unpack(depthwise.weight), depthwise.bias, groups=x.shape[2]).transpose(1, 2)
    y = F.layer_norm(y, (x.shape[2],), norm.weight, norm.bias, norm.epsilon)
    y = F.gelu(F.linear(y, first.unpack(first.weight)[..., 0], first.bias))
    return x + scale.scale * F.linear(y, second.unpack(second.weight)[..., 0], second.bias)


@pytest.mark.parametrize("prepared", [False, True])
@given(frames=st.integers(0, 40) | st.just(700), channels=st.sampled_from([1, 3, 8, 33]))
def test_snake_beta_is_exact_to_a_few_roundings(prepared, frames, channels):
    layer, x = SnakeBeta(channels), 2 * signal(2, frames, channels)
    reset_parameters(layer, channels)
    with torch.no_grad():
        wanted = snake_beta(x, layer)
        if prepared:
            prepare(layer)
        torch.testing.assert_close(layer(x).double(), wanted, rtol=0, atol=3e-6)


def test_snake_beta_has_gradients_of_both_parameters():
    layer = SnakeBeta(4).double()
    reset_parameters(layer, 0)
    x = signal(1, 5, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *_: layer.differentiable(x), (x, layer.alpha, layer.beta))


def test_clamp():
    x = torch.tensor([-torch.inf, -1.5, -1.0, 0.25, 1.0, 2.0]).reshape(1, -1, 1)
    assert Clamp(-1, 1)(x).flatten().tolist() == [-1, -1, -1, 0.25, 1, 1]


@pytest.mark.parametrize("prepared", [False, True])
@given(frames=st.integers(1, 60), channels=st.sampled_from([3, 16, 40]), sizes=sizes)
def test_a_convnext_block_streams(prepared, frames, channels, sizes):
    block, x = convnext_block(channels), signal(2, frames, channels)
    reset_parameters(block, channels)
    with torch.no_grad():
        wanted = convnext(x, block)
    if prepared:
        prepare(block)
    for got in (whole(block, x), streamed(block, x, sizes)):
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)


@given(frames=st.integers(1, 12), sizes=sizes)
def test_causal_blocks_stream_without_delay(frames, sizes):
    chain = Sequential([blocks.upsampling(32, 3, crop=(0, 3), causal=True, activation=SnakeBeta), SnakeBeta(16), Clamp(-9, 9)])
    reset_parameters(chain, 2)
    prepare(chain)
    x = signal(2, frames, 32)
    assert chain.frames_out(frames, False) == chain.frames_out(frames, True) == 3 * frames
    torch.testing.assert_close(streamed(chain, x, sizes), whole(chain, x), atol=1e-5, rtol=1e-4)
    later = torch.cat([x, 5 * x], dim=1)
    torch.testing.assert_close(whole(chain, later)[:, : 3 * frames], whole(chain, x), atol=1e-5, rtol=1e-4)
