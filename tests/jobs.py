"""Jobs for worker processes, which import them by name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import ClassVar

from blazen_codec_core.dataset.work import Job


@dataclass(frozen=True)
class Deadly(Job):
    """Ends the process that does it."""

    verb: ClassVar[str] = "dying"

    def open(self, codec):
        return lambda number: os._exit(1)


@dataclass(frozen=True)
class Asking(Job):
    """Tells of the process that does it: its number, its threads, its device."""

    verb: ClassVar[str] = "asking"

    def open(self, codec):
        import torch

        def work(number):
            time.sleep(0.2)
            return os.getpid(), torch.get_num_threads(), codec.device

        return work
