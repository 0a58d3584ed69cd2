"""Running a layer whole and in pieces."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from blazen_codec_core.nn import Layer, StreamSetup

CPU = torch.device("cpu")


def streamed(layer: Layer, x: torch.Tensor, sizes: list[int], setup: StreamSetup | None = None) -> torch.Tensor:
    """The layer's output for `x` cut into pieces of these sizes over and over, checked against `frames_out`."""
    state = layer.init_state(setup or StreamSetup(x.shape[0], x.device, x.dtype))
    parts, at, number = [], 0, 0
    with torch.inference_mode():
        while at < x.shape[1]:
            size = sizes[number % len(sizes)]
            parts.append(layer.step(x[:, at : at + size], state, last=False))
            at, number = min(x.shape[1], at + size), number + 1
            assert sum(part.shape[1] for part in parts) == layer.frames_out(at, False)
        parts.append(layer.step(x[:, :0], state, last=True))
    out = torch.cat(parts, dim=1)
    assert out.shape[1] == layer.frames_out(x.shape[1], True)
    return out


def whole(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return layer(x)


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)
