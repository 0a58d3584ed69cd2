"""What this machine has, for tests of what only some machines have. `nox -s processors` runs them as on others."""

from __future__ import annotations

import pytest
import torch

from blazen_codec_core.nn.kernels.backends import load_cpu_backend

cpu = load_cpu_backend()
HAS_VECTORS = torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}
compiled = pytest.mark.skipif(cpu is None, reason="numba, which compiles the kernels, is not installed")
blocks = pytest.mark.skipif(cpu is None or not HAS_VECTORS, reason="micro-kernels need numba, and AVX2 or AVX-512")
