"""Settings of a fine-tuning run, which its folder keeps."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from blazen_codec_core.errors import InvalidInput
from blazen_codec_core.files import contents, replacing
from blazen_codec_core.foreign_json import NotJson, parse_object

FILE = "settings.json"
CHANGEABLE = frozenset(
    {"device", "processes", "accumulate", "precision", "checkpoint_every", "samples_every", "evaluated", "steps"}
)
"""Settings that a resumed run may have other values of."""


@dataclass(frozen=True)
class Settings:
    """Settings of a fine-tuning run.

    Attributes:
        model: Name of the codec.
        data: Folder of recordings.
        held_out: Folder of held-out recordings; by default a share of `data`.
        held_out_share: That share.
        weights: Weights to start from, as for `LoadOptions`; the published ones by default.
        train: `whole`, or `decoder`, which leaves all tokens as they are.
        freeze_codebooks: Leave the quantizer as it is, with a trained encoder.
        steps: Number of steps.
        batch: Cuts per step, over all processes and parts.
        seconds: Length of a cut.
        rate: Peak learning rate.
        dropout: Share of the cuts that use only some of the codebooks, for models with a choice.
        adversarial: Number of steps at the end with a discriminator.
        average: Share that the moving average of weights keeps at a step.
        accumulate: Parts that a process computes its share of a batch in.
        processes: Processes that share each batch.
        precision: Precision of the codec, as Fabric names it.
        device: `auto` or a PyTorch device.
        seed: Seed of cuts, levels and noise.
        checkpoint_every, samples_every: Steps between checkpoints, and between samples to listen to.
        evaluated: Most held-out recordings that the report evaluates.
    """

    model: str
    data: str
    held_out: str | None = None
    held_out_share: float = 0.05
    weights: str | None = None
    train: Literal["whole", "decoder"] = "whole"
    freeze_codebooks: bool = False
    steps: int = 2000
    batch: int = 8
    seconds: float = 1.0
    rate: float = 3e-4
    dropout: float = 0.25
    adversarial: int = 0
    average: float = 0.999
    accumulate: int = 1
    processes: int = 1
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    device: str = "auto"
    seed: int = 0
    checkpoint_every: int = 200
    samples_every: int = 500
    evaluated: int = 20

    def check(self) -> None:
        """Raise `InvalidInput` if settings contradict each other."""
        parts = self.processes * self.accumulate
        if self.batch % parts:
            raise InvalidInput(
                f"{self.batch} cuts cannot be divided into {self.accumulate} parts in each of {self.processes} processes; "
                f"expected a multiple of {parts}"
            )
        if self.adversarial > self.steps:
            raise InvalidInput(f"the discriminator takes part in {self.adversarial} of {self.steps} steps; expected at most all")
        if ":" in self.device and self.processes > 1:
            raise InvalidInput(f"{self.processes} processes need a device each, and {self.device} is one; leave out its number")

    def save(self, folder: Path) -> None:
        with replacing(folder / FILE) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")

    def check_resumed(self, folder: Path) -> None:
        """Raise `InvalidInput` if the folder has a run with settings that must not change."""
        if not (folder / FILE).exists():
            return
        before = read(folder / FILE)
        for field in dataclasses.fields(self):
            was, now = before.get(field.name), getattr(self, field.name)
            if field.name not in CHANGEABLE and was != now:
                raise InvalidInput(f"{folder} has a run with {field.name} {was!r}, not {now!r}; choose another folder")


def read(path: Path) -> dict[str, Any]:
    """Read settings; raise `InvalidInput` for a file that has none."""
    known = {field.name for field in dataclasses.fields(Settings)}
    try:
        values: dict[str, Any] = parse_object(contents(path))
    except NotJson as error:
        raise InvalidInput(f"{path} {error}") from error
    if unknown := sorted(set(values) - known):
        raise InvalidInput(f"{path} has the unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return values
