"""Models of other settings than the published ones, from their own configs, held against the authors' packages."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import blazen_codec_core as bc
from blazen_codec_core import weights
from blazen_codec_dac import checkpoint as dac_checkpoint
from blazen_codec_dac.backend import DacBackend
from blazen_codec_dac.specs import HUB, DacArchitecture
from blazen_codec_encodec import checkpoint as encodec_checkpoint
from blazen_codec_encodec.backend import EncodecBackend
from blazen_codec_encodec.specs import ENCODEC_32KHZ, EncodecArchitecture
from blazen_codec_mimi import checkpoint as mimi_checkpoint
from blazen_codec_mimi.backend import MimiBackend
from blazen_codec_mimi.specs import MimiArchitecture
from blazen_codec_qwen3tts import checkpoint as qwen3tts_checkpoint
from blazen_codec_qwen3tts.backend import Qwen3TtsBackend
from blazen_codec_qwen3tts.specs import Qwen3TtsArchitecture
from blazen_codec_snac import checkpoint as snac_checkpoint
from blazen_codec_snac.backend import SnacBackend
from blazen_codec_snac.specs import SnacArchitecture

FROM_WEIGHTS = {"architecture": "from-weights", "device": "cpu"}
KINDS = {
    "encodec": (EncodecArchitecture, EncodecBackend),
    "dac": (DacArchitecture, DacBackend),
    "mimi": (MimiArchitecture, MimiBackend),
    "qwen3tts": (Qwen3TtsArchitecture, Qwen3TtsBackend),
    "snac": (SnacArchitecture, SnacBackend),
}
SMALL_ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "target_bandwidths": [1.0, 2.0]}
SEGMENTED_ENCODEC = {
    **SMALL_ENCODEC,
    "sampling_rate": 8000,
    "upsampling_ratios": [4, 2],
    "target_bandwidths": [12.0],
    "use_causal_conv": False,
    "normalize": True,
    "chunk_length_s": 0.1,
    "overlap": 0.5,
}
SMALL_DAC = {"encoder_dim": 4, "decoder_dim": 32, "n_codebooks": 3}
SMALL_MIMI = {
    "num_filters": 4,
    "hidden_size": 32,
    "upsample_groups": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 48,
    "sliding_window": 7,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
    "codebook_size": 64,
    "num_quantizers": 5,
}
SMALL_QWEN3TTS = {
    "encoder_config": SMALL_MIMI,
    "decoder_config": {
        "codebook_size": 64,
        "codebook_dim": 32,
        "num_quantizers": 4,
        "latent_dim": 24,
        "hidden_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "intermediate_size": 28,
        "sliding_window": 5,
        "decoder_dim": 32,
    },
    "encoder_valid_num_quantizers": 4,
}
SMALL_SNAC = {"encoder_dim": 4, "decoder_dim": 32, "codebook_size": 64}
SETTINGS = [
    ("encodec", {**SMALL_ENCODEC, "sampling_rate": 16_000, "upsampling_ratios": [5, 4, 2], "target_bandwidths": [5, 10]}),
    ("encodec", {**SMALL_ENCODEC, "use_conv_shortcut": False, "use_causal_conv": False, "kernel_size": 5}),
    ("encodec", {**SMALL_ENCODEC, "num_residual_layers": 3, "dilation_growth_rate": 3, "residual_kernel_size": 5}),
    ("encodec", {**SMALL_ENCODEC, "num_residual_layers": 2, "use_causal_conv": False, "last_kernel_size": 3}),
    ("encodec", {**SMALL_ENCODEC, "trim_right_ratio": 0.5, "compress": 4, "num_lstm_layers": 0}),
    (
        "encodec",
        {**SMALL_ENCODEC, "trim_right_ratio": 0.0, "num_lstm_layers": 1, "upsampling_ratios": [4], "target_bandwidths": [36]},
    ),
    (
        "encodec",
        {
            **SMALL_ENCODEC,
            "audio_channels": 2,
            "norm_type": "time_group_norm",
            "use_causal_conv": False,
            "normalize": True,
            "chunk_length_s": 0.2,
            "overlap": 0.1,
        },
    ),
    ("encodec", {**SMALL_ENCODEC, "pad_mode": "constant"}),
    ("encodec", {**SMALL_ENCODEC, "pad_mode": "constant", "use_causal_conv": False, "num_residual_layers": 2}),
    ("encodec", {**SMALL_ENCODEC, "pad_mode": "replicate", "use_causal_conv": False}),
    ("encodec", {**json.loads(ENCODEC_32KHZ.model_dump_json()), "num_filters": 8}),
    ("dac", {**SMALL_DAC, "sample_rate": 22_050, "encoder_rates": [3, 4, 7], "decoder_rates": [7, 4, 3]}),
    ("dac", {**SMALL_DAC, "encoder_rates": [5, 2], "decoder_rates": [2, 5], "latent_dim": 24, "codebook_size": 50}),
    ("dac", {**SMALL_DAC, "codebook_dim": [4, 8, 16]}),
    ("dac", {**SMALL_DAC, "codebook_dim": [8, 8, 8]}),
    ("snac", {**SMALL_SNAC, "sampling_rate": 16_000, "attn_window_size": None, "vq_strides": [2, 1]}),
    (
        "snac",
        {
            **SMALL_SNAC,
            "encoder_dim": 16,
            "decoder_dim": 256,
            "attn_window_size": 4,
            "encoder_rates": [2, 3],
            "decoder_rates": [3, 2],
        },
    ),
    ("snac", {**SMALL_SNAC, "attn_window_size": None, "depthwise": False, "noise": False, "vq_strides": [4, 2, 2, 1]}),
    ("mimi", {**SMALL_MIMI}),
    ("mimi", {**SMALL_MIMI, "num_key_value_heads": 2, "num_semantic_quantizers": 2, "rope_theta": 100.0, "kernel_size": 5}),
    ("mimi", {**SMALL_MIMI, "frame_rate": 50.0, "upsampling_ratios": [5, 4, 6], "use_conv_shortcut": True, "compress": 4}),
    (
        "mimi",
        {
            **SMALL_MIMI,
            "num_residual_layers": 3,
            "dilation_growth_rate": 3,
            "sampling_rate": 16_000,
            "upsampling_ratios": [8, 5, 4],
            "frame_rate": 50.0,
        },
    ),
    ("qwen3tts", SMALL_QWEN3TTS),
    (
        "qwen3tts",
        {
            "encoder_config": {
                **SMALL_MIMI,
                "sampling_rate": 16_000,
                "upsampling_ratios": [5, 4, 2],
                "frame_rate": 400 / 3,
                "num_residual_layers": 2,
                "num_quantizers": 4,
            },
            "decoder_config": {
                **SMALL_QWEN3TTS["decoder_config"],
                "upsampling_ratios": [3],
                "upsample_rates": [5, 8],
                "num_key_value_heads": 1,
                "hidden_act": "gelu",
                "rms_norm_eps": 1e-3,
                "rope_theta": 100.0,
            },
            "encoder_valid_num_quantizers": 4,
            "input_sample_rate": 16_000,
            "output_sample_rate": 16_000,
            "encode_downsample_rate": 120,
            "decode_upsample_rate": 120,
        },
    ),
]


def published(family: str, settings: dict, folder, seed: int = 0):
    """A folder with a config and random weights, as the family's publisher has them."""
    kind, backend = KINDS[family]
    architecture = kind.read(settings, "here", family)
    options = bc.LoadOptions(device="cpu")
    network = backend(backend.custom_spec(architecture, **FIELDS), options).build(weights.RandomWeights(seed))
    folder.mkdir(exist_ok=True)
    if family == "dac":
        state = dac_checkpoint.to_published(network)
        torch.save({"state_dict": state, "metadata": {"kwargs": settings}}, folder / "weights.pth")
        return folder
    if family == "encodec":
        state = encodec_checkpoint.to_published(network, weight_norm=architecture.norm_type == "weight_norm")
        save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    elif family == "mimi":
        save_file(mimi_checkpoint.to_published(network), folder / "model.safetensors")
    elif family == "qwen3tts":
        save_file(qwen3tts_checkpoint.to_published(network), folder / "model.safetensors")
    else:
        torch.save(snac_checkpoint.to_published(network), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


FIELDS = {
    "name": "mine",
    "description": "Mine",
    "license": "MIT",
    "weights": bc.WeightSource(repo="me/mine", file="model.safetensors"),
}


def audio(codec: bc.DynCodecProvider, seconds: float = 0.5) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((codec.channels, int(seconds * codec.sample_rate)))
    return (0.2 * noise).astype(np.float32)


def assert_sounds_like(audio: np.ndarray, wanted: np.ndarray) -> None:
    """Equal to 1e-4 of full scale, or of the peak, which random weights may bring to a hundred."""
    np.testing.assert_allclose(audio, wanted, rtol=0, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_what_comes_out_is_what_the_authors_package_makes(tmp_path, family, settings):
    folder = published(family, settings, tmp_path / "w")
    ours = bc.load(family, weights=folder, **FROM_WEIGHTS)
    theirs = bc.load(family, weights=folder, engine="upstream", **FROM_WEIGHTS)
    assert ours.spec.identity == theirs.spec.identity
    assert ours.spec.name.startswith("custom_")
    pcm = audio(ours)
    tokens, wanted = ours.encode(pcm, ours.sample_rate), theirs.encode(pcm, ours.sample_rate)
    same = [np.mean(own == other) for own, other in zip(tokens.codes, wanted.codes, strict=True)]
    assert min(same) > 0.99
    assert_sounds_like(ours.decode(wanted), theirs.decode(wanted))


@pytest.mark.parametrize("seconds", [0.0001, 0.0125, 0.3])
@pytest.mark.parametrize("mode", ["constant", "replicate", "reflect"])
def test_short_signals_and_pieces_with_every_padding(tmp_path, mode, seconds):
    """Also side by side: what each gives alone."""
    folder = published("encodec", {**SMALL_ENCODEC, "pad_mode": mode, "use_causal_conv": False}, tmp_path / "w")
    ours = bc.load("encodec", weights=folder, **FROM_WEIGHTS)
    theirs = bc.load("encodec", weights=folder, engine="upstream", **FROM_WEIGHTS)
    pcm = audio(ours, seconds)
    tokens, wanted = ours.encode(pcm, 24_000), theirs.encode(pcm, 24_000)
    assert all(map(np.array_equal, tokens.codes, wanted.codes))
    assert_sounds_like(ours.decode(tokens), theirs.decode(tokens))
    session = ours.encoder_session()
    pieces = [session.push(pcm[:, at : at + 97]) for at in range(0, pcm.shape[1], 97)]
    assert bc.CodecTokens.concat([*pieces, session.finish()]) == tokens
    ours.backend.streams_per_batch = 4
    longer = audio(ours, 0.5)
    assert ours.encode_batch([longer, pcm], 24_000)[1] == tokens


@pytest.mark.parametrize("overlap", [0.5, 0.25, 0.1, 0.01])
def test_segments_that_overlap_by_much_decode_at_every_length(tmp_path, overlap):
    """The last two are short then: in pieces, side by side, and all at once."""
    folder = published("encodec", {**SEGMENTED_ENCODEC, "overlap": overlap}, tmp_path / "w")
    codec = bc.load("encodec", weights=folder, **FROM_WEIGHTS)
    segment, made = codec.spec.segment, []
    for samples in range(1, 5 * segment.stride, 101):
        rng = np.random.default_rng(samples)
        tokens = bc.CodecTokens.from_codes(
            codec.spec,
            rng.integers(0, 64, (2, segment.frames(samples, 8))),
            num_samples=samples,
            scales=rng.uniform(0.5, 1, (1, segment.count(samples))).astype(np.float32),
        )
        for count in (1, 2, 3):
            assert bc.CodecTokens.concat(tokens.parts(count * segment.length // 8)) == tokens
        session = codec.decoder_session()
        whole = np.concatenate([session.push(tokens), session.finish()], axis=1)
        assert np.array_equal(codec.decode(tokens), whole)
        session = codec.decoder_session()
        parts = [session.push(part) for part in tokens.parts(segment.length // 8)]
        assert np.array_equal(np.concatenate([*parts, session.finish()], axis=1), whole)
        made.append((tokens, whole))
    for own, (_, whole) in zip(codec.decode_batch([tokens for tokens, _ in made]), made, strict=True):
        assert np.array_equal(own, whole)


@pytest.mark.parametrize(("family", "settings"), [SETTINGS[0], SETTINGS[11], SETTINGS[15]])
def test_the_spec_follows_from_the_config(tmp_path, family, settings):
    spec = bc.load(family, weights=published(family, settings, tmp_path / "w"), **FROM_WEIGHTS).spec
    rates = settings.get("upsampling_ratios") or settings.get("encoder_rates") or (3, 3, 7, 7)
    assert spec.hop_length == np.prod(rates)
    assert spec.sample_rate == settings.get("sampling_rate", settings.get("sample_rate"))
    assert spec.family == family


def test_a_container_of_such_tokens_decodes_again_with_the_same_weights(tmp_path):
    family, settings = SETTINGS[11]
    folder, other = published(family, settings, tmp_path / "a"), published(family, {**settings, "n_codebooks": 2}, tmp_path / "b")
    codec = bc.load(family, weights=folder, **FROM_WEIGHTS)
    tokens = codec.encode(audio(codec), codec.sample_rate)
    back = bc.CodecTokens.from_bytes(tokens.to_bytes())
    again = bc.load(back.codec, weights=folder, **FROM_WEIGHTS)
    assert np.array_equal(again.decode(back), codec.decode(tokens))
    assert pickle.loads(pickle.dumps(codec)).spec == codec.spec
    with pytest.raises(bc.WeightsUnavailable, match=f"expected weights of {tokens.codec}"):
        bc.load(back.codec, weights=other, **FROM_WEIGHTS)
    with pytest.raises(bc.UnknownCodec, match="--architecture from-weights"):
        bc.load(back.codec)
    with pytest.raises(bc.InvalidTokens, match="cannot be decoded by"):
        bc.load(family, weights=other, **FROM_WEIGHTS).decode(tokens)
    with pytest.raises(bc.InvalidTokens, match="cannot be decoded by dac:dac_tiny"):
        bc.load("dac_tiny", device="cpu").decode(tokens)


def test_from_the_command_line(tmp_path, capsys):
    soundfile = pytest.importorskip("soundfile")
    from blazen_codec_core.cli.main import main

    folder = published(*SETTINGS[0], tmp_path / "w")
    soundfile.write(tmp_path / "a.wav", audio(bc.load("encodec", weights=folder, **FROM_WEIGHTS))[0], 16_000)
    how = ["--weights", str(folder), "--architecture", "from-weights", "--device", "cpu"]
    for command in (
        ["encode", str(tmp_path / "a.wav"), "-c", "encodec", "-o", str(tmp_path / "a.tokens")],
        ["decode", str(tmp_path / "a.tokens"), "-o", str(tmp_path / "b.wav")],
    ):
        with pytest.raises(SystemExit) as caught:
            main([*command, *how])
        assert caught.value.code == 0, capsys.readouterr().err
    assert soundfile.info(tmp_path / "b.wav").frames == soundfile.info(tmp_path / "a.wav").frames


def test_published_settings_are_the_published_model(tmp_path):
    """Weights of one's own, and tokens that its name decodes."""
    spec = bc.Registry().find("encodec_tiny").spec
    folder = published("encodec", json.loads(spec.architecture.model_dump_json()), tmp_path / "w")
    assert bc.load("encodec", weights=folder, **FROM_WEIGHTS).spec == spec


def test_settings_of_transformers_are_the_same_as_the_authors(tmp_path):
    _, settings = SETTINGS[11]
    here = DacArchitecture.read(settings, "here", "dac")
    config = {HUB.get(name, name): value for name, value in settings.items() if name != "n_codebooks"}
    config |= {"n_codebooks": 3, "model_type": "dac", "hop_length": 84, "architectures": ["DacModel"], "torch_dtype": "float32"}
    del config["upsampling_ratios"]  # which follow
    assert DacArchitecture.read(config, "here", "dac") == here
    assert DacArchitecture.read(config, "here", "dac").digest == here.digest


@pytest.mark.parametrize(
    ("model_type", "config", "field", "value"),
    [
        ("encodec", {}, "sampling_rate", 24_000),
        ("dac", {}, "sample_rate", 16_000),
        ("dac", {"model_bitrate": 8, "frame_rate": 86, "num_codebooks": 9, "latent_dim": 1024}, "sample_rate", 44_100),
    ],
)
def test_what_a_config_does_not_say_is_as_its_publisher_has_it(model_type, config, field, value):
    found = KINDS[model_type][0].read({"model_type": model_type, **config}, "here", model_type)
    assert getattr(found, field) == value


def test_the_config_of_a_model_around_the_codec_is_looked_into():
    inner = {"model_type": "encodec", "sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4], "return_dict": True}
    found = EncodecArchitecture.read({"model_type": "musicgen", "decoder": {}, "audio_encoder": inner}, "here", "encodec")
    assert (found.sampling_rate, found.hop_length) == (32_000, 640)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_with_a_byte_order_mark(tmp_path, encoding):
    folder = published(*SETTINGS[0], tmp_path / "w")
    wanted = bc.load("encodec", weights=folder, **FROM_WEIGHTS).spec
    (folder / "config.json").write_text((folder / "config.json").read_text(), encoding)
    assert bc.load("encodec", weights=folder, **FROM_WEIGHTS).spec == wanted


def test_two_names_of_one_setting_may_say_the_same():
    """`null` says nothing."""
    found = DacArchitecture.read({"n_codebooks": 2, "num_codebooks": 2, "latent_dim": None, "hidden_size": 32}, "here", "dac")
    assert (found.n_codebooks, found.latent_dim) == (2, 32)


@pytest.mark.parametrize(
    ("family", "settings", "says"),
    [
        ("encodec", {"pad_mode": "circular"}, r"pad_mode is 'circular'.*'reflect'"),
        ("encodec", {"norm_type": "layer_norm"}, r"norm_type is 'layer_norm'.*'weight_norm' or 'time_group_norm'"),
        ("encodec", {"codebook_dim": 64}, "codebook_dim is 64; expected 128"),
        ("encodec", {"normalize": True}, "normalize requires chunk_length_s"),
        ("encodec", {"model_type": "mimi"}, "model_type is 'mimi'; expected encodec"),
        ("mimi", {"model_type": "encodec"}, "model_type is 'encodec'; expected mimi"),
        ("encodec", {"trim_right_ratio": 2}, "trim_right_ratio is 2"),
        ("encodec", {"num_filters": 10**9}, "num_filters is 1000000000"),
        ("dac", {"encoder_rates": [2, 4], "decoder_rates": [2, 2]}, "have different products"),
        ("dac", {"encoder_rates": [2, 4], "hop_length": 9}, "hop_length is 9"),
        (
            "dac",
            {"sample_rate": 16_000, "sampling_rate": 8000},
            "sample_rate is 16000, but sampling_rate, another name of it, is 8000",
        ),
        ("dac", {"n_codebooks": 2, "num_codebooks": 3}, "n_codebooks is 2, but num_codebooks, another name of it, is 3"),
        (
            "dac",
            {"decoder_rates": [8, 8, 4, 2], "upsampling_ratios": [8, 4, 8, 2]},
            r"decoder_rates is \[8, 8, 4, 2\], but upsampling_ratios, another name of it, is \[8, 4, 8, 2\]",
        ),
        ("dac", {"n_codebooks": 2, "codebook_dim": [8]}, "codebook_dim has 1 sizes; expected one for each of 2"),
        ("mimi", {"frame_rate": 25.0}, "frame_rate is 25.0; expected 25, the rate after .* divided by a whole number from 2"),
        ("mimi", {"upsampling_ratios": [4096, 17], "frame_rate": 0.1}, "frame_rate is 0.1"),
        ("mimi", {"sampling_rate": 139_264, "upsampling_ratios": [4096, 17], "frame_rate": 1.0}, "more than 65536 samples"),
        ("mimi", {"num_filters": 60_000}, r"num_filters 60000, doubled at each of .* exceeds 65536"),
        ("mimi", {"compress": 3}, "compress is 3; expected a divisor"),
        ("mimi", {"hidden_size": 500}, "upsample_groups is 512; expected 500"),
        ("mimi", {"num_attention_heads": 6}, "num_attention_heads 6 must divide hidden_size 512"),
        ("mimi", {"num_key_value_heads": 3}, "multiple of num_key_value_heads 3"),
        ("mimi", {"head_dim": 65_536}, "head_dim is 65536; expected an even number, and at most 65536 channels in all"),
        ("mimi", {"num_semantic_quantizers": 32}, "num_semantic_quantizers is 32; expected less"),
        ("mimi", {"codebook_dim": 128}, "codebook_dim is 128; expected 256"),
        ("mimi", {"codebook_dim": 512, "vector_quantization_hidden_dimension": 512}, "codebook_dim is 512, the hidden_size"),
        ("mimi", {"pad_mode": "reflect"}, "pad_mode is 'reflect'"),
        ("mimi", {"audio_channels": 2}, "audio_channels is 2"),
        ("mimi", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'; expected 'default'"),
        ("qwen3tts", {"encoder_valid_num_quantizers": 40}, "encoder_valid_num_quantizers is 40; the encoder has 32 codebooks"),
        ("qwen3tts", {"encoder_valid_num_quantizers": 8}, "the encoder has 8 codebooks; expected 16, as the decoder"),
        ("qwen3tts", {"decode_upsample_rate": 960}, "decode_upsample_rate 960; expected 1920"),
        ("qwen3tts", {"output_sample_rate": 48_000}, "output_sample_rate 48000; expected 24000"),
        ("qwen3tts", {"encoder_config": {"num_filters": 0}}, "encoder_config of .* num_filters is 0"),
        ("qwen3tts", {"decoder_config": {"decoder_dim": 1000}}, "decoder_dim 1000 cannot be halved at each of"),
        ("qwen3tts", {"decoder_config": {"codebook_dim": 511}}, "codebook_dim is 511 and num_quantizers 16; expected an even"),
        ("qwen3tts", {"decoder_config": {"num_key_value_heads": 3}}, "multiple of num_key_value_heads 3"),
        ("qwen3tts", {"decoder_config": {"rope_scaling": {"factor": 2}}}, "rope_scaling is .* expected null"),
        ("snac", {"vq_strides": [4, 3]}, "vq_strides"),
        ("snac", {"latent_dim": 5}, "latent_dim is 5; expected 1024"),
        ("encodec", {"upsampling_ratios": [4096, 17]}, "upsampling_ratios .* more than 65536 samples"),
        (
            "encodec",
            {"dilation_growth_rate": 64, "num_residual_layers": 64},
            "residual_kernel_size 3, dilation_growth_rate 64 and num_residual_layers 64 make .* more than 65536",
        ),
        ("encodec", {"target_bandwidths": [1.5, float("inf")]}, r"target_bandwidths\.1 is inf"),
        ("encodec", {"target_bandwidths": [float("nan")]}, r"target_bandwidths\.0 is nan"),
        ("encodec", {"target_bandwidths": [1e308]}, r"target_bandwidths\.0 is 1e\+308"),
        (
            "encodec",
            {"sampling_rate": 24_000, "chunk_length_s": 0.33333},
            "chunk_length_s 0.33333 at sampling_rate 24000 gives segments of 7999 samples; expected whole frames of 320",
        ),
        ("encodec", {"chunk_length_s": 1e-9}, "chunk_length_s 1e-09 .* segments of 0 samples"),
        (
            "encodec",
            {"sampling_rate": 9000, "upsampling_ratios": [5], "chunk_length_s": 0.005, "overlap": 0.5},
            "overlap 0.5 with chunk_length_s 0.005 gives segments of 45 samples that start every 22",
        ),
        ("encodec", {"kernel_size": True}, "kernel_size is True; expected a number"),
        ("encodec", {"trim_right_ratio": False}, "trim_right_ratio is False; expected a number"),
        ("encodec", {"upsampling_ratios": [8, True]}, r"upsampling_ratios is \[8, True\]; expected a number"),
        ("dac", {"num_codebooks": True}, "num_codebooks is True; expected a number"),
        ("dac", {"encoder_rates": [4096, 17], "decoder_rates": [17, 4096]}, "encoder_rates .* more than 65536 samples"),
        ("snac", {"encoder_rates": [4096, 17], "decoder_rates": [17, 4096]}, "encoder_rates .* more than 65536 samples"),
        ("snac", {"attn_window_size": 4095, "vq_strides": [4096]}, "attn_window_size 4095, vq_strides .* more than 4194304"),
        ("snac", {"hidden": 1}, "no known setting"),
    ],
)
def test_settings_that_are_not_supported_are_named(family, settings, says):
    with pytest.raises(bc.WeightsUnavailable, match=says):
        KINDS[family][0].read(settings, "here", family)


def test_settings_that_are_not_known_are_listed_in_one_warning():
    known = {"sampling_rate": 16_000, "architectures": ["EncodecModel"], "model_type": "encodec", "transformers_version": "4"}
    with pytest.warns(bc.UnknownSettingsNotice, match="were ignored: another, surprise") as caught:
        EncodecArchitecture.read({**known, "surprise": 1, "another": 2}, "here", "encodec")
    assert len(caught) == 1
    EncodecArchitecture.read(known, "here", "encodec")


def test_loading_gives_one_warning_of_unknown_settings(tmp_path):
    folder = published(*SETTINGS[0], tmp_path / "w")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "surprise": 1}))
    with pytest.warns(bc.UnknownSettingsNotice, match="surprise") as caught:
        bc.load("encodec", weights=folder, **FROM_WEIGHTS).load()
    assert len(caught) == 1


@pytest.mark.parametrize("attends", [True, False])
def test_a_config_of_snac_without_attention_is_seen_from_the_tensors(tmp_path, attends):
    family, settings = SETTINGS[15]
    wide = {"encoder_dim": 16, "decoder_dim": 256, "encoder_rates": [2, 3], "decoder_rates": [3, 2], "attn_window_size": 32}
    folder = published(family, {**settings, **(wide if attends else {})}, tmp_path / "w")
    config = json.loads((folder / "config.json").read_text())
    del config["attn_window_size"]
    (folder / "config.json").write_text(json.dumps(config))
    codec = bc.load(family, weights=folder, **FROM_WEIGHTS)
    codec.load()
    assert codec.spec.architecture.attn_window_size == (32 if attends else None)


OWN_SETTINGS = """# as OmegaConf writes them
sample_rate: 16000
channels: 1
solver: compression
encodec:
  causal: true
  renormalize: false
  sample_rate: ${sample_rate}
seanet:
  causal: ${encodec.causal}
  ratios:
  - 5
  - 4
  - 2
  n_filters: 4
  n_residual_layers: 1
  norm: weight_norm
  norm_params: {}
  dilation_base: 2
  pad_mode: reflect
  true_skip: false
  lstm: 2
  decoder:
    trim_right_ratio: 1.0
    final_activation: null
"""


class TestSettingsInACheckpointOfAudiocraft:
    """Its `xp.cfg`, held against the config beside it."""

    def load(self, folder, text):
        published(*SETTINGS[0], folder)
        torch.save({"best_state": load_file(folder / "model.safetensors"), "xp.cfg": text}, folder / "checkpoint.th")
        (folder / "model.safetensors").unlink()
        bc.load("encodec", weights=folder, **FROM_WEIGHTS).load()

    def test_the_same_ones_load(self, tmp_path):
        self.load(tmp_path, OWN_SETTINGS)
        self.load(tmp_path, OWN_SETTINGS.replace("ratios:\n  - 5\n  - 4\n  - 2", "ratios: [5, 4, 2]  # one line"))
        self.load(tmp_path, OWN_SETTINGS.replace("causal: true", "causal: True"))

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("pad_mode: reflect", "pad_mode: constant", r"seanet\.pad_mode in its xp\.cfg is 'constant', but .* has 'reflect'"),
            ("causal: true", "causal: false", r"encodec\.causal in its xp\.cfg is False, but .* has True"),
            ("${encodec.causal}", "False", r"seanet\.causal"),
            ("- 5\n  - 4", "- 4\n  - 5", r"seanet\.ratios in its xp\.cfg is \[4, 5, 2\], but .* has \[5, 4, 2\]"),
            ("true_skip: false", "true_skip: true", r"seanet\.true_skip .* is True, but .* has False"),
            ("dilation_base: 2", "dilation_base: 3", r"seanet\.dilation_base"),
            ("norm: weight_norm", "norm: time_group_norm", r"seanet\.norm"),
            ("trim_right_ratio: 1.0", "trim_right_ratio: .5", r"seanet\.decoder\.trim_right_ratio .* is 0\.5"),
            ("n_filters: 4", "n_filters: 8", r"seanet\.n_filters"),
            ("n_residual_layers: 1", "n_residual_layers: 2", r"seanet\.n_residual_layers"),
            ("lstm: 2", "lstm: 0", r"seanet\.lstm"),
            ("sample_rate: 16000", "sample_rate: 32000", r"sample_rate in its xp\.cfg is 32000, but .* has 16000"),
            ("channels: 1", "channels: 2", r"channels"),
            ("renormalize: false", "renormalize: true", r"encodec\.renormalize"),
        ],
    )
    def test_others_are_refused_by_name(self, tmp_path, old, new, says):
        assert old in OWN_SETTINGS
        with pytest.raises(bc.WeightsUnavailable, match=says):
            self.load(tmp_path, OWN_SETTINGS.replace(old, new, 1))

    LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))

    @pytest.mark.parametrize(
        "text",
        [
            "a: 1",
            "",
            "}{",
            "seanet:\n  ratios: &x [5,\n",
            b"sample_rate: 16000",
            None,
            f"{LAUGHS}sample_rate: *a11",
            f"{MERGED}sample_rate: 2",
            "sample_rate: " + "9" * 10_000,
            "sample_rate: 2001-99-99",
            "sample_rate: 2\n" + "# more\n" * 100_000,
            "[" * 100_000,
        ],
        ids=range(12),
    )
    def test_those_that_cannot_be_read_are_warned_of(self, tmp_path, text):
        with pytest.warns(bc.UnknownSettingsNotice, match=r"xp\.cfg"):
            self.load(tmp_path, text)


class TestFrequenciesOfAttention:
    """Buffers in the files of SNAC's authors, which have to be what the settings make them."""

    def load(self, folder, change):
        published(*SETTINGS[16], folder)
        state = torch.load(folder / "pytorch_model.bin")
        names = [name for name in state if name.endswith(".rel_pos.inv_freq")]
        assert len(names) == 2
        torch.save({**state, names[1]: change(state[names[1]])}, folder / "pytorch_model.bin")
        bc.load("snac", weights=folder, **FROM_WEIGHTS).load()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_the_same_in_any_type(self, tmp_path, dtype):
        self.load(tmp_path / "w", lambda found: found.to(dtype))

    @pytest.mark.parametrize("change", [lambda found: found * 3, lambda found: found[:-1], lambda found: found.long()])
    def test_others_are_refused_by_name(self, tmp_path, change):
        with pytest.raises(bc.WeightsUnavailable, match=r"decoder\..*\.rel_pos\.inv_freq does not follow"):
            self.load(tmp_path / "w", change)


def test_a_checkpoint_of_dac_without_its_settings_takes_those_of_the_config_beside_it(tmp_path):
    family, settings = SETTINGS[11]
    folder = published(family, settings, tmp_path / "w")
    wanted = bc.load(family, weights=folder, **FROM_WEIGHTS)
    content = torch.load(folder / "weights.pth")
    (folder / "config.json").write_text(json.dumps(settings))
    for without in ({"state_dict": content["state_dict"]}, {"state_dict": content["state_dict"], "metadata": {}}):
        torch.save(without, folder / "weights.pth")
        codec = bc.load(family, weights=folder, **FROM_WEIGHTS)
        assert codec.spec == wanted.spec
        pcm = audio(codec)
        made, same = codec.encode(pcm, 22_050), wanted.encode(pcm, 22_050)
        assert all(map(np.array_equal, made.codes, same.codes))


class TestRefusals:
    def test_weights_that_say_nothing_of_their_settings(self, tmp_path):
        torch.save({"encoder.w": torch.zeros(1)}, tmp_path / "w.pth")
        for family in KINDS:
            with pytest.raises(bc.WeightsUnavailable, match=r"put its config\.json beside it"):
                bc.load(family, weights=tmp_path / "w.pth", **FROM_WEIGHTS)

    @pytest.mark.parametrize("where", [None, "random:0"])
    def test_no_weights_of_ones_own(self, where):
        with pytest.raises(bc.InvalidInput, match="needs weights to read settings from"):
            bc.load("dac", weights=where, **FROM_WEIGHTS)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n", "pointer of Git LFS"),
            (b"<!DOCTYPE html>", "is a web page"),
            (b'{"a": 1}', "is JSON and holds no weights"),
        ],
    )
    @pytest.mark.parametrize("config", [True, False])
    def test_what_is_no_file_of_weights(self, tmp_path, content, says, config):
        folder = published(*SETTINGS[0], tmp_path / "w")
        (folder / "model.safetensors").write_bytes(content)
        if not config:
            (folder / "config.json").unlink()
        with pytest.raises(bc.WeightsUnavailable, match=says):
            bc.load("encodec", weights=folder, **FROM_WEIGHTS).load()

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", r"config\.json is not JSON: .*Fetch it again"),
            ("{'sampling_rate': 1}", r"config\.json is not JSON"),
            ("\udcff", r"config\.json is not JSON"),
            ('{"a": ' + "[" * 900 + "]" * 900 + "}", r"config\.json is nested too deeply"),
            ("[" * 200_000, r"config\.json is nested too deeply"),
        ],
        ids=["empty", "quotes", "bytes", "deep", "deeper"],
    )
    def test_a_config_that_is_none(self, tmp_path, text, says):
        folder = published(*SETTINGS[0], tmp_path / "w")
        (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(bc.WeightsUnavailable, match=says):
            bc.load("encodec", weights=folder, **FROM_WEIGHTS)

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda bias: torch.empty_like(bias, device="meta"), "is a meta tensor, which has no values"),
            (lambda bias: torch.nested.as_nested_tensor([bias[:1], bias[1:]]), "is a nested tensor"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_tensors_without_plain_values(self, tmp_path, make, says):
        folder, name = published(*SETTINGS[0], tmp_path / "w"), "encoder.model.0.conv.conv.bias"
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save({**state, name: make(state[name])}, folder / "w.th")
        with pytest.raises(bc.WeightsUnavailable, match=f"{name} {says}"):
            bc.load("encodec", weights=folder, **FROM_WEIGHTS).load()

    def test_a_direction_of_zeros(self, tmp_path):
        folder, name = published(*SETTINGS[0], tmp_path / "w"), "encoder.model.0.conv.conv.weight_v"
        state = load_file(folder / "model.safetensors")
        state[name][1] = 0
        save_file(state, folder / "model.safetensors")
        with pytest.raises(bc.WeightsUnavailable, match=f"{name} has a row of zeros"):
            bc.load("encodec", weights=folder, **FROM_WEIGHTS).load()

    def test_a_config_that_claims_more_than_the_file_can_hold(self, tmp_path):
        folder = published(*SETTINGS[0], tmp_path / "w")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "num_filters": 4096, "num_residual_layers": 60, "dilation_growth_rate": 1})
        )
        with pytest.raises(bc.WeightsUnavailable, match="bytes, which cannot hold"):
            bc.load("encodec", weights=folder, **FROM_WEIGHTS).load()

    def test_another_word(self):
        with pytest.raises(bc.InvalidInput, match="from-weights"):
            bc.load("dac", architecture="guess")
