"""Padding, cropping, recurrent layers, and norms over time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import (
    ELU,
    LSTM,
    Conv1d,
    Crop,
    ReflectPadding,
    Residual,
    Sequential,
    State,
    StreamSetup,
    Tiling,
    TimeGroupNorm,
    ZeroPadding,
    prepare,
    reset_parameters,
    same_padding,
)
from blazen_codec_core.nn.layers import lstm as lstm_layers
from blazen_codec_core.nn.pipeline import run_steps
from tests.helpers.processors import blocks
from tests.helpers.streaming import CPU, sizes, streamed, whole


def signal(length: int, channels: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, length, channels, generator=torch.Generator().manual_seed(length))


def mirrored(x: torch.Tensor, left: int, right: int) -> np.ndarray:
    """Reference: zeros if the signal is too short, then NumPy's reflection, then without as many samples at the end."""
    zeros = max(0, max(left, right) + 1 - x.shape[1])
    long = np.pad(x.numpy(), ((0, 0), (0, zeros), (0, 0)))
    padded = np.pad(long, ((0, 0), (left, right), (0, 0)), mode="reflect")
    return padded[:, : padded.shape[1] - zeros]


@given(left=st.integers(0, 8), right=st.integers(0, 8), stride=st.integers(1, 6), length=st.integers(1, 40), sizes=sizes)
def test_reflection_padding(left, right, stride, length, sizes):
    layer, x = ReflectPadding(3, left, right, stride), signal(length, 3)
    wanted = mirrored(x, left, right + -length % stride)
    for got in (whole(layer, x), streamed(layer, x, sizes)):
        np.testing.assert_array_equal(got.numpy(), wanted)


@given(left=st.integers(0, 5), right=st.integers(0, 5), length=st.integers(0, 20), sizes=sizes)
def test_zero_padding_and_cropping(left, right, length, sizes):
    x = signal(length, 2)
    padding, crop = ZeroPadding(left, right), Crop(2, left, right)
    padded = F.pad(x, (0, 0, left, right))
    for got in (whole(padding, x), streamed(padding, x, sizes)):
        assert torch.equal(got, padded)
    for got in (whole(crop, padded), streamed(crop, padded, sizes)):
        assert torch.equal(got, x)


@pytest.mark.parametrize(
    ("span", "stride", "causal", "wanted"),
    [(7, 1, True, (6, 0)), (7, 1, False, (3, 3)), (10, 5, True, (5, 0)), (10, 5, False, (3, 2)), (1, 1, False, (0, 0))],
)
def test_same_padding(span, stride, causal, wanted):
    assert same_padding(span, stride, causal) == wanted


@given(kernel=st.integers(1, 8), stride=st.integers(1, 4), causal=st.booleans(), length=st.integers(1, 40), sizes=sizes)
def test_reflected_conv_returns_a_frame_per_started_stride(kernel, stride, causal, length, sizes):
    kernel = max(kernel, stride)
    left, right = same_padding(kernel, stride, causal)
    layer, x = Conv1d(3, 4, kernel, stride=stride, padding=ReflectPadding(3, left, right, stride)), signal(length, 3)
    reset_parameters(layer, 0)
    padded = torch.from_numpy(mirrored(x, left, right + -length % stride))
    wanted = F.conv1d(padded.transpose(1, 2), layer.unpack(layer.weight), layer.bias, stride=stride).transpose(1, 2)
    assert wanted.shape[1] == -(-length // stride)
    for got in (whole(layer, x), streamed(layer, x, sizes)):
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("way", ["the library's", "step by step", "loops"])
@pytest.mark.parametrize("batch", [1, 3, 6])
def test_lstm_matches_pytorch_and_streams(monkeypatch, way, batch):
    monkeypatch.setattr(lstm_layers, "MIN_LSTM_FRAMES", 10**9 if way == "step by step" else 0)
    layer, x = LSTM(32, 2), signal(40, 32, batch)
    reset_parameters(layer, 0)
    with torch.no_grad():
        wanted = layer.lstm(x)[0] + x
    if way == "loops":
        prepare(layer)
    for got in (whole(layer, x), streamed(layer, x, [1]), streamed(layer, x, [7, 0, 1, 13])):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@blocks
@given(
    channels=st.sampled_from([16, 48, 256]), rows=st.lists(st.integers(1, 3), min_size=1, max_size=5), frames=st.integers(1, 9)
)
def test_lstm_state_depends_only_on_the_signal(channels, rows, frames):
    """The state does not depend on other signals, on the chunk size, or on the number of threads."""
    layer, xs = LSTM(channels, 2), [signal(2 * frames, channels, count) for count in rows]
    reset_parameters(layer, 0)
    prepare(layer)
    states = [layer.init_state(StreamSetup(count, CPU)) for count in rows]
    with torch.inference_mode():
        first = layer.step_many([x[:, :frames] for x in xs], states, [False] * len(xs))
        then = layer.step_many([x[:, frames:] for x in xs], states, [True] * len(xs))
        with one_thread():
            for x, *made in zip(xs, first, then, strict=True):
                assert torch.equal(torch.cat(made, dim=1), torch.cat([whole(layer, row[None]) for row in x]))


@contextmanager
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def test_streams_in_a_batch_are_independent():
    chain = Sequential([Conv1d(1, 16, 3, padding=1), ELU(), LSTM(16, 1), ELU(), Conv1d(16, 2, 3, padding=1)])
    reset_parameters(chain, 0)
    prepare(chain)
    xs = [signal(length, 1, 1) for length in (30, 30, 41, 30, 30)]
    for same in (xs, [x[:, :30] for x in xs]):
        states = [chain.init_state(StreamSetup(1, CPU)) for _ in same]
        with torch.inference_mode():
            made = chain.step_many(same, states, [True] * len(same))
        for x, y in zip(same, made, strict=True):
            torch.testing.assert_close(y, whole(chain, x), atol=0, rtol=0)


@blocks
def test_streams_of_a_tiled_chain_are_independent():
    layers = [Conv1d(1, 16, 3, padding=1), ELU(), Conv1d(16, 16, 3, padding=1), LSTM(16, 2), ELU(), Conv1d(16, 2, 3, padding=1)]
    chain = Sequential(layers, Tiling(slice(3), 16))
    reset_parameters(chain, 0)
    prepare(chain)
    assert chain.benefits_from_batching
    xs, setup = [signal(length, 1, 1) for length in (70, 40, 53, 64)], StreamSetup(1, CPU)
    states = [chain.init_state(setup) for _ in xs]
    with torch.inference_mode():
        first = chain.step_many([x[:, :40] for x in xs], states, [False] * len(xs))
        then = chain.step_many([x[:, 40:] for x in xs], states, [True] * len(xs))
        for x, *made in zip(xs, first, then, strict=True):
            state = chain.init_state(setup)
            alone = [chain.step(x[:, :40], state, False), chain.step(x[:, 40:], state, True)]
            assert torch.equal(torch.cat(made, 1), torch.cat(alone, 1))


@blocks
def test_steps_of_an_lstm_are_its_layers():
    layer, x = LSTM(32, 2), signal(40, 32, 2)
    reset_parameters(layer, 0)
    prepare(layer)
    state = layer.init_state(StreamSetup(2, CPU))
    steps = layer.steps(state)
    with torch.inference_mode():
        made = [run_steps(steps, part, last) for part, last in ((x[:, :13], False), (x[:, :0], False), (x[:, 13:], True))]
        assert torch.equal(torch.cat([y for [(y, _)] in made], 1), whole(layer, x))
    assert len(steps) == 2


def test_selected_rows_of_an_lstm_state_continue():
    layer, x = LSTM(8, 2), signal(30, 8, 3)
    reset_parameters(layer, 0)
    state = layer.init_state(StreamSetup(3, CPU))
    with torch.inference_mode():
        layer.step(x[:, :11], state, False)
        tail = layer.step(x[[2, 0], 11:], state.take([2, 0]), True)
    torch.testing.assert_close(tail, whole(layer, x)[[2, 0], 11:], atol=1e-5, rtol=1e-4)


@given(length=st.integers(1, 50), sizes=sizes)
def test_norm_over_time_matches_pytorch_and_waits_for_the_end(length, sizes):
    layer, x = TimeGroupNorm(6), 3 * signal(length, 6) + 1
    reset_parameters(layer, 0)
    wanted = F.group_norm(x.transpose(1, 2), 1, layer.weight, layer.bias).transpose(1, 2)
    for got in (whole(layer, x), streamed(layer, x, sizes)):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    assert layer.frames_out(10, False) == 0


@given(length=st.integers(1, 60), causal=st.booleans(), norm=st.booleans(), sizes=sizes)
def test_network_streams(length, causal, norm, sizes):
    def conv(channels: int, out: int, kernel: int, stride: int = 1) -> Sequential:
        padding = ReflectPadding(channels, *same_padding(kernel, stride, causal), stride) if kernel > 1 else 0
        return Sequential(
            [Conv1d(channels, out, kernel, stride=stride, padding=padding), *([TimeGroupNorm(out)] if norm else [])]
        )

    unit = Residual(8, Sequential([ELU(), conv(8, 4, 3), ELU(), conv(4, 8, 1)]), shortcut=conv(8, 8, 1))
    chain = Sequential([conv(1, 8, 7), unit, ELU(), conv(8, 16, 8, 4), LSTM(16, 2), ELU(), conv(16, 4, 7)])
    reset_parameters(chain, 0)
    x = signal(length, 1)
    got = streamed(chain, x, sizes)
    assert got.shape[1] == -(-length // 4)
    torch.testing.assert_close(got, whole(chain, x), atol=1e-5, rtol=1e-4)


def test_every_parameter_gets_a_gradient():
    unit = Residual(4, Sequential([ELU(), Conv1d(4, 4, 3, padding=ReflectPadding(4, 2, 0))]), shortcut=Conv1d(4, 4, 1))
    chain = Sequential([unit, TimeGroupNorm(4), LSTM(4, 1)])
    reset_parameters(chain, 0)
    chain(signal(20, 4)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in chain.parameters())


def held(state: State) -> Iterator[torch.Tensor]:
    """Return all tensors in a state."""
    for value in vars(state).values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, State):
                yield from held(part)
            elif isinstance(part, torch.Tensor):
                yield part


@pytest.mark.parametrize(
    ("name", "last"),
    [(name, last) for name in ("encodec_24khz", "snac_24khz", "dac_16khz") for last in (False, True)] + [("encodec_48khz", True)],
)
def test_state_does_not_keep_inputs_alive(codecs, name, last):
    """A small view of an input would keep the whole input in memory until the stream ends."""
    codec = codecs(name)
    network = codec.backend.loaded().network
    x = 0.1 * torch.randn(1, codec.sample_rate // codec.spec.hop_length * codec.spec.hop_length, codec.channels)
    with torch.inference_mode():
        coding = network.encoder_state(StreamSetup(1, CPU), codec.spec.used_codebooks)
        indices = network.encode_step(x, coding, last)
        decoding = network.decoder_state(StreamSetup(1, CPU))
        network.decode_step(indices, decoding, last)
    for tensor in (*held(coding), *held(decoding)):
        assert tensor.untyped_storage().nbytes() <= 2 * tensor.numel() * tensor.element_size() + 4096
