"""Reading, writing and masking ids of layouts."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.tokens.layouts import NO_CODE, IdText, LayoutLogitsProcessor, Specials, TableLayout
from tests.helpers.toy_codec import SPEC as INTERLEAVED

FLAT = INTERLEAVED.model_copy(update={"name": "flat", "strides": (1, 1, 1), "block_frames": 1})
SIZE = INTERLEAVED.codebook_size
MARKERS = Specials(begin=1, end=2, padding=3, others=(4,))
CASES = {
    "interleaved": (TableLayout("a", "", base=9, markers=MARKERS, text=IdText("<id_{}>", 1)), INTERLEAVED),
    "flat": (TableLayout("b", ""), FLAT),
    "delayed": (TableLayout("c", "", spacing=0, delays=1, fillers=NO_CODE), FLAT),
    "delays": (TableLayout("d", "", spacing=0, delays=(0, 3, 5), fillers=Specials(begin=2, end=0, padding=1)), FLAT),
    "spaced": (TableLayout("e", "", base=50, spacing=30, delays=1, fillers=Specials(1, 0, 1, (2,))), INTERLEAVED),
    "end code": (TableLayout("f", "", spacing=0, end_code=0), FLAT),
    "side by side": (TableLayout("g", "", spacing=0), FLAT),
}
all_cases = pytest.mark.parametrize(("layout", "spec"), CASES.values(), ids=CASES)
self_framing = pytest.mark.parametrize(("layout", "spec"), [CASES["interleaved"], CASES["flat"]], ids=["interleaved", "flat"])


def tokens_of(spec: bc.CodecSpec, groups: int, seed: int) -> bc.CodecTokens:
    rng = np.random.default_rng(seed)
    frames = groups * max(spec.strides)
    return bc.CodecTokens.from_codes(spec, [rng.integers(1, SIZE, frames // stride) for stride in spec.strides])


def in_pieces(ids, cuts):
    ends = [0, *sorted(cut % (len(ids) + 1) for cut in cuts), len(ids)]
    return [ids[start:end] for start, end in pairwise(ends)]


def read(reader, pieces) -> bc.CodecTokens:
    return bc.CodecTokens.concat([*(reader.push(piece) for piece in pieces), reader.finish()])


def groups_of(tokens: bc.CodecTokens) -> list[list[int]]:
    """The codes of each group, codebook after codebook."""
    count = tokens.frames // max(tokens.strides)
    columns = [code.reshape(count, -1) for code in tokens.codes]
    return np.concatenate(columns, axis=1).tolist()


cuts = st.lists(st.integers(0, 999), max_size=6)
seeds = st.integers(0, 99)


@all_cases
@given(groups=st.integers(1, 12), seed=seeds, cuts=cuts, specials=st.booleans())
def test_any_pieces_give_what_the_whole_gives(layout, spec, groups, seed, cuts, specials):
    made = tokens_of(spec, groups, seed)
    ids = layout.pack(made, specials=specials)
    assert layout.unpack(ids, spec) == made
    reader = layout.reader(spec)
    assert read(reader, in_pieces(ids, cuts)) == made
    assert reader.lost == 0
    writer = layout.writer(spec, specials=specials)
    stride = max(spec.strides)
    parts = list(made.parts((cuts[0] % groups + 1) * stride)) if cuts else [made]
    assert np.concatenate([*(writer.push(part) for part in parts), writer.finish()]).tolist() == ids.tolist()


@all_cases
def test_an_end_is_told_apart(layout, spec):
    made, reader = tokens_of(spec, 4, 0), layout.reader(spec)
    ids = layout.pack(made, specials=True)
    fillers = layout.vocabulary(spec).fillers
    assert layout.unpack(ids, spec) == made
    assert reader.push(ids) == made
    has_end = layout.markers.end is not None or fillers.end is not None or layout.end_code is not None
    assert reader.ended == has_end
    if has_end:
        assert reader.push(ids).frames == 0
        assert reader.lost == 0


@given(
    kind=st.sampled_from(["int", "np.int64", "list", "int32", "uint16", "uint64", "torch", "steps", "text", "texts"]), seed=seeds
)
def test_ids_in_any_form(kind, seed):
    layout, spec = CASES["interleaved"]
    made = tokens_of(spec, 3, seed)
    ids = layout.pack(made)
    forms = {
        "int": ids.tolist(),
        "np.int64": list(ids),
        "list": [ids.tolist()],
        "torch": [torch.from_numpy(ids)],
        "steps": [ids.reshape(-1, 3)],
        "text": ["".join(f"<id_{id - 1}>" for id in ids)],
        "texts": [[f"<id_{id - 1}>" for id in ids]],
    }
    pieces = forms[kind] if kind in forms else [ids.astype(kind)]
    assert read(layout.reader(spec), pieces) == made


@self_framing
@given(
    groups=st.integers(3, 8),
    seed=seeds,
    place=st.integers(0, 99),
    damage=st.sampled_from(["missing", "doubled", "misplaced", "foreign"]),
    shift=st.integers(1, 2),
    cuts=cuts,
)
@example(groups=3, seed=0, place=8, damage="misplaced", shift=1, cuts=[])
@example(groups=3, seed=0, place=4, damage="misplaced", shift=2, cuts=[])
def test_a_wrong_id_costs_one_group(layout, spec, groups, seed, place, damage, shift, cuts):
    made = tokens_of(spec, groups, seed)
    ids = layout.pack(made).tolist()
    at = place % len(ids)
    slot = (at + shift) % 3
    replaced = {
        "missing": [],
        "doubled": [ids[at]] * 2,
        "misplaced": [layout.base + slot * SIZE],
        "foreign": [10**6],
    }[damage]
    pieces = in_pieces([*ids[:at], *replaced, *ids[at + 1 :]], cuts)
    with pytest.raises(bc.InvalidTokens, match=r"outside slot|not a multiple of"):
        read(layout.reader(spec), pieces)
    reader = layout.reader(spec, errors="drop")
    found, expected = groups_of(read(reader, pieces)), groups_of(made)
    assert len(found) + reader.lost == groups
    assert reader.lost <= 1
    assert found == (expected if not reader.lost else [group for n, group in enumerate(expected) if n != at // 3])
    if 0 < at // 3 < groups - 1:
        again = layout.reader(spec, errors="repeat")
        kept = groups_of(read(again, pieces))
        assert len(kept) == groups
        assert again.lost == reader.lost
        assert not reader.lost or kept[at // 3] == expected[at // 3 - 1]


@pytest.mark.parametrize("slots", [3, 4, 7])
def test_the_clock_is_kept_wherever_an_id_is_wrong(slots):
    spec = FLAT.model_copy(update={"strides": (1,) * slots})
    layout, groups = TableLayout("x", ""), 4
    ids = layout.pack(tokens_of(spec, groups, 0)).tolist()
    for at, id in enumerate(ids):
        others = [[slot * SIZE] for slot in range(slots) if slot != at % slots]
        for replaced in ([], [id, id], [10**6], *others):
            reader = layout.reader(spec, errors="drop")
            found = read(reader, [ids[:at] + replaced + ids[at + 1 :]])
            assert found.frames + reader.lost == groups
            assert reader.lost <= 1


@pytest.mark.parametrize("name", ["delayed", "delays", "side by side", "end code"])
@given(groups=st.integers(2, 8), seed=seeds, place=st.integers(0, 99), wrong=st.sampled_from([-1, 99, 2**62]), cuts=cuts)
def test_an_id_out_of_range_costs_one_group(name, groups, seed, place, wrong, cuts):
    layout, spec = CASES[name]
    made = tokens_of(spec, groups, seed)
    ids = layout.pack(made)
    slots = layout.vocabulary(spec).slots
    group, slot = divmod(place % (groups * 3), 3)
    ids[(group + slots[slot].delay) * 3 + slot] = wrong
    with pytest.raises(bc.InvalidTokens, match=f"id {wrong} at .* is outside slot {slot}"):
        layout.unpack(ids, spec)
    reader = layout.reader(spec, errors="drop")
    found = groups_of(read(reader, in_pieces(ids, cuts)))
    assert found == [codes for n, codes in enumerate(groups_of(made)) if n != group]
    assert reader.lost == 1
    if group:
        again = groups_of(read(layout.reader(spec, errors="repeat"), in_pieces(ids, cuts)))
        assert again[group] == again[group - 1]
        assert len(again) == groups


@all_cases
@given(data=st.data(), cuts=cuts, errors=st.sampled_from(["drop", "repeat"]))
def test_any_ids_in_pieces_give_what_they_give_at_once(layout, spec, data, cuts, errors):
    size = layout.vocabulary(spec).size
    genuine = layout.pack(tokens_of(spec, 4, data.draw(seeds)), specials=True).tolist()
    ids = data.draw(st.lists(st.one_of(st.integers(-2, size + 2), st.sampled_from(genuine)), max_size=40))
    ids = [*ids, *genuine, *ids] if data.draw(st.booleans()) else ids
    one, other = (layout.reader(spec, errors=errors) for _ in range(2))
    assert read(one, [ids]) == read(other, in_pieces(ids, cuts))
    assert (one.lost, one.ended) == (other.lost, other.ended)


@given(text=st.text(alphabet="<id_>0123456789 x", max_size=60), groups=st.integers(0, 3), cuts=cuts)
def test_text_in_pieces_gives_what_it_gives_at_once(text, groups, cuts):
    layout, spec = CASES["interleaved"]
    made = layout.vocabulary(spec).to_text(layout.pack(tokens_of(spec, groups, 0), specials=groups % 2 == 1))
    text = text[:30] + made + text[30:]
    one, other = (layout.reader(spec, errors="drop") for _ in range(2))
    assert read(one, [text]) == read(other, in_pieces(text, cuts))
    assert (one.lost, one.ended) == (other.lost, other.ended)


@pytest.mark.parametrize(("layout", "spec"), [CASES["interleaved"]])
class TestText:
    def test_blanks_are_nothing_and_words_are_one_wrong_id(self, layout, spec):
        made = tokens_of(spec, 2, 0)
        texts = [f"<id_{id - 1}>" for id in layout.pack(made)]
        assert layout.reader(spec).push(" ".join(texts) + "\n") == made
        with pytest.raises(bc.InvalidTokens, match="id -1 at 3 is outside slot 0"):
            layout.reader(spec).push(["".join(texts[:3]), "some words", *texts[3:]])
        reader = layout.reader(spec, errors="drop")
        assert groups_of(reader.push(["".join(texts[:3]), "some words", *texts[3:]])) == groups_of(made)

    def test_an_id_may_be_cut_anywhere(self, layout, spec):
        reader = layout.reader(spec)
        pushed = [reader.push(char).frames for char in "<id_8><id_24><id_40>"]
        assert pushed == [0] * 19 + [2]

    def test_text_that_is_no_id_after_all(self, layout, spec):
        reader = layout.reader(spec, errors="drop")
        reader.push("<id_8><id_24><id_")
        assert reader.push("4x0>").frames == 0
        assert reader.push("<id_8><id_24><id_40>").frames == 2
        assert reader.lost == 1

    def test_numbers_of_any_length_stay_out_of_memory(self, layout, spec):
        reader = layout.reader(spec, errors="drop")
        for _ in range(100):
            reader.push("<id_" + "1" * 1000)
        assert len(pickle.dumps(reader)) < 5000

    def test_layouts_without_a_text_form_say_so(self, layout, spec):
        with pytest.raises(bc.InvalidInput, match="layout b has no text form"):
            CASES["flat"][0].reader(FLAT).push("<id_8>")
        with pytest.raises(bc.InvalidInput, match="layout b has no text form"):
            CASES["flat"][0].vocabulary(FLAT).to_text([1])
        with pytest.raises(bc.InvalidInput, match="id 0 has no text"):
            layout.vocabulary(spec).to_text([0])
        with pytest.raises(bc.InvalidInput, match="expected text around one"):
            IdText("{}")


class TestMarkers:
    layout, spec = CASES["interleaved"]
    ids = layout.pack(tokens_of(spec, 2, 0)).tolist()

    def test_they_are_told_apart_anywhere(self):
        padded = [3, 4, 1, *self.ids[:2], 3, *self.ids[2:], 4, 2, 77, -5]
        reader = self.layout.reader(self.spec)
        assert reader.push(padded) == self.layout.unpack(self.ids, self.spec)
        assert reader.ended

    def test_a_begin_marker_starts_anew(self):
        reader = self.layout.reader(self.spec, errors="drop")
        assert reader.push([77, 78, 79, 80, 1, *self.ids[:3]]).frames == 2
        assert reader.lost == 0
        assert reader.push([*self.ids[:2], 1, *self.ids[3:]]).frames == 2
        assert reader.lost == 1
        with pytest.raises(bc.InvalidTokens, match="drops the last 2"):
            self.layout.reader(self.spec).push([*self.ids[:2], 1])

    def test_an_end_inside_a_group(self):
        with pytest.raises(bc.InvalidTokens, match="drops the last 1"):
            self.layout.reader(self.spec).push([*self.ids[:4], 2])
        reader = self.layout.reader(self.spec, errors="repeat")
        assert reader.push([*self.ids[:4], 2]).frames == 2
        assert (reader.ended, reader.lost) == (True, 1)


def test_ids_of_a_prompt_are_passed_over():
    layout, spec = CASES["interleaved"]
    made = tokens_of(spec, 3, 0)
    reader = layout.reader(spec, errors="repeat")
    parts = [reader.push(np.full(100_000, 77)) for _ in range(3)]
    assert bc.CodecTokens.concat([*parts, reader.push(layout.pack(made))]) == made
    assert reader.lost <= 2


@all_cases
def test_a_push_that_raises_changes_nothing(layout, spec):
    made = tokens_of(spec, 6, 0)
    ids = layout.pack(made)
    half = len(ids) // 2 + 1
    reader = layout.reader(spec)
    parts = [reader.push(ids[:half])]
    with pytest.raises(bc.InvalidTokens):
        reader.push([*ids[half:], 10**6])
    parts += [reader.push(ids[half:]), reader.finish()]
    assert bc.CodecTokens.concat(parts) == made


@pytest.mark.parametrize(
    "ids",
    [None, True, [True], 1.0, [0.5], np.zeros((2, 2), int), np.zeros((1, 1, 3), int), 10**30, [1, "a"], [[1], [2, 3]], b"a"],
)
@pytest.mark.parametrize("errors", ["raise", "drop"])
def test_what_is_no_ids_is_refused(ids, errors):
    with pytest.raises(bc.InvalidTokens):
        CASES["flat"][0].reader(FLAT, errors=errors).push(ids)


def test_options_are_checked():
    layout = CASES["flat"][0]
    with pytest.raises(bc.InvalidInput, match="errors is 'ignore'; expected raise, drop or repeat"):
        layout.reader(FLAT, errors="ignore")
    with pytest.raises(bc.InvalidInput, match="ragged is None; expected refuse or drop"):
        layout.unpack([1], FLAT, ragged=None)
    with pytest.raises(bc.InvalidInput, match="ragged is 'keep'; expected refuse or drop"):
        layout.reader(FLAT).finish(ragged="keep")
    with pytest.raises(bc.InvalidInput, match="supports 3"):
        layout.reader(FLAT, num_codebooks=2)
    with pytest.raises(bc.InvalidInput, match="needs fillers"):
        TableLayout("x", "", delays=1)
    with pytest.raises(bc.InvalidInput, match="start at 0"):
        TableLayout("x", "", base=-1)
    with pytest.raises(bc.InvalidTokens, match=r"has 2 slots; .* need 3"):
        TableLayout("x", "", delays=(0, 1), fillers=NO_CODE).pack(tokens_of(FLAT, 1, 0))


def test_readers_and_writers_end():
    layout = CASES["flat"][0]
    reader, writer = layout.reader(FLAT), layout.writer(FLAT)
    reader.finish(), writer.finish()
    for call in (reader.finish, writer.finish, lambda: reader.push([1]), lambda: writer.push(tokens_of(FLAT, 1, 0))):
        with pytest.raises(bc.InvalidInput, match="is finished"):
            call()


@all_cases
def test_memory_is_bounded(layout, spec):
    reader = layout.reader(spec, errors="repeat")
    sizes = set()
    for _ in range(20):
        reader.push(np.random.default_rng(0).integers(-5, 200, 1000))
        sizes.add(len(pickle.dumps(reader)))
    assert max(sizes) < 5000


def test_a_writer_refuses_tokens_of_another_model():
    writer = CASES["interleaved"][0].writer(INTERLEAVED)
    with pytest.raises(bc.InvalidTokens, match=r"strides \(1, 1, 1\) and 16 codes; the writer is for strides \(2, 1\)"):
        writer.push(tokens_of(FLAT, 1, 0))


def test_a_prompt_is_whole_steps():
    layout, spec = CASES["delays"]
    made = tokens_of(spec, 4, 0)
    prompt = layout.writer(spec, specials=True).push(made)
    assert prompt.tolist() == layout.pack(made, specials=True)[: 5 * 3].tolist()


def test_codecs_with_segments_get_whole_segments():
    segment = bc.Segment(length=64, stride=60)
    spec = FLAT.model_copy(update={"segment": segment})
    layout = CASES["delayed"][0]
    made = bc.CodecTokens.from_codes(spec, np.random.default_rng(0).integers(0, SIZE, (3, 1, 40)))
    reader = layout.reader(spec)
    parts = [reader.push(id) for id in layout.pack(made).tolist()]
    assert {part.frames for part in parts} == {0, 16}
    assert bc.CodecTokens.concat([*parts, reader.finish()]) == made == layout.unpack(layout.pack(made), spec)


class WholeOnly(bc.TokenLayout):
    name, description = "whole", ""

    def pack(self, tokens, *, specials=False):
        return tokens.flat().astype(np.int64)

    def unpack(self, ids, spec, *, num_codebooks=None, ragged="refuse"):
        raise NotImplementedError


def test_layouts_of_others_may_convert_whole_sequences_only():
    for method in ("vocabulary", "reader", "writer"):
        with pytest.raises(bc.NotYetImplemented, match="layout whole converts whole sequences only"):
            getattr(WholeOnly(), method)(FLAT)


class TestVocabulary:
    @all_cases
    @given(groups=st.integers(1, 6), seed=seeds)
    def test_every_id_has_its_place(self, layout, spec, groups, seed):
        made, vocabulary = tokens_of(spec, groups, seed), layout.vocabulary(spec)
        ids = layout.pack(made)
        assert vocabulary.ids_per_group == 3
        assert vocabulary.frames_per_group == max(spec.strides)
        found = [np.full_like(code[0], -1) for code in made.codes]
        for position, id in enumerate(ids.tolist()):
            place = vocabulary.locate(id, position % 3)
            assert (place is None) == (id in vocabulary.special_ids and not 0 <= id - vocabulary.slots[position % 3].first < SIZE)
            if place is not None:
                assert place.slot == position % 3
                slot, per_group = vocabulary.slots[position % 3], len(found[place.codebook]) // groups
                found[place.codebook][(position // 3 - slot.delay) * per_group + slot.token] = place.code
                if vocabulary.identifies:
                    assert vocabulary.locate(id) == place
        assert all(np.array_equal(mine, code[0]) for mine, code in zip(found, made.codes, strict=True))
        assert ids.max() < vocabulary.size

    @all_cases
    @given(groups=st.integers(1, 6), seed=seeds)
    def test_masks_allow_every_sequence(self, layout, spec, groups, seed):
        vocabulary = layout.vocabulary(spec)
        whole = layout.pack(tokens_of(spec, groups, seed), specials=True)
        ids = whole[len(vocabulary.beginning) :].tolist()
        if layout.end_code is not None:
            ids = ids[: 3 * groups]
        for position, id in enumerate(ids):
            ended = position > 3 * groups
            mask = vocabulary.mask(position, groups if ended else None)
            assert mask.shape == (vocabulary.size,)
            assert mask[id]

    def test_a_mask_has_the_codes_of_one_slot(self):
        vocabulary = CASES["interleaved"][0].vocabulary(INTERLEAVED)
        assert np.flatnonzero(vocabulary.mask(4)).tolist() == list(range(9 + 16, 9 + 32))
        assert np.flatnonzero(vocabulary.mask(3)).tolist() == [2, *range(9, 9 + 16)]
        assert np.flatnonzero(vocabulary.mask(3, groups=1)).tolist() == [2]
        delays = CASES["delays"][0].vocabulary(FLAT)
        assert np.flatnonzero(delays.mask(1)).tolist() == [18]
        assert np.flatnonzero(delays.mask(0)).tolist() == list(range(17))
        assert np.flatnonzero(delays.mask(3 * 2 + 0, groups=2)).tolist() == [16]
        assert np.flatnonzero(delays.mask(3 * 3 + 0, groups=2)).tolist() == [17]
        assert np.flatnonzero(delays.mask(3 * 5 + 1, groups=2)).tolist() == [16]

    def test_arguments_are_checked(self):
        shared, own = CASES["delays"][0].vocabulary(FLAT), CASES["flat"][0].vocabulary(FLAT)
        for call, says in (
            (lambda: shared.locate(3), "share their ids"),
            (lambda: shared.locate(3, 3), "slot is 3"),
            (lambda: own.locate("a"), "id is 'a'"),
            (lambda: own.mask(-1), "position is -1"),
            (lambda: own.mask(0, True), "groups is True"),
        ):
            with pytest.raises(bc.InvalidInput, match=says):
                call()
        assert own.locate(3 * SIZE) is None
        assert own.locate(-1) is None
        assert (own.base, own.size, own.special_ids) == (0, 3 * SIZE, frozenset())


class TestLogits:
    @pytest.mark.parametrize("name", ["interleaved", "delayed", "delays", "spaced"])
    @pytest.mark.parametrize("batch", [True, False])
    def test_whatever_a_model_prefers_its_sequence_can_be_read(self, name, batch):
        layout, spec = CASES[name]
        vocabulary = layout.vocabulary(spec)
        prompt = vocabulary.beginning if batch else []
        processor = LayoutLogitsProcessor(vocabulary, len(prompt))
        generator = torch.Generator().manual_seed(0)
        ends = [id for id in (vocabulary.markers.end, vocabulary.fillers.end) if id is not None]
        ends = ends if layout.markers.end else [vocabulary.base + id for id in ends]
        ids = torch.tensor([prompt, prompt] if batch else prompt, dtype=torch.long)
        for step in range(60):
            shape = (*ids.shape[:-1], vocabulary.size + 5)
            scores = torch.randn(shape, generator=generator)
            scores[..., ends] = 100.0 if step > 20 else -100.0
            ids = torch.cat([ids, processor(ids, scores).argmax(-1, keepdim=True)], -1)
        for row in ids if batch else [ids]:
            reader = layout.reader(spec)
            assert reader.push(row).frames >= 4
            assert reader.ended

    def test_scores_that_are_allowed_stay_as_they_are(self):
        vocabulary = CASES["flat"][0].vocabulary(FLAT)
        scores = torch.randn(60)
        masked = LayoutLogitsProcessor(vocabulary)([5], scores)
        assert torch.equal(masked[16:32], scores[16:32])
        assert torch.isinf(masked).sum() == 60 - 16

    def test_what_is_refused(self):
        vocabulary = CASES["flat"][0].vocabulary(FLAT)
        with pytest.raises(bc.InvalidInput, match="the model has 47 ids; layout b needs at least 48"):
            LayoutLogitsProcessor(vocabulary)([], torch.zeros(47))
        with pytest.raises(bc.InvalidInput, match="there are 1 ids; the prompt has 2"):
            LayoutLogitsProcessor(vocabulary, 2)([5], torch.zeros(48))
        with pytest.raises(bc.InvalidInput, match="prompt_length"):
            LayoutLogitsProcessor(vocabulary, -1)
