"""Layers in graphs of any length: PyTorch's export of one length gives what the layer gives for others."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blazen_codec_core.nn import (
    Conv1d,
    ConvTranspose1d,
    Crop,
    EdgePadding,
    FactorizedQuantizer,
    Layer,
    ReflectPadding,
    ResidualVectorQuantizer,
    Sequential,
    StreamSetup,
    reset_parameters,
)
from blazen_codec_core.nn.kernels import dispatch
from blazen_codec_core.nn.kernels.aten.conv import AtenConv1d
from blazen_codec_core.nn.kernels.exporting import exporting, is_exporting
from blazen_codec_core.nn.kernels.interface import Conv1dProblem
from blazen_codec_core.nn.layers.base import prepare_modules

EXAMPLE = 11
"""Frames, times its stride, of the signal that a layer is exported with."""
LAYERS = {
    "reflected": (1, lambda: ReflectPadding(2, 3, 4)),
    "reflected to a stride": (4, lambda: ReflectPadding(2, 5, 2, 4)),
    "edges": (3, lambda: EdgePadding(2, 4, 1, 3, silent=False)),
    "zeros": (3, lambda: EdgePadding(2, 4, 1, 3, silent=True)),
    "cropped": (1, lambda: Sequential([ConvTranspose1d(2, 2, 8, stride=4), Crop(2, 2, 2)])),
    "strided": (2, lambda: Sequential([Conv1d(2, 3, 4, stride=2, padding=ReflectPadding(2, 1, 1, 2)), Conv1d(3, 2, 1)])),
    "transposed": (1, lambda: ConvTranspose1d(2, 3, 6, stride=3, crop=(2, 1))),
}


@functools.cache
def layer_and_graph(name: str) -> tuple[Layer, torch.nn.Module]:
    stride, make = LAYERS[name]
    layer = make()
    reset_parameters(layer, 0)
    layer.requires_grad_(False)
    with exporting():
        prepare_modules(layer)
        frames = torch.export.Dim("frames", min=2, max=1 << 20)  # PyTorch's own module refuses 1; ONNX Runtime does not
        shapes = ({1: frames if stride == 1 else stride * frames},)
        program = torch.export.export(layer, (torch.randn(1, EXAMPLE * stride, 2),), dynamic_shapes=shapes, strict=False)
    return layer, program.module()


@pytest.mark.parametrize("name", LAYERS)
@settings(max_examples=25, deadline=None)
@given(frames=st.integers(2, 40), seed=st.integers(0, 99))
def test_a_layer_of_any_length(name, frames, seed):
    layer, graph = layer_and_graph(name)
    x = torch.randn(1, frames * LAYERS[name][0], 2, generator=torch.Generator().manual_seed(seed))
    with exporting():
        torch.testing.assert_close(graph(x), layer(x))


def test_kernels_of_exported_graphs_are_plain():
    with exporting():
        assert is_exporting()
        assert torch.is_grad_enabled()
        assert isinstance(dispatch.conv1d(Conv1dProblem(torch.randn(3, 4, 5), None, frozen=True)), AtenConv1d)
    assert not is_exporting()


class OneFrame(torch.nn.Module):
    """A quantizer that waits for a second frame: it gives no codes, and the latent of none."""

    def __init__(self) -> None:
        super().__init__()
        self.quantizer = ResidualVectorQuantizer(4, [FactorizedQuantizer(4, 8, 2, stride) for stride in (2, 1)])
        reset_parameters(self.quantizer, 0)
        self.requires_grad_(False)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = self.quantizer.init_state(StreamSetup(1, z.device))
        codes = self.quantizer.step(z, state)
        return (*codes, state.pending, self.quantizer.decode(codes))


def test_graphs_of_no_frames_multiply_no_matrices():
    model, z = OneFrame(), torch.randn(1, 1, 4)
    plain = model(z)
    with exporting():
        program = torch.export.export(model, (z,), strict=False)
    assert not [node for node in program.graph.nodes if any(word in str(node.target) for word in ("linear", "matmul", "mm"))]
    for found, expected in zip(program.module()(z), plain, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
