"""Helpers of all benchmarks."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Timings = dict[str, list[float]]


def interleaved(
    work: dict[str, Callable[[], object]], rounds: int, *, warm: bool = True, between: Callable[[], object] | None = None
) -> Timings:
    """Time each function once per round, in seconds; unless `warm` is false, a first round is not counted."""
    seconds: Timings = {name: [] for name in work}
    for number in range(rounds + warm):
        for name, function in work.items():
            started = time.perf_counter()
            function()
            if number >= warm:
                seconds[name].append(time.perf_counter() - started)
        if between:
            between()
    return seconds


def voices(codec: Any, seconds: float) -> Any:
    """Synthesize a recording `(channels, samples)` for a codec, with another voice on each channel."""
    import numpy as np

    from blazen_codec_core.conformance.signals import voice

    return np.stack([voice(seconds, codec.sample_rate, channel) for channel in range(codec.channels)])


def machine() -> dict[str, object]:
    import torch

    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return {"cpu": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}


class Memory:
    """Memory that this process gained since the object was created, in MiB. Only Linux can reset the peak."""

    def __init__(self) -> None:
        self._before = self._of("VmRSS")

    def begin(self) -> None:
        """Reset the peak."""
        Path("/proc/self/clear_refs").write_text("5")

    @property
    def peak(self) -> float:
        return self._of("VmHWM") - self._before

    @staticmethod
    def _of(key: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))
