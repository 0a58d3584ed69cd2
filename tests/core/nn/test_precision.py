"""PyTorch's TF32 setting is changed only during calls, and restored."""

from __future__ import annotations

import pytest
import torch

from blazen_codec_core.nn.kernels.aten.conv import tf32_scope

GPU = torch.device("cuda")


def allowed() -> bool:
    return torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("before", [True, False])
def test_float32_disables_tf32_on_a_gpu(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with torch.inference_mode():
        with tf32_scope(GPU, allow_tf32=False):
            assert not allowed()
        assert allowed() == before
        with pytest.raises(RuntimeError), tf32_scope(GPU, allow_tf32=False):
            raise RuntimeError
        assert allowed() == before


def test_tf32_setting_is_kept_on_other_devices(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with torch.inference_mode(), tf32_scope(GPU, allow_tf32=True):
        assert allowed()
    with torch.inference_mode(), tf32_scope(torch.device("cpu"), allow_tf32=False):
        assert allowed()
    with tf32_scope(GPU, allow_tf32=False):  # training
        assert allowed()
