from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.tokens.layouts import TableLayout, slots
from blazen_codec_snac.specs import SPECS

BY_NAME = {spec.name: spec for spec in SPECS}
SPEC = BY_NAME["snac_24khz"]


def tokens(spec: bc.CodecSpec, groups: int, seed: int = 0) -> bc.CodecTokens:
    rng = np.random.default_rng(seed)
    codes = [rng.integers(0, spec.codebook_size, groups * spec.strides[0] // stride) for stride in spec.strides]
    return bc.CodecTokens.from_codes(spec, codes)


def test_the_order_is_the_one_that_orpheus_uses():
    made = tokens(SPEC, 3)
    c0, c1, c2 = (code[0] for code in made.codes)
    ids = bc.Registry().layout("orpheus").pack(made)
    i = 1
    frame = [c0[i], c1[2 * i], c2[4 * i], c2[4 * i + 1], c1[2 * i + 1], c2[4 * i + 2], c2[4 * i + 3]]
    assert ids[7:14].tolist() == [128_266 + slot * 4096 + code for slot, code in enumerate(frame)]
    assert ids.size == 21


def test_coarse_before_fine_depth_first():
    assert slots((4, 2, 1)) == [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (2, 2), (2, 3)]
    assert slots((2, 1, 1)) == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)]
    assert len(slots((8, 4, 2, 1))) == 15


@given(name=st.sampled_from(sorted(BY_NAME)), groups=st.integers(1, 20), seed=st.integers(0, 99))
def test_there_and_back(name, groups, seed):
    made = tokens(BY_NAME[name], groups, seed)
    for layout in ("orpheus", "snac_interleaved"):
        found = bc.Registry().layout(layout)
        assert found.unpack(found.pack(made), BY_NAME[name]) == made


@pytest.mark.parametrize("extra", range(1, 7))
def test_a_partial_last_frame_is_refused_or_dropped_as_asked(extra):
    layout = TableLayout("x", "")
    made = tokens(SPEC, 4)
    ids = layout.pack(made)[: 14 + extra]
    with pytest.raises(bc.InvalidTokens, match=f"last {extra}"):
        layout.unpack(ids, SPEC)
    assert layout.unpack(ids, SPEC, ragged="drop") == next(made.parts(8))


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([], "no complete frame"),
        ([1, 4098], "not a multiple of 7"),
        ([0] * 7, "id 0 at 1 is outside slot 1; expected 4096 … 8191"),
        ([-1] * 7, "slot 0"),
        ([[0] * 6], "shape"),
        ([0.5] * 7, "integers"),
    ],
)
def test_ids_out_of_place(ids, says):
    with pytest.raises(bc.InvalidTokens, match=says):
        TableLayout("x", "").unpack(ids, SPEC)


def test_dropping_needs_something_left():
    with pytest.raises(bc.InvalidTokens, match="no complete frame"):
        TableLayout("x", "").unpack([1, 4098, 8195], SPEC, ragged="drop")


def test_one_stream_at_a_time():
    both = bc.CodecTokens.from_codes(SPEC, [np.zeros((2, 4 // s), int) for s in SPEC.strides])
    with pytest.raises(bc.InvalidTokens, match=r"\.stream\(0\)"):
        TableLayout("x", "").pack(both)
    assert TableLayout("x", "").pack(both.stream(1)).size == 7


def test_strides_that_do_not_nest():
    odd = SPEC.model_copy(update={"strides": (3, 2), "block_frames": 6})
    with pytest.raises(bc.InvalidTokens, match="nest"):
        TableLayout("x", "").unpack([0] * 5, odd)
