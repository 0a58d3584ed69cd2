"""Sequences of ids, delays and batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.data import IGNORED, Sample, collate, delay, undelay
from blazen_codec_core.data.sequences import sequence
from blazen_codec_core.tokens.layouts import Specials
from tests.helpers.token_shards import ENCODEC, SNAC, layout_of, spec_of, tokens_of

DELAY = layout_of("musicgen_delay")
samples = st.builds(
    lambda ids, targets: Sample(torch.tensor(ids), torch.tensor(targets[: len(ids)])),
    st.lists(st.integers(0, 99), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)


def long(values) -> Sample:
    ids = torch.as_tensor(values)
    return Sample(ids, torch.ones_like(ids, dtype=torch.bool))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 8))
def test_delays_of_a_batch_are_those_of_the_layout(lengths, books):
    spec = spec_of(ENCODEC)
    draw = np.random.default_rng(books)
    codes = [draw.integers(0, spec.codebook_size, (books, length)) for length in lengths]
    padded = torch.full((len(lengths), max(lengths), books), -7)
    for number, own in enumerate(codes):
        padded[number, : own.shape[1]] = torch.from_numpy(own.T)
    delayed = delay(padded, spec.codebook_size, torch.tensor(lengths))
    for ids, own in zip(delayed, codes, strict=True):
        tokens = dataclasses.replace(tokens_of(0, ENCODEC), codes=tuple(own[:, None]), strides=(1,) * books, num_samples=0)
        expected = DELAY.pack(tokens).reshape(-1, books)
        assert np.array_equal(ids[: len(expected)], expected)
        assert (ids[len(expected) :] == spec.codebook_size).all()
    assert torch.equal(undelay(delay(padded, 0)), padded)


def test_a_delay_pattern_learns_the_end_only_where_the_recording_ends():
    tokens = tokens_of(3, ENCODEC, groups=9)
    books, frames = tokens.num_codebooks, tokens.frames
    inside, ending = (sequence(tokens, DELAY, specials=True, ends=ends) for ends in (False, True))
    assert torch.equal(inside.ids, ending.ids[: 1 + frames])
    assert ending.ids.flatten().tolist() == DELAY.pack(tokens, specials=True).tolist()
    for book in range(books):
        assert inside.targets[:, book].nonzero().flatten().tolist() == list(range(1 + book, 1 + frames))
        assert ending.targets[:, book].nonzero().flatten().tolist() == list(range(1 + book, frames + book + 2))
        assert ending.ids[frames + book + 1, book] == tokens.codebook_size


@pytest.mark.parametrize("name", ["snac_interleaved", "orpheus", "mini_omni"])
@pytest.mark.parametrize("specials", [False, True])
def test_ids_are_those_of_the_layout_and_codes_and_ends_are_learnt(name, specials):
    tokens, layout = tokens_of(5, groups=14), layout_of(name)
    whole, part = (sequence(tokens, layout, specials=specials, ends=ends, columns={"text": "x"}) for ends in (True, False))
    vocabulary = layout.vocabulary(spec_of(SNAC))
    assert whole.ids.flatten().tolist() == layout.pack(tokens, specials=specials).tolist()
    assert torch.equal(part.ids, whole.ids[: len(part)])
    assert all(vocabulary.locate(id) for id in part.ids[part.targets].tolist())
    ends = [id for id in whole.ids[whole.targets].tolist() if not vocabulary.locate(id)]
    expected = len(vocabulary.slots) - (not specials) if vocabulary.delay else specials and vocabulary.markers.end is not None
    assert len(ends) == expected
    assert whole.targets.sum() == sum(code.size for code in tokens.codes) + len(ends)
    assert whole.columns == {"text": "x"}


def test_markers_between_steps_of_a_table_are_refused():
    layout = dataclasses.replace(DELAY, markers=Specials(begin=5000))
    with pytest.raises(bc.InvalidTokens, match="no table"):
        sequence(tokens_of(0, ENCODEC), layout, specials=True, ends=True)


def test_without_a_layout_a_step_is_a_frame():
    tokens = tokens_of(5, ENCODEC)
    assert np.array_equal(sequence(tokens, None).ids.T, np.concatenate(tokens.codes))


def test_codebooks_of_several_strides_need_a_layout():
    with pytest.raises(bc.InvalidTokens, match="Name a layout"):
        sequence(tokens_of(5), None)


def test_a_prompt_is_read_and_not_learnt():
    sample = long([5, 6]).prompted([1, 2])
    batch = collate([sample])
    assert batch.inputs.tolist() == [[1, 2, 5]]
    assert batch.labels.tolist() == [[IGNORED, 5, 6]]


@pytest.mark.parametrize("prompt", [[[1]], 1, ["a"], [0.5], object()])
def test_a_prompt_of_another_shape_or_type_is_refused(prompt):
    with pytest.raises(bc.InvalidInput, match="prompt"):
        long([1, 2]).prompted(prompt)


@given(st.lists(st.lists(samples, min_size=1, max_size=4), min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_each_sequence_is_in_its_row_with_labels_of_its_own(rows, multiple, shift):
    batch = collate(rows, pad=98, multiple_of=multiple, shift=shift)
    assert batch.inputs.shape[1] % multiple == 0
    flat = [(number, document, sample) for number, row in enumerate(rows) for document, sample in enumerate(row, start=1)]
    assert batch.rows.tolist() == [number for number, _, _ in flat]
    for number, document, sample in flat:
        inside = batch.documents[number] == document
        ids, labels = batch.inputs[number][inside], batch.labels[number][inside]
        expected = torch.where(sample.targets, sample.ids, IGNORED).tolist()
        assert batch.positions[number][inside].tolist() == list(range(len(ids)))
        if shift:
            assert (ids.tolist(), labels.tolist()) == (sample.ids[:-1].tolist(), expected[1:])
        else:
            assert (ids.tolist(), labels.tolist()) == (sample.ids.tolist(), [IGNORED, *expected[1:]])
    padding = batch.documents == 0
    assert (batch.inputs[padding] == 98).all()
    assert (batch.labels[padding] == IGNORED).all()
    assert batch.lengths.tolist() == [sum(len(sample) - shift for sample in row) for row in rows]


def test_a_packed_row_attends_as_its_sequences_do_alone():
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(100, 8, generator=draw)
    parts = [long([3, 1, 4]), long([1, 5, 9, 2]), long([6])]

    def attend(batch):
        x = vectors[batch.inputs][:, None]
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=batch.attention_mask)[0, 0]

    alone = torch.cat([attend(collate([part], shift=False)) for part in parts])
    assert torch.allclose(attend(collate([parts], shift=False)), alone, atol=1e-6)


@pytest.mark.parametrize(
    ("collated", "options"),
    [([], {}), ([[]], {}), ([object()], {}), ([long([1])], {"multiple_of": 0}), ([long([1])], {"pad": 0.5})],
)
def test_what_cannot_be_a_batch_is_refused(collated, options):
    with pytest.raises(bc.InvalidInput):
        collate(collated, **options)


def test_samples_of_different_codebooks_are_no_batch():
    with pytest.raises(bc.InvalidInput, match="different codebooks"):
        collate([long([1]), long([[1, 2]])])


@pytest.mark.parametrize(
    "ids", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, 2, 3), torch.zeros(1, 2, 0, dtype=torch.int64)]
)
def test_ids_without_batch_steps_and_codebooks_are_refused(ids):
    for operation in (undelay, lambda ids: delay(ids, 0)):
        with pytest.raises(bc.InvalidTokens):
            operation(ids)


def test_too_few_steps_for_a_frame_are_refused():
    with pytest.raises(bc.InvalidTokens, match="no complete frame"):
        undelay(torch.zeros(1, 3, 4, dtype=torch.int64))


@given(st.integers(1, 9), st.data())
def test_a_crop_of_tokens_is_a_part_of_them(groups, data):
    tokens = tokens_of(groups, groups=groups)
    unit = tokens.crop_unit
    start, count = data.draw(st.integers(0, groups - 1)), data.draw(st.integers(1, 9))
    part = tokens.crop(start * unit, count * unit)
    for code, own, stride in zip(tokens.codes, part.codes, tokens.strides, strict=True):
        assert np.array_equal(own, code[:, start * unit // stride : (start + count) * unit // stride])
    assert part.num_samples == part.frames * tokens.hop_length


@pytest.mark.parametrize("wrong", [None, 5, [1], [[None]], "text", []])
def test_what_is_no_batch_of_samples_is_refused(wrong):
    with pytest.raises(bc.InvalidInput, match="samples"):
        collate(wrong)


@pytest.mark.parametrize("change", [lambda ids: delay(ids, 0), undelay])
def test_what_is_no_tensor_of_ids_is_not_delayed(change):
    for wrong in (np.zeros((1, 5, 2), np.int64), None, torch.zeros(1, 5, 2), torch.zeros(5, 2, dtype=torch.int64)):
        with pytest.raises(bc.InvalidTokens, match="ids are"):
            change(wrong)
