"""The kernels for GPUs give the sums that PyTorch gives in double precision, in any pieces and beside any neighbours."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from blazen_codec_core.nn.kernels.aten.attention import AtenAttention
from blazen_codec_core.nn.kernels.aten.conv import ChannelsLastConv2d
from blazen_codec_core.nn.kernels.epilogue import ELU, NONE, SNAKE, Epilogue
from blazen_codec_core.nn.kernels.interface import AttentionProblem
from blazen_codec_core.nn.kernels.triton import (
    attention,
    channel_norm,
    depthwise_conv,
    elementwise,
    gemm_conv,
    group_norm,
    philox,
)
from blazen_codec_core.nn.kernels.triton import lstm as lstm_kernels
from blazen_codec_core.nn.layers import noise
from tests.helpers.epilogues import ACTIVATIONS, apply_epilogue, drawn, epilogue_for

pytestmark = pytest.mark.gpu
BUDGET = settings(max_examples=25, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def place(device):
    torch.set_default_device(device)
    yield
    torch.set_default_device(None)


SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "frames": st.integers(1, 150),
        "channels": st.sampled_from([1, 2, 8, 16, 24, 48, 96]),
        "columns": st.sampled_from([1, 3, 16, 40, 64, 100]),
        "taps": st.sampled_from([1, 2, 3, 7]),
        "step": st.sampled_from([(1, 1), (1, 3), (1, 9), (2, 1), (5, 1)]),
        "kind": st.sampled_from(ACTIVATIONS),
        "scaled": st.booleans(),
        "added": st.booleans(),
        "held": st.sampled_from([0, 0, 1, 200]),
        "bias": st.booleans(),
    }
)


def a_convolution(batch, frames, channels, columns, taps, step, kind, scaled, added, held, bias):
    """Taps, a bias, a signal, what comes after, and what is wanted."""
    stride, dilation = step
    weight = drawn(taps, stride * channels, columns) / (taps * stride * channels) ** 0.5
    offset = drawn(columns, seed=1) if bias else None
    x = drawn(batch, (frames + (taps - 1) * dilation) * stride, channels, seed=2)
    after = epilogue_for(kind, scaled, added, batch, frames, columns, held)
    wanted = ChannelsLastConv2d(weight.double().unbind(), None if offset is None else offset.double(), dilation)
    return weight, offset, x, after, apply_epilogue(wanted(x.double(), frames), after)


@BUDGET
@given(SHAPES)
def test_products_are_those_of_float32(shape):
    weight, bias, x, after, wanted = a_convolution(**shape)
    got = gemm_conv.GemmConv1d(weight, bias, *shape["step"], allow_tf32=False)(x, shape["frames"], after)
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp(min=1)


@BUDGET
@given(SHAPES, st.sampled_from(["allow_tf32", "half"]))
def test_products_that_may_be_less_exact_are_near(shape, kind):
    weight, bias, x, after, wanted = a_convolution(**shape)
    if kind == "half":
        weight, x = weight.half(), x.half()
        added = None if after.residual is None else after.full_residual().half()
        after = Epilogue(after.scale, after.activation, after.parameters, added)
    got = gemm_conv.GemmConv1d(weight, bias, *shape["step"], allow_tf32=kind == "allow_tf32")(x, shape["frames"], after)
    assert got.dtype == x.dtype
    assert (got - wanted).abs().max() < 2e-2 * wanted.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("channels", "columns", "taps", "dilation"), [(48, 48, 7, 3), (64, 128, 2, 1), (96, 96, 7, 9), (1, 32, 7, 1)]
)
def test_products_do_not_depend_on_the_length_or_the_neighbours(channels, columns, taps, dilation, same):
    product = gemm_conv.GemmConv1d(drawn(taps, channels, columns), drawn(columns), 1, dilation, allow_tf32=False)
    reach = (taps - 1) * dilation
    x = drawn(3, 200 + reach, channels, seed=3)
    whole = product(x, 200)
    for row, start, frames in [(0, 0, 1), (1, 13, 40), (2, 70, 130), (1, 199, 1)]:
        piece = product(x[row : row + 1, start : start + frames + reach], frames)
        assert same(piece[0], whole[row, start : start + frames])


@BUDGET
@given(
    frames=st.integers(1, 100),
    channels=st.sampled_from([3, 16, 24, 96]),
    dilation=st.sampled_from([1, 3, 9]),
    kind=st.sampled_from(ACTIVATIONS),
    scaled=st.booleans(),
    added=st.booleans(),
)
def test_depthwise_convolutions(frames, channels, dilation, kind, scaled, added):
    weight, bias, x = drawn(7, channels), drawn(channels, seed=1), drawn(2, frames + 6 * dilation, channels, seed=2)
    after = epilogue_for(kind, scaled, added, 2, frames, channels)
    wanted = F.conv1d(x.double().transpose(1, 2), weight.double().t()[:, None], bias.double(), dilation=dilation, groups=channels)
    got = depthwise_conv.DepthwiseConv1d(weight, bias, dilation, allow_tf32=False)(x, frames, after)
    wanted = apply_epilogue(wanted.transpose(1, 2), after)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp(min=1)


@BUDGET
@given(
    tail=st.integers(0, 5),
    left=st.integers(0, 5),
    frames=st.integers(0, 60),
    right=st.integers(0, 5),
    lengths=st.none() | st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_joining(tail, left, frames, right, lengths):
    before, x = drawn(2, tail, 24), drawn(2, frames, 24, seed=1)
    after = epilogue_for(SNAKE, False, False, 2, frames, 24)
    counts = None if lengths is None else torch.tensor(lengths, dtype=torch.int32)
    got = x.new_empty(2, tail + left + frames + right, 24)
    elementwise.assemble_input(before, x, left, after, got, counts)
    made = apply_epilogue(x.double(), after)
    for row, end in enumerate(lengths or ()):
        made[row, end:] = 0
    wanted = torch.cat([before.double(), torch.zeros(2, left, 24), made, torch.zeros(2, right, 24)], dim=1)
    assert got.shape == wanted.shape
    if wanted.numel():
        assert (got - wanted).abs().max() < 1e-5


def test_a_function_is_written_where_it_is_asked_for():
    x, out = drawn(2, 50, 24), torch.full((2, 60, 24), 7.0)
    elementwise.write_activation(Epilogue(activation=ELU), x, out[:, 5:55])
    assert torch.allclose(out[:, 5:55], F.elu(x), atol=1e-6)
    assert (out[:, :5] == 7).all()
    assert (out[:, 55:] == 7).all()


@pytest.mark.parametrize("seed", [0, 5, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize(("layer", "position", "count"), [(0, 0, 1), (1, 13, 1000), (3, 8, 8), (2, 123_456_789_012, 77)])
def test_noise_is_that_of_other_devices(seed, layer, position, count, device):
    positions = np.array([position, 0, position + 1][: 1 + 2 * (count > 1)])
    wanted = noise.CounterNoise(seed)(layer, positions, count).squeeze(2)
    got = philox.random_normal(seed, layer, positions, count, device, torch.float32).cpu()
    assert torch.allclose(got, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize(
    ("kind", "scaled", "held"), [(NONE, False, None), (SNAKE, True, None), (ELU, False, 0), (NONE, True, 13)]
)
@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (100.0, 0.1), (0.0, 1e-6)])
def test_norms(mean, spread, kind, scaled, held, inplace):
    x, weight, bias = mean + spread * drawn(3, 700, 24), 1 + drawn(24, seed=1) / 9, drawn(24, seed=2)
    exact = x.double()
    away = exact - exact.mean((1, 2), keepdim=True)
    wanted = away * torch.rsqrt(away.square().mean((1, 2), keepdim=True) + 1e-5) * weight + bias
    after = epilogue_for(kind, scaled, held is not None, 3, 700, 24, held or 0)
    got = group_norm.GroupNorm(weight, bias, 1e-5)(x, after, inplace=inplace)
    assert (got.data_ptr() == x.data_ptr()) is inplace
    most = (1e-3 if scaled else 2e-4) if mean else 1e-5  # a factor of a frame multiplies rounding too
    assert (got - apply_epilogue(wanted, after)).abs().max() < most


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (3, 9), (35, 4)])
def test_recurrent_layers(rows, frames, same):
    lstm = torch.nn.LSTM(64, 64, batch_first=True)
    x, hidden, cell = drawn(rows, frames, 64), drawn(rows, 64, seed=1), drawn(rows, 64, seed=2)
    exact = copy.deepcopy(lstm).double()
    wanted, (_, after) = exact(x.double(), (hidden[None].double(), cell[None].double()))
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
    layer = lstm_kernels.PersistentLSTM(lstm.weight_ih_l0, lstm.weight_hh_l0, bias, allow_tf32=False)
    own = cell.clone()
    got = layer(x, hidden, own, True)
    assert torch.equal(got[:, 0], hidden)
    assert (got[:, 1:] - wanted).abs().max() < 4e-6
    assert (own - after[0]).abs().max() < 4e-6
    alone = cell[-1:].clone()
    assert same(layer(x[-1:], hidden[-1:], alone, True), got[-1:])
    assert same(alone, own[-1:])


@pytest.mark.parametrize("shape", [(1, 1, 16, 5), (4, 2, 16, 40), (2, 1, 48, 70)], ids=str)
@pytest.mark.parametrize("cuts", [[90], [1, 2, 30, 57], [16] * 5 + [10]], ids=str)
def test_attention_over_ring_buffers(shape, cuts, same):
    """Rows that began at different times, in any chunks, against the same in double precision; also the rings that are left."""
    p = AttentionProblem(*shape, 10_000.0)
    qkv = drawn(3, sum(cuts), p.channels + 2 * p.kv_channels)
    position = torch.tensor([0, 9, 1_000_003])
    rings = drawn(3, p.kv_heads, p.head_channels, p.capacity, seed=1), drawn(3, p.kv_heads, p.capacity, p.head_channels, seed=2)
    exact = [ring.double() for ring in rings]
    wanted = AtenAttention(p)(qkv.double(), *exact, position)
    kernel, own, made = attention.RingAttention(p), [ring.clone() for ring in rings], []
    for start, count in zip(np.cumsum([0, *cuts]).tolist(), cuts, strict=False):
        made.append(kernel(qkv[:, start : start + count], *own, position + start))
    got = torch.cat(made, dim=1)
    assert (got - wanted).abs().max() < 4e-6
    for ring, other in zip(own, exact, strict=True):
        assert (ring - other).abs().max() < 4e-6
    last = [ring[2:].clone() for ring in rings]
    assert same(kernel(qkv[2:], *last, position[2:]), got[2:])


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("channels", [1, 40, 512])
def test_norms_over_channels(channels, centered, same):
    x, weight, bias = 3 * drawn(2, 30, channels) + 1, 1 + drawn(channels, seed=1) / 9, drawn(channels, seed=2)
    wide = x.double() - (x.double().mean(2, keepdim=True) if centered else 0)
    wanted = wide * torch.rsqrt(wide.square().mean(2, keepdim=True) + 1e-5) * weight + (bias if centered else 0)
    norm = channel_norm.ChannelNorm(weight, bias if centered else None, 1e-5)
    assert (norm(x) - wanted).abs().max() < 1e-5
    assert same(norm(x[1:, 3:9]), norm(x)[1:, 3:9])


def test_the_nearest_entry():
    table, offset, codes = drawn(8, 300), drawn(300, seed=1), drawn(2, 70, 8, seed=2)
    wanted = (codes.double() @ table.double() + offset.double()).argmax(-1)
    assert torch.equal(gemm_conv.CodebookSearch(table, offset)(codes), wanted)
    assert gemm_conv.CodebookSearch(table, None)(codes[:, :0]).shape == (2, 0)


def test_without_a_compiler_a_gpu_is_left_to_pytorch(monkeypatch):
    from blazen_codec_core.nn.kernels.triton import launch

    def fails(*arguments, **options):
        raise RuntimeError("Failed to find C compiler")

    made = torch.empty(1)
    monkeypatch.setattr(launch.torch, "empty", lambda *shape, device: made)
    monkeypatch.setattr(launch.torch.version, "cuda", "13.0")
    monkeypatch.setattr(launch.torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(launch, "launch", fails)
    with pytest.warns(RuntimeWarning, match="C compiler"):
        assert not launch.runs_on.__wrapped__(torch.device("cuda"))
