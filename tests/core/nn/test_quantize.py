from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from snac.vq import ResidualVectorQuantize as Theirs

from blazen_codec_core.nn import (
    FactorizedQuantizer,
    PairedQuantizer,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
    StreamSetup,
    VectorQuantizer,
    prepare,
    reset_parameters,
)

STRIDES = [(1,), (2, 1), (4, 2, 1), (8, 4, 2, 1), (4, 2, 1, 1)]


def quantizer(strides, channels=24) -> ResidualVectorQuantizer:
    made = ResidualVectorQuantizer(channels, [FactorizedQuantizer(channels, 64, 8, stride) for stride in strides])
    reset_parameters(made, 1)
    return made


def theirs(ours: ResidualVectorQuantizer, strides) -> Theirs:
    model = Theirs(ours.channels, 64, 8, list(strides)).eval()
    for mine, other in zip(ours.quantizers, model.quantizers, strict=True):
        for name in ("in_proj", "out_proj"):
            layer, target = getattr(mine, name), getattr(other, name)
            weight = layer.unpack(layer.weight.detach())
            target.parametrizations.weight.original0.data = weight.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            target.parametrizations.weight.original1.data = weight
            target.bias.data = layer.bias.detach()
        other.codebook.weight.data = mine.codebook.detach()
    return model


@pytest.mark.parametrize("strides", STRIDES)
def test_codes_and_latents_match_upstream(strides):
    ours = quantizer(strides)
    other = theirs(ours, strides)
    z = torch.randn(3, 80, 24)
    with torch.no_grad():
        latent, codes = other(z.transpose(1, 2))
        mine = ours.step(z, ours.init_state(StreamSetup(3, z.device)))
        decoded = ours.decode(mine)
    for a, b in zip(mine, codes, strict=True):
        assert torch.equal(a, b)
    torch.testing.assert_close(decoded, latent.transpose(1, 2), atol=1e-5, rtol=1e-4)


@given(strides=st.sampled_from(STRIDES), groups=st.integers(1, 8), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_quantizer_waits_for_complete_groups(strides, groups, sizes):
    ours = quantizer(strides)
    z = torch.randn(2, groups * strides[0], 24)
    with torch.no_grad():
        wanted = ours.step(z, ours.init_state(StreamSetup(2, z.device)))
        state, parts, at, number = ours.init_state(StreamSetup(2, z.device)), [], 0, 0
        while at < z.shape[1]:
            size = sizes[number % len(sizes)]
            parts.append(ours.step(z[:, at : at + size], state))
            at, number = min(z.shape[1], at + size), number + 1
            assert sum(part[-1].shape[1] * strides[-1] for part in parts) == ours.frames_out(at)
    for got, want in zip(zip(*parts, strict=True), wanted, strict=True):
        assert torch.equal(torch.cat(got, 1), want)


def test_fewer_codebooks_are_a_prefix():
    ours = quantizer((1, 1, 1))
    z = torch.randn(2, 9, 24)
    with torch.no_grad():
        every, two = (ours.step(z, ours.init_state(StreamSetup(2, z.device), books)) for books in (None, 2))
        left = z - ours.decode(two)
        third = ours.quantizers[2]
        assert torch.equal(third.nearest(third.project(left)), every[2])
    assert len(every) == 3
    assert all(map(torch.equal, two, every[:2]))


@pytest.mark.parametrize("stride", [1, 2])
def test_plain_quantizer_selects_the_nearest_entry(stride):
    book = VectorQuantizer(16, 64, stride, init_std=0.5)
    reset_parameters(book, 3)
    z = torch.randn(2, 12, 16)
    with torch.no_grad():
        index = book.nearest(book.project(z))
        means = z.reshape(2, -1, stride, 16).mean(2)
        assert torch.equal(index, torch.cdist(means, book.codebook).argmin(-1))
        assert torch.equal(book.decode(index), book.codebook[index].repeat_interleave(stride, 1))


def test_gradients_reach_encoder_projections_and_entries():
    ours = quantizer((4, 2, 1))
    z = torch.randn(2, 16, 24, requires_grad=True)
    result = ours(z)
    (result.z.square().mean() + result.commitment + result.codebook).backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


def test_training_and_inference_select_the_same_codes():
    ours = quantizer((4, 2, 1))
    z = torch.randn(2, 16, 24)
    with torch.no_grad():
        indices = ours.step(z, ours.init_state(StreamSetup(2, z.device)))
        result = ours(z)
    assert all(map(torch.equal, indices, result.indices))
    torch.testing.assert_close(result.z, ours.decode(indices), atol=1e-5, rtol=1e-4)


def test_dropped_codebooks_add_nothing():
    ours = quantizer((1, 1))
    z = torch.randn(2, 8, 24)
    with torch.no_grad():
        result = ours(z, num_used=torch.tensor([1, 2]))
        torch.testing.assert_close(result.z[0], ours.decode([i[:1] for i in result.indices[:1]])[0], atol=1e-5, rtol=1e-4)


def split() -> SplitResidualVectorQuantizer:
    """One codebook beside three, in a space of 16 channels."""
    made = SplitResidualVectorQuantizer(24, 16, [[VectorQuantizer(16, 64) for _ in range(count)] for count in (1, 3)])
    reset_parameters(made, 4)
    return made


@pytest.mark.parametrize("books", [1, 2, 4])
@pytest.mark.parametrize("prepared", [False, True])
def test_a_split_quantizer_is_two_side_by_side(books, prepared):
    ours, z = split(), torch.randn(2, 30, 24)
    with torch.no_grad():
        wanted, latent = [], 0
        for projections, quantizers in ours.groups():
            residual, total = projections.to_codes(z), 0
            for quantizer in quantizers:
                wanted.append(torch.cdist(residual, quantizer.codebook).argmin(-1))
                chosen = quantizer.codebook[wanted[-1]]
                residual, total = residual - chosen, total + chosen * (len(wanted) <= books)
            latent = latent + projections.to_latent(total)
        if prepared:
            prepare(ours)
        indices = ours.step(z, ours.init_state(StreamSetup(2, z.device), books))
        assert len(indices) == books
        assert all(map(torch.equal, indices, wanted))
        torch.testing.assert_close(ours.decode(indices), latent, atol=1e-5, rtol=1e-4)
        entries = sum(vectors[index] for vectors, index in zip(ours.vectors, indices, strict=False))
        torch.testing.assert_close(entries, latent, atol=1e-5, rtol=1e-4)


def test_a_split_quantizer_trains():
    ours, z = split(), torch.randn(2, 16, 24, requires_grad=True)
    result = ours(z)
    indices = ours.step(z.detach(), ours.init_state(StreamSetup(2, z.device)))
    assert all(map(torch.equal, indices, result.indices))
    torch.testing.assert_close(result.z, ours.decode(indices), atol=1e-5, rtol=1e-4)
    (result.z.square().mean() + result.commitment + result.codebook).backward()
    assert z.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())
    dropped = ours(z, num_used=torch.tensor([1, 3]))
    for row, books in enumerate((1, 3)):
        wanted = ours.decode([index[row : row + 1] for index in indices[:books]])
        torch.testing.assert_close(dropped.z[row : row + 1], wanted, atol=1e-5, rtol=1e-4)


def paired() -> PairedQuantizer:
    made = PairedQuantizer(split(), split())
    reset_parameters(made, 5)
    return made


@pytest.mark.parametrize("prepared", [False, True])
def test_a_paired_quantizer_searches_one_and_decodes_the_other(prepared):
    ours, z = paired(), torch.randn(2, 30, 24)
    with torch.no_grad():
        if prepared:
            prepare(ours)
        indices = ours.step(z, ours.init_state(StreamSetup(2, z.device)))
        assert all(map(torch.equal, indices, ours.search.step(z, ours.search.init_state(StreamSetup(2, z.device)))))
        assert torch.equal(ours.decode(indices), ours.entries.decode(indices))
        assert all(map(torch.equal, ours.vectors, ours.entries.vectors))
        assert not torch.equal(ours.decode(indices), ours.search.decode(indices))
    assert len(ours) == len(list(ours)) == 4


def test_a_paired_quantizer_trains():
    ours, z = paired(), torch.randn(2, 16, 24, requires_grad=True)
    result = ours(z)
    torch.testing.assert_close(result.z, ours.decode(result.indices))
    (gradient,) = torch.autograd.grad(result.z.sum(), z, retain_graph=True)
    assert torch.equal(gradient, torch.ones_like(z))
    result.z.square().mean().backward()
    assert all(book.codebook.grad.abs().sum() > 0 for book in ours.entries)
    dropped = ours(z, num_used=torch.tensor([1, 3]))
    for row, books in enumerate((1, 3)):
        wanted = ours.decode([index[row : row + 1] for index in dropped.indices[:books]])
        torch.testing.assert_close(dropped.z[row : row + 1], wanted, atol=1e-5, rtol=1e-4)
