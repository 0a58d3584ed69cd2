"""Elementwise CPU kernels match PyTorch's operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core.nn import ELU, GELU, LayerScale, SiLU, Snake
from blazen_codec_core.nn.kernels import dispatch, epilogue
from blazen_codec_core.nn.kernels.aten import group_norm
from blazen_codec_core.nn.kernels.epilogue import Epilogue
from tests.helpers.processors import blocks, compiled, cpu

if cpu:
    from blazen_codec_core.nn.kernels.cpu.elementwise import CpuElementwise

    fused = CpuElementwise()

ROUNDING = 2.0**-23
ELU_AFTER = Epilogue(activation=epilogue.ELU)


def snake_after(alpha: torch.Tensor) -> Epilogue:
    return Epilogue(activation=epilogue.SNAKE, parameters=(alpha, 1 / alpha))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return x.double() + (x * alpha).double().sin().square() / alpha.double()


@pytest.mark.parametrize("loops", [pytest.param(True, marks=compiled), False], ids=["loops", "operations"])
@given(
    batch=st.integers(1, 2),
    frames=st.integers(0, 40) | st.sampled_from([700, 3001]),
    channels=st.sampled_from([1, 3, 8, 33]),
    spread=st.sampled_from([1e-6, 0.1, 1.0, 5.0]),
)
def test_activations_are_exact_to_a_few_roundings(loops, batch, frames, channels, spread):
    x = torch.randn(batch, frames, channels, generator=seeded(frames)) * spread
    alpha = torch.rand(channels, generator=seeded(1)) + 0.5
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        if not loops:
            patch.setattr(dispatch, "backends_for", lambda device: [dispatch.ATEN])
        snake, elu = Snake(channels), ELU()
        snake.alpha.copy_(alpha)
        largest = x.abs().max().item() if x.numel() else 0.0
        torch.testing.assert_close(snake(x).double(), exact_snake(x, alpha), rtol=0, atol=3 * ROUNDING * (1 + largest))
        torch.testing.assert_close(elu(x).double(), F.elu(x.double()), rtol=0, atol=2 * ROUNDING * max(1.0, largest))
        for layer, function in ((GELU(), F.gelu), (SiLU(), F.silu)):
            torch.testing.assert_close(layer(x).double(), function(x.double()), rtol=0, atol=2 * ROUNDING * max(1.0, largest))
        scale = LayerScale(channels, 0.1)
        scale.scale.copy_(alpha)
        assert torch.equal(scale(x), x * alpha)


@compiled
def test_a_value_does_not_depend_on_its_neighbours():
    x = torch.randn(1, 4000, 40, generator=seeded(3)) * 4
    alpha = torch.rand(40, generator=seeded(4)) + 0.5
    whole, parts = torch.empty(2, 1, 4000, 40).unbind()
    for start, end in [(0, 4000), (0, 1), (1, 17), (17, 18), (18, 1333), (1333, 4000)]:
        part = slice(start, end)
        for out, function in ((whole, ELU_AFTER), (parts, snake_after(alpha))):
            fused.write_activation(function, x[:, part], out[:, part])
        if end - start == 4000:
            wanted = whole.clone(), parts.clone()
    assert torch.equal(whole, wanted[0])
    assert torch.equal(parts, wanted[1])


@compiled
def test_extreme_values():
    x = torch.tensor([-torch.inf, -1e30, -88.0, -18.0, -0.0, 0.0, 1e-30, 1e30, torch.inf, torch.nan]).reshape(1, -1, 1)
    out = torch.empty_like(x)
    fused.write_activation(ELU_AFTER, x, out)
    torch.testing.assert_close(out, F.elu(x), rtol=0, atol=2 * ROUNDING, equal_nan=True)
    large = torch.tensor([1e4, -1e6, 3e8, 1e20, -1e38]).reshape(1, -1, 1)
    fused.write_activation(snake_after(torch.ones(1)), large, out := torch.empty_like(large))
    assert ((out >= large) & (out <= large + 1.0001)).all()


@compiled
def test_other_dtypes_use_pytorch():
    cpu = torch.device("cpu")
    assert isinstance(dispatch.elementwise(cpu, torch.float32), CpuElementwise)
    assert not isinstance(dispatch.elementwise(cpu, torch.float64), CpuElementwise)


@compiled
@pytest.mark.parametrize("part", [(slice(None), slice(0, 4)), (slice(None, None, 2), slice(None))])
def test_frames_apart_in_memory_are_copied_first(part):
    x = torch.randn(1, 50, 8)[:, part[0], part[1]]
    out = torch.empty(x.shape)
    fused.write_activation(ELU_AFTER, x, out)
    torch.testing.assert_close(out, torch.nn.functional.elu(x))


@given(count=st.integers(1, 1000) | st.sampled_from([1 << 16, (1 << 18) + 3]), offset=st.sampled_from([0.0, 0.1, 5.0]))
def test_moments_are_exact_to_a_few_roundings(count, offset):
    x = torch.randn(1, count, 1, generator=seeded(count)) + offset
    with torch.no_grad():
        mean, variance = (value.double().item() for value in group_norm.var_mean(x))
    exact = x.double()
    assert mean == pytest.approx(exact.mean().item(), abs=1e-6 * (1 + offset))
    assert variance == pytest.approx(exact.var(unbiased=False).item(), abs=4e-6)


@torch.no_grad()
def test_moments_do_not_depend_on_threads():
    before = torch.get_num_threads()
    for seed in range(20):
        x = torch.randn(1, 96_000, 1, generator=seeded(seed))
        try:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(torch.cat(group_norm.var_mean(x)))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("loops", [pytest.param(True, marks=blocks), False], ids=["loops", "operations"])
@given(
    batch=st.integers(1, 2),
    frames=st.integers(1, 70) | st.sampled_from([1024, 5001]),
    channels=st.sampled_from([16, 32, 80]),
    offset=st.sampled_from([0.0, 0.1, 5.0]),
)
@torch.no_grad()
def test_norms_are_exact_to_a_few_roundings(loops, batch, frames, channels, offset):
    x = torch.randn(batch, frames, channels, generator=seeded(frames)) * 3 + offset
    weight, bias = (torch.rand(channels, generator=seeded(number)) for number in (1, 2))
    wanted = F.group_norm(x.double().transpose(1, 2), 1, weight.double(), bias.double()).transpose(1, 2)
    prepared = dispatch.group_norm(weight, bias, 1e-5)
    by = prepared if loops else lambda x, **options: group_norm.normalize(x, weight, bias, 1e-5, **options)
    kept = by(x, inplace=False)
    made = by(x, inplace=True)
    assert made is x
    assert kept.data_ptr() != x.data_ptr()
    for got in (made, kept):
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5)
