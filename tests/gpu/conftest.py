"""The kernels for GPUs run here on a GPU; without one, on the CPU through Triton's interpreter (`TRITON_INTERPRET=1`)."""

from __future__ import annotations

import importlib.util

import pytest
import torch

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]
"""PyTorch's builds for GPUs bring Triton; `nox -s gpu` does too."""


@pytest.fixture(scope="session")
def device() -> torch.device:
    from blazen_codec_core.nn.kernels.triton.launch import runs_on

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert runs_on(device), "without a GPU: TRITON_INTERPRET=1"
    return device


@pytest.fixture(scope="session")
def same(device):
    """Whether signals are equal to the bit; through the interpreter, whose products are the CPU's, to the last digit."""

    def compare(one, other) -> bool:
        one, other = (torch.as_tensor(each).cpu() for each in (one, other))
        if device.type == "cuda":
            return torch.equal(one, other)
        return torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max() or 1))

    return compare
