"""Ours against the authors' decoder and transformers' encoder, with the same seeded random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.cli.main import main
from blazen_codec_core.conformance.signals import recording
from blazen_codec_qwen3tts.specs import SPECS
from tests.helpers.narrow_qwen3tts import FROM_WEIGHTS, NARROW
from tests.helpers.quantizer_ties import count_differing
from tests.helpers.upstream_roundtrip import there_and_back

(SPEC,) = SPECS
HOP = SPEC.hop_length


def hold(codecs, name: str, recordings: list[np.ndarray], **options) -> None:
    """Compare tokens and audio of recordings with the authors'."""
    made = there_and_back(codecs, name, recordings, **options)
    ours, total, different = codecs(name, **options), 0, 0
    for pcm, (reference, wanted) in zip(recordings, made, strict=True):
        mine = ours.encode(pcm, ours.sample_rate)
        total += sum(code.size for code in mine.codes)
        different += count_differing(ours, pcm, mine, reference)
        audio = ours.decode(reference)
        assert audio.shape == wanted.shape == pcm.shape
        assert wanted.std() > 0.01, "the decoder says nothing; the comparison would be empty"
        assert (np.abs(wanted) == 1).mean() < 0.05, "the clamp hides too much"
        assert np.abs(audio - wanted).max() < 1e-4
    assert different <= 1e-4 * total


@pytest.mark.slow
def test_tokens_and_audio_are_the_authors(codecs):
    hold(codecs, "qwen3tts_12hz", [recording(SPEC, 2)[:, :length] for length in (3 * HOP, HOP + 1, 35_000)])


@pytest.mark.slow
def test_beyond_the_windows_of_attention_tokens_and_audio_are_the_authors(codecs):
    hold(codecs, "qwen3tts_12hz", [recording(SPEC, 14), recording(SPEC, 3, seed=1, channels=2)])


@pytest.mark.parametrize("samples", [HOP, 20 * HOP + 1, 100 * HOP - 5])
def test_a_narrow_model_beyond_its_windows(codecs, narrow, samples):
    hold(codecs, "qwen3tts_12hz", [recording(SPEC, 9)[:, :samples]], weights=narrow, **FROM_WEIGHTS)


def test_an_encoder_that_sees_all_positions_as_the_package_has_it(codecs, narrow, tmp_path):
    """transformers 4.57, which the package pins, ignores the encoder's `sliding_window`; a large one has the same effect."""
    config = json.loads((narrow / "config.json").read_text())
    window, config["encoder_config"]["sliding_window"] = config["encoder_config"]["sliding_window"], 8000
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((narrow / "model.safetensors").read_bytes())
    pcm = recording(SPEC, 4)
    ours, theirs = (
        bc.load("qwen3tts_12hz", weights=tmp_path, engine=engine, **FROM_WEIGHTS) for engine in ("native", "upstream")
    )
    tokens, wanted = (codec.encode(pcm, 24_000) for codec in (ours, theirs))
    assert all(map(np.array_equal, tokens.codes, wanted.codes))
    windowed = np.concatenate(codecs("qwen3tts_12hz", weights=narrow, **FROM_WEIGHTS).encode(pcm, 24_000).codes)
    found = np.concatenate(tokens.codes)
    np.testing.assert_array_equal(found[:, : window // 2], windowed[:, : window // 2])
    assert (found[:, window:] != windowed[:, window:]).any()


@pytest.mark.parametrize("left", [1, 2, 100, 700, 1919])
def test_a_last_partial_frame_is_padded_in_each_convolution_as_the_authors_pad_it(codecs, narrow, left):
    ours, theirs = (codecs("qwen3tts_12hz", weights=narrow, engine=engine, **FROM_WEIGHTS) for engine in ("native", "upstream"))
    pcm = recording(SPEC, 1)[:, : 5 * HOP + left]
    tokens, wanted = (codec.encode(pcm, 24_000) for codec in (ours, theirs))
    assert tokens.frames == 6
    assert all(map(np.array_equal, tokens.codes, wanted.codes))


def test_that_frame_is_not_one_of_padded_audio(codecs, narrow):
    codec = codecs("qwen3tts_12hz", weights=narrow, **FROM_WEIGHTS)
    pcm = recording(SPEC, 1)[:, : 5 * HOP + 700]
    tokens, padded = (codec.encode(signal, 24_000) for signal in (pcm, np.pad(pcm, ((0, 0), (0, HOP - 700)))))
    ours, others = np.concatenate(tokens.codes), np.concatenate(padded.codes)
    np.testing.assert_array_equal(ours[:, :5], others[:, :5])
    assert (ours[:, 5] != others[:, 5]).any()


@pytest.mark.parametrize("samples", [1, 3, 4, 479, 1000])
def test_signals_shorter_than_a_frame(codecs, narrow, samples):
    ours, theirs = (codecs("qwen3tts_12hz", weights=narrow, engine=engine, **FROM_WEIGHTS) for engine in ("native", "upstream"))
    pcm = recording(SPEC, 1)[:, :samples]
    tokens = theirs.encode(pcm, 24_000)
    assert all(map(np.array_equal, ours.encode(pcm, 24_000).codes, tokens.codes))
    assert np.abs(ours.decode(tokens) - theirs.decode(tokens)).max() < 1e-4


@pytest.mark.slow
def test_verify_shows_how_far_the_authors_windows_are_from_their_whole_forward(narrow, tmp_path, capsys):
    """Windows of 300 frames with 25 of context, while each layer of the narrow model sees 40."""
    import soundfile

    path = tmp_path / "long.wav"
    soundfile.write(path, recording(SPEC, 25)[0], 24_000, subtype="FLOAT")
    options = ["--weights", str(narrow), "--architecture", "from-weights", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["verify", "qwen3tts_12hz", "--audio", str(path), "--json", *options])
    assert not ended.value.code
    summary = json.loads(capsys.readouterr().out)
    assert summary["passed"]
    (difference,) = summary["upstream_pcm_errors"].values()
    assert difference > 10 * summary["max_pcm_error"]


def test_names_rates_and_numbers_of_codebooks():
    codec = bc.load("Qwen/Qwen3-TTS-Tokenizer-12Hz", weights="random:0")
    assert codec.spec is SPEC
    assert codec.id == "qwen3tts:Qwen/Qwen3-TTS-Tokenizer-12Hz"
    assert (codec.sample_rate, codec.num_codebooks, codec.frame_rate, HOP) == (24_000, 16, 12.5, 1920)
    assert SPEC.usable_codebooks == (16,)
    assert SPEC.bandwidth == pytest.approx(2.2)
    assert NARROW.encoder_config.hop_length == NARROW.decoder_config.hop_length == HOP
