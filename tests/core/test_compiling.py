"""That kernels are being compiled is said once."""

from __future__ import annotations

import logging

import pytest

from blazen_codec_core.torch_backend import compiling

numba = pytest.importorskip("numba", reason="numba, which compiles the kernels, is not installed")


def test_compiling_is_remarked_once(caplog, monkeypatch):
    monkeypatch.setattr(compiling, "_said", [])
    caplog.set_level(logging.INFO, "blazen_codec_core")
    with compiling.remarked():
        assert caplog.messages == []
        for kind in ("int64", "float64"):
            numba.njit(f"{kind}({kind})")(lambda x: x + x)
    with compiling.remarked():
        numba.njit("int32(int32)")(lambda x: x + x)
    assert caplog.messages == [compiling.REMARK]
