"""Training of an embedded model from a seed, with its plugin's network.

    python -m blazen_codec_training.train dac_tiny --work runs/dac_tiny

Stages: the autoencoder alone, codebooks fitted to its latents, and both together. Every 250 steps the state is written to
`checkpoint.pt` in the folder of the run, from which a restarted run resumes. The data and noise of a step depend only on the seed
and the step's number. `log.jsonl` has the losses and the intelligibility of held-out speech. The last step writes
`model.safetensors` in float16, with the names of the authors' package.

    python -m blazen_codec_training.train dac_tiny --work runs/more --weights plugins/dac/blazen_codec_dac/tiny.safetensors

continues from a trained model, without the first stages and with another schedule. Unused entries of codebooks are split off
frequently used ones. `--adversarial N` adds a discriminator for the last N steps. `--device cuda` trains on a GPU. Random numbers
are drawn on the CPU and do not depend on the device, except for the noise inside decoders.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pystoi import stoi
from safetensors.torch import load_file, save_file
from torch import Tensor

from blazen_codec_core.nn import reset_parameters

from . import checkpoints, codebook_init, synthetic_audio
from .averaging import WeightAverage
from .devices import new_fabric
from .discriminator import AdversarialLoss
from .forward_pass import ForwardPass
from .losses import AudioLosses
from .optimizer import Optimizer, scheduled
from .progress import progress
from .recipes import RECIPES, Recipe
from .training_step import TrainingStep

CHECKPOINT_EVERY, MEASURE_EVERY = 250, 1000
HEARD_AFTER = 500
"""Steps over which the weight of the untrained discriminator rises to its full value."""
SAMPLE_RATE = synthetic_audio.SAMPLE_RATE


@dataclass
class Plan:
    """Settings of a training run, besides the recipe."""

    seed: int = 0
    corpus_minutes: float = 120.0
    batch: int = 10
    alone: int = 3_000
    """Steps without the quantizer."""
    fit_batches: int = 120
    """Number of batches whose latents the codebooks are fitted to."""
    steps: int = 12_000
    rate: float = 1.5e-3
    flat: float = 0.3
    """Fraction of the steps before the learning rate starts to fall."""
    dropout: float = 0.25
    """Fraction of the signals that use only some of the codebooks, for models with a choice."""
    revive_every: int = 50
    revive_until: float = 0.75
    """Fraction of the steps after which entries are no longer moved."""
    average: float = 0.999
    adversarial: int = 0
    """Number of steps at the end with a discriminator."""

    def learning_rate(self, step: int) -> float:
        rise = min(1.0, 0.3 + 0.7 * (step - self.alone) / 500) if step >= self.alone > 0 else 1.0
        return self.rate * min(rise, (step + 1) / 200) * scheduled(step, self.steps, warm=1, flat=self.flat)


@dataclass
class Batches:
    """Random cuts of the corpus; the batch of a step depends only on the seed and the step."""

    pcm: NDArray[np.int16]
    plan: Plan
    recipe: Recipe
    device: torch.device | str = "cpu"

    def __call__(self, step: int) -> Tensor:
        """Return the audio of a step, `(batch, 1, samples)`."""
        rng = np.random.default_rng((self.plan.seed, 1, step))
        starts = rng.integers(0, len(self.pcm) - self.recipe.samples, self.plan.batch)
        cuts = np.stack([self.pcm[s : s + self.recipe.samples] for s in starts]).astype(np.float32) / 32767
        gains = 10 ** (rng.uniform(-8, 6, (len(cuts), 1)) / 20)
        return torch.from_numpy(np.clip(cuts * gains, -1, 1).astype(np.float32))[:, None].to(self.device)

    def books(self, step: int) -> Tensor:
        """Return the number of codebooks of each signal of a step, `(batch,)`."""
        rng = np.random.default_rng((self.plan.seed, 2, step))
        drawn = rng.choice(self.recipe.choices, self.plan.batch)
        books = np.where(rng.random(self.plan.batch) < self.plan.dropout, drawn, self.recipe.choices[-1])
        return torch.from_numpy(books).to(self.device)


class Run:
    """A training run in a folder."""

    def __init__(
        self, recipe: Recipe, plan: Plan, work: Path, *, compiled: bool, start: Path | None = None, device: str = "cpu"
    ) -> None:
        self.recipe, self.plan, self.work = recipe, plan, work
        self.fabric = new_fabric(device)
        work.mkdir(parents=True, exist_ok=True)
        corpus = synthetic_audio.corpus(plan.seed, plan.corpus_minutes, work / "corpus.npy")
        self.batches = Batches(corpus, plan, recipe, self.fabric.device)
        self.step = 0
        self.network = recipe.network()
        reset_parameters(self.network, plan.seed)
        self.network.to(self.fabric.device)
        if start and not self.checkpoint.exists():
            self.network.load_state_dict(recipe.ours(self.network, load_file(start), str(start)))
            self.split_codebooks()
        self.average = WeightAverage(self.network, plan.average)
        self.usage = codebook_init.Usage(self.network.quantizer)
        self.adversary = AdversarialLoss(plan.seed, self.fabric)
        self.training = self._set_up(compiled)
        if self.checkpoint.exists():
            self.step = checkpoints.load(self.checkpoint, self._parts, self.fabric)

    def _set_up(self, compiled: bool) -> TrainingStep:
        forward: Any = ForwardPass(self.network)
        forward = torch.compile(forward, dynamic=False) if compiled else forward
        forward, optimizer = self.fabric.setup(forward, Optimizer(self.network))
        losses = AudioLosses(SAMPLE_RATE).to(self.fabric.device)
        return TrainingStep(self.fabric, forward, optimizer, losses, self.adversary)

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint.pt"

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "average": self.average.network,
            "optimizer": self.training.optimizer,
            "adversary": self.adversary,
            "usage": self.usage,
        }

    def save(self) -> None:
        checkpoints.save(self.checkpoint, self._parts, self.step, self.fabric)

    def train(self, until: int | None = None) -> None:
        """Train to the end and export, or to step `until` and save."""
        started, end = time.time(), self.plan.steps if until is None else until
        with progress(self.step, end) as show:
            while self.step < end:
                if self.step == self.plan.alone and self.step:
                    self.fit_codebooks()
                losses = self.one_step()
                self.step += 1
                show(self.step, losses)
                if self.step % 50 == 0:
                    self.log({**losses, "seconds": time.time() - started})
                if self.step % CHECKPOINT_EVERY == 0:
                    self.save()
                if self.step % MEASURE_EVERY == 0:
                    self.log({"stoi": self.intelligibility(), "used": self.entries_in_use()})
        self.save()
        if until is None:
            self.export()

    @property
    def quantizes(self) -> bool:
        return self.step >= self.plan.alone

    def one_step(self) -> dict[str, float]:
        torch.manual_seed(self.plan.seed * 1_000_003 + self.step)
        adversarial_step = self.step - (self.plan.steps - self.plan.adversarial)
        say = min(1.0, adversarial_step / HEARD_AFTER) if adversarial_step >= 0 else None
        parts = [(self.batches(self.step), self.batches.books(self.step))]
        terms, (output,) = self.training.run(parts, self.plan.learning_rate(self.step), say=say, quantize=self.quantizes)
        if output.codes:
            self.usage.update(output.codes)
            if self.step % self.plan.revive_every == 0 and self.step < self.plan.revive_until * self.plan.steps:
                generator = torch.Generator().manual_seed(self.plan.seed + self.step)
                self.usage.revive(self.network.quantizer, output.latents, generator, below=0.03)
        self.average.update(self.step)
        return {name: float(term) for name, term in terms.items()}

    def latents(self, batches: int) -> Tensor:
        """Encode batches that no step uses, and return their latents."""
        return torch.cat([self.network.encoder(self.batches(10**6 + number).transpose(1, 2)) for number in range(batches)])

    @torch.no_grad()
    def split_codebooks(self) -> None:
        """Split frequently used entries of a trained model, to replace unused ones."""
        generator = torch.Generator().manual_seed(self.plan.seed)
        self.log({"entries split": codebook_init.split(self.network.quantizer, self.latents(self.plan.fit_batches), generator)})

    @torch.no_grad()
    def fit_codebooks(self) -> None:
        self.network.load_state_dict(self.average.network.state_dict())
        codebook_init.normalise(self.network, self.latents(4))
        latents = self.latents(self.plan.fit_batches)
        generator = torch.Generator().manual_seed(self.plan.seed)
        left = codebook_init.fit(self.network.quantizer, latents, generator)
        self.average.network.load_state_dict(self.network.state_dict())
        self.log({"energy left after each codebook": left, "stoi": self.intelligibility()})

    @torch.no_grad()
    def intelligibility(self) -> float:
        """Mean STOI of the averaged weights on held-out speech."""
        forward = ForwardPass(self.average.network)
        torch.manual_seed(0)
        scores = []
        for index in range(12):
            pcm = synthetic_audio.held_out_speech(index)
            pcm = pcm[: len(pcm) // self.recipe.samples * self.recipe.samples]
            y = forward(torch.from_numpy(pcm)[None, None].to(self.fabric.device), quantize=self.quantizes).audio
            scores.append(stoi(pcm, y[0, 0].cpu().numpy(), SAMPLE_RATE))
        return float(np.mean(scores))

    def entries_in_use(self) -> list[int]:
        return [int((share > 0.01).sum()) for share in self.usage.shares]

    def log(self, row: dict[str, Any]) -> None:
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, **rounded}) + "\n")

    def export(self) -> None:
        state = {name: tensor.half().contiguous().cpu() for name, tensor in self.recipe.published(self.average.network).items()}
        temporary = self.work / "model.part"
        save_file(state, temporary)
        os.replace(temporary, self.work / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument(
        "--alone", type=int, default=None, help=f"steps without the quantizer (default: {Plan.alone}, 0 with --weights)"
    )
    parser.add_argument("--batch", type=int, default=Plan.batch, help="signals per step")
    parser.add_argument("--rate", type=float, default=Plan.rate, help="peak learning rate")
    parser.add_argument("--weights", type=Path, help="trained model to continue from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adversarial", type=int, default=Plan.adversarial, help="steps at the end with a discriminator")
    parser.add_argument("--device", default="cpu", help="PyTorch device, such as cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--no-compile", action="store_true", help="run without torch.compile (slower)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    alone = options.alone if options.alone is not None else 0 if options.weights else Plan.alone
    plan = Plan(
        seed=options.seed, steps=options.steps, batch=options.batch, alone=alone, rate=options.rate,
        adversarial=options.adversarial,
    )  # fmt: skip
    run = Run(
        RECIPES[options.model], plan, options.work,
        compiled=not options.no_compile, start=options.weights, device=options.device,
    )  # fmt: skip
    run.train()


if __name__ == "__main__":
    main()
