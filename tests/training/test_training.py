"""The trainer that made the embedded models."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.nn import (
    FactorizedQuantizer,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
    VectorQuantizer,
    reset_parameters,
)
from blazen_codec_training import codebook_init, losses, synthetic_audio, train
from blazen_codec_training.devices import new_fabric
from blazen_codec_training.discriminator import AdversarialLoss, Discriminator
from blazen_codec_training.forward_pass import ForwardPass
from blazen_codec_training.optimizer import Optimizer
from blazen_codec_training.recipes import RECIPES

PLAN = train.Plan(batch=2, alone=2, steps=5, revive_every=2, fit_batches=60)


@pytest.fixture(params=list(RECIPES))
def name(request):
    return request.param


@pytest.fixture
def start(name, tmp_path, monkeypatch):
    """Starts a short run in a folder of its own, on a corpus that is there already and without espeak-ng."""
    monkeypatch.setattr(train.Run, "intelligibility", lambda self: 0.0)
    torch.manual_seed(0)

    def run(folder: str, plan: train.Plan = PLAN, **options) -> train.Run:
        work = tmp_path / folder
        work.mkdir(exist_ok=True)
        np.save(work / "corpus.npy", (voice(20, 24_000) * 30_000).clip(-32_000, 32_000).astype(np.int16))
        return train.Run(RECIPES[name], plan, work, compiled=False, **options)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["alone", "quantized"])
def test_a_run_that_was_interrupted_gives_what_one_that_was_not_gives(start, stage, tmp_path):
    """From one checkpoint on: sums over threads differ in their last bits, which k-means in between would magnify."""
    begin, stops, end = (0, (1,), 2) if stage == "alone" else (3, (4,), 5)
    start("whole").train(until=begin)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    start("whole").train(until=end)
    for stop in (*stops, end):
        start("parts").train(until=stop)
    whole, parts = (start(folder) for folder in ("whole", "parts"))
    assert whole.step == parts.step == end
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(parts.usage.shares, whole.usage.shares)


@pytest.mark.slow
def test_what_it_exports_loads_and_can_be_gone_on_from(start, name):
    run = start("export")
    run.train()
    model = run.work / "model.safetensors"
    assert model.stat().st_size <= 4_000_000
    codec = bc.load(name, weights=model, device="cpu")
    assert codec.decode(codec.encode(voice(0.2, 24_000), 24_000)).shape == (1, 4800)
    more = start("more", train.Plan(batch=2, alone=0, steps=1), start=model)
    for (parameter, trained), begun in zip(run.average.network.named_parameters(), more.network.parameters(), strict=True):
        if "codebook" not in parameter:  # entries that were not used are split off others
            torch.testing.assert_close(begun, trained, atol=1e-3, rtol=1e-3)
    more.train()
    assert more.quantizes


@pytest.mark.slow
def test_every_tensor_is_made_on_the_device_of_the_run(start):
    """What does not say its device lands on `meta` here, and cannot be mixed with anything."""
    run = start("device", train.Plan(batch=2, alone=2, steps=8, adversarial=8, revive_every=1, fit_batches=60))
    run.train(until=3)
    with torch.device("meta"):
        losses = run.one_step()
        run.fit_codebooks()
        run.split_codebooks()
    assert all(np.isfinite(value) for value in losses.values())


@pytest.mark.slow
def test_a_discriminator_takes_part_in_the_last_steps(start):
    run = start("adversarial", train.Plan(batch=2, alone=1, steps=4, adversarial=2, fit_batches=60))
    weights = [parameter.detach().clone() for parameter in run.adversary.discriminator.parameters()]
    run.train(until=2)
    assert all(map(torch.equal, weights, run.adversary.discriminator.parameters()))
    losses = run.one_step()
    assert losses["adversary"] > 0
    assert not any(map(torch.equal, weights, run.adversary.discriminator.parameters()))


@pytest.mark.slow
def test_judges_learn_to_tell_signals_apart():
    wanted = torch.from_numpy(voice(0.4, 24_000))[None, :9600].repeat(2, 1)
    made = wanted + 0.05 * torch.randn(2, 9600, generator=torch.Generator().manual_seed(0))
    adversary, told = AdversarialLoss(0, new_fabric(), rate=3e-3), []
    for _ in range(60):
        told.append(float(adversary.accumulate(made, wanted)))
        adversary.step()
    assert told[-1] < 0.5 * told[0]


def test_gradients_of_the_judges_are_as_long_as_their_shares_for_each_signal():
    wanted = torch.from_numpy(voice(0.4, 24_000))[None, :9600] * torch.tensor([[1.0], [0.3]])
    made = (wanted + 0.05 * torch.randn(2, 9600, generator=torch.Generator().manual_seed(0))).requires_grad_()
    plain = torch.randn(2, 9600, generator=torch.Generator().manual_seed(1))
    without = AdversarialLoss(0, new_fabric(), taken=0, apart=0)
    torch.testing.assert_close(without.balanced(plain, made, wanted), plain)
    more = AdversarialLoss(0, new_fabric(), taken=0, apart=0.5).balanced(plain, made, wanted, say=0.8)
    torch.testing.assert_close((more - plain).norm(dim=1), 0.8 * 0.5 * plain.norm(dim=1), rtol=1e-3, atol=0)


def test_features_of_the_same_signal_are_not_apart():
    wanted = torch.from_numpy(voice(0.4, 24_000))[None, :9600]
    _, apart = Discriminator().against(wanted, wanted)
    assert apart == 0


@torch.no_grad()
def test_latents_are_brought_to_unit_variance_and_nothing_else_changes(name):
    network = RECIPES[name].network()
    reset_parameters(network, 0)
    x = torch.from_numpy(voice(0.4, 24_000))[None, :9600, None]
    before = network.decoder(network.encoder(x))
    codebook_init.normalise(network, network.encoder(x))
    assert network.encoder(x).std() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(network.decoder(network.encoder(x)), before, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch's tracer instantiates functions
@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"encodec_tiny"}))  # PyTorch's tracer does not support LSTMs
@pytest.mark.parametrize("quantize", [False, True], ids=["alone", "quantized"])
def test_the_forward_pass_is_one_graph_to_the_compiler(name, quantize):
    recipe = RECIPES[name]
    network = recipe.network()
    reset_parameters(network, 0)
    forward = ForwardPass(network)
    x = torch.from_numpy(voice(1.3, 24_000))[None, None, : recipe.samples]
    books = torch.tensor([recipe.choices[-1]])
    torch.manual_seed(0)
    expected = forward(x, books, quantize)
    torch.manual_seed(0)
    compiled = torch.compile(forward, backend="eager", fullgraph=True, dynamic=False)(x, books, quantize)
    torch.testing.assert_close(compiled.audio, expected.audio, atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


@pytest.mark.slow
def test_steps_go_down(start):
    """On one batch."""
    run = start("down", train.Plan(batch=2, alone=10**6, rate=2e-2))
    x = run.batches(0)
    run.batches = lambda step: x
    run.batches.books = lambda step: None
    totals = []
    for _ in range(12):
        terms = run.one_step()
        totals.append(sum(losses.WEIGHTS[term] * value for term, value in terms.items()))
        run.step += 1
    assert min(totals[-3:]) < 0.8 * totals[0]


def test_signals_use_some_of_the_codebooks_where_the_model_has_a_choice(name):
    recipe = RECIPES[name]
    batches = train.Batches(np.zeros(10**5, np.int16), train.Plan(batch=400), recipe)
    books = batches.books(7)
    assert set(books.tolist()) == set(recipe.choices)
    assert torch.equal(books, batches.books(7))
    assert (books == recipe.choices[-1]).float().mean() > 0.7


def test_a_step_moves_every_weight_and_codebooks_by_the_rate_alone(name):
    """As AdamW's first step does; Muon's, for matrices, are of other sizes."""
    network, rate, generator = RECIPES[name].network(), 1e-3, torch.Generator().manual_seed(0)
    reset_parameters(network, 0)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    loss = sum((value * torch.randn(value.shape, generator=generator)).sum() for value in network.parameters())
    loss.backward()
    optimizer = Optimizer(network)
    optimizer.set_rate(rate)
    optimizer.step()
    moved = {key: (value.detach() - before[key]).abs() for key, value in network.named_parameters()}
    assert all(change.max() > 0 for change in moved.values())
    by_rate = {key for key, change in moved.items() if ((change - rate).abs() < 0.2 * rate).all()}
    books = {id(book.codebook) for book in network.quantizer}
    assert {key for key, value in network.named_parameters() if id(value) in books} <= by_rate
    assert by_rate < set(moved)


@pytest.mark.parametrize("make", [synthetic_audio.babble, synthetic_audio.music, synthetic_audio.noise])
def test_sounds_are_made_from_a_seed(make):
    first, again, other = (make(np.random.default_rng(seed), 2.0) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.shape == (48_000,)
    assert np.isfinite(first).all()
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("samples", [1, 99, 100, 101, 24_001])
def test_wordless_voices_have_any_length(samples):
    assert synthetic_audio.babble(np.random.default_rng(0), samples / 24_000).shape == (samples,)


def quantizer(strides: tuple[int, ...]) -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(24, [FactorizedQuantizer(24, 64, 8, stride) for stride in strides])


def test_fitted_codebooks_leave_less_and_less():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 40, 24, generator=generator) @ torch.diag(torch.linspace(2, 0.1, 24))
    left = codebook_init.fit(quantizer((2, 1, 1)), latents, generator)
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.6


def test_plain_codebooks_are_fitted_too():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 40, 8, generator=generator)
    books = ResidualVectorQuantizer(8, [VectorQuantizer(8, 64) for _ in range(3)])
    left = codebook_init.fit(books, latents, generator)
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.3


@torch.no_grad()
def test_quantizers_side_by_side_share_the_components():
    """What one of them writes leaves the others' share as it is, so the energy that is left goes down through all."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 40, 24, generator=generator) @ torch.diag(torch.linspace(2, 0.1, 24))
    books = [[VectorQuantizer(8, 64) for _ in range(count)] for count in (1, 3)]
    made = SplitResidualVectorQuantizer(24, 8, books)
    left = codebook_init.fit(made, latents, generator)
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.7
    energy = latents.var(dim=(0, 1)).sum()
    assert float((made(latents).z - latents).square().mean((0, 1)).sum() / energy) == pytest.approx(left[-1], rel=1e-4)
    first, all_of_them = (made.decode(made(latents).indices[:count]) for count in (1, 4))
    assert float((first * (all_of_them - first)).sum(2).abs().max()) < 1e-3


def test_unused_entries_are_brought_back():
    books = quantizer((2, 1))
    reset_parameters(books, 0)
    usage = codebook_init.Usage(books, decay=0.5)
    z = torch.randn(4, 40, 24)
    with torch.no_grad():
        for _ in range(8):
            usage.update([index * 0 for index in books(z).indices])
    moved = usage.revive(books, z, torch.Generator().manual_seed(0), below=0.03)
    assert moved == min(63, 4 * 20 // 4) + min(63, 4 * 40 // 4)


def test_the_losses_are_zero_only_for_the_same_signal():
    spectral = losses.SpectralLoss(24_000)
    x = torch.from_numpy(voice(0.5, 24_000))[None]
    assert all(float(term) == pytest.approx(0, abs=1e-5) for term in spectral(x, x))
    assert all(float(term) > 0.1 for term in spectral(x * 0.1, x))
    assert float(losses.waveform_loss(x * 0, x)) == pytest.approx(1, abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize("kind", [VectorQuantizer, FactorizedQuantizer])
def test_unused_entries_are_split_off_the_busiest(kind):
    books = [VectorQuantizer(24, 64) if kind is VectorQuantizer else FactorizedQuantizer(24, 64, 8) for _ in range(2)]
    made = ResidualVectorQuantizer(24, books)
    reset_parameters(made, 0)
    latents = torch.randn(6, 300, 24, generator=torch.Generator().manual_seed(1))
    codebook_init.fit(made, latents, torch.Generator().manual_seed(2))
    for book in made:
        book.codebook[20:] = 100 * book.codebook[0] if kind is VectorQuantizer else book.codebook[0]
    before = made(latents)
    moved = codebook_init.split(made, latents, torch.Generator().manual_seed(3))
    after = made(latents)
    assert 0 < moved[0] <= 44
    for was, now in zip(before.indices, after.indices, strict=True):
        assert len(now.unique()) > 1.5 * len(was.unique())
    assert (after.z - latents).square().mean() < 1.1 * (before.z - latents).square().mean()


def test_the_loss_of_envelopes_follows_them_and_not_the_level():
    loss, x = losses.EnvelopeLoss(24_000), torch.from_numpy(voice(0.4, 24_000))[None, :9600]
    noise = torch.randn(1, 9600, generator=torch.Generator().manual_seed(0))
    assert loss(x, x) < 0.01
    assert loss(0.3 * x, x) < 0.01
    assert loss(x, x) < loss(x + 0.02 * noise, x) < loss(x + 0.2 * noise, x) < loss(noise, x)
    silence = torch.zeros(1, 9600, requires_grad=True)
    loss(silence, x).backward()
    assert torch.isfinite(silence.grad).all()
