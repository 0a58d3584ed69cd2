"""Whether the library may take TF32 for float32 is asked for around calls of it, and is as it was afterwards."""

from __future__ import annotations

import pytest
import torch

from blazen_codec_core.nn.kernels.aten.conv import tf32_scope

GPU = torch.device("cuda")


def allowed() -> bool:
    return torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", [True, False])
def test_float32_is_float32_on_a_gpu(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with torch.inference_mode():
        with tf32_scope(GPU, allow_tf32=False):
            assert not allowed()
        assert allowed() == before
        with pytest.raises(RuntimeError), tf32_scope(GPU, allow_tf32=False):
            raise RuntimeError
        assert allowed() == before


def test_elsewhere_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with torch.inference_mode(), tf32_scope(GPU, allow_tf32=True):
        assert allowed()
    with torch.inference_mode(), tf32_scope(torch.device("cpu"), allow_tf32=False):
        assert allowed()
    with tf32_scope(GPU, allow_tf32=False):  # training
        assert allowed()
