"""The orders in which language models write EnCodec's tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.tokens.layouts import NO_CODE, TableLayout
from blazen_codec_encodec.specs import SPECS

SPEC, STEREO, *_ = SPECS
NONE = SPEC.codebook_size
DELAY = TableLayout("x", "", spacing=0, delays=1, fillers=NO_CODE)


def tokens(frames: int, books: int = 8, seed: int = 0) -> bc.CodecTokens:
    rng = np.random.default_rng(seed)
    return bc.CodecTokens.from_codes(SPEC, rng.integers(0, 1024, (books, frames)))


def test_the_flat_order_is_frame_by_frame_with_an_offset_a_codebook():
    made = tokens(3, 4)
    ids = bc.Registry().layout("encodec_flat").pack(made)
    assert ids.tolist() == [book * 1024 + int(made.codes[book][0, frame]) for frame in range(3) for book in range(4)]


def test_the_delay_pattern_is_the_papers():
    made = bc.CodecTokens.from_codes(SPEC, [[1, 2, 3], [4, 5, 6]])
    ids = bc.Registry().layout("musicgen_delay").pack(made)
    assert ids.reshape(-1, 2).T.tolist() == [[1, 2, 3, NONE], [NONE, 4, 5, 6]]


@given(
    layout=st.sampled_from(["encodec_flat", "musicgen_delay"]),
    frames=st.integers(1, 40),
    books=st.sampled_from(SPEC.usable_codebooks),
    seed=st.integers(0, 99),
)
def test_there_and_back(layout, frames, books, seed):
    made, found = tokens(frames, books, seed), bc.Registry().layout(layout)
    assert found.unpack(found.pack(made), SPEC, num_codebooks=books) == made
    if books == SPEC.used_codebooks:
        assert found.unpack(found.pack(made), SPEC) == made


def test_the_step_that_a_language_model_starts_from_is_left_out():
    made = tokens(5)
    ids = np.concatenate([np.full(8, NONE), DELAY.pack(made)])
    assert DELAY.unpack(ids, SPEC) == made


@given(frames=st.integers(1, 20), books=st.sampled_from([2, 4, 8]), cut=st.integers(1, 200))
def test_a_sequence_that_breaks_off_is_refused_or_dropped_as_asked(frames, books, cut):
    made = tokens(frames, books)
    ids = DELAY.pack(made)
    ids = ids[: max(0, ids.size - cut)]
    whole = max(0, ids.size // books - (books - 1))
    with pytest.raises(bc.InvalidTokens):
        DELAY.unpack(ids, SPEC, num_codebooks=books)
    if whole:
        assert DELAY.unpack(ids, SPEC, num_codebooks=books, ragged="drop") == next(made.parts(whole))
    else:
        with pytest.raises(bc.InvalidTokens, match="no complete frame"):
            DELAY.unpack(ids, SPEC, num_codebooks=books, ragged="drop")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([], "no complete frame"),
        ([[1, NONE], [2, 3], [7, 4]], "3 steps end inside a frame; .* drops the last 1"),
        ([[1, 7], [NONE, 4]], r"codebook 1 has id \d+ at step 0"),
        ([[1, NONE], [NONE, -1]], "outside"),
        ([[1025, NONE], [NONE, 1]], "outside"),
        ([[NONE, NONE]], "no complete frame"),
        ([[NONE, NONE], [NONE, NONE]], "no complete frame"),
        ([[1, NONE], [2, 3]], "2 steps end inside a frame"),
        ([[1, NONE], [NONE, 3], [2, 4], [NONE, 5]], "codebook 0 has id 1024 at step 1; expected 0 … 1023"),
    ],
)
def test_ids_out_of_place(table, says):
    with pytest.raises(bc.InvalidTokens, match=says):
        DELAY.unpack(np.array(table, int).reshape(-1), SPEC, num_codebooks=2)


def test_what_a_sequence_cannot_hold():
    stereo = bc.CodecTokens.from_codes(STEREO, np.zeros((4, 150), int), num_samples=47_520, scales=np.ones((1, 1)))
    for layout in ("encodec_flat", "musicgen_delay"):
        found = bc.Registry().layout(layout)
        with pytest.raises(bc.InvalidTokens, match="cannot hold scales"):
            found.pack(stereo)
        with pytest.raises(bc.InvalidTokens, match=r"\.stream\(0\)"):
            found.pack(bc.CodecTokens.from_codes(SPEC, list(np.zeros((2, 2, 5), int))))
        with pytest.raises(bc.InvalidInput, match=r"num_codebooks is 5; .* supports 2, 4, 8, 16 or 32"):
            found.unpack([1] * 5, SPEC, num_codebooks=5)
    flat = bc.Registry().layout("encodec_flat").pack(dataclasses.replace(stereo, scales=None))
    assert flat.size == 600


def test_musicgens_sequence_with_its_first_step():
    """The table of transformers' `build_delay_pattern_mask`, P being 2048, for four codebooks of two frames."""
    spec = next(spec for spec in SPECS if spec.name == "encodec_32khz")
    made = bc.CodecTokens.from_codes(spec, [[1, 2], [3, 4], [5, 6], [7, 8]])
    p = 2048
    table = [[p, 1, 2, p, p, p, p], [p, p, 3, 4, p, p, p], [p, p, p, 5, 6, p, p], [p, p, p, p, 7, 8, p]]
    layout = bc.Registry().layout("musicgen_delay")
    assert layout.pack(made, specials=True).reshape(-1, 4).T.tolist() == table
    reader = layout.reader(spec)
    assert [reader.push([list(step)]).frames for step in zip(*table, strict=True)] == [0, 0, 0, 0, 1, 1, 0]
    assert reader.ended


class TestBark:
    made = tokens(5, 8)

    def test_coarse_ids_alternate_between_two_codebooks(self):
        layout = bc.Registry().layout("bark_coarse")
        coarse = bc.CodecTokens.from_codes(SPEC, self.made.codes[:2])
        codes = np.stack([code[0] for code in coarse.codes]).astype(int)
        codes[1] += 1024  # the authors' `_flatten_codebooks`, after SEMANTIC_VOCAB_SIZE semantic ids
        ids = (codes.ravel("F") + 10_000).tolist()
        assert layout.pack(coarse).tolist() == ids
        assert layout.unpack([12_048, 12_048, 12_050, *ids], SPEC) == coarse
        assert layout.vocabulary(SPEC).mask(1).nonzero()[0].tolist() == list(range(11_024, 12_048))
        with pytest.raises(bc.InvalidTokens, match="id 9999 at 0 is outside slot 0; expected 10000 … 11023"):
            layout.unpack([9999], SPEC)

    def test_fine_ids_are_side_by_side(self):
        layout = bc.Registry().layout("bark_fine")
        table = np.stack([code[0] for code in self.made.codes], axis=1)
        assert layout.pack(self.made).reshape(-1, 8).tolist() == table.tolist()
        padded = np.concatenate([table, np.full((3, 8), 1024)])
        assert layout.unpack(padded, SPEC) == self.made
