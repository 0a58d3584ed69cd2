"""Published files, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording
from blazen_codec_qwen3tts.specs import SPECS
from tests.helpers.narrow_qwen3tts import FROM_WEIGHTS

(SPEC,) = SPECS
NAME = "qwen3tts_12hz"
FURTHER = "encoder.quantizer.acoustic_residual_vector_quantizer.layers"


def written(state, folder, config):
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def state(narrow):
    return load_file(narrow / "model.safetensors")


@pytest.fixture
def config(narrow):
    return json.loads((narrow / "config.json").read_text())


def same(codecs, narrow, folder) -> None:
    codec, pcm = bc.load(NAME, weights=folder, **FROM_WEIGHTS), recording(SPEC, 1.1)
    wanted = codecs(NAME, weights=narrow, **FROM_WEIGHTS)
    tokens, reference = codec.encode(pcm, 24_000), wanted.encode(pcm, 24_000)
    assert all(map(np.array_equal, tokens.codes, reference.codes))
    assert np.array_equal(codec.decode(tokens), wanted.decode(reference))


def test_weights_are_written_as_they_were_read(codecs, narrow, tmp_path, state, config):
    codecs(NAME, weights=narrow, **FROM_WEIGHTS).module.save_weights(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in state)
    assert json.loads((tmp_path / "config.json").read_text()) == config


def test_codebooks_of_the_encoder_that_are_not_valid_are_left_out(codecs, narrow, tmp_path, state, config):
    """The published encoder has 32, as Mimi's, of which the first 16 are valid."""
    for book in range(15, 31):
        for leaf in ("embed_sum", "cluster_usage", "initialized"):
            state[f"{FURTHER}.{book}.codebook.{leaf}"] = state[f"{FURTHER}.14.codebook.{leaf}"].clone()
    config["encoder_config"]["num_quantizers"] = 32
    same(codecs, narrow, written(state, tmp_path, config))


def test_entries_are_sums_divided_by_counts(codecs, narrow, tmp_path, state, config):
    for name in [name for name in state if name.endswith(("embed_sum", "embedding_sum"))]:
        state[name] = 4 * state[name]
        state[f"{name.rpartition('.')[0]}.cluster_usage"] = torch.full((len(state[name]),), 4.0)
    same(codecs, narrow, written(state, tmp_path, config))


def test_encoder_and_decoder_have_codebooks_of_their_own(codecs, narrow, tmp_path, state, config):
    for name in [name for name in state if name.startswith("decoder.") and name.endswith("embedding_sum")]:
        state[name] = state[name].flip(0)
    whole = codecs(NAME, weights=narrow, **FROM_WEIGHTS)
    codec = bc.load(NAME, weights=written(state, tmp_path, config), **FROM_WEIGHTS)
    tokens = whole.encode(recording(SPEC, 1), 24_000)
    assert all(map(np.array_equal, codec.encode(recording(SPEC, 1), 24_000).codes, tokens.codes))
    mirrored = bc.CodecTokens.from_codes(codec.spec, [2047 - code for code in tokens.codes], num_samples=tokens.num_samples)
    assert np.array_equal(codec.decode(mirrored), whole.decode(tokens))


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_one_half_loads_alone_with_its_own_codebooks(codecs, narrow, half):
    whole, codec = codecs(NAME, weights=narrow, **FROM_WEIGHTS), bc.load(NAME, weights=narrow, parts=half, **FROM_WEIGHTS)
    tokens = whole.encode(pcm := recording(SPEC, 1), 24_000)
    module = codec.module
    if half == "encoder":
        assert codec.encode(pcm, 24_000) == tokens
        for refused in (lambda: codec.decode(tokens), lambda: module.embed(tokens_of(tokens)), lambda: module.codebooks):
            with pytest.raises(bc.InvalidInput, match="cannot decode"):
                refused()
    else:
        assert np.array_equal(codec.decode(tokens), whole.decode(tokens))
        with pytest.raises(bc.InvalidInput, match="cannot encode"):
            module.quantize(torch.zeros(1, 64, 3))
    network = codec.backend.loaded().network
    absent = {"encoder": (network.decoder, network.quantizer.entries), "decoder": (network.encoder, network.quantizer.search)}
    assert not [parameter for part in absent[half] for parameter in part.parameters()]


def tokens_of(tokens: bc.CodecTokens) -> list[torch.Tensor]:
    return [torch.from_numpy(code.astype(np.int64)) for code in tokens.codes]


def test_the_module_quantizes_to_latents_of_the_decoder(codecs, narrow):
    codec = codecs(NAME, weights=narrow, **FROM_WEIGHTS)
    module, pcm = codec.module, torch.from_numpy(recording(SPEC, 1)[None])
    quantized = module.quantize(module.encode_latents(pcm))
    torch.testing.assert_close(quantized.latents, module.embed(quantized.codes))
    assert all(map(np.array_equal, [code.numpy() for code in quantized.codes], codec.encode(pcm[0].numpy(), 24_000).codes))


def test_the_published_config_is_that_of_the_spec():
    """With what transformers of 2025 writes beside the settings."""
    published = {
        "architectures": ["Qwen3TTSTokenizerV2Model"], "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": 16, "input_sample_rate": 24_000, "output_sample_rate": 24_000,
        "decode_upsample_rate": 1920, "encode_downsample_rate": 1920,
        "dtype": "float32", "transformers_version": "4.57.3",
        "decoder_config": {
            "attention_bias": False, "attention_dropout": 0.0, "codebook_dim": 512, "codebook_size": 2048, "decoder_dim": 1536,
            "head_dim": 64, "hidden_act": "silu", "hidden_size": 512, "intermediate_size": 1024, "latent_dim": 1024,
            "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "num_attention_heads": 16,
            "num_hidden_layers": 8, "num_key_value_heads": 16, "num_quantizers": 16, "num_semantic_quantizers": 1,
            "rms_norm_eps": 1e-05, "rope_theta": 10000, "semantic_codebook_size": 4096, "sliding_window": 72,
            "upsample_rates": [8, 5, 4, 3], "upsampling_ratios": [2, 2], "vector_quantization_hidden_dimension": 512,
        },
        "encoder_config": {"model_type": "mimi", "num_quantizers": 32, "_frame_rate": 12.5, "head_dim": 64, "use_cache": False},
    }  # fmt: skip
    kind = type(SPEC.architecture)
    assert kind.read(published, "here", "qwen3tts") == SPEC.architecture
    rotary = {"rope_theta": 500.0, "rope_type": "default"}
    newer = {**published, "decoder_config": {**published["decoder_config"], "rope_parameters": rotary}}
    del newer["decoder_config"]["rope_theta"]
    assert kind.read(newer, "here", "qwen3tts").decoder_config.rope_theta == 500


def test_a_config_of_another_model_is_refused(narrow):
    with pytest.raises(bc.WeightsUnavailable, match=r"encoder_config\.num_filters is 8, but qwen3tts_12hz has 64"):
        bc.load(NAME, weights=narrow, device="cpu").load()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("decoder.upsample.1.1.gamma"), "decoder.upsample.1.1.gamma is missing"),
        (lambda state: state.pop("decoder.pre_transformer.layers.1.self_attn.k_proj.weight"), "qkv_proj.weight is missing"),
        (lambda state: state.pop(f"{FURTHER}.14.codebook.embed_sum"), "layers.14.codebook.embed is missing"),
        (lambda state: state.update({"decoder.more": torch.ones(1)}), "unknown tensors .1., such as decoder.more"),
    ],
    ids=["missing", "a third of a projection", "codebook", "extra"],
)
def test_weights_of_another_model_are_refused(tmp_path, state, config, change, says):
    change(state)
    with pytest.raises(bc.WeightsUnavailable, match=says):
        bc.load(NAME, weights=written(state, tmp_path, config), **FROM_WEIGHTS).load()
