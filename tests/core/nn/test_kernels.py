"""Convolution kernels agree, and dispatch selects the fastest by shape and device."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from blazen_codec_core.nn import Conv1d, ConvTranspose1d, FactorizedQuantizer, Sequential, StreamSetup, VectorQuantizer, prepare
from blazen_codec_core.nn import reset_parameters as reset
from blazen_codec_core.nn.kernels import bucketing, dispatch
from blazen_codec_core.nn.kernels.aten import conv
from blazen_codec_core.nn.kernels.interface import Conv1dProblem, KernelBackend
from tests.helpers.processors import HAS_VECTORS, blocks, cpu
from tests.helpers.streaming import sizes, streamed, whole


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def without_numba(monkeypatch):
    """Leave everything to PyTorch's own operations."""
    monkeypatch.setattr(dispatch, "backends_for", lambda device: [dispatch.ATEN])


def chosen(shape, frames=4096, frozen=True, dtype=torch.float32, device="cpu", **options):
    """Return the class of the kernel for `frames` frames of a convolution."""
    kernel = dispatch.conv1d(Conv1dProblem(torch.zeros(shape, dtype=dtype, device=device), None, frozen=frozen, **options))
    while hasattr(kernel, "kernel_for"):
        kernel = kernel.kernel_for(frames)
    return type(kernel.kernel if isinstance(kernel, conv.RowByRow) else kernel)


@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
    [
        pytest.param((7, 1, 64), {"groups": 64}, conv.ChannelsLastConv2d, id="depthwise"),
        pytest.param((7, 2, 64), {"groups": 32}, conv.AtenConv1d, id="groups"),
        pytest.param((7, 32, 64), {"stride": 2}, conv.AtenConv1d, id="taps no multiple of the stride"),
        pytest.param((7, 1, 64), {}, conv.Im2colConv1d, id="few channels in"),
        pytest.param((7, 64, 1), {}, conv.Kn2rowConv1d, id="few channels out"),
        pytest.param((7, 96, 96), {"frozen": False}, conv.ChannelsLastConv2d, id="learning"),
        pytest.param((7, 96, 96), {"dtype": torch.bfloat16}, conv.ChannelsLastConv2d, id="half precision"),
        pytest.param((8, 96, 96), {"stride": 4}, conv.ChannelsLastConv2d, id="blocks of a stride"),
        pytest.param((4, 96, 96), {"stride": 4}, conv.GemmConv1d, id="single tap"),
        pytest.param((7, 96, 96), {"device": "meta"}, conv.AtenConv1d, id="other devices"),
    ],
)
def test_dispatch_without_numba(without_numba, shape, options, wanted):
    assert chosen(shape, **options) is wanted


class Recorder(KernelBackend):
    """A third party's back end, with one convolution of its own."""

    def __init__(self):
        self.problems = []

    def supports(self, device):
        return device.type == "cpu"

    def conv1d(self, problem):
        self.problems.append(problem)
        return conv.AtenConv1d(problem.weight, problem.bias, 1, 1, 1) if problem.kernel == 5 else None


def test_registered_backends_are_asked_first(monkeypatch, request):
    monkeypatch.setattr(dispatch, "_registered", [])
    request.addfinalizer(dispatch.backends_for.cache_clear)
    before = chosen((3, 16, 16))
    recorder = Recorder()
    dispatch.register(recorder)
    assert chosen((5, 16, 16)) is conv.AtenConv1d
    assert chosen((3, 16, 16)) is before
    assert [problem.kernel for problem in recorder.problems] == [5, 3]
    assert chosen((5, 16, 16), device="meta") is conv.AtenConv1d
    assert len(recorder.problems) == 2


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
        pytest.param((1, 4, 32), {"dtype": torch.float64}, "GemmConv1d", id="other types"),
    ],
)
def test_dispatch_of_compiled_kernels(shape, options, wanted):
    assert chosen(shape, **options).__name__ == wanted


@pytest.mark.skipif(HAS_VECTORS, reason="this processor has AVX2 or AVX-512; nox -s processors runs this as if it had not")
def test_unsupported_processors_use_pytorch():
    if cpu:
        assert cpu.codebook_search(torch.zeros(64, 64), None) is None
        assert cpu.lstm(torch.zeros(256, 64), torch.zeros(256, 64), torch.zeros(256), allow_tf32=False) is None
    assert chosen((2, 64, 64)) is conv.ChannelsLastConv2d


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "pytorch"])
@settings(max_examples=15)
@given(length=st.integers(1, 700), batch=st.integers(1, 2), sizes=sizes, dilation=st.sampled_from([1, 3]))
def test_prepared_layers_stream_exactly(numba, length, batch, sizes, dilation):
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
        if not numba:
            patch.setattr(dispatch, "backends_for", lambda device: [dispatch.ATEN])
        prepare(layers)
        for got in (whole(layers, x), streamed(layers, x, sizes)):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@given(
    taps=st.sampled_from([(1, 1), (2, 1), (3, 2), (7, 3)]),
    stride=st.sampled_from([1, 2, 5]),
    channels=st.sampled_from([(1, 1), (5, 8), (64, 96)]),
    frames=st.integers(1, 70),
    batch=st.integers(1, 2),
    bias=st.booleans(),
)
@pytest.mark.parametrize("kind", [conv.Im2colConv1d, conv.Kn2rowConv1d, conv.GemmConv1d, conv.ChannelsLastConv2d])
def test_aten_kernels_match_reference(kind, taps, stride, channels, frames, batch, bias):
    count, dilation = taps if stride == 1 else (taps[0], 1)
    stride = 1 if kind is conv.Kn2rowConv1d else stride
    count, dilation = (1, 1) if kind is conv.GemmConv1d else (count, dilation)
    weight = torch.randn(count * stride, *channels, generator=seeded(frames))
    offset = torch.randn(channels[1], generator=seeded(1)) if bias else None
    needed = (frames - 1) * stride + (count * stride - 1) * dilation + 1
    x = torch.randn(batch, needed, channels[0], generator=seeded(2))
    wanted = F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), offset, stride, 0, dilation).transpose(1, 2)
    block_taps = weight.reshape(count, -1, channels[1]).unbind()
    with torch.inference_mode():
        kernel = {
            conv.Im2colConv1d: lambda: conv.Im2colConv1d(weight, offset, stride, dilation),
            conv.Kn2rowConv1d: lambda: conv.Kn2rowConv1d(weight, offset, dilation),
            conv.GemmConv1d: lambda: conv.GemmConv1d(block_taps[0], offset),
            conv.ChannelsLastConv2d: lambda: conv.ChannelsLastConv2d(block_taps, offset, dilation),
        }[kind]()
        torch.testing.assert_close(kernel(x, frames), wanted, atol=1e-4, rtol=1e-4)


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
    got = bucketing.run_bucketed(kernel, x, frames, stride)
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
            assert bucketing.run_bucketed(kernel, x, frames, 1).shape[1] == frames
            assert max(seen) < 1.25 * 5000
        lengths = [part.shape[1] for n in range(1, 200) for part in bucketing.power_of_two_chunks(torch.zeros(1, n, 1))]
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
