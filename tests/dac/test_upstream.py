"""Ours against the authors' package, at full size with the same seeded random weights."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording, voice
from blazen_codec_dac.specs import SPECS, WINDOW_FRAMES, WINDOW_PADDED
from tests.helpers.quantizer_ties import count_differing
from tests.helpers.upstream_dac import Authors
from tests.helpers.upstream_roundtrip import there_and_back

BY_NAME = {spec.name: spec for spec in SPECS}
CASES = [(spec.name, spec.num_codebooks, 1) for spec in SPECS] + [("dac_16khz", 1, 1)]
CASES.append(pytest.param("dac_16khz", 5, 2, marks=pytest.mark.slow))  # two streams at once want the most memory


def lengths(spec: bc.CodecSpec) -> list[int]:
    rate, hop = spec.sample_rate, spec.hop_length
    return [1, hop - 1, hop, 7 * hop + 1, round(1.37 * rate)]


@pytest.mark.parametrize(("name", "books", "streams"), CASES)
def test_tokens_and_audio_are_the_authors(codecs, name, books, streams):
    ours = codecs(name)
    spec = ours.spec
    total = different = 0
    worst = 0.0
    recordings = [recording(spec, 1.5, channels=streams)[:, :length] for length in lengths(spec)]
    by_theirs = there_and_back(codecs, name, recordings, {"num_codebooks": books})
    for pcm, length, (reference, wanted) in zip(recordings, lengths(spec), by_theirs, strict=True):
        mine = ours.encode(pcm, spec.sample_rate, num_codebooks=books)
        assert mine.num_codebooks == reference.num_codebooks == books
        assert mine.num_samples == reference.num_samples == length
        total += sum(code.size for code in mine.codes)
        different += count_differing(ours, pcm, mine, reference)
        audio = ours.decode(reference)
        assert audio.shape == wanted.shape == pcm.shape
        worst = max(worst, float(np.abs(audio - wanted).max()))
        if length > spec.sample_rate:
            assert np.abs(wanted).max() > 0.01, "the decoder says nothing; the comparison would be empty"
            assert all(len(np.unique(code)) > 20 for code in mine.codes), "all frames are alike"
    ours.unload()
    print(f"{name}, {books} codebook(s), {streams} stream(s): {total - different} of {total} equal, audio within {worst:.1e}")
    assert different <= 1e-4 * total
    assert worst < 1e-4


def test_the_authors_package_does_not_stream():
    codec = bc.load("dac_16khz", engine="upstream", weights="random:0")
    for session in (codec.encoder_session, codec.decoder_session):
        with pytest.raises(bc.NotYetImplemented, match="native"):
            session()


def test_names_ids_and_bandwidths():
    assert bc.load("dac", weights="random:0").spec is BY_NAME["dac_44khz"]
    assert bc.load("descript/dac_24khz", weights="random:0").spec is BY_NAME["dac_24khz"]
    codec = bc.load("dac", weights="random:0")
    assert (codec.id, codec.sample_rate, codec.num_codebooks) == ("dac:descript/dac_44khz", 44_100, 9)
    wanted = {
        "dac_16khz": (12, 320, 6.0),
        "dac_24khz": (32, 320, 24.0),
        "dac_44khz": (9, 512, 7.75),
        "dac_44khz_16kbps": (18, 512, 15.5),
    }
    for name, (books, hop, kbps) in wanted.items():
        spec = BY_NAME[name]
        assert (spec.num_codebooks, spec.hop_length) == (books, hop)
        assert spec.usable_codebooks == tuple(range(1, books + 1))
        assert spec.bandwidth == pytest.approx(kbps, rel=0.001)
        assert [spec.codebooks_for(bandwidth) for bandwidth in spec.bandwidths] == list(spec.usable_codebooks)
        with pytest.raises(bc.InvalidInput, match=f"num_codebooks is {books + 1}; .* supports 1 to {books}$"):
            spec.codebooks_for(num_codebooks=books + 1)


def test_layouts_there_and_back(codecs):
    codec = codecs("dac_16khz")
    tokens = bc.CodecTokens.from_codes(codec.spec, np.random.default_rng(0).integers(0, 1024, (5, 7)))
    registry = bc.Registry()
    for name in ("dac_flat", "dac_delay"):
        layout = registry.layout(name)
        assert layout.unpack(layout.pack(tokens), codec.spec, num_codebooks=5) == tokens
    windows = dataclasses.replace(tokens, num_samples=1, extra={WINDOW_FRAMES: 7, WINDOW_PADDED: True})
    with pytest.raises(bc.InvalidTokens, match="cannot hold window_frames, window_padded"):
        registry.layout("dac_flat").pack(windows)


@pytest.mark.slow
def test_verify_from_the_command_line(tmp_path):
    soundfile.write(tmp_path / "a.wav", recording(BY_NAME["dac_tiny"], 0.4)[0], 24_000)
    command = ["verify", "dac_tiny", "--audio", str(tmp_path / "a.wav"), "-b", "3", "--json"]
    run = subprocess.run(
        [sys.executable, "-m", "blazen_codec_core.cli.main", *command], capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout)
    assert result["passed"]
    assert result["codebooks"] == 4


@pytest.mark.slow
def test_a_file_through_the_command_line(tmp_path):
    rate = 16_000
    pcm = np.stack([voice(0.91, rate, channel) * (0.3 + channel) for channel in range(2)])
    soundfile.write(tmp_path / "a.wav", pcm.T, rate, subtype="FLOAT")
    command = [sys.executable, "-m", "blazen_codec_core.cli.main"]

    def run(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("encode", "a.wav", "-c", "dac_16khz", "-o", "a.dac", "--normalize-db", "-16", "--weights", "random:0")
    heard = Authors(bc.load("dac_16khz", engine="upstream", weights="random:0", device="cpu")).decompress(tmp_path / "a.dac")
    run("decode", "a.dac", "-o", "b.wav", "-O", "model=dac_16khz", "--weights", "random:0")
    audio = soundfile.read(tmp_path / "b.wav", dtype="float32")[0].T
    assert audio.shape == heard.shape == pcm.shape
    assert np.abs(audio - heard).max() < 1e-3  # 16 bits a sample
