"""Graphs on a CPU: what is captured is run, and run again on the same tensors where a GPU would play a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blazen_codec_core.torch_backend import cuda_graphs


class PretendedGraphs:
    """Capture function that counts what it records and what is played."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        run()

        def play() -> None:
            self.played += 1
            run()

        return play


def pretend_graphs(monkeypatch: pytest.MonkeyPatch) -> PretendedGraphs:
    """Let CPUs capture graphs during a test."""
    graphs = PretendedGraphs()
    monkeypatch.setattr(cuda_graphs, "CAPTURE_FNS", {"cpu": graphs})
    return graphs
