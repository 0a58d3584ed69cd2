"""Compiles all kernels that a model starts, for a GPU that need not be there: python tests/gpu/compiling.py MODEL TYPE CAPABILITY

Nothing is computed: what a kernel would have written stays as it was.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import blazen_codec_core as bc
from blazen_codec_core.nn.kernels import backends
from blazen_codec_core.nn.kernels.triton import (
    attention,
    channel_norm,
    depthwise_conv,
    elementwise,
    gemm_conv,
    group_norm,
    lstm,
    philox,
)
from blazen_codec_core.nn.kernels.triton import backend as triton_backend
from blazen_codec_core.torch_backend.backend import TorchCodecBackend

STARTS = (attention, channel_norm, depthwise_conv, philox, group_norm, elementwise, gemm_conv, lstm)


def main(name: str, dtype: str, capability: str) -> None:
    target = GPUTarget("cuda", int(capability), 32)
    driver.set_active(
        SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: target)
    )
    compiled: dict[str, set[str]] = {}

    def start(kernel: Any, grid: tuple[int, ...], x: Any, *arguments: Any, **settings: Any) -> None:
        made = kernel.warmup(x, *arguments, grid=grid, **settings, enable_fp_fusion=True)
        compiled.setdefault(kernel.fn.__name__, set()).add(made.hash)

    for module in STARTS:
        module.launch = start  # type: ignore[attr-defined]
    lstm._most_programs = lambda device: lstm.PROGRAMS
    triton_backend.runs_on = lambda device: True
    backends.os.environ["TRITON_INTERPRET"] = "asked below"  # that is: also for tensors on a CPU
    TorchCodecBackend.streams_per_batch = 4
    codec = bc.load(name, device="cpu", dtype=dtype, weights=None if name.endswith("_tiny") else "random:0")
    rng = np.random.default_rng(0)
    items = [0.1 * rng.standard_normal((codec.channels, int(s * codec.sample_rate))).astype(np.float32) for s in (0.8, 0.5)]
    shape = codec.spec
    tokens = [
        bc.CodecTokens.from_codes(
            shape,
            [np.zeros((1, own.frames // stride), np.int32) for stride in own.strides],
            num_samples=own.num_samples,
            scales=own.scales,
        )
        for own in codec.encode_batch(items, codec.sample_rate)
    ]
    codec.decode_batch(tokens)
    print(", ".join(f"{kernel} {len(variants)}" for kernel, variants in sorted(compiled.items())))


if __name__ == "__main__":
    main(*sys.argv[1:])
