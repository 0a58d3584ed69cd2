"""What this machine has, for tests of what only some machines have. `nox -s processors` runs them as on others."""

from __future__ import annotations

import pytest
import torch

from blazen_codec_core.nn.kernels import dispatch
from blazen_codec_core.nn.kernels.aten import prepacked_conv

loops = dispatch.load_cpu_kernels()
HAS_VECTORS = torch.backends.cpu.get_cpu_capability() in {"AVX2", "AVX512"}
compiled = pytest.mark.skipif(loops is None, reason="numba, which compiles the loops, is not installed")
blocks = pytest.mark.skipif(loops is None or not HAS_VECTORS, reason="blocks of registers want numba, and AVX2 or AVX-512")
packing = pytest.mark.skipif(not prepacked_conv.is_available(), reason="this PyTorch has no oneDNN with packed products")
