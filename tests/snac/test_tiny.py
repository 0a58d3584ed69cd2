"""The embedded model, and the trainer that made it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pystoi import stoi

import blazen_codec_core as bc
from blazen_codec_core import metrics
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.nn import FactorizedQuantizer, ResidualVectorQuantizer, reset_parameters

sys.path.insert(0, str(Path(__file__).parents[2]))
from training import codebooks, losses, train


@pytest.fixture(scope="module")
def tiny() -> bc.DynCodecProvider:
    return bc.load("snac_tiny", device="cpu")


def test_it_needs_nothing_but_the_wheel(tiny):
    assert tiny.spec.weights.package == "blazen_codec_snac"
    tiny.load()
    path = Path(sys.modules["blazen_codec_snac"].__file__).parent / tiny.spec.weights.file
    assert path.stat().st_size <= 4_000_000


def test_it_says_much_more_than_chance(tiny, root):
    """Against the recording of the README: near it in the spectrum, and far nearer than another recording is."""
    speech, rate = bc.read_audio(root / "examples" / "speech.flac")
    decoded = tiny.decode(tiny.encode(speech, rate))
    distance = metrics.log_mel_distance(speech, decoded, rate)
    other = metrics.log_mel_distance(speech, np.roll(decoded, rate, axis=1), rate)
    assert distance < 0.5 * other
    assert stoi(speech[0], decoded[0], rate) > 0.7


def test_it_is_upstreams_too(tiny):
    other = bc.load("snac_tiny", engine="upstream", device="cpu")
    pcm = voice(2, 24_000)
    tokens = tiny.encode(pcm, 24_000)
    reference = other.encode(pcm, 24_000)
    differing = sum(int((a != b).sum()) for a, b in zip(tokens.codes, reference.codes, strict=True))
    assert differing == 0
    assert np.abs(tiny.decode(tokens) - other.decode(tokens)).max() < 1e-4


PLAN = train.Plan(batch=2, samples=3840, alone=2, steps=5, revive_every=2, fit_batches=140)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a short run in a folder of its own, on a corpus that is there already and without espeak-ng."""
    monkeypatch.setattr(train.Run, "intelligibility", lambda self, quantize=None: 0.0)
    torch.manual_seed(0)

    def run(name: str) -> train.Run:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        np.save(folder / "corpus.npy", (voice(20, 24_000) * 30_000).clip(-32_000, 32_000).astype(np.int16))
        return train.Run(PLAN, folder, compiled=False)

    return run


@pytest.mark.parametrize("stage", ["alone", "quantized"])
def test_a_run_that_was_interrupted_gives_what_one_that_was_not_gives(start, stage, tmp_path):
    """From one checkpoint on: sums over threads differ in their last bits, which k-means in between would magnify."""
    begin, stops, end = (0, (1,), 2) if stage == "alone" else (3, (4,), 5)
    start("whole").train(until=begin)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    start("whole").train(until=end)
    for stop in (*stops, end):
        start("parts").train(until=stop)
    whole, parts = (start(name) for name in ("whole", "parts"))
    assert whole.step == parts.step == end
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(parts.usage.shares, whole.usage.shares)


def test_what_it_exports_loads(start):
    run = start("export")
    run.train()
    codec = bc.load("snac_tiny", weights=run.work / "model.safetensors", device="cpu")
    assert codec.decode(codec.encode(voice(0.2, 24_000), 24_000)).shape == (1, 4800)


def quantizer(strides: tuple[int, ...]) -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(24, [FactorizedQuantizer(24, 64, 8, stride) for stride in strides])


def test_fitted_codebooks_leave_less_and_less():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 40, 24, generator=generator) @ torch.diag(torch.linspace(2, 0.1, 24))
    left = codebooks.fit(quantizer((2, 1, 1)), latents, generator)
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.6


def test_unused_entries_are_brought_back():
    books = quantizer((2, 1))
    reset_parameters(books, 0)
    usage = codebooks.Usage(books, decay=0.5)
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
