"""Jobs for worker processes, which import them by name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from blazen_codec_core.dataset.jobs.base import Job

PATIENCE = 300
"""Seconds until a process that should have begun is given up."""


@dataclass(frozen=True)
class Deadly(Job):
    """Ends the process that does it."""

    verb: ClassVar[str] = "dying"

    def open(self, codec):
        return lambda number: os._exit(1)


@dataclass(frozen=True)
class Asking(Job):
    """Tells of the process that does it: its number, its threads, its device.

    Attributes:
        folder: Where each process leaves a trace; none goes on before there are those of all.
        processes: How many there are to be.
    """

    folder: Path
    processes: int
    verb: ClassVar[str] = "asking"

    def open(self, codec):
        import torch

        def work(number):
            (self.folder / str(os.getpid())).touch()
            ends = time.monotonic() + PATIENCE
            while len(os.listdir(self.folder)) < self.processes and time.monotonic() < ends:
                time.sleep(0.01)
            return os.getpid(), torch.get_num_threads(), codec.device

        return work
