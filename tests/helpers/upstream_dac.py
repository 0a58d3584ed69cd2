"""The authors' package with our seeded random weights, its whole tool included: what it compresses to, and decompresses."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import signal

import blazen_codec_core as bc
from blazen_codec_core.torch_backend.upstream import stand_ins
from blazen_codec_dac import upstream


def lfilter(waveform: torch.Tensor, a: torch.Tensor, b: torch.Tensor, clamp: bool = True) -> torch.Tensor:
    """A difference equation along the last axis, all that their meter needs of torchaudio."""
    assert not clamp
    return torch.from_numpy(signal.lfilter(b.numpy(), a.numpy(), waveform.numpy(), axis=-1).astype(np.float32))


FUNCTIONAL = types.SimpleNamespace(lfilter=lfilter)
UNUSED = {
    "torchaudio": {"functional": FUNCTIONAL},
    "ffmpy": {},
    "flatten_dict": {"flatten": None, "unflatten": None},
    "randomname": {},
    "torch.utils.tensorboard": {"SummaryWriter": None},
}
"""What audiotools imports and does not need for this; some does not load beside every torch, some brings dozens of packages."""


def _import() -> tuple[Any, Any]:
    """The real audiotools, and their files in terms of it; the networks keep the base class that they have."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "dac"}
    for name in before:
        del sys.modules[name]
    try:
        with stand_ins(UNUSED):
            return importlib.import_module("audiotools"), importlib.import_module("dac.model.base")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "dac"]:
            del sys.modules[name]
        sys.modules.update(before)


audiotools, base = _import()


class Authors:
    """One of their models, with their tool around it."""

    def __init__(self, codec: bc.DynCodecProvider) -> None:
        self.spec = codec.spec
        network: Any = codec.backend.loaded().network
        theirs = upstream.model(self.spec.architecture)
        theirs.load_state_dict(network.state_dict())
        self.model = theirs

    def compress(self, pcm: np.ndarray, path: Path, rate: int | None = None, **options: Any) -> Path:
        """What their command writes of audio `(channels, samples)`."""
        recording = audiotools.AudioSignal(torch.tensor(pcm)[None], rate or self.spec.sample_rate)
        return base.CodecMixin.compress(self.model, recording, **options).save(path)

    def decompress(self, path: Path) -> np.ndarray:
        """What their command decodes, `(channels, samples)`."""
        self.model.padding = True
        return base.CodecMixin.decompress(self.model, path).audio_data[0].numpy()


def loudness(pcm: np.ndarray, rate: int) -> float:
    """As their meter says."""
    return float(audiotools.AudioSignal(torch.tensor(pcm)[None], rate).loudness())
