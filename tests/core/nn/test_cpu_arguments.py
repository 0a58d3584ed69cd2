"""Compiled kernels refuse tensors whose shape, dtype, device or layout they do not expect: an address tells them nothing."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from pathlib import Path

import pytest
import torch

from blazen_codec_core.nn.kernels.epilogue import ELU, SNAKE, Epilogue
from blazen_codec_core.nn.kernels.interface import AttentionProblem
from blazen_codec_core.nn.kernels.winograd import F_5_2
from tests.helpers.epilogues import drawn
from tests.helpers.processors import blocks

pytest.importorskip("blazen_codec_core.nn.kernels.cpu", reason="numba, which compiles the kernels, is not installed")
from blazen_codec_core.nn.kernels.cpu import arguments
from blazen_codec_core.nn.kernels.cpu.attention import RingAttention
from blazen_codec_core.nn.kernels.cpu.channel_norm import ChannelNorm
from blazen_codec_core.nn.kernels.cpu.codebook_search import CodebookSearch
from blazen_codec_core.nn.kernels.cpu.conv import select_conv1d
from blazen_codec_core.nn.kernels.cpu.direct_conv import DirectConv1d
from blazen_codec_core.nn.kernels.cpu.elementwise import CpuElementwise
from blazen_codec_core.nn.kernels.cpu.group_norm import GroupNorm
from blazen_codec_core.nn.kernels.cpu.kn2row_conv import Kn2rowConv1d
from blazen_codec_core.nn.kernels.cpu.lstm import PersistentLSTM
from blazen_codec_core.nn.kernels.cpu.winograd_conv import WinogradConv1d

pytestmark = blocks

CONVOLUTIONS = {
    "direct": (lambda: DirectConv1d(drawn(5, 64, 64), None, 2, 3), 19 * 2 + 13),
    "depthwise": (lambda: select_conv1d(drawn(7, 1, 64), None, dilation=3, groups=64), 20 + 18),
    "kn2row": (lambda: select_conv1d(drawn(7, 64, 1), None, dilation=3), 20 + 18),
    "winograd": (lambda: WinogradConv1d(F_5_2, drawn(2, 64, 64), None, 3), 20 + 3),
    "winograd of blocks": (lambda: WinogradConv1d(F_5_2, drawn(2, 256, 64), None, stride=4), 20 * 4 + 4),
}
"""Kernels of 64 channels, and the frames that 20 output frames need."""


@pytest.mark.parametrize(("make", "needed"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_refuse_wrong_signals(make, needed):
    kernel, x = make(), drawn(2, needed, 64)
    assert kernel(x, 20).shape[:2] == (2, 20)
    with pytest.raises(ValueError, match=f"{needed - 1} frames of 64 channels; expected at least {needed} of 64"):
        kernel(x[:, 1:], 20)
    for channels in (48, 80):
        with pytest.raises(ValueError, match=f"of {channels} channels; expected"):
            kernel(drawn(2, needed, channels), 20)
    with pytest.raises(TypeError, match=r"torch\.float64 on cpu; .* expect torch\.float32"):
        kernel(x.double(), 20)
    with pytest.raises(TypeError, match="on meta"):
        kernel(x.to("meta"), 20)


WRONG_EPILOGUES = {
    "residual of another batch": (Epilogue(residual=drawn(1, 20, 64)), ValueError, "2 signals of 64 channels"),
    "residual of other channels": (Epilogue(residual=drawn(2, 20, 48)), ValueError, "2 signals of 64 channels"),
    "short residual": (Epilogue(residual=drawn(2, 19, 64)), ValueError, "0 and 19 frames; the output has 20"),
    "no residual": (Epilogue(residual=drawn(2, 0, 64)), ValueError, "0 and 0 frames; the output has 20"),
    "short head": (Epilogue(residual=drawn(2, 15, 64), residual_head=drawn(2, 4, 64)), ValueError, "4 and 15 frames"),
    "head of other channels": (Epilogue(residual=drawn(2, 20, 64), residual_head=drawn(2, 4, 63)), ValueError, "64 channels"),
    "head of another batch": (Epilogue(residual=drawn(2, 20, 64), residual_head=drawn(3, 4, 64)), ValueError, "2 signals"),
    "residual in half precision": (Epilogue(residual=drawn(2, 20, 64).half()), TypeError, "float16"),
    "residual elsewhere": (Epilogue(residual=drawn(2, 20, 64).to("meta")), TypeError, "meta"),
    "short scale": (Epilogue(scale=drawn(19)), ValueError, "at least 20 contiguous values"),
    "scale of two dimensions": (Epilogue(scale=drawn(1, 20)), ValueError, "at least 20 contiguous values"),
    "scale with gaps": (Epilogue(scale=drawn(40)[::2]), ValueError, "at least 20 contiguous values"),
    "scale in double precision": (Epilogue(scale=drawn(20).double()), TypeError, "float64"),
    "no parameters": (Epilogue(activation=SNAKE), ValueError, "no parameters"),
    "few parameters": (Epilogue(activation=SNAKE, parameters=(drawn(64), drawn(63))), ValueError, "64 contiguous values"),
    "many parameters": (Epilogue(activation=SNAKE, parameters=(drawn(65), drawn(64))), ValueError, "64 contiguous values"),
    "parameters with gaps": (Epilogue(activation=SNAKE, parameters=(drawn(128)[::2], drawn(64))), ValueError, "contiguous"),
    "integer parameters": (Epilogue(activation=SNAKE, parameters=(drawn(64), drawn(64).int())), TypeError, "int32"),
}


@pytest.mark.parametrize(("epilogue", "error", "message"), WRONG_EPILOGUES.values(), ids=WRONG_EPILOGUES)
def test_wrong_epilogues_are_refused(epilogue, error, message):
    for name in ("direct", "depthwise", "winograd", "winograd of blocks"):
        make, needed = CONVOLUTIONS[name]
        with pytest.raises(error, match=message):
            make()(drawn(2, needed, 64), 20, epilogue)
    with pytest.raises(error, match=message):
        GroupNorm(drawn(64), drawn(64), 1e-5)(drawn(2, 20, 64), epilogue)


def test_parameters_are_checked_for_each_number_of_channels():
    epilogue = Epilogue(activation=SNAKE, parameters=(drawn(64), drawn(64)))
    DirectConv1d(drawn(1, 64, 64), None)(drawn(1, 9, 64), 9, epilogue)
    with pytest.raises(ValueError, match="32 contiguous values"):
        DirectConv1d(drawn(1, 64, 32), None)(drawn(1, 9, 64), 9, epilogue)
    other = dataclasses.replace(epilogue, parameters=(drawn(64, seed=1), drawn(64, seed=1)))
    assert epilogue.native
    assert not other.native
    assert epilogue.with_residual(drawn(1, 9, 64)).native is epilogue.native


WRONG_ASSEMBLIES = {
    "tail of another batch": ({"tail": drawn(1, 4, 8)}, ValueError, "2 signals of 8 channels"),
    "tail of other channels": ({"tail": drawn(2, 4, 9)}, ValueError, "2 signals of 8 channels"),
    "output of another batch": ({"out": drawn(3, 17, 8)}, ValueError, "2 signals of 8 channels"),
    "short output": ({"out": drawn(2, 16, 8)}, ValueError, "16 frames; the parts have 4, 3 and 10"),
    "negative padding": ({"left": -1}, ValueError, "4, -1 and 10"),
    "output with gaps": ({"out": drawn(2, 17, 16)[:, :, :8]}, ValueError, "not contiguous"),
    "signal in half precision": ({"x": drawn(2, 10, 8).half()}, TypeError, "float16"),
    "few lengths": ({"lengths": torch.tensor([3])}, ValueError, "2 contiguous"),
    "no parameters": ({"activation": Epilogue(activation=SNAKE)}, ValueError, "no parameters"),
}


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG_ASSEMBLIES.values(), ids=WRONG_ASSEMBLIES)
def test_wrong_parts_of_an_input_are_refused(wrong, error, message):
    parts = {"tail": drawn(2, 4, 8), "x": drawn(2, 10, 8), "left": 3, "activation": Epilogue(activation=ELU)}
    parts |= {"out": drawn(2, 17, 8), "lengths": torch.tensor([3, 4])}
    CpuElementwise().assemble_input(**parts)
    with pytest.raises(error, match=message):
        CpuElementwise().assemble_input(**parts | wrong)


def test_activations_refuse_other_outputs():
    with pytest.raises(ValueError, match="9 frames; the parts have 0, 0 and 10"):
        CpuElementwise().write_activation(Epilogue(activation=ELU), drawn(1, 10, 8), torch.empty(1, 9, 8))


def test_other_kernels_refuse_wrong_signals():
    with pytest.raises(ValueError, match="48 channels; expected"):
        GroupNorm(drawn(64), drawn(64), 1e-5)(drawn(1, 9, 48))
    with pytest.raises(ValueError, match="7 channels; expected"):
        CodebookSearch(drawn(8, 64), None)(drawn(5, 7))
    with pytest.raises(TypeError, match="float64"):
        CodebookSearch(drawn(8, 64), None)(drawn(5, 8).double())
    kernel, states = PersistentLSTM(drawn(256, 64), drawn(256, 64), drawn(256)), drawn(2, 64)
    with pytest.raises(ValueError, match="48 channels; expected"):
        kernel(drawn(2, 5, 48), states, states, False)
    for cell in (drawn(1, 64), drawn(2, 48), drawn(64, 2).t()):
        with pytest.raises(ValueError, match="cell is"):
            kernel(drawn(2, 5, 64), states, cell, False)
    with pytest.raises(TypeError, match="float64"):
        kernel(drawn(2, 5, 64), states, states.double(), False)


def test_frames_that_are_not_contiguous_have_no_address():
    with pytest.raises(ValueError, match="not contiguous"):
        arguments.signal_args(drawn(1, 10, 8)[:, ::2])


def calls_of(run, *inputs):
    """Names of the back end's Python functions that a second call runs, without the kernel, which numba reports as well."""
    run(*inputs)
    folder, names = Path(arguments.__file__).parent, []

    def note(frame, event, argument):
        if event == "call" and Path(frame.f_code.co_filename).parent == folder:
            names.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        run(*inputs)
    finally:
        sys.setprofile(None)
    return [name for name in names if name not in {"_convolve", "_assemble"}]


@pytest.mark.parametrize(("make", "needed"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_kernel_takes_few_calls(make, needed, batch):
    kernel, x = make(), drawn(batch, needed, 64)
    activation = Epilogue(activation=SNAKE, parameters=(drawn(64), drawn(64)))
    residual = Epilogue(residual=drawn(batch, 15, 64), residual_head=drawn(batch, 5, 64))
    for epilogue in () if isinstance(kernel, Kn2rowConv1d) else (activation, residual):
        assert len(calls_of(kernel, x, 20, epilogue)) == 5
    assert len(calls_of(kernel, x, 20)) <= 4
    parts = (x[:, :0], x, 3, activation, torch.empty(batch, needed + 3, 64))
    assert calls_of(CpuElementwise().assemble_input, *parts) == ["assemble_input", "assembly_args", "_activation_args"]


def test_copies_of_a_kernel_share_its_weights():
    kernel, x = DirectConv1d(drawn(3, 64, 64), drawn(64)), drawn(1, 12, 64)
    wanted, other = kernel(x, 10), copy.deepcopy(kernel._packed)
    assert other is kernel._packed
    assert torch.equal(kernel(x, 10), wanted)
    with pytest.raises(TypeError, match="addresses"):
        pickle.dumps(kernel._packed)


RINGS = {
    "keys": lambda: drawn(2, 2, 32, 16),
    "values": lambda: drawn(2, 2, 16, 32),
    "position": lambda: torch.zeros(2, dtype=torch.int64),
}
WRONG_RINGS = {
    "keys of another capacity": ("keys", lambda x: x[..., :8], ValueError, r"expected contiguous \(2, 2, 32, 16\)"),
    "keys with gaps": ("keys", lambda x: drawn(2, 2, 16, 32).transpose(2, 3), ValueError, "with strides"),
    "values of other heads": ("values", lambda x: x[:, :1], ValueError, r"expected contiguous \(2, 2, 16, 32\)"),
    "values of half precision": ("values", lambda x: x.half(), TypeError, "float16"),
    "positions of another batch": ("position", lambda x: x[:1], ValueError, "expected 2 contiguous"),
    "positions of 32 bits": ("position", lambda x: x.int(), TypeError, "int32"),
    "positions elsewhere": ("position", lambda x: x.to("meta"), TypeError, "on meta"),
}


@pytest.mark.parametrize(("name", "change", "error", "message"), WRONG_RINGS.values(), ids=WRONG_RINGS)
def test_attention_refuses_wrong_ring_buffers(name, change, error, message):
    kernel, tensors = RingAttention(AttentionProblem(4, 2, 32, 10, 1e4)), {key: make() for key, make in RINGS.items()}
    assert kernel(drawn(2, 3, 256), *tensors.values()).shape == (2, 3, 128)
    with pytest.raises(error, match=message):
        kernel(drawn(2, 3, 256), *{**tensors, name: change(tensors[name])}.values())
    with pytest.raises(ValueError, match="of 255 channels; expected"):
        kernel(drawn(2, 3, 255), *tensors.values())


def test_norms_over_channels_refuse_other_channels():
    with pytest.raises(ValueError, match="of 63 channels; expected"):
        ChannelNorm(drawn(64), None, 1e-5)(drawn(2, 5, 63))
