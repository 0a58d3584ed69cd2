"""Operation count of a codec, and the machine's GEMM rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

SIZES = (512, 1024, 1536)


class SgemmRate:
    """Measured float32 GEMM rate of the machine: the largest median over some sizes."""

    def __init__(self) -> None:
        self._work = {size: torch.randn(3, size, size) for size in SIZES}
        self._seconds: dict[int, list[float]] = {size: [] for size in SIZES}

    def measure(self) -> None:
        for size, (a, b, out) in self._work.items():
            torch.mm(a, b, out=out)
            started = time.perf_counter()
            torch.mm(a, b, out=out)
            self._seconds[size].append(time.perf_counter() - started)

    @property
    def gflops(self) -> float:
        median = {size: sorted(seconds)[len(seconds) // 2] for size, seconds in self._seconds.items()}
        return max(2 * size**3 / median[size] / 1e9 for size in SIZES)


def gflop(model: nn.Module, run: Callable[[], Any]) -> float:
    """Count the GFLOP of a run of the authors' model.

    Includes convolutions, recurrent layers and projections as written; excludes activations and codebook search.
    """
    total = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        weights = sum(p.numel() for name, p in module.named_parameters() if "bias" not in name and "weight_g" not in name)
        if isinstance(module, nn.ConvTranspose1d):
            frames = inputs[0].shape[0] * inputs[0].shape[-1]
        elif isinstance(module, nn.Conv1d):
            frames = output.shape[0] * output.shape[-1]
            weights = module.out_channels * module.in_channels // module.groups * module.kernel_size[0]
        elif isinstance(module, nn.LSTM):
            frames = inputs[0].shape[0] * inputs[0].shape[1]
        else:
            frames = inputs[0].numel() // inputs[0].shape[-1]
        if isinstance(module, nn.ConvTranspose1d):
            weights = module.out_channels * module.in_channels * module.kernel_size[0]
        total += 2 * weights * frames

    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM, nn.Linear)
    hooks = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, kinds)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return total / 1e9
