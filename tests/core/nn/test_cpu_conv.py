"""CPU kernels for convolutions, recurrent layers and norms."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import CodecNetwork, Conv1d, ResidualVectorQuantizer, prepare, reset_parameters
from blazen_codec_core.nn.kernels.epilogue import ELU, SNAKE, Epilogue
from blazen_codec_core.nn.kernels.winograd import F_3_2, F_4_3, F_5_2, F_8_7, F_8_7_FAST
from tests.helpers.epilogues import ACTIVATIONS, apply_epilogue, drawn, epilogue_for
from tests.helpers.processors import blocks

pytest.importorskip("blazen_codec_core.nn.kernels.cpu", reason="numba, which compiles the kernels, is not installed")
from blazen_codec_core.nn.kernels.cpu.conv import select_conv1d
from blazen_codec_core.nn.kernels.cpu.direct_conv import DirectConv1d
from blazen_codec_core.nn.kernels.cpu.elementwise import CpuElementwise
from blazen_codec_core.nn.kernels.cpu.group_norm import GroupNorm
from blazen_codec_core.nn.kernels.cpu.kn2row_conv import Kn2rowConv1d
from blazen_codec_core.nn.kernels.cpu.lstm import PersistentLSTM
from blazen_codec_core.nn.kernels.cpu.simd import LANES
from blazen_codec_core.nn.kernels.cpu.winograd_conv import WinogradConv1d

pytestmark = blocks


def written_out(x, weight, bias, frames, stride=1, dilation=1):
    y = F.conv1d(x.double().transpose(1, 2), weight.double().permute(2, 1, 0), bias.double(), stride, 0, dilation)
    return y.transpose(1, 2)[:, :frames]


FILTERS = [F_5_2, F_3_2, F_4_3, F_8_7, F_8_7_FAST]


@given(
    kernel=st.integers(1, 9),
    stride=st.integers(1, 4),
    dilation=st.sampled_from([1, 3, 9]),
    channels=st.sampled_from(
        [(1, 16), (5, 48), (64, 80), (130, 96), (256, 32), (12, 12), (20, 60), (130, 40), (36, 128), (6, 64)]
    ),
    frames=st.integers(1, 70) | st.sampled_from([1021]),
    batch=st.integers(1, 3),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_direct_conv_matches_reference(kernel, stride, dilation, channels, frames, batch, more, bias):
    weight = drawn(kernel, *channels) / (kernel * channels[0]) ** 0.5
    offset = drawn(channels[1], seed=1) if bias else torch.zeros(channels[1])
    x = drawn(batch, (frames - 1) * stride + (kernel - 1) * dilation + 1 + more, channels[0], seed=frames)
    got = DirectConv1d(weight, offset if bias else None, stride, dilation)(x, frames)
    torch.testing.assert_close(got.double(), written_out(x, weight, offset, frames, stride, dilation), rtol=0, atol=2e-5)


@given(
    own=st.sampled_from(FILTERS),
    dilation=st.sampled_from([1, 2, 3, 9]),
    channels=st.sampled_from([(1, 16), (5, 48), (64, 80), (40, 96), (34, 64)]),
    frames=st.integers(1, 200) | st.sampled_from([1021, 2500]),
    batch=st.integers(1, 5),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_winograd_conv_matches_reference(own, dilation, channels, frames, batch, more, bias):
    kernel = own.filter_transform.shape[1]
    weight = drawn(kernel, *channels) / (kernel * channels[0]) ** 0.5
    offset = drawn(channels[1], seed=1) if bias else torch.zeros(channels[1])
    x = drawn(batch, frames + (kernel - 1) * dilation + more, channels[0], seed=frames)
    got = WinogradConv1d(own, weight, offset if bias else None, dilation)(x, frames)
    torch.testing.assert_close(got.double(), written_out(x, weight, offset, frames, 1, dilation), rtol=0, atol=2e-5)


@given(
    kernel=st.integers(1, 9),
    dilation=st.sampled_from([1, 3, 9]),
    channels=st.sampled_from([16, 20, 40, 48, 64, 512]),
    frames=st.integers(1, 70) | st.sampled_from([1021]),
    batch=st.integers(1, 2),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_depthwise_conv_matches_reference(kernel, dilation, channels, frames, batch, more, bias):
    weight = drawn(kernel, 1, channels) / kernel**0.5
    offset = drawn(channels, seed=1) if bias else None
    x = drawn(batch, frames + (kernel - 1) * dilation + more, channels, seed=frames)
    got = select_conv1d(weight, offset, dilation=dilation, groups=channels)(x, frames)
    wanted = sum(x[:, j * dilation : j * dilation + frames].double() * weight[j].double() for j in range(kernel))
    torch.testing.assert_close(got.double(), wanted if offset is None else wanted + offset.double(), rtol=0, atol=1e-5)


@given(
    kernel=st.integers(2, 9),
    dilation=st.sampled_from([1, 3]),
    channels=st.sampled_from([(16, 1), (32, 2), (96, 1), (40, 3), (64, 4)]),
    frames=st.integers(1, 300) | st.sampled_from([1021, 2500]),
    batch=st.integers(1, 2),
    more=st.integers(0, 5),
    bias=st.booleans(),
)
def test_kn2row_conv_matches_reference(kernel, dilation, channels, frames, batch, more, bias):
    weight = drawn(kernel, *channels) / (kernel * channels[0]) ** 0.5
    offset = drawn(channels[1], seed=1) if bias else torch.zeros(channels[1])
    x = drawn(batch, frames + (kernel - 1) * dilation + more, channels[0], seed=frames)
    way = select_conv1d(weight, offset if bias else None, dilation=dilation)
    assert type(way) is Kn2rowConv1d
    got = way(x, frames)
    assert got.shape == (batch, frames, channels[1])
    torch.testing.assert_close(got.double(), written_out(x, weight, offset, frames, 1, dilation), rtol=0, atol=1e-5)


@given(
    way=st.sampled_from(
        [
            lambda: DirectConv1d(drawn(2, 160, 800), None),
            lambda: DirectConv1d(drawn(2, 160, 1024), None),
            lambda: DirectConv1d(drawn(7, 24, 24), None, 1, 3),
            lambda: WinogradConv1d(F_5_2, drawn(2, 64, 96), drawn(96)),
            lambda: WinogradConv1d(F_8_7, drawn(7, 48, 48), None, 9),
            lambda: select_conv1d(drawn(7, 1, 40), None, dilation=3, groups=40),
        ]
    ),
    frames=st.integers(1, 40) | st.sampled_from([300]),
    batch=st.sampled_from([2, 5, 16]),
    gap=st.sampled_from([0, 3]),
)
def test_signals_of_a_batch_are_those_alone(way, frames, batch, gap):
    kernel = way()
    out, channels = kernel._out if hasattr(kernel, "_out") else kernel._channels, getattr(kernel, "_block", kernel._channels)
    x = drawn(batch, frames + 60 + gap, channels)[:, : frames + 60]
    after = epilogue_for(SNAKE, True, True, batch, frames, out, 2)
    made = kernel(x, frames, after)
    for row in range(batch):
        one = slice(row, row + 1)
        own = dataclasses.replace(after, residual=after.residual[one], residual_head=after.residual_head[one])
        assert torch.equal(kernel(x[one], frames, own)[0], made[row])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_are_refused(dtype):
    x, right = drawn(1, 70, 64), drawn(1, 64, 64)
    for way in (
        DirectConv1d(right, None),
        WinogradConv1d(F_5_2, drawn(2, 64, 64), None),
        select_conv1d(drawn(7, 1, 64), None, groups=64),
    ):
        with pytest.raises(TypeError):
            way(x.to(dtype), 60)
        with pytest.raises(TypeError):
            way(x, 60, Epilogue(residual=x.to(dtype)))
    with pytest.raises(TypeError):
        GroupNorm(drawn(64), drawn(64), 1e-5)(x.to(dtype))


def test_unsupported_shapes_have_no_kernel():
    """One output channel with one tap, with a stride, or with few input channels; half a vector of channels, each by itself."""
    half = LANES // 2
    own = {"groups": half}
    for shape, options in [((1, 64, half), {}), ((4, 64, 1), {"stride": 2}), ((7, half, 1), {}), ((7, 1, half), own)]:
        assert select_conv1d(torch.zeros(shape), None, **options) is None


@given(
    way=st.sampled_from(["blocks", "heavy blocks", "points", "single channels", "norm"]),
    frames=st.integers(1, 70) | st.sampled_from([700]),
    channels=st.sampled_from([16, 64, 80, 40, 21]),
    batch=st.integers(1, 2),
    kind=st.sampled_from(ACTIVATIONS),
    scaled=st.booleans(),
    added=st.booleans(),
    held=st.sampled_from([0, 1, 13, 1000]),
)
def test_epilogue_matches_separate_operations(way, frames, channels, batch, kind, scaled, added, held):
    taps = {"blocks": (1, 8), "heavy blocks": (1, 300), "points": (3, 64), "single channels": (7, 1), "norm": (1, 1)}[way]
    weight = drawn(*taps, channels) / (taps[0] * taps[1]) ** 0.5
    alone = way == "single channels"
    x = drawn(batch, frames + taps[0] - 1, channels if alone else taps[1], seed=3)
    made_by = select_conv1d(weight, drawn(channels, seed=4), groups=channels if alone else 1)
    if way == "norm":
        channels = channels // LANES * LANES
        x, norm = drawn(batch, frames, channels, seed=3), GroupNorm(drawn(channels, seed=5), drawn(channels, seed=6), 1e-5)

        def made_by(x, frames, *after):
            return norm(x, *after)

    after = epilogue_for(kind, scaled, added, batch, frames, channels, held)
    wanted = apply_epilogue(made_by(x, frames).double(), after)
    torch.testing.assert_close(made_by(x, frames, after).double(), wanted, rtol=0, atol=5e-6)


@given(
    sizes=st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 40) | st.just(2000), st.integers(0, 3)),
    channels=st.sampled_from([1, 3, 16, 40]),
    kind=st.sampled_from(ACTIVATIONS),
    lengths=st.none() | st.tuples(st.integers(0, 45), st.integers(0, 45)),
)
def test_assemble_input_concatenates_tail_padding_and_chunk(sizes, channels, kind, lengths):
    tail, left, frames, right = sizes
    after = epilogue_for(kind, False, False, 2, frames, channels)
    before, x = drawn(2, tail, channels), drawn(2, frames, channels, seed=1)
    made = apply_epilogue(x.double(), after)
    for row, end in enumerate(lengths or ()):
        made[row, end:] = 0
    wanted = torch.cat([before.double(), torch.zeros(2, left, channels), made, torch.zeros(2, right, channels)], dim=1)
    got = torch.empty_like(wanted, dtype=x.dtype)
    CpuElementwise().assemble_input(before, x, left, after, got, None if lengths is None else torch.tensor(lengths))
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("taps", [2, 3, 7])
def test_strided_winograd_matches_reference(taps):
    weight, bias = drawn(4 * taps, 48, 224) / (200 * taps) ** 0.5, drawn(224, seed=1)
    x = drawn(1, 4 * (76 + taps), 48, seed=2)
    way = select_conv1d(weight, bias, 4)
    assert type(way) is WinogradConv1d
    torch.testing.assert_close(way(x, 77).double(), written_out(x, weight, bias, 77, 4), rtol=0, atol=2e-5)


def test_rounding_is_close_to_pytorch():
    x, weight = drawn(1, 2048 + 6, 192), drawn(7, 192, 192, seed=1) / 40
    bias = torch.zeros(192)
    exact = written_out(x, weight, bias, 2048)
    of_library = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0)).transpose(1, 2)
    least = (of_library - exact).square().mean().sqrt()
    for way, most in (
        (DirectConv1d(weight, bias), 1.5),
        (WinogradConv1d(F_8_7, weight, bias), 3),
        (WinogradConv1d(F_8_7_FAST, weight, bias), 6),
    ):
        assert (way(x, 2048) - exact).square().mean().sqrt() < most * least


def test_encoder_rounds_less_than_decoder():
    class Network(CodecNetwork):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Conv1d(192, 192, 7), Conv1d(192, 192, 7)
            self.quantizer = ResidualVectorQuantizer(192, [])

    network, x = Network(), drawn(1, 2048 + 6, 192)
    reset_parameters(network, 0)
    network.decoder.load_state_dict(network.encoder.state_dict())
    network.requires_grad_(False).place(torch.device("cpu"), torch.float32)
    prepare(network)
    with torch.inference_mode():
        exact = written_out(x, network.encoder.weight.detach(), network.encoder.bias, 2048)
        of_tokens, heard = ((part(x) - exact).square().mean().sqrt() for part in (network.encoder, network.decoder))
    assert 0 < of_tokens < 0.7 * heard < 1e-5


@pytest.mark.parametrize(
    ("way", "stride"),
    [
        (lambda w: DirectConv1d(w, None, 1, 3), 1),
        (lambda w: DirectConv1d(w, None, 2), 2),
        (lambda w: Kn2rowConv1d(w[..., :2].contiguous(), None, 1), 1),
    ],
    ids=["dilated", "strided", "taps together"],
)
@pytest.mark.parametrize(("channels", "out"), [(96, 96), (96, 128), (90, 128), (96, 48)])
def test_frames_do_not_depend_on_the_chunk_size(way, stride, channels, out):
    kernel, x = way(drawn(4, channels, out)), drawn(1, 5000, channels)
    whole = kernel(x, 2000)
    for start, frames in [(0, 1), (1, 13), (14, 1500), (1514, 486)]:
        part = x[:, start * stride :]
        assert torch.equal(kernel(part, frames), whole[:, start : start + frames])


@pytest.mark.parametrize(
    ("kernel", "stride", "frames", "batch"), [(1, 1, 2, 3), (1, 1, 7, 2), (4, 2, 1, 5), (3, 1, 2, 6), (3, 1, 4, 2)]
)
def test_the_signals_of_a_batch_give_what_each_gives_alone(kernel, stride, frames, batch):
    """Where the weights dominate, the rows of a tile are those of several signals."""
    conv = DirectConv1d(drawn(kernel, 256, 512), drawn(512), stride)
    x = drawn(batch, (frames - 1) * stride + kernel, 256)
    after = Epilogue(activation=ELU, residual=drawn(batch, frames, 512, seed=3))
    alone = [
        conv(x[row : row + 1], frames, dataclasses.replace(after, residual=after.residual[row : row + 1])) for row in range(batch)
    ]
    assert torch.equal(conv(x, frames, after), torch.cat(alone))
    apart = drawn(batch, 2 * x.shape[1], 256)[:, : x.shape[1]].copy_(x)
    assert torch.equal(conv(apart, frames, after), torch.cat(alone))


@pytest.mark.parametrize(
    "kernel",
    [DirectConv1d(drawn(3, 96, 96), None), WinogradConv1d(F_8_7, drawn(7, 96, 96), None), Kn2rowConv1d(drawn(7, 96, 1), None, 1)],
)
def test_kernels_run_in_several_threads(kernel):
    """They hold no state but their weights."""
    signals = [drawn(1, 4000, 96, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: kernel(x, 3900), signals))
    assert all(torch.equal(got, kernel(x, 3900)) for got, x in zip(found, signals, strict=True))


def test_non_contiguous_input_is_accepted():
    weight, bias, x = drawn(7, 2, 32), drawn(32, seed=1), drawn(2, 2, 300, seed=2)
    for way in (DirectConv1d(weight, bias), WinogradConv1d(F_8_7, weight, bias)):
        got = way(x.transpose(1, 2), 290)
        torch.testing.assert_close(got.double(), written_out(x.transpose(1, 2), weight, bias, 290), rtol=0, atol=2e-5)
    x = drawn(2, 32, 300, seed=2).transpose(1, 2)
    for way in (Kn2rowConv1d(drawn(7, 32, 1), None, 1), lambda x, frames: GroupNorm(bias, bias, 1e-5)(x)):
        assert torch.equal(way(x, 290), way(x.contiguous(), 290))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 11])
def test_lstm_matches_pytorch_and_rows_are_independent(rows):
    lstm = torch.nn.LSTM(64, 64, batch_first=True)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(1))
        x = drawn(rows, 40, 64)
        kernel = PersistentLSTM(lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)

        def run(part):
            return kernel(part, torch.zeros(len(part), 64), torch.zeros(len(part), 64), False)[:, 1:]

        got = run(x)
        torch.testing.assert_close(got, lstm(x)[0], atol=1e-6, rtol=1e-5)
        for row in range(rows):
            assert torch.equal(run(x[row : row + 1])[0], got[row])
