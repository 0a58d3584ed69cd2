"""Every way to compute a convolution gives the same sums, and the fastest is chosen by shape and device."""

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
def test_fewer_products_are_the_convolution_to_a_few_roundings(kernel, dilation, channels, frames, batch, more, bias, block):
    generator = seeded(frames)
    weight = torch.randn(kernel, *channels, generator=generator, dtype=torch.float64)
    offset = torch.randn(channels[1], generator=generator, dtype=torch.float64) if bias else None
    x = torch.randn(batch, frames + (kernel - 1) * dilation + more, channels[0], generator=generator, dtype=torch.float64)
    wanted = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), offset, dilation=dilation).transpose(1, 2)[:, :frames]
    way = fewer_products(weight.float(), None if offset is None else offset.float(), dilation, block_values=block)
    got = way(x.float(), frames)
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 3e-6 * wanted.abs().max().clamp(min=1) * (kernel * channels[0]) ** 0.5


def test_fewer_products_round_about_twice_as_much_as_the_sum():
    x, weight = torch.randn(1, 2048 + 6, 192, generator=seeded(0)), torch.randn(7, 192, 192, generator=seeded(1)) / 40
    exact = conv.GemmPerTapConv1d(weight.double().unbind(), None)(x.double(), 2048)
    of_sum = (conv.GemmPerTapConv1d(weight.unbind(), None)(x, 2048) - exact).square().mean().sqrt()
    of_fewer = (fewer_products(weight, None, 1)(x, 2048) - exact).square().mean().sqrt()
    assert of_fewer < 3 * of_sum < 3e-6


@pytest.fixture(
    params=[pytest.param(dispatch.PLAIN, marks=packing), pytest.param(dispatch.PACKED, marks=packing)], ids=["plain", "packed"]
)
def limits(request, monkeypatch):
    """What is fastest on either kind of processor without compiled loops; every way runs on both."""
    monkeypatch.setattr(dispatch, "limits", lambda: request.param)
    monkeypatch.setattr(dispatch, "load_loops", lambda: None)
    return request.param


@pytest.mark.parametrize(
    ("shape", "options", "on_plain", "on_packed"),
    [
        (
            (7, 128, 128),
            {},
            "AtenWinogradConv1d or GemmPerTapConv1d",
            "AtenWinogradConv1d or ChannelsLastConv2d or PrepackedConv1d",
        ),
        ((7, 96, 96), {}, "AtenWinogradConv1d or GemmPerTapConv1d", "ChannelsLastConv2d or PrepackedConv1d"),
        ((7, 96, 96), {"lasting": False}, "ChannelsLastConv2d", "ChannelsLastConv2d"),
        ((3, 256, 256), {}, "AtenWinogradConv1d or GemmPerTapConv1d", "PrepackedConv1d"),
        ((7, 48, 96), {}, "GemmPerTapConv1d", "ChannelsLastConv2d or PrepackedConv1d"),
        ((1, 96, 96), {}, "PrepackedConv1d or GemmPerTapConv1d", "PrepackedConv1d"),
        ((1, 512, 512), {}, "PrepackedConv1d", "PrepackedConv1d"),
        ((2, 512, 512), {}, "GemmPerTapConv1d or PrepackedConv1d", "PrepackedConv1d"),
        ((2, 96, 96), {}, "GemmPerTapConv1d", "ChannelsLastConv2d or PrepackedConv1d"),
        ((8, 48, 96), {"stride": 4}, "GemmPerTapConv1d", "ChannelsLastConv2d or PrepackedConv1d"),
        ((7, 1, 64), {}, "Im2colConv1d", "Im2colConv1d"),
        ((7, 64, 1), {}, "Kn2rowConv1d", "Kn2rowConv1d"),
        ((7, 1, 64), {"groups": 64}, "ChannelsLastConv2d", "ChannelsLastConv2d"),
        ((7, 2, 64), {"groups": 32}, "AtenConv1d", "AtenConv1d"),
        ((7, 32, 64), {"stride": 2}, "AtenConv1d", "AtenConv1d"),
    ],
)
def test_the_way_is_chosen_by_shape(limits, shape, options, on_plain, on_packed):
    way = dispatch.convolution(torch.zeros(shape), None, **{"lasting": True, **options})
    assert " or ".join(names(way)) == (on_plain if limits is dispatch.PLAIN else on_packed)


@torch.no_grad()
def test_weights_that_may_change_are_not_brought_into_order(limits):
    assert names(dispatch.convolution(torch.zeros(7, 96, 96), None, lasting=False)) == ["GemmPerTapConv1d"]


@blocks
@pytest.mark.parametrize(
    ("shape", "options", "way"),
    [
        ((7, 128, 128), {"dilation": 9}, "WinogradConv1d"),
        ((3, 128, 64), {}, "WinogradConv1d"),
        ((3, 64, 32), {}, "WinogradConv1d"),
        ((3, 32, 16), {}, "Blocks"),
        ((10, 128, 256), {"stride": 5}, "WinogradConv1d"),
        ((16, 256, 512), {"stride": 8}, "WinogradConv1d or Blocks"),
        ((7, 512, 512), {"dilation": 3}, "WinogradConv1d or Blocks"),
        ((4, 32, 64), {"stride": 2}, "WinogradConv1d"),
        ((4, 16, 64), {"stride": 2}, "Blocks"),
        ((7, 32, 64), {"stride": 2}, "Blocks"),
        ((1, 96, 96), {}, "Blocks"),
        ((2, 1536, 6144), {}, "Blocks"),
        ((7, 1, 64), {}, "Blocks"),
        ((7, 64, 1), {}, "Kn2rowConv1d"),
        ((7, 1, 64), {"groups": 64}, "Depthwise"),
    ],
)
def test_loops_multiply_wherever_there_are_channels_for_a_vector(shape, options, way):
    assert " or ".join(names(dispatch.convolution(torch.zeros(shape), None, lasting=True, **options))) == way
    double = dispatch.convolution(torch.zeros(1, 4, 32, dtype=torch.float64), None, lasting=True)
    assert names(double) == ["GemmPerTapConv1d"]


@pytest.mark.skipif(HAS_VECTORS, reason="this processor has AVX2 or AVX-512; nox -s processors runs this as if it had not")
def test_other_processors_are_left_to_the_library():
    if loops:
        assert not loops.supports_direct_conv(torch.zeros(1, 64, 64))
        assert not loops.supports_lstm(torch.zeros(256, 64))
    assert names(dispatch.convolution(torch.zeros(2, 64, 64), None, lasting=True)) == ["GemmPerTapConv1d"]


def names(way):
    """What a way may be, for long signals first."""
    return [*names(way._long), *names(way._short)] if isinstance(way, conv.LengthDispatch) else [type(way).__name__]


def test_the_limits_are_the_processors(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(prepacked_conv, "is_available", lambda: True)
    assert dispatch.limits.__wrapped__() is dispatch.PACKED
    monkeypatch.setattr(prepacked_conv, "is_available", lambda: False)
    assert dispatch.limits.__wrapped__() is dispatch.PLAIN
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert dispatch.limits.__wrapped__() is dispatch.PLAIN


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
def test_a_packed_product_is_the_convolution(taps, stride, channels, frames, batch, more, bias):
    count, dilation = taps if stride == 1 else (taps[0], 1)
    weight = torch.randn(count * stride, *channels, generator=seeded(frames))
    offset = torch.randn(channels[1], generator=seeded(1)) if bias else None
    needed = (frames - 1) * stride + (count * stride - 1) * dilation + 1
    x = torch.randn(batch, needed + more, channels[0], generator=seeded(2))
    wanted = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), offset, stride, 0, dilation).transpose(1, 2)[:, :frames]
    with torch.inference_mode():
        got = prepacked_conv.PrepackedConv1d(weight.reshape(count, -1, channels[1]).unbind(), offset, dilation)(x, frames)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_products_are_packed_where_the_library_can(limits, monkeypatch):
    monkeypatch.setattr(prepacked_conv, "is_available", lambda: False)
    assert names(dispatch.convolution(torch.zeros(2, 512, 512), None, lasting=True)) == ["GemmPerTapConv1d"]


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="only PyTorch for x86 always has oneDNN")
def test_the_librarys_operators_are_those_that_are_expected():
    assert prepacked_conv.is_available()


def test_a_library_without_the_operators_is_found_out(monkeypatch):
    def other(*arguments):
        raise TypeError("other arguments")

    monkeypatch.setattr(prepacked_conv, "_operators", lambda: (other, other))
    assert not prepacked_conv.is_available.__wrapped__()


def test_a_device_without_fast_products_gets_the_librarys_convolution(monkeypatch):
    monkeypatch.setattr(dispatch, "products_are_faster", lambda device: False)
    way = dispatch.convolution(torch.zeros(7, 96, 96), None, lasting=True)
    assert type(way) is conv.AtenConv1d


@pytest.mark.parametrize(
    "limits", [dispatch.PLAIN, pytest.param(dispatch.PACKED, marks=packing), None], ids=["plain", "packed", "loops"]
)
@pytest.mark.parametrize("products", [True, False], ids=["products", "library"])
@settings(max_examples=15)
@given(length=st.integers(1, 700), batch=st.integers(1, 2), sizes=sizes, dilation=st.sampled_from([1, 3]))
def test_prepared_layers_stream_what_others_give(limits, products, length, batch, sizes, dilation):
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
        patch.setattr(dispatch, "products_are_faster", lambda device: products)
        if limits:
            patch.setattr(dispatch, "limits", lambda: limits)
            patch.setattr(dispatch, "load_loops", lambda: None)
        prepare(layers)
        for got in (whole(layers, x), streamed(layers, x, sizes)):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    for layer in layers:
        layer._prepared = None


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
def test_the_end_of_a_signal_is_the_same_by_way_of_a_round_number_of_frames(name, frames):
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
    kernel = layer.select_kernel(lasting=True)
    wanted = kernel(x, frames)
    got = dispatch.run_bucketed(kernel, x, frames, stride)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_there_are_few_round_numbers_of_frames():
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
def test_a_step_that_brings_nothing_yet_gives_no_frames(dtype, prepared):
    """Which the library would refuse to compute."""
    for layer in (ConvTranspose1d(4, 6, 4, stride=2), Conv1d(4, 6, 4, stride=2, padding=0)):
        layer.requires_grad_(False).to(dtype)
        if prepared:
            layer.prepare()
        with torch.inference_mode():
            state = layer.init_state(StreamSetup(3, torch.device("cpu"), dtype))
            assert layer.step(torch.ones(3, 0, 4, dtype=dtype), state, False).shape == (3, 0, 6)
