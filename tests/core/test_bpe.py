"""Byte-pair encoding over tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.tokens.bpe import CodecBpe
from tests.helpers.toy_codec import SPEC

FLAT = SPEC.model_copy(update={"name": "flat", "strides": (1, 1), "block_frames": 1})


def recording(spec: bc.CodecSpec, groups: int, seed: int) -> bc.CodecTokens:
    """Tokens in which pairs repeat, as those of real audio do."""
    rng = np.random.default_rng(seed)
    phrases = np.random.default_rng(0).integers(0, 16, (3, 4, 1 + len(spec.strides)))
    rows = np.concatenate([phrases[rng.integers(3)] for _ in range(groups)])
    codes = [rows[:, k] if stride == spec.strides[0] else rows[:, -2:].reshape(-1) for k, stride in enumerate(spec.strides)]
    return bc.CodecTokens.from_codes(spec, codes)


@pytest.fixture(scope="module", params=[SPEC, FLAT], ids=lambda spec: spec.name)
def bpe(request) -> CodecBpe:
    recordings = (recording(request.param, 50, seed) for seed in range(4))
    return CodecBpe.train(request.param, recordings, vocab_size=100, special_tokens=("<pad>",))


@given(data=st.data())
def test_any_tokens_there_and_back(bpe, data):
    groups = data.draw(st.integers(0, 9))
    codes = [data.draw(st.lists(st.integers(0, 15), min_size=n, max_size=n)) for n in (groups * 2 // s for s in bpe.spec.strides)]
    tokens = bc.CodecTokens.from_codes(bpe.spec, [np.array(code, np.int64) for code in codes])
    assert bpe.decode(bpe.encode(tokens)) == tokens


def test_repeated_phrases_are_compressed(bpe):
    unseen = recording(bpe.spec, 50, seed=9)
    report = bpe.compression([unseen])
    assert report.codes == sum(code.size for code in unseen.codes)
    assert report.ids == bpe.encode(unseen).size
    assert report.ratio == report.codes / report.ids > 3
    assert report.ids_per_second == pytest.approx(report.ids / unseen.seconds)
    noise = bc.CodecTokens.from_codes(bpe.spec, [np.random.default_rng(1).integers(0, 16, 400 // s) for s in bpe.spec.strides])
    assert bpe.compression([noise]).ratio < report.ratio / 2


def test_characters_are_those_of_codec_bpe():
    tokens = bc.CodecTokens.from_codes(FLAT, [[1, 2, 3], [4, 5, 6]])
    bpe = CodecBpe.train(FLAT, [tokens], vocab_size=32)
    text = "".join(chr(0x4E00 + code) for code in (1, 16 + 4, 2, 16 + 5, 3, 16 + 6))
    assert bpe.tokenizer.decode(bpe.encode(tokens).tolist()) == text
    assert bpe.encode(tokens).tolist() == [bpe.tokenizer.token_to_id(char) for char in text]


def test_a_large_alphabet_begins_above_the_surrogates():
    mimi = FLAT.model_copy(update={"strides": (1,) * 32, "codebook_size": 2048})
    tokens = bc.CodecTokens.from_codes(mimi, np.full((32, 2), 2047))
    bpe = CodecBpe.train(mimi, [tokens], vocab_size=32 * 2048)
    assert bpe.decode(bpe.encode(tokens)) == tokens
    with pytest.raises(bc.InvalidInput, match=r"U\+4E00 to U\+14DFF.*no characters"):
        CodecBpe.train(mimi, [tokens], vocab_size=32 * 2048, offset=0x4E00)


def test_ids_have_at_most_max_groups():
    tokens = [recording(FLAT, 50, seed) for seed in range(4)]
    longest = [
        max(len(text) for text in CodecBpe.train(FLAT, tokens, vocab_size=100, max_groups=most).tokenizer.get_vocab())
        for most in (1, 2, None)
    ]
    assert longest[0] == 2
    assert 2 < longest[1] <= 4 < longest[2]


def test_saved_and_read(bpe, tmp_path):
    tokens = recording(bpe.spec, 3, seed=2)
    bpe.save(tmp_path / "tokenizer.json")
    again = CodecBpe.open(tmp_path / "tokenizer.json", bpe.spec)
    assert again.encode(tokens).tolist() == bpe.encode(tokens).tolist()
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert plain.token_to_id("<pad>") == 0
    with pytest.raises(bc.InvalidInput, match=r"lacks \d+ characters"):
        CodecBpe.open(tmp_path / "tokenizer.json", bpe.spec, offset=0x3400)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(bc.CorruptFile, match="is no tokenizer"):
        CodecBpe.open(tmp_path / "no.json", bpe.spec)
    with pytest.raises(bc.InvalidInput, match="absent"):
        CodecBpe.open(tmp_path / "absent.json", bpe.spec)


def test_a_broken_group_is_refused_or_dropped(bpe):
    tokens = recording(bpe.spec, 1, seed=3)
    singles = [bpe.tokenizer.token_to_id(char) for char in bpe.tokenizer.decode(bpe.encode(tokens).tolist())]
    assert bpe.decode([0, *singles, 0]) == tokens
    with pytest.raises(bc.InvalidTokens, match="outside slot 1"):
        bpe.decode([*singles[:1], *singles[2:]])
    assert bpe.decode([*singles[:1], *singles[2:]], errors="drop").frames == tokens.frames - bpe.spec.strides[0]


def test_what_is_refused(bpe, monkeypatch):
    with pytest.raises(bc.InvalidInput, match="vocab_size is 5"):
        CodecBpe.train(bpe.spec, [], vocab_size=5)
    with pytest.raises(bc.InvalidInput, match="min_frequency is 0"):
        CodecBpe.train(bpe.spec, [], vocab_size=500, min_frequency=0)
    with pytest.raises(bc.InvalidTokens, match="the tokenizer has 0"):
        bpe.decode([10**6])
    other = dataclasses.replace(recording(bpe.spec, 1, 0), codec="toy:other")
    with pytest.raises(bc.InvalidTokens, match="expected those of toy"):
        bpe.encode(other)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(bc.EngineNotAvailable, match=r"pip install '\S*\[bpe\]'"):
        CodecBpe.train(bpe.spec, [], vocab_size=500)
