"""Mimi against the contracts, and against transformers, on a small random model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mimi_codec.specs import SPEC
from transformers import MimiConfig, MimiModel

import blazen_codec_core as bc
from blazen_codec_core.conformance import Contracts, Subject
from blazen_codec_core.conformance.signals import voice

FOLDER = Path(tempfile.mkdtemp(prefix="mimi-"))
SIZES = {
    "num_filters": 8,
    "hidden_size": 64,
    "upsample_groups": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "intermediate_size": 128,
    "codebook_dim": 32,
    "vector_quantization_hidden_dimension": 32,
}
"""Mimi's rates, strides and codebooks, with fewer and narrower layers."""


@pytest.fixture(scope="session", autouse=True)
def small() -> MimiModel:
    torch.manual_seed(0)
    model = MimiModel(MimiConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.normal_()
    model.save_pretrained(FOLDER)
    return model


class TestMimi(Contracts):
    subjects = (Subject("mimi_24khz", weights=str(FOLDER)),)


@pytest.mark.parametrize("frames", [1, 24, 25, 26, 400])
def test_the_tokens_are_those_of_transformers(small, frames):
    codec = bc.load("mimi", weights=FOLDER, device="cpu")
    pcm = voice(frames * 1920 / 24_000, 24_000)
    tokens = codec.encode(pcm, 24_000, num_codebooks=32)
    with torch.inference_mode():
        theirs = small.encode(torch.tensor(pcm)[None, None]).audio_codes[0].numpy()
        audio = small.decode(torch.tensor(theirs)[None]).audio_values[0].numpy()
    ours = np.concatenate(tokens.codes)
    assert ours.shape == theirs.shape
    assert (ours != theirs).any(axis=0).sum() <= frames // 100  # ties
    made = codec.decode(bc.CodecTokens.from_codes(SPEC, [book[None] for book in theirs]))
    assert np.abs(made - audio).max() < 1e-4


def test_a_folder_of_another_model_is_refused(tmp_path):
    MimiModel(MimiConfig(**SIZES, num_quantizers=16)).save_pretrained(tmp_path)
    with pytest.raises(bc.WeightsUnavailable, match="another model"):
        bc.load("mimi", weights=tmp_path, device="cpu").load()
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(bc.WeightsUnavailable, match="is not a Mimi model"):
        bc.load("mimi", weights=tmp_path, device="cpu").load()
