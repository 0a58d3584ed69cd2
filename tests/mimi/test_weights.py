"""The published files in both layouts, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording
from blazen_codec_mimi.specs import MOSHI_FILE, SPECS
from tests.helpers.narrow_mimi import FROM_WEIGHTS, NARROW

SPEC = SPECS[0]


@pytest.fixture(scope="module")
def theirs(codecs, narrow):
    """State dict of the authors' model with the same weights."""
    model = codecs("mimi", weights=narrow, engine="upstream", **FROM_WEIGHTS).backend.loaded().network
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def written(state, folder, narrow, name="model.safetensors"):
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / name)
    (folder / "config.json").write_text((narrow / "config.json").read_text())
    return folder


def same(codecs, narrow, folder) -> None:
    codec, pcm = bc.load("mimi", weights=folder, **FROM_WEIGHTS), recording(SPEC, 1.1)
    wanted = codecs("mimi", weights=narrow, **FROM_WEIGHTS)
    tokens, reference = codec.encode(pcm, 24_000), wanted.encode(pcm, 24_000)
    assert all(map(np.array_equal, tokens.codes, reference.codes))
    assert np.array_equal(codec.decode(tokens), wanted.decode(reference))


def test_the_authors_files_load(codecs, narrow, theirs, tmp_path):
    same(codecs, narrow, written(theirs, tmp_path, narrow, MOSHI_FILE))


def test_the_authors_files_of_earlier_releases_load(codecs, narrow, theirs, tmp_path):
    """Joined projections had no list around them, and codebooks other names."""
    old = {}
    names = {
        "in_projs.0.weight": "in_proj_weight",
        "out_projs.0.": "out_proj.",
        "_codebook._initialized": "_codebook.inited",
        "cluster_usage": "cluster_size",
        "embedding_sum": "embed_sum",
    }
    for new, tensor in theirs.items():
        part = next((part for part in names if part in new), "")
        old[new.replace(part, names[part]) if part else new] = tensor
    assert old.keys() != theirs.keys()
    same(codecs, narrow, written(old, tmp_path, narrow))


def test_entries_are_sums_divided_by_counts(codecs, narrow, tmp_path):
    state = load_file(narrow / "model.safetensors")
    for name in [name for name in state if name.endswith("embed_sum")]:
        state[name] = 4 * state[name]
        state[name.replace("embed_sum", "cluster_usage")] = torch.full((len(state[name]),), 4.0)
    same(codecs, narrow, written(state, tmp_path, narrow))
    for name in [name for name in state if name.endswith("cluster_usage")]:
        state[name].zero_()  # of entries that training never used
    codec = bc.load("mimi", weights=written(state, tmp_path, narrow), **FROM_WEIGHTS)
    assert codec.encode(recording(SPEC, 0.2), 24_000).frames == 3


def test_weights_are_written_as_they_were_read(codecs, narrow, tmp_path):
    codec = codecs("mimi", weights=narrow, **FROM_WEIGHTS)
    codec.module.save_weights(tmp_path)
    saved, read = load_file(tmp_path / "model.safetensors"), load_file(narrow / "model.safetensors")
    assert saved.keys() == read.keys()
    assert all(torch.equal(saved[name], read[name]) for name in read)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((narrow / "config.json").read_text())


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_one_half_loads_alone(codecs, narrow, half):
    whole, codec = codecs("mimi", weights=narrow, **FROM_WEIGHTS), bc.load("mimi", weights=narrow, parts=half, **FROM_WEIGHTS)
    pcm = recording(SPEC, 1)
    tokens = whole.encode(pcm, 24_000)
    if half == "encoder":
        assert codec.encode(pcm, 24_000) == tokens
    else:
        assert np.array_equal(codec.decode(tokens), whole.decode(tokens))
    network = codec.backend.loaded().network
    other = {"encoder": "decoder", "decoder": "encoder"}[half]
    assert not list(getattr(network, other).parameters())


def test_the_published_config_is_that_of_the_spec():
    """As kyutai/mimi has it, with the fields that transformers of 2024 wrote, and as newer releases write it."""
    published = {
        "architectures": ["MimiModel"], "attention_bias": False, "attention_dropout": 0.0, "audio_channels": 1,
        "codebook_dim": 256,
        "codebook_size": 2048, "compress": 2, "dilation_growth_rate": 2, "frame_rate": 12.5, "head_dim": 64, "hidden_act": "gelu",
        "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048, "kernel_size": 7, "last_kernel_size": 3,
        "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "model_type": "mimi", "norm_eps": 1e-05,
        "num_attention_heads": 8, "num_filters": 64, "num_hidden_layers": 8, "num_key_value_heads": 8, "num_quantizers": 32,
        "num_residual_layers": 1, "num_semantic_quantizers": 1, "pad_mode": "constant", "residual_kernel_size": 3,
        "rope_theta": 10000.0, "sampling_rate": 24000, "sliding_window": 250, "torch_dtype": "float32", "trim_right_ratio": 1.0,
        "upsample_groups": 512, "upsampling_ratios": [8, 6, 5, 4], "use_cache": False, "use_causal_conv": True,
        "use_conv_shortcut": False, "vector_quantization_hidden_dimension": 256,
    }  # fmt: skip
    kind = type(SPEC.architecture)
    assert kind.read(published, "here", "mimi") == SPEC.architecture
    del published["rope_theta"], published["frame_rate"]
    newer = {**published, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}, "_frame_rate": None, "head_dim": None}
    assert kind.read(newer, "here", "mimi") == SPEC.architecture.model_copy(update={"rope_theta": 500.0})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("downsample.conv.weight"), "downsample.conv.weight is missing"),
        (lambda state: state.pop("encoder_transformer.layers.1.self_attn.k_proj.weight"), "qkv_proj.weight is missing"),
        (lambda state: state.update({"decoder.more": torch.ones(1)}), "unknown tensors .1., such as decoder.more"),
        (lambda state: state.update({"upsample.conv.weight": torch.ones(64, 64, 4)}), r"\(64, 64, 4\); expected \(64, 1, 4\)"),
    ],
    ids=["missing", "half of a projection", "extra", "shape"],
)
def test_weights_of_another_model_are_refused(narrow, tmp_path, change, says):
    state = load_file(narrow / "model.safetensors")
    change(state)
    with pytest.raises(bc.WeightsUnavailable, match=says):
        bc.load("mimi", weights=written(state, tmp_path, narrow), **FROM_WEIGHTS).load()


def test_the_narrow_model_differs_from_the_published_one_in_sizes_alone():
    assert NARROW.hop_length == SPEC.hop_length
    assert NARROW.num_quantizers == SPEC.num_codebooks
