from __future__ import annotations

import dataclasses

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


def rows_of(made: bc.CodecTokens) -> list[list[int]]:
    """The seven codes of each frame, in the order that the authors of Orpheus and of Mini-Omni give."""
    c0, c1, c2 = (code[0].tolist() for code in made.codes)
    return [
        [c0[i], c1[2 * i], c2[4 * i], c2[4 * i + 1], c1[2 * i + 1], c2[4 * i + 2], c2[4 * i + 3]] for i in range(made.frames // 4)
    ]


class TestOrpheus:
    def test_its_strings_and_special_ids(self):
        layout, made = bc.Registry().layout("orpheus"), tokens(SPEC, 3)
        numbers = [10 + slot * 4096 + code for row in rows_of(made) for slot, code in enumerate(row)]
        text = "".join(f"<custom_token_{number}>" for number in [1, *numbers, 2])
        ids = [128_256 + number for number in [1, *numbers, 2]]
        assert layout.pack(made, specials=True).tolist() == ids
        assert layout.vocabulary(SPEC).to_text(ids) == text
        for pieces in ([text], list(text), ids, [ids]):
            reader = layout.reader(SPEC)
            assert bc.CodecTokens.concat([reader.push(piece) for piece in pieces]) == made
            assert reader.ended

    def test_ids_of_its_prompt_are_told_apart(self):
        made = tokens(SPEC, 2)
        layout = bc.Registry().layout("orpheus")
        around = [128_260, 128_261, 128_257, *layout.pack(made), 128_258, 128_262, 128_263, 128_263]
        assert layout.unpack(around, SPEC) == made

    def test_an_answer_is_streamed_to_a_decoder(self, codecs):
        codec = codecs("snac_tiny")
        made = tokens(codec.spec, 20)
        answer = bc.Registry().layout("orpheus").pack(made, specials=True).tolist()
        reader, session = bc.Registry().layout("orpheus").reader(codec.spec, errors="drop"), codec.decoder_session()
        audio = [session.push(reader.push(id)) for id in answer]
        audio.append(session.finish())
        assert np.array_equal(np.concatenate(audio, axis=1), codec.decode(made))


class TestMiniOmni:
    layout = bc.Registry().layout("mini_omni")
    made = tokens(SPEC, 4)

    def table(self) -> list[list[int]]:
        """The authors' seven lists of ids, of which list k begins k steps late: end is 4096, padding 4097."""
        end, padding = 4096, 4097
        lists = []
        for layer in range(7):
            codes = [row[layer] for row in rows_of(self.made)]
            ids = [padding] * (1 + layer) + codes + [end] + [padding] * (6 - layer)
            lists.append([152_000 + 4160 * layer + id for id in ids])
        return [list(step) for step in zip(*lists, strict=True)]

    def test_the_sequence_of_the_authors(self):
        assert self.layout.pack(self.made, specials=True).reshape(-1, 7).tolist() == self.table()

    def test_steps_as_they_are_generated(self):
        reader = self.layout.reader(SPEC)
        parts = [reader.push([step]) for step in self.table()]
        assert [part.frames for part in parts] == [0] * 7 + [4] * 4 + [0]
        assert bc.CodecTokens.concat(parts) == self.made
        assert reader.ended

    def test_ids_before_the_shift_of_layers_are_a_row_of_their_own(self):
        plain = dataclasses.replace(self.layout, base=0, spacing=0)
        steps = [[id - 152_000 - 4160 * layer for layer, id in enumerate(step)] for step in self.table()]
        assert plain.unpack(steps, SPEC) == self.made

    def test_the_beginning_is_input_padding_and_answer(self):
        prompt = [[152_000 + 4160 * layer + id for layer in range(7)] for id in (4098, 4097, 4097, 4096, 4099)]
        with pytest.raises(bc.InvalidTokens, match="no complete frame"):
            self.layout.unpack(prompt, SPEC)
        assert self.layout.unpack([*prompt, *self.table()], SPEC) == self.made
