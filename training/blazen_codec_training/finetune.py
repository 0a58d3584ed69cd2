"""Fine-tuning of a codec on recordings, in a folder from which a run that ended resumes.

The cuts of a step depend only on the seed and the step's number, and not on the number of processes or of parts of a batch. The
noise of decoders depends on these as well.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric
from tensorboardX import SummaryWriter

from blazen_codec_core.files import make_folder

from . import checkpoints, trained_codec
from .averaging import WeightAverage
from .cuts import Cuts, books
from .devices import new_fabric
from .discriminator import AdversarialLoss
from .losses import AudioLosses
from .optimizer import Optimizer, scheduled
from .progress import progress
from .recordings import Recordings, find
from .samples import Samples
from .settings import Settings
from .stopping import StopRequest
from .trained_codec import CodecPass
from .training_step import TrainingStep

CHECKPOINT, RECORDINGS, MODEL, LOG, SAMPLES = "checkpoint.pt", "recordings.json", "model.safetensors", "log", "samples"
"""Names in the folder of a run; the checkpoint is in a subfolder, so that the model is the only file of weights."""
STATE = "state"
LOG_EVERY = 10
NAMED = 10
"""Most recordings that a remark names."""
WARM = 100
"""Most steps over which the learning rate rises."""
FLAT = 0.3
"""Share of the steps before the learning rate starts to fall."""
HEARD_AFTER = 500
"""Steps over which the weight of the untrained discriminator rises to its full value."""
Remark = Callable[[str], object]


def finetune(
    settings: Settings, folder: Path, *, stop: StopRequest | None = None, remark: Remark = print, quiet: bool = False
) -> int:
    """Train to the end or until told to stop; return the number of steps done.

    Args:
        settings: Settings; those of the run in the folder, if it has one.
        folder: Folder of the run.
        stop: Request that ends the run after its step and a checkpoint; SIGINT and SIGTERM make it too.
        remark: Called with messages, such as those about recordings that cannot be read.
        quiet: Show no progress.

    Raises:
        InvalidInput: The settings contradict each other or those of the run in the folder, or there are no recordings.
        CodecError: The codec cannot be loaded or trained.
    """
    settings.check()
    settings.check_resumed(folder)
    trained_codec.load(settings)  # raises before anything is written, and downloads the weights once
    make_folder(folder / STATE)
    recordings = _recordings(settings, folder, remark)
    settings.save(folder)
    if stop is None:
        stop = new_stop(settings.processes)
    fabric = new_fabric(settings.device, settings.processes, settings.precision)
    with stop.on_signals():
        one = partial(_train, settings=settings, folder=folder, recordings=recordings, stop=stop, remark=remark, quiet=quiet)
        return int(fabric.launch(one))


def new_stop(processes: int) -> StopRequest:
    """Return a request that `processes` processes share."""
    return StopRequest(multiprocessing.get_context("spawn").Event() if processes > 1 else None)


def _recordings(settings: Settings, folder: Path, remark: Remark) -> Recordings:
    """Find the recordings, or take those that a resumed run began with."""
    listed = folder / STATE / RECORDINGS
    if listed.exists():
        return Recordings.load(listed)
    held_out = Path(settings.held_out) if settings.held_out else None
    recordings = find(Path(settings.data), held_out, settings.held_out_share)
    recordings.save(listed)
    for skipped in recordings.skipped[:NAMED]:
        remark(f"skipped: {skipped.reason}")
    if (more := len(recordings.skipped) - NAMED) > 0:
        remark(f"skipped: {more} more recordings, which {listed} lists")
    return recordings


def _train(
    fabric: Fabric, settings: Settings, folder: Path, recordings: Recordings, stop: StopRequest, remark: Remark, quiet: bool
) -> int:
    """Run one of the processes."""
    with stop.on_signals():
        run = Run(fabric, settings, folder, recordings, remark)
        try:
            return run.train(stop, quiet)
        finally:
            run.close()


class Run:
    """A fine-tuning run in one of its processes."""

    def __init__(self, fabric: Fabric, settings: Settings, folder: Path, recordings: Recordings, remark: Remark) -> None:
        self.fabric, self.settings, self.folder, self.step = fabric, settings, folder, 0
        self.codec = trained_codec.load(settings, str(fabric.device))
        trained_codec.freeze(self.codec, settings)
        self.average = WeightAverage(self.codec, settings.average)
        adversary = AdversarialLoss(settings.seed, fabric) if settings.adversarial else None
        forward, optimizer = fabric.setup(CodecPass(self.codec), Optimizer(self.codec.network))
        losses = AudioLosses(self.codec.spec.sample_rate).to(fabric.device)
        self.training = TrainingStep(fabric, forward, optimizer, losses, adversary, settings.precision)
        self._parts = {"network": self.codec, "average": self.average.network, "optimizer": optimizer}
        if adversary:
            self._parts["adversary"] = adversary
        if self.checkpoint.exists():
            self.step = checkpoints.load(self.checkpoint, self._parts, fabric)
        per_process = settings.batch // fabric.world_size
        self._rows = range(fabric.global_rank * per_process, (fabric.global_rank + 1) * per_process)
        spec = self.codec.spec
        self.cuts = Cuts(
            recordings.trained,
            rate=spec.sample_rate,
            channels=spec.channels,
            samples=trained_codec.cut_samples(spec, settings.seconds),
            seed=settings.seed,
            rows=self._rows,
            remark=remark,
        )
        self.log = SummaryWriter(str(folder / LOG), purge_step=self.step) if fabric.is_global_zero else None
        self.samples = Samples(recordings.held_out, spec, folder / SAMPLES) if fabric.is_global_zero else None

    @property
    def checkpoint(self) -> Path:
        return self.folder / STATE / CHECKPOINT

    def train(self, stop: StopRequest, quiet: bool = False) -> int:
        """Train to the end or until told to stop; return the number of steps done."""
        settings = self.settings
        if not self.step:
            self.listen()
        with progress(self.step, settings.steps, quiet or not self.fabric.is_global_zero) as show:
            while self.step < settings.steps and not self._is_told(stop):
                losses = self.one_step()
                self.step += 1
                if self.step % LOG_EVERY == 0:
                    show(self.step, self._mean(losses))
                if self.step % settings.samples_every == 0:
                    self.listen()
                if self.step % settings.checkpoint_every == 0:
                    self.save()
        self.save()
        return self.step

    def _is_told(self, stop: StopRequest) -> bool:
        """Tell whether any process was told to stop."""
        told = torch.tensor(float(bool(stop)), device=self.fabric.device)
        return bool(self.fabric.all_reduce(told, reduce_op="sum"))

    def one_step(self) -> dict[str, torch.Tensor]:
        settings, step = self.settings, self.step
        noise = (settings.seed * 1_000_003 + step) * settings.batch + self._rows.start
        torch.manual_seed(noise)
        count = settings.accumulate
        x = self.cuts(step).to(self.fabric.device)
        used = books(settings.seed, step, settings.batch, self.codec.spec.usable_codebooks, settings.dropout)
        used = used[self._rows.start : self._rows.stop].to(self.fabric.device)
        parts = list(zip(x.chunk(count), used.chunk(count), strict=True))
        adversarial_step = step - (settings.steps - settings.adversarial)
        say = min(1.0, adversarial_step / HEARD_AFTER) if adversarial_step >= 0 else None
        share = scheduled(step, settings.steps, warm=min(WARM, max(1, settings.steps // 10)), flat=FLAT)
        losses, _ = self.training.run(parts, settings.rate * share, say=say)
        self.average.update(step)
        return losses

    def _mean(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """Return the mean of losses over all processes, and log it."""
        means = self.fabric.all_reduce(torch.stack(list(losses.values())), reduce_op="mean")
        named = dict(zip(losses, torch.as_tensor(means).tolist(), strict=True))
        if self.log:
            for name, value in named.items():
                self.log.add_scalar(f"loss/{name}", value, self.step)
        return named

    def listen(self) -> None:
        """Decode and measure held-out recordings with the averaged weights."""
        if self.samples and self.log:
            for name, value in self.samples.write(self.average.network, self.step).items():
                self.log.add_scalar(f"held_out/{name}", value, self.step)
            self.log.flush()
        self.fabric.barrier()

    def save(self) -> None:
        """Write a checkpoint, and the averaged weights in the published layout."""
        if self.fabric.is_global_zero:
            self.average.network.save_weights(self.folder / MODEL)
        checkpoints.save(self.checkpoint, self._parts, self.step, self.fabric)

    def close(self) -> None:
        self.cuts.close()
        if self.log:
            self.log.close()
