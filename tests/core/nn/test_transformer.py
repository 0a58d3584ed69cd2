"""Transformer layers stream, in bounded memory, and match attention computed as its papers define it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import (
    CausalAttention,
    FeedForward,
    LayerNorm,
    RMSNorm,
    Sequential,
    SiLU,
    State,
    StreamSetup,
    TransformerLayer,
    prepare,
    reset_parameters,
)
from tests.helpers.processors import blocks
from tests.helpers.streaming import CPU, sizes, streamed, whole

SHAPES = {
    "one head": {"channels": 16, "heads": 1, "context": 5},
    "mimi": {"channels": 64, "heads": 4, "context": 25},
    "grouped": {"channels": 64, "heads": 4, "kv_heads": 2, "context": 18, "bias": True},
    "wide heads": {"channels": 48, "heads": 2, "kv_heads": 1, "head_channels": 64, "context": 33, "base": 500.0},
    "no past": {"channels": 32, "heads": 2, "context": 1},
}
names = st.sampled_from(sorted(SHAPES))


def attention(name: str) -> CausalAttention:
    layer = CausalAttention(**SHAPES[name])
    reset_parameters(layer, 1)
    return layer


def signal(batch: int, frames: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, frames, channels, generator=torch.Generator().manual_seed(seed))


def layers(name: str, count: int = 2) -> Sequential:
    """Transformer layers of both kinds: with a plain feed-forward part, and with a gated one."""

    def layer(number: int) -> TransformerLayer:
        made = CausalAttention(**SHAPES[name])
        if number % 2:
            hidden = FeedForward(made.channels, 48, activation=SiLU(), gated=True)
            return TransformerLayer(made, hidden, norm=RMSNorm)
        return TransformerLayer(made, FeedForward(made.channels, 80, bias=True), scale=0.3)

    chain = Sequential([layer(number) for number in range(count)])
    reset_parameters(chain, 2)
    return chain


def reference(layer: CausalAttention, x: torch.Tensor, start: int = 0) -> torch.Tensor:
    """Attention over whole signals in double precision, one pair of positions after the other."""
    p, weight = layer.problem, layer.to_qkv.weight[0].double()
    qkv = x.double() @ weight + (0 if layer.to_qkv.bias is None else layer.to_qkv.bias.double())
    q, k, v = qkv.split([p.channels, p.kv_channels, p.kv_channels], dim=-1)
    frames, half = x.shape[1], p.head_channels // 2

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        pairs = torch.complex(vector[..., :half], vector[..., half:])
        angles = torch.tensor([position * p.base ** (-2 * i / p.head_channels) for i in range(half)], dtype=torch.float64)
        pairs = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    out = x.new_zeros(x.shape[0], frames, p.channels, dtype=torch.float64)
    for head in range(p.heads):
        own, shared = (
            slice(number * p.head_channels, (number + 1) * p.head_channels) for number in (head, head * p.kv_heads // p.heads)
        )
        for t in range(frames):
            seen = range(max(0, t - p.context + 1), t + 1)
            query = turned(q[:, t, own], start + t)
            scores = torch.stack([(query * turned(k[:, s, shared], start + s)).sum(-1) for s in seen], dim=-1)
            weights = (scores / math.sqrt(p.head_channels)).softmax(-1)
            out[:, t, own] = sum(weights[:, n, None] * v[:, s, shared] for n, s in enumerate(seen))
    y = out @ layer.to_out.weight[0].double()
    return y if layer.to_out.bias is None else y + layer.to_out.bias.double()


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_attention_is_that_of_its_papers(name, prepared):
    layer, x = attention(name), signal(2, 70, SHAPES[name]["channels"])
    with torch.no_grad():
        wanted = reference(layer, x)
    if prepared:
        prepare(layer)
    torch.testing.assert_close(whole(layer, x).double(), wanted, atol=1e-5, rtol=1e-4)


@given(name=names, frames=st.integers(1, 90), batch=st.integers(1, 3), prepared=st.booleans(), sizes=sizes)
def test_attention_streams(name, frames, batch, prepared, sizes):
    layer, x = attention(name), signal(batch, frames, SHAPES[name]["channels"])
    if prepared:
        prepare(layer)
    torch.testing.assert_close(streamed(layer, x, sizes), whole(layer, x), atol=2e-6, rtol=1e-5)


@blocks
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_compiled_layers_give_the_same_bits_for_any_chunks_and_batches(name):
    chain, x = layers(name), signal(3, 150, SHAPES[name]["channels"])
    prepare(chain)
    wanted = whole(chain, x)
    for pieces in ([1], [7], [2, 31, 64]):
        assert torch.equal(streamed(chain, x, pieces), wanted)
    assert torch.equal(torch.cat([whole(chain, row) for row in x.split(1)]), wanted)


@pytest.mark.parametrize("frames", [600, 1100])
def test_long_signals_run_in_blocks(frames):
    layer, x = attention("mimi"), signal(1, frames, 64)
    with torch.inference_mode():
        wanted = whole(layer, x[:, frames - 100 :])
        torch.testing.assert_close(whole(layer, x)[:, -70:], wanted[:, -70:], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("prepared", [False, True])
def test_positions_are_exact_after_days(prepared):
    """Scores depend on distances alone, so an offset changes nothing; float32 angles would be off by half a radian."""
    layer, x = attention("mimi"), signal(1, 60, 64)
    wanted = whole(layer, x)
    if prepared:
        prepare(layer)
    state = layer.init_state(StreamSetup(1, CPU))
    with torch.inference_mode():
        state.position += 25 * 86_400 * 30
        state.keys.normal_()
        late = layer.step(x, state, False)
        assert state.position.item() == 25 * 86_400 * 30 + 60
    torch.testing.assert_close(late[:, 24:], wanted[:, 24:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prepared", [False, True])
def test_slots_of_before_the_signal_are_not_read(prepared):
    layer, x = attention("grouped"), signal(2, 40, 64)
    if prepared:
        prepare(layer)
    wanted = whole(layer, x)
    state = layer.init_state(StreamSetup(2, CPU))
    state.keys.fill_(1e9)
    state.values.fill_(1e9)
    with torch.inference_mode():
        got = torch.cat([layer.step(x[:, :3], state, False), layer.step(x[:, 3:], state, True)], dim=1)
    torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_layers_stream(name, prepared):
    chain, x = layers(name), signal(2, 83, SHAPES[name]["channels"])
    wanted = whole(chain, x)
    if prepared:
        prepare(chain)
        torch.testing.assert_close(whole(chain, x), wanted, atol=1e-5, rtol=1e-4)
    for pieces in ([1], [2, 7, 31], [83]):
        torch.testing.assert_close(streamed(chain, x, pieces), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prepared", [False, True])
def test_streams_that_began_at_different_times_run_as_one_batch(prepared):
    chain, x = layers("mimi"), signal(3, 90, 64)
    if prepared:
        prepare(chain)
    started = (0, 13, 60)
    with torch.inference_mode():
        states = [chain.init_state(StreamSetup(1, CPU)) for _ in started]
        alone = [chain.init_state(StreamSetup(1, CPU)) for _ in started]
        for row, frames in enumerate(started):
            for some in (states, alone):
                chain.step(x[row : row + 1, :frames], some[row], False)
        assert len({state.signature() for state in states}) == 1
        nexts = [x[row : row + 1, frames : frames + 30] for row, frames in enumerate(started)]
        wanted = [chain.step(part, state, False) for part, state in zip(nexts, alone, strict=True)]
        joined = State.join(states)
        got = chain.step(torch.cat(nexts), joined, False)
        torch.testing.assert_close(got, torch.cat(wanted), atol=2e-6, rtol=1e-5)
        again = chain.step(x[1:2, :5], joined.take([1]), True)
        torch.testing.assert_close(again, chain.step(x[1:2, :5], alone[1], True), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("prepared", [False, True])
def test_many_streams_give_what_each_gives_alone(prepared):
    chain = layers("grouped")
    if prepared:
        prepare(chain)
    xs = [signal(1 + number % 2, frames, 64, seed=number) for number, frames in enumerate((5, 0, 31, 1))]
    with torch.inference_mode():
        states, alone = ([chain.init_state(StreamSetup(x.shape[0], CPU)) for x in xs] for _ in range(2))
        for lasts in ([False] * 4, [False, True, False, True]):
            got = chain.step_many(xs, states, lasts)
            for made, x, state, last in zip(got, xs, alone, lasts, strict=True):
                torch.testing.assert_close(made, chain.step(x, state, last), atol=2e-6, rtol=1e-5)


def test_gradients_are_those_of_whole_attention():
    """Against the same layers with PyTorch's attention over all positions at once, under a mask."""
    chain, x = layers("grouped").double(), signal(2, 300, 64).double().requires_grad_()

    def plain(layer: TransformerLayer, x: torch.Tensor) -> torch.Tensor:
        p, half = layer.attention.problem, layer.attention.problem.head_channels // 2
        qkv = layer.attention.to_qkv(layer.attention_norm(x))
        q, k, v = (
            part.unflatten(2, (-1, p.head_channels)).transpose(1, 2)
            for part in qkv.split([p.channels, p.kv_channels, p.kv_channels], dim=-1)
        )
        distance = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
        angles = torch.arange(x.shape[1]).double()[:, None] * torch.from_numpy(p.frequencies)

        def turned(vectors: torch.Tensor) -> torch.Tensor:
            pairs = torch.complex(vectors[..., :half], vectors[..., half:]) * torch.polar(torch.ones_like(angles), angles)
            return torch.cat([pairs.real, pairs.imag], dim=-1)

        mask = (distance >= 0) & (distance < p.context)
        y = F.scaled_dot_product_attention(turned(q), turned(k), v, mask, enable_gqa=True)
        y = layer.attention.to_out(y.transpose(1, 2).flatten(2))
        x = x + (y if layer.attention_scale is None else layer.attention_scale.scale * y)
        feed = layer.feed_forward
        h = feed.to_hidden(layer.feed_forward_norm(x))
        h = F.gelu(h) if feed.to_gate is None else F.silu(feed.to_gate(layer.feed_forward_norm(x))) * h
        y = feed.to_out(h)
        return x + (y if layer.feed_forward_scale is None else layer.feed_forward_scale.scale * y)

    wanted = x
    for layer in chain:
        wanted = plain(layer, wanted)
    direction = signal(2, 300, 64, seed=1).double()
    parameters = [x, *chain.parameters()]
    theirs = torch.autograd.grad((wanted * direction).sum(), parameters)
    made = chain(x)
    torch.testing.assert_close(made, wanted)
    for ours, other in zip(torch.autograd.grad((made * direction).sum(), parameters), theirs, strict=True):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_norms_are_those_of_pytorch(kind, prepared):
    norm, x = kind(40), 3 * signal(2, 30, 40) + 1
    reset_parameters(norm, 5)
    wide = x.double()
    if kind is LayerNorm:
        wanted = F.layer_norm(wide, (40,), norm.weight.double(), norm.bias.double())
    else:
        wanted = F.rms_norm(wide, (40,), norm.weight.double(), 1e-5)
    if prepared:
        prepare(norm)
    torch.testing.assert_close(whole(norm, x).double(), wanted, atol=2e-6, rtol=2e-6)
    loud = 1e15 * x
    assert whole(norm, loud).isfinite().all()


def test_a_state_does_not_grow():
    chain = layers("mimi")
    state = chain.init_state(StreamSetup(1, CPU))
    sizes = [tensor.nbytes for tensor in state.tensors()]
    with torch.inference_mode():
        for frames in (1, 400, 3):
            chain.step(signal(1, frames, 64), state, False)
    assert [tensor.nbytes for tensor in state.tensors()] == sizes


@pytest.mark.parametrize("wrong", [{"heads": 3, "kv_heads": 2}, {"heads": 2, "head_channels": 5}, {"heads": 2, "context": 0}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match="must be a multiple of kv_heads"):
        CausalAttention(**{"channels": 32, "context": 8, **wrong})
