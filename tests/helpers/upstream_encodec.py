"""The authors' package with our seeded random weights, in memory: no file of theirs is needed."""

from __future__ import annotations

import importlib
import io

import numpy as np
import torch

import blazen_codec_core as bc
from blazen_codec_core.nn.kernels.thread_counts import one_thread
from blazen_codec_core.torch_backend.upstream import stand_in
from blazen_codec_encodec import language_model
from blazen_codec_encodec.specs import AUTHORS

with stand_in("torchaudio"):
    compress = importlib.import_module("encodec.compress")
    models = importlib.import_module("encodec.model")

LM_SEED = "random:3"
BY_NAME = {spec.name: spec for spec in AUTHORS}


class Authors:
    """One of their models, and its language model."""

    def __init__(self, codec: bc.DynCodecProvider) -> None:
        self.spec = BY_NAME[codec.spec.name]
        self.model = codec.backend.loaded().network
        spec = self.spec.language_model
        lm = models.LMModel(spec.codebooks, spec.entries, num_layers=5, dim=200, past_context=spec.context).eval()
        lm.load_state_dict(language_model.load(spec, self.spec.name, LM_SEED, bc.LoadOptions()).state_dict())
        self.lm = lm
        self.model.get_lm_model = lambda: lm

    def compress(self, pcm: np.ndarray, bandwidth: float, entropy: bool) -> bytes:
        """What their command writes."""
        self.model.set_target_bandwidth(bandwidth)
        with one_thread():  # theirs depends on how many there are
            return compress.compress(self.model, torch.from_numpy(pcm), use_lm=entropy)

    def decompress(self, data: bytes, monkeypatch) -> np.ndarray:
        """What their command decodes, `(channels, samples)`."""
        monkeypatch.setattr(compress, "MODELS", {self.spec.name: lambda: self.model})
        with one_thread():
            wav, rate = compress.decompress_from_file(io.BytesIO(data))
        assert rate == self.spec.sample_rate
        return wav.numpy()
