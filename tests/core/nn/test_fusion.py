"""The plan of a chain of layers: which activations a layer's kernel applies."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.nn import (
    ELU,
    Conv1d,
    ConvTranspose1d,
    Layer,
    Residual,
    Sequential,
    Snake,
    State,
    StreamSetup,
    TimeGroupNorm,
    prepare,
    reset_parameters,
)
from blazen_codec_core.nn.kernels import dispatch
from blazen_codec_core.nn.kernels.epilogue import IDENTITY
from blazen_codec_core.nn.layers.fusion import FusableLayer, fuse

CHANNELS = 16
CPU = torch.device("cpu")


class PlusOne(FusableLayer):
    """A layer that takes what it is told to, and applies it in plain operations."""

    def __init__(self, prologue: bool, epilogue: bool) -> None:
        super().__init__()
        self._takes = prologue, epilogue
        self.seen: list[tuple[bool, bool]] = []

    takes_prologue = property(lambda self: self._takes[0])
    takes_epilogue = property(lambda self: self._takes[1])

    def step_fused(self, prologue, x, state, last, epilogue):
        self.seen.append((prologue is not IDENTITY, epilogue is not IDENTITY))
        for activation, add in ((prologue, 1), (epilogue, 0)):
            if activation is not IDENTITY:
                y = torch.empty_like(x)
                dispatch.elementwise(x.device, x.dtype).write_activation(activation, x, y)
                x = y if activation.residual is None else y + activation.residual
            x = x + add
        return x


@dataclasses.dataclass
class Held(State):
    frames: torch.Tensor


class Late(Layer):
    """A layer as someone else writes it: it holds one frame back."""

    def init_state(self, setup: StreamSetup) -> Held:
        return Held(setup.zeros(0, CHANNELS))

    def step(self, x, state, last):
        x = torch.cat([state.frames, x], dim=1)
        ready = x.shape[1] if last else max(0, x.shape[1] - 1)
        state.frames = x[:, ready:].clone()
        return x[:, :ready]

    def frames_out(self, frames: int, last: bool) -> int:
        return frames if last else max(0, frames - 1)


def prepared(*layers: Layer) -> Sequential:
    chain = Sequential(layers)
    reset_parameters(chain, 0)
    prepare(chain.requires_grad_(False))
    return chain


@pytest.mark.parametrize(
    ("before", "after", "fused"),
    [
        ((False, True), (True, False), [(False, False), (True, False)]),  # a prologue costs less
        ((False, True), (False, False), [(False, True), (False, False)]),
        ((False, False), (True, False), [(False, False), (True, False)]),
        ((False, False), (False, False), [(False, False), (False, False)]),
    ],
)
def test_an_activation_goes_where_it_costs_least(before, after, fused):
    layers = PlusOne(*before), ELU(), PlusOne(*after)
    chain = prepared(*layers)
    with torch.inference_mode():
        x = torch.randn(1, 5, CHANNELS)
        torch.testing.assert_close(chain(x), torch.nn.functional.elu(x + 1) + 1)
    assert [layer.seen[-1] for layer in (layers[0], layers[2])] == fused
    assert len(fuse(layers, 0, 3)) == (2 if any(map(any, fused)) else 3)


def test_each_activation_is_applied_once_in_nested_chains():
    inner = PlusOne(True, True)
    chain = prepared(ELU(), Sequential([inner]), ELU(), ELU())
    with torch.inference_mode():
        x = torch.randn(1, 5, CHANNELS)
        elu = torch.nn.functional.elu
        torch.testing.assert_close(chain(x), elu(elu(elu(x) + 1)))
    assert inner.seen == [(True, True)]


def test_layers_are_not_fused_before_they_are_prepared():
    layer = PlusOne(True, True)
    chain = Sequential([ELU(), layer, ELU()])
    x = torch.randn(1, 5, CHANNELS)
    y = chain(x.requires_grad_())
    y.sum().backward()
    assert x.grad is not None
    prepare(chain)
    assert layer.seen == [(False, False)]
    with torch.inference_mode():
        torch.testing.assert_close(y, chain(x))
    assert layer.seen[1:] == [(True, True)]


def test_a_prepared_chain_refuses_to_cut_gradients():
    chain = Sequential([ELU(), PlusOne(True, True)])
    prepare(chain)
    with pytest.raises(bc.InvalidInput, match=r"provider\.module"):
        chain(torch.randn(1, 5, CHANNELS, requires_grad=True))
    assert chain(torch.randn(1, 5, CHANNELS)).shape == (1, 5, CHANNELS)


BLOCKS = {
    "snake": lambda: [Snake(CHANNELS), Conv1d(CHANNELS, CHANNELS, 7, padding=3), Snake(CHANNELS), Conv1d(CHANNELS, CHANNELS, 1)],
    "ends": lambda: [ELU(), Conv1d(CHANNELS, CHANNELS, 3, padding=(2, 0)), ELU()],
    "norm": lambda: [Conv1d(CHANNELS, CHANNELS, 3, padding=1), TimeGroupNorm(CHANNELS, inplace=True), ELU()],
    "transposed": lambda: [ELU(), ConvTranspose1d(CHANNELS, CHANNELS, 4, stride=2, crop=(1, 1)), ELU(), Late()],
    "other": lambda: [ELU(), Late(), ELU(), Conv1d(CHANNELS, CHANNELS, 1), Late(), ELU()],
    "residual": lambda: [
        Residual(CHANNELS, Sequential([ELU(), Conv1d(CHANNELS, CHANNELS, 3, padding=1), ELU(), Conv1d(CHANNELS, CHANNELS, 1)])),
        ELU(),
        Residual(CHANNELS, Sequential([Conv1d(CHANNELS, CHANNELS, 3, padding=1), ELU()])),
    ],
}


@pytest.mark.parametrize("name", BLOCKS)
@given(cuts=st.lists(st.integers(0, 40), max_size=5), batch=st.integers(1, 2))
@torch.inference_mode()
def test_a_fused_chain_streams_what_its_layers_compute_one_by_one(name, cuts, batch):
    chain, plain = prepared(*BLOCKS[name]()), Sequential(BLOCKS[name]())
    plain.load_state_dict(chain.state_dict())
    x = torch.randn(batch, 40, CHANNELS, generator=torch.Generator().manual_seed(1))
    ends = [*sorted(cuts), 40]
    state, parts = chain.init_state(StreamSetup(batch, CPU)), []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        parts.append(chain.step(x[:, start:end], state, end == 40 and len(parts) == len(ends) - 1))
    torch.testing.assert_close(torch.cat(parts, dim=1), plain(x), rtol=1e-5, atol=1e-5)
