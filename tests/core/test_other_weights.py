"""Tokens and the weights that made them."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

import blazen_codec_core as bc

NAME = "snac_tiny"


@pytest.fixture(scope="module")
def tokens() -> bc.CodecTokens:
    noise = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    made = bc.load(NAME, device="cpu").encode(0.1 * noise, 24_000)
    assert made.weights.startswith("sha256:")
    return made


def play(codec: bc.DynCodecProvider, tokens: bc.CodecTokens, how: str) -> np.ndarray:
    if how == "decode":
        return codec.decode(tokens)
    if how == "batch":
        return codec.decode_batch([tokens, tokens])[0]
    session = codec.decoder_session()
    return np.concatenate([session.push(tokens), session.finish()], axis=1)


@pytest.mark.parametrize("how", ["decode", "batch", "session"])
class TestOtherWeights:
    def test_are_warned_of_once(self, tokens, how):
        codec = bc.load(NAME, weights="random:1", device="cpu")
        with pytest.warns(bc.OtherWeightsNotice, match=rf"{tokens.weights} made these tokens.*random:1.*file or precision"):
            play(codec, tokens, how)
        play(codec, tokens, how)

    def test_are_refused_on_request(self, tokens, how):
        codec = bc.load(NAME, weights="random:1", device="cpu", strict_weights=True)
        for _ in range(2):
            with pytest.raises(bc.InvalidTokens, match=rf"{tokens.weights}.*random:1"):
                play(codec, tokens, how)

    def test_the_same_and_unknown_ones_are_silent(self, tokens, how):
        play(bc.load(NAME, device="cpu", strict_weights=True), tokens, how)
        unknown = dataclasses.replace(tokens, weights=None)
        play(bc.load(NAME, weights="random:1", device="cpu", strict_weights=True), unknown, how)


def test_every_pair_is_warned_of(tokens):
    codec = bc.load(NAME, weights="random:1", device="cpu")
    for label in ("random:2", "random:3"):
        with pytest.warns(bc.OtherWeightsNotice, match=label):
            codec.decode(dataclasses.replace(tokens, weights=label))


def test_from_the_command_line(tokens, tmp_path, capsys):
    from blazen_codec_core.cli.main import main

    tokens.save(tmp_path / "a.tokens")
    arguments = ["decode", str(tmp_path / "a.tokens"), "-fo", str(tmp_path / "a.wav"), "--device", "cpu", "--weights", "random:1"]
    warnings.simplefilter("default")  # pytest puts it back
    for extra, code in (([], 0), (["--strict-weights"], 5)):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, *extra])
        assert caught.value.code == code
        said = capsys.readouterr().err
        assert str(tokens.weights) in said
        assert "random:1" in said
