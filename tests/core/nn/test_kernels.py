"""Convolution kernels agree, and dispatch selects the fastest by shape and device."""

from __future__ import annotations

import platform

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from blazen_codec_core.nn import Conv1d, ConvTranspose1d, FactorizedQuantizer, Sequential, StreamSetup, VectorQuantizer, prepare
from blazen_codec_core.nn import reset_parameters as reset
from blazen_codec_core.nn.kernels import dispatch
from blazen_codec_core.nn.kernels.aten import conv, prepacked_conv
from blazen_codec_core.nn.kernels.aten.winograd_conv import AtenWinogradConv1d
from tests.helpers.processors import HAS_VECTORS, blocks, loops, packing
from tests.helpers.streaming import sizes, streamed, whole


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fewer_products(weight, bias, dilation, **options):
    return AtenWinogradConv1d(weight, bias, dilation, lambda taps, b, d: conv.GemmPerTapConv1d(taps, b, dilation=d), **options)


@given(
    kernel=st.sampled_from([3, 7, 11]),
    dilation=st.sampled_from([1, 2, 3, 9]),
    channels=st.sampled_from([(1, 1), (5, 8), (16, 3)]),
    frames=st.integers(1, 200),
    batch=st.integers(1, 3),
    more=st.integers(0, 5),
    bias=st.booleans(),
    block=st.sampled_from([1, 300, 1 << 20]),
)
def test_winograd_matches_reference(kernel, dilation, channels, frames, batch, more, bias, block):
    generator = seeded(frames)
    weight = torch.randn(kernel, *channels, generator=generator, dtype=torch.float64)
    offset = torch.randn(channels[1], generator=generator, dtype=torch.float64) if bias else None
    x = torch.randn(batch, frames + (kernel - 1) * dilation + more, channels[0], generator=generator, dtype=torch.float64)
    wanted = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), offset, dilation=dilation).transpose(1, 2)[:, :frames]
    way = fewer_products(weight.float(), None if offset is None else offset.float(), dilation, tile_values=block)
    got = way(x.float(), frames)
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 3e-6 * wanted.abs().max().clamp(min=1) * (kernel * channels[0]) ** 0.5


def test_winograd_rounds_at_most_three_times_as_much():
    x, weight = torch.randn(1, 2048 + 6, 192, generator=seeded(0)), torch.randn(7, 192, 192, generator=seeded(1)) / 40
    exact = conv.GemmPerTapConv1d(weight.double().unbind(), None)(x.double(), 2048)
    of_sum = (conv.GemmPerTapConv1d(weight.unbind(), None)(x, 2048) - exact).square().mean().sqrt()
    of_fewer = (fewer_products(weight, None, 1)(x, 2048) - exact).square().mean().sqrt()
    assert of_fewer < 3 * of_sum < 3e-6


@pytest.fixture(
    params=[pytest.param(dispatch.GENERIC, marks=packing), pytest.param(dispatch.AVX512, marks=packing)], ids=["plain", "packed"]
)
def crossover_points(request, monkeypatch):
    """Return the crossover points of each kind of processor, without compiled kernels."""
    monkeypatch.setattr(dispatch, "crossover_points", lambda: request.param)
    monkeypatch.setattr(dispatch, "load_cpu_kernels", lambda: None)
    return request.param


def chosen(shape, frames=4096, frozen=True, dtype=torch.float32, **options):
    """Return the class of the kernel for `frames` frames of a convolution."""
    kernel = dispatch.select_conv1d(torch.zeros(shape, dtype=dtype), None, frozen=frozen, **options)
    while isinstance(kernel, conv.LengthDispatch):
        kernel = kernel.kernel_for(frames)
    return type(kernel)


@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
    [
        pytest.param((7, 1, 64), {"groups": 64}, conv.ChannelsLastConv2d, id="depthwise"),
        pytest.param((7, 2, 64), {"groups": 32}, conv.AtenConv1d, id="groups"),
        pytest.param((7, 32, 64), {"stride": 2}, conv.AtenConv1d, id="taps no multiple of the stride"),
        pytest.param((7, 1, 64), {}, conv.Im2colConv1d, id="few channels in"),
        pytest.param((7, 64, 1), {}, conv.Kn2rowConv1d, id="few channels out"),
        pytest.param((7, 96, 96), {"frozen": False}, conv.ChannelsLastConv2d, id="learning"),
        pytest.param((7, 256, 256), {}, AtenWinogradConv1d, id="wide, long, of many taps"),
        pytest.param((1, 96, 96), {}, prepacked_conv.PrepackedConv1d, id="single tap, long"),
        pytest.param((2, 512, 512), {"frames": 16}, prepacked_conv.PrepackedConv1d, id="heavy, brief"),
    ],
)
def test_dispatch_on_any_processor(crossover_points, shape, options, wanted):
    assert chosen(shape, **options) is wanted


@pytest.mark.parametrize(
    ("shape", "frames", "on_plain", "on_packed"),
    [
        pytest.param((2, 512, 512), 4096, conv.GemmPerTapConv1d, prepacked_conv.PrepackedConv1d, id="heavy, long"),
        pytest.param((2, 96, 96), 4096, conv.GemmPerTapConv1d, conv.ChannelsLastConv2d, id="light, long"),
        pytest.param((2, 96, 96), 16, conv.GemmPerTapConv1d, prepacked_conv.PrepackedConv1d, id="light, brief"),
    ],
)
def test_dispatch_by_processor(crossover_points, shape, frames, on_plain, on_packed):
    assert chosen(shape, frames) is (on_plain if crossover_points is dispatch.GENERIC else on_packed)


@torch.no_grad()
def test_trainable_weights_are_not_packed(crossover_points):
    assert chosen((7, 96, 96), frozen=False) is conv.GemmPerTapConv1d


@blocks
@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
    [
        pytest.param((7, 1, 64), {"groups": 64}, "DepthwiseConv1d", id="depthwise"),
        pytest.param((7, 64, 1), {}, "Kn2rowConv1d", id="few channels out"),
        pytest.param((7, 128, 128), {"dilation": 9}, "WinogradConv1d", id="taps of a filter by points"),
        pytest.param((10, 128, 256), {"stride": 5}, "WinogradConv1d", id="such taps of a stride"),
        pytest.param((3, 32, 16), {}, "DirectConv1d", id="too few channels for points"),
        pytest.param((5, 96, 96), {}, "DirectConv1d", id="other numbers of taps"),
        pytest.param((7, 512, 512), {"frames": 4096}, "WinogradConv1d", id="heavy, long"),
        pytest.param((7, 512, 512), {"frames": 16}, "DirectConv1d", id="heavy, brief"),
        pytest.param((2, 1536, 6144), {}, "DirectConv1d", id="too heavy for points"),
        pytest.param((1, 4, 32), {"dtype": torch.float64}, "GemmPerTapConv1d", id="other types"),
    ],
)
def test_dispatch_of_compiled_kernels(shape, options, wanted):
    assert chosen(shape, **options).__name__ == wanted


@pytest.mark.skipif(HAS_VECTORS, reason="this processor has AVX2 or AVX-512; nox -s processors runs this as if it had not")
def test_unsupported_processors_use_pytorch():
    if loops:
        assert not loops.supports_direct_conv(torch.zeros(1, 64, 64))
        assert not loops.supports_lstm(torch.zeros(256, 64))
    assert chosen((2, 64, 64)) is conv.GemmPerTapConv1d


def test_crossover_points_depend_on_the_processor(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(prepacked_conv, "is_available", lambda: True)
    assert dispatch.crossover_points.__wrapped__() is dispatch.AVX512
    monkeypatch.setattr(prepacked_conv, "is_available", lambda: False)
    assert dispatch.crossover_points.__wrapped__() is dispatch.GENERIC
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert dispatch.crossover_points.__wrapped__() is dispatch.GENERIC


@packing
@given(
    taps=st.sampled_from([(1, 1), (2, 1), (3, 2), (2, 3)]),
    stride=st.sampled_from([1, 2, 5]),
    channels=st.sampled_from([(1, 1), (5, 8), (64, 96)]),
    frames=st.integers(1, 70),
    batch=st.integers(1, 2),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_prepacked_conv_matches_reference(taps, stride, channels, frames, batch, more, bias):
    count, dilation = taps if stride == 1 else (taps[0], 1)
    weight = torch.randn(count * stride, *channels, generator=seeded(frames))
    offset = torch.randn(channels[1], generator=seeded(1)) if bias else None
    needed = (frames - 1) * stride + (count * stride - 1) * dilation + 1
    x = torch.randn(batch, needed + more, channels[0], generator=seeded(2))
    wanted = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), offset, stride, 0, dilation).transpose(1, 2)[:, :frames]
    with torch.inference_mode():
        got = prepacked_conv.PrepackedConv1d(weight.reshape(count, -1, channels[1]).unbind(), offset, dilation)(x, frames)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_weights_are_packed_only_if_onednn_can(crossover_points, monkeypatch):
    monkeypatch.setattr(prepacked_conv, "is_available", lambda: False)
    assert chosen((2, 512, 512)) is conv.GemmPerTapConv1d


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="only PyTorch for x86 always has oneDNN")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch was built without oneDNN")
def test_onednn_operators_are_available():
    assert prepacked_conv.is_available()


@packing
def test_missing_onednn_operators_are_detected(monkeypatch):
    def other(*arguments):
        raise TypeError("other arguments")

    assert torch.ops.mkldnn._linear_pointwise  # which is looked up once
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", other)
    assert not prepacked_conv.is_available.__wrapped__()


def test_devices_without_fast_gemm_use_aten_conv(monkeypatch):
    monkeypatch.setattr(dispatch, "prefers_gemm", lambda device: False)
    way = dispatch.select_conv1d(torch.zeros(7, 96, 96), None, frozen=True)
    assert type(way) is conv.AtenConv1d


@pytest.mark.parametrize(
    "crossover_points", [dispatch.GENERIC, pytest.param(dispatch.AVX512, marks=packing), None], ids=["plain", "packed", "loops"]
)
@pytest.mark.parametrize("products", [True, False], ids=["products", "library"])
@settings(max_examples=15)
@given(length=st.integers(1, 700), batch=st.integers(1, 2), sizes=sizes, dilation=st.sampled_from([1, 3]))
def test_prepared_layers_stream_exactly(crossover_points, products, length, batch, sizes, dilation):
    layers = Sequential(
        [
            Conv1d(2, 128, 7, padding=3),
            Conv1d(128, 128, 7, dilation=dilation, padding=3 * dilation),
            Conv1d(128, 128, 1),
            Conv1d(128, 64, 4, stride=2),
            ConvTranspose1d(64, 4, 4, stride=2),
        ]
    )
    reset(layers, 0)
    x = torch.randn(batch, length, 2, generator=seeded(length))
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        wanted = whole(layers, x)
        patch.setattr(dispatch, "prefers_gemm", lambda device: products)
        if crossover_points:
            patch.setattr(dispatch, "crossover_points", lambda: crossover_points)
            patch.setattr(dispatch, "load_cpu_kernels", lambda: None)
        prepare(layers)
        for got in (whole(layers, x), streamed(layers, x, sizes)):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("quantizer", [VectorQuantizer(8, 64), FactorizedQuantizer(24, 64, 8)], ids=["plain", "factorized"])
def test_a_prepared_quantizer_finds_the_same_entries(quantizer):
    for module in quantizer.modules():
        if hasattr(module, "reset_parameters"):
            with torch.no_grad():
                module.reset_parameters(seeded(1))
    codes = torch.randn(2, 50, 8, generator=seeded(2))
    wanted = quantizer.nearest(codes)
    prepare(quantizer)
    assert torch.equal(quantizer.nearest(codes), wanted)
    assert set(quantizer.state_dict()) == {name for name, _ in quantizer.named_parameters()}


@torch.no_grad()
@pytest.mark.parametrize("name", ["single", "taps", "stride", "depthwise", "dilated", "transposed"])
@pytest.mark.parametrize("frames", [1, 7, 64, 97, 1021])
def test_bucketed_lengths_give_the_same_result(name, frames):
    layer, stride, span = {
        "single": (Conv1d(48, 64, 1), 1, 1),
        "taps": (Conv1d(48, 64, 7), 1, 7),
        "stride": (Conv1d(48, 64, 8, stride=4), 4, 8),
        "depthwise": (Conv1d(64, 64, 7, groups=64), 1, 7),
        "dilated": (Conv1d(64, 64, 7, dilation=9), 1, 55),
        "transposed": (ConvTranspose1d(48, 64, 8, stride=4), 1, 2),
    }[name]
    reset(layer, 0)
    x = torch.randn(2, (frames - 1) * stride + span, layer.in_channels, generator=seeded(0))
    kernel = layer.select_kernel(frozen=True)
    wanted = kernel(x, frames)
    got = dispatch.run_bucketed(kernel, x, frames, stride)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_bucketed_lengths_are_few():
    seen = set()
    x = torch.zeros(1, 1, 1)

    def kernel(x, frames):
        seen.add(frames)
        return x.new_zeros(1, frames, 1)

    with torch.no_grad():
        for frames in range(1, 5000):
            assert dispatch.run_bucketed(kernel, x, frames, 1).shape[1] == frames
            assert max(seen) < 1.25 * 5000
        lengths = [part.shape[1] for n in range(1, 200) for part in dispatch.power_of_two_chunks(torch.zeros(1, n, 1))]
    assert len(seen) <= 4 * 13
    assert set(lengths) == {1 << bit for bit in range(8)}
    assert sum(lengths) == sum(range(1, 200))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prepared", [False, True])
def test_step_without_complete_frames_returns_none(dtype, prepared):
    """PyTorch refuses such inputs."""
    for layer in (ConvTranspose1d(4, 6, 4, stride=2), Conv1d(4, 6, 4, stride=2, padding=0)):
        layer.requires_grad_(False).to(dtype)
        if prepared:
            layer.prepare()
        with torch.inference_mode():
            state = layer.init_state(StreamSetup(3, torch.device("cpu"), dtype))
            assert layer.step(torch.ones(3, 0, 4, dtype=dtype), state, False).shape == (3, 0, 6)
