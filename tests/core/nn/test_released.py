"""A network prepared on a CPU holds each weight once, in the order of its kernel, and gives it back to the bit."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from blazen_codec_core.nn import LSTM, Conv1d, ConvTranspose1d, Sequential, prepare, reset_parameters
from blazen_codec_core.nn.layers.released import ReleasedParameter
from tests.helpers.processors import blocks

pytest.importorskip("blazen_codec_core.nn.kernels.cpu", reason="numba, which compiles the kernels, is not installed")
from blazen_codec_core.nn.kernels.cpu.winograd_conv import WinogradConv1d

pytestmark = blocks
LAYERS = {
    "direct": lambda: Conv1d(64, 96, 5),
    "direct, dilated": lambda: Conv1d(64, 96, 5, dilation=3),
    "direct, strided": lambda: Conv1d(48, 64, 9, stride=4),
    "one tap": lambda: Conv1d(64, 128, 1, bias=False),
    "F(5, 2)": lambda: Conv1d(32, 64, 8, stride=4),
    "F(4, 3)": lambda: Conv1d(64, 96, 3, dilation=2),
    "F(8, 7)": lambda: Conv1d(64, 64, 7),
    "F(3, 2) and direct": lambda: Conv1d(256, 512, 8, stride=4),
    "F(3, 2) and direct, transposed": lambda: ConvTranspose1d(512, 256, 8, stride=4, crop=(2, 2)),
    "F(8, 7) and direct": lambda: Conv1d(384, 400, 7, dilation=3),
    "transposed": lambda: ConvTranspose1d(64, 32, 6, stride=2),
    "LSTM": lambda: LSTM(64, 2),
}


def drawn(layer, accurate=True):
    for module in layer.modules():
        module.high_accuracy = accurate
    reset_parameters(layer, 3)
    return layer.requires_grad_(False)


def signal(layer, frames):
    channels = getattr(layer, "in_channels", None) or layer.channels
    return torch.randn(1, frames * getattr(layer, "stride", 1) + 60, channels, generator=torch.Generator().manual_seed(frames))


def held(layer):
    return sum(parameter.nbytes for parameter in layer.parameters() if not isinstance(parameter, ReleasedParameter))


def assert_equal_states(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("accurate", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
@torch.inference_mode()
def test_a_prepared_layer_gives_its_weights_back(kind, accurate):
    with torch.inference_mode(False):
        layer = drawn(LAYERS[kind](), accurate)
        wanted, before = copy.deepcopy(layer.state_dict()), held(layer)
        prepare(layer)
    assert held(layer) < before / 8
    assert_equal_states(layer.state_dict(), wanted)
    for frames in (40, 140, 40):  # with and without Winograd
        y = layer(signal(layer, frames))
        assert_equal_states(layer.state_dict(), wanted)
        assert torch.equal(copy.deepcopy(layer)(signal(layer, frames)), y)


@pytest.mark.parametrize("kind", ["F(3, 2) and direct", "F(3, 2) and direct, transposed", "F(8, 7) and direct"])
@torch.inference_mode()
def test_short_signals_do_not_change_once_there_was_a_long_one(kind):
    with torch.inference_mode(False):
        prepare(layer := drawn(LAYERS[kind]()))
    before = [layer(signal(layer, frames)) for frames in (1, 7, 33)]
    layer(signal(layer, 200))
    assert all(torch.equal(layer(signal(layer, frames)), y) for frames, y in zip((1, 7, 33), before, strict=True))


def test_winograd_is_prepared_once_when_a_long_signal_comes(monkeypatch):
    made, make = [], WinogradConv1d.__init__

    def count(self, *arguments, **options):
        made.append(self)
        make(self, *arguments, **options)

    monkeypatch.setattr(WinogradConv1d, "__init__", count)
    prepare(layer := drawn(LAYERS["F(3, 2) and direct"]()))
    short, long = signal(layer, 20), signal(layer, 140)
    wanted = layer(short)
    assert not made
    with ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(torch.inference_mode()(layer), [long, short] * 8))
    assert len(made) == 1
    assert all(torch.equal(y, layer(long)) for y in outputs[::2])
    assert all(torch.equal(y, wanted) for y in outputs[1::2])


@pytest.mark.parametrize(
    "use",
    [
        lambda weight, x: weight * 2,
        lambda weight, x: torch.matmul(x, weight[0]),
        lambda weight, x: weight.sum().item(),
        lambda weight, x: weight.tolist(),
        lambda weight, x: weight.numpy(),
        lambda weight, x: weight.clone(),
        lambda weight, x: weight.data,
        lambda weight, x: weight.zero_(),
        lambda weight, x: torch.stack([weight, weight]),
    ],
)
def test_a_released_weight_is_never_computed_with(use):
    prepare(layer := drawn(Conv1d(64, 96, 5)))
    with pytest.raises(RuntimeError, match=r"released.*state_dict\(\)"):
        use(layer.weight, torch.zeros(1, 9, 64))


def test_a_released_weight_has_a_shape_and_a_dtype():
    prepare(layer := drawn(Conv1d(64, 96, 5)))
    assert (layer.weight.shape, layer.weight.dtype, layer.weight.numel()) == ((5, 64, 96), torch.float32, 5 * 64 * 96)
    assert repr(layer.weight) == "ReleasedParameter((5, 64, 96), torch.float32)"
    assert not layer.weight.requires_grad


def test_weights_cannot_be_loaded_into_a_prepared_network():
    prepare(network := drawn(Sequential([Conv1d(64, 96, 5), Conv1d(96, 64, 3)])))
    state = network.state_dict()
    with pytest.raises(RuntimeError, match="load the state dict into a new network"):
        network.load_state_dict(state)
    fresh = Sequential([Conv1d(64, 96, 5), Conv1d(96, 64, 3)])
    fresh.load_state_dict(state)
    assert_equal_states(fresh.state_dict(), state)


def test_a_prepared_recurrent_layer_records_no_gradients():
    prepare(layer := drawn(LSTM(64, 1)))
    with pytest.raises(RuntimeError, match="this weight was released"):
        layer(torch.zeros(1, 9, 64))
