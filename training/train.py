"""Trains an embedded model from nothing but a seed, out of the plugin's own network.

    python -m training.train --work run/ --minutes 70

Stages: the autoencoder alone; codebooks fitted to its latents; both together. Every 250 steps the state is written to
`run/checkpoint.pt` and a new start goes on from there; a step's data and noise depend on the seed and its number only.
`run/log.jsonl` has the losses and the intelligibility of held-out speech. The last step writes `run/model.safetensors`
in the published layout, float16.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pystoi import stoi
from torch import Tensor, nn

from blazen_codec_core.nn import StreamSetup, reset_parameters
from blazen_codec_snac.network import SnacNetwork
from blazen_codec_snac.specs import SNAC_TINY

from . import codebooks, sound
from .losses import SpectralLoss, waveform_loss


@dataclass
class Plan:
    """Everything that decides the result, but the code."""

    seed: int = 0
    corpus_minutes: float = 90.0
    batch: int = 10
    samples: int = 9_600
    alone: int = 2_500
    """Steps without the quantizer."""
    fit_batches: int = 120
    """Batches whose latents the codebooks are fitted to."""
    steps: int = 9_500
    rate: float = 1.5e-3
    revive_every: int = 50
    revive_until: float = 0.75
    """Share of the steps after which entries are no longer moved."""
    average: float = 0.999
    weights: dict[str, float] = field(
        default_factory=lambda: {"log_mel": 4.0, "convergence": 1.0, "waveform": 0.5, "commitment": 0.1, "codebook": 0.4}
    )

    def learning_rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / 200)
        if step >= self.alone:
            warm = min(warm, 0.3 + 0.7 * (step - self.alone) / 500)
        progress = max(0.0, (step - 0.3 * self.steps) / (0.7 * self.steps))
        return self.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Batches:
    """Random cuts of the corpus; the batch of a step depends on the seed and the step alone."""

    def __init__(self, pcm: NDArray[np.int16], plan: Plan) -> None:
        self.pcm, self.plan = pcm, plan

    def __call__(self, step: int, count: int | None = None) -> Tensor:
        rng = np.random.default_rng((self.plan.seed, 1, step))
        starts = rng.integers(0, len(self.pcm) - self.plan.samples, count or self.plan.batch)
        cuts = np.stack([self.pcm[s : s + self.plan.samples] for s in starts]).astype(np.float32) / 32767
        gains = 10 ** (rng.uniform(-8, 6, (len(cuts), 1)) / 20)
        return torch.from_numpy(np.clip(cuts * gains, -1, 1).astype(np.float32))[..., None]


class Forward(nn.Module):
    """A pass through the network as training sees it: whole signals, fresh noise in the decoder."""

    def __init__(self, network: SnacNetwork, quantize: bool) -> None:
        super().__init__()
        self.network, self.quantize = network, quantize

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor], Tensor, Tensor]:
        z = self.network.encoder(x)
        zero = z.new_zeros(())
        quantized, indices, commitment, codebook = z, [], zero, zero
        if self.quantize:
            result = self.network.quantizer(z)
            quantized, indices, commitment, codebook = result.z, result.indices, result.commitment, result.codebook
        setup = StreamSetup(
            x.shape[0], x.device, noise=lambda layer, at, count: torch.randn(x.shape[0], count, 1, device=x.device)
        )
        y = self.network.decoder.step(quantized, self.network.decoder.init_state(setup), True)
        return y, z, indices, commitment, codebook


class Run:
    """A training run in a folder."""

    def __init__(self, plan: Plan, work: Path, compiled: bool) -> None:
        self.plan, self.work, self.compiled = plan, work, compiled
        work.mkdir(parents=True, exist_ok=True)
        self.network = SnacNetwork(SNAC_TINY)
        reset_parameters(self.network, plan.seed)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=plan.rate, betas=(0.8, 0.99), weight_decay=0.01)
        self.usage = codebooks.Usage(self.network.quantizer)
        self.spectral = SpectralLoss(SNAC_TINY.sampling_rate)
        self.batches = Batches(sound.corpus(plan.seed, plan.corpus_minutes, work / "corpus.npy"), plan)
        self.step = 0
        if self.checkpoint.exists():
            self.resume()

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint.pt"

    def resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.usage.shares, self.step = saved["usage"], saved["step"]

    def save(self) -> None:
        parts = {"network": self.network, "average": self.average, "optimizer": self.optimizer}
        saved: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        temporary = self.checkpoint.with_suffix(".part")
        torch.save({**saved, "usage": self.usage.shares, "step": self.step}, temporary)
        os.replace(temporary, self.checkpoint)

    def train(self, until: int | None = None) -> None:
        """Trains to the end and exports, or to step `until` and saves."""
        forward = self.forward_pass()
        started = time.time()
        while self.step < (self.plan.steps if until is None else until):
            if self.step == self.plan.alone:
                self.fit_codebooks()
                forward = self.forward_pass()
            losses = self.one_step(forward)
            self.step += 1
            if self.step % 50 == 0:
                self.log({**losses, "seconds": time.time() - started})
            if self.step % 250 == 0:
                self.save()
            if self.step % 1000 == 0:
                self.log({"stoi": self.intelligibility(), "used": self.entries_in_use()})
        self.save()
        if until is None:
            self.export()

    def forward_pass(self) -> Any:
        forward = Forward(self.network, quantize=self.step >= self.plan.alone)
        return torch.compile(forward, dynamic=False) if self.compiled else forward

    def one_step(self, forward: Any) -> dict[str, float]:
        torch.manual_seed(self.plan.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate(self.step)
        x = self.batches(self.step)
        y, z, indices, commitment, codebook = forward(x)
        log_mel, convergence = self.spectral(y[..., 0], x[..., 0])
        terms = {
            "log_mel": log_mel,
            "convergence": convergence,
            "waveform": waveform_loss(y[..., 0], x[..., 0]),
            "commitment": commitment,
            "codebook": codebook,
        }
        loss = sum(self.plan.weights[name] * term for name, term in terms.items())
        assert isinstance(loss, Tensor)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimizer.step()
        if indices:
            self.usage.update(indices)
            if self.step % self.plan.revive_every == 0 and self.step < self.plan.revive_until * self.plan.steps:
                generator = torch.Generator().manual_seed(self.plan.seed + self.step)
                self.usage.revive(self.network.quantizer, z, generator, below=0.03)
        self.update_average()
        return {name: float(term.detach()) for name, term in terms.items()}

    @torch.no_grad()
    def update_average(self) -> None:
        share = min(self.plan.average, (self.step + 1) / (self.step + 10))
        pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
        for mean, now in pairs:
            mean.lerp_(now, 1 - share)

    @torch.no_grad()
    def fit_codebooks(self) -> None:
        self.network.load_state_dict(self.average.state_dict())
        latents = torch.cat([self.network.encoder(self.batches(10**6 + i)) for i in range(self.plan.fit_batches)])
        generator = torch.Generator().manual_seed(self.plan.seed)
        left = codebooks.fit(self.network.quantizer, latents, generator)
        self.average.load_state_dict(self.network.state_dict())
        self.log({"energy left after each codebook": left, "stoi": self.intelligibility(quantize=True)})

    @torch.no_grad()
    def intelligibility(self, quantize: bool | None = None) -> float:
        """Mean STOI of the averaged weights on held-out speech."""
        forward = Forward(self.average, self.step >= self.plan.alone if quantize is None else quantize)
        torch.manual_seed(0)
        scores = []
        for index in range(12):
            pcm = sound.held_out_speech(index)
            pcm = pcm[: len(pcm) // 960 * 960]
            y = forward(torch.from_numpy(pcm)[None, :, None])[0]
            scores.append(stoi(pcm, y[0, :, 0].numpy(), sound.SAMPLE_RATE))
        return float(np.mean(scores))

    def entries_in_use(self) -> list[int]:
        return [int((share > 0.01).sum()) for share in self.usage.shares]

    def log(self, row: dict[str, Any]) -> None:
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        line = json.dumps({"step": self.step, **rounded})
        print(line, flush=True)
        with (self.work / "log.jsonl").open("a") as log:
            log.write(line + "\n")

    def export(self) -> None:
        from safetensors.torch import save_file

        from blazen_codec_snac.checkpoint import to_published

        state = {name: tensor.half().contiguous() for name, tensor in to_published(self.average, weight_norm=False).items()}
        temporary = self.work / "model.part"
        save_file(state, temporary)
        os.replace(temporary, self.work / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--alone", type=int, default=Plan.alone, help="steps without the quantizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-compile", action="store_true", help="run without torch.compile, about four times slower")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    plan = Plan(seed=options.seed, steps=options.steps, alone=options.alone)
    Run(plan, options.work, compiled=not options.no_compile).train()


if __name__ == "__main__":
    main()
