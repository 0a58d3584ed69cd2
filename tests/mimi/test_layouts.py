"""The layouts of Moshi and CSM, for any codec with as many codebooks of one rate."""

from __future__ import annotations

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_mimi.specs import SPECS
from tests.helpers.toy_codec import SPEC

MIMI = SPECS[0]


def codes(books: int, frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2048, (books, frames))


def test_moshis_acoustic_codebooks_are_a_frame_late():
    table, layout = codes(8, 5), bc.Registry().layout("moshi")
    made = bc.CodecTokens.from_codes(MIMI, table)
    delayed = np.full((8, 7), 2048)  # the initial id, which is also what the first codebook ends with
    delayed[0, 1:6] = table[0]
    delayed[1:, 2:] = table[1:]
    ids = layout.pack(made, specials=True)
    assert ids.reshape(-1, 8).T.tolist() == delayed.tolist()
    assert layout.unpack(ids, MIMI) == made
    reader = layout.reader(MIMI)
    assert [reader.push([step]).frames for step in delayed.T] == [0, 0, 1, 1, 1, 1, 1]


def test_csm_ends_with_a_frame_of_zeros():
    table, layout = codes(32, 5), bc.Registry().layout("csm")
    made = bc.CodecTokens.from_codes(MIMI, table)
    frames = np.concatenate([table, np.zeros((32, 1), int)], axis=1).T
    assert layout.pack(made, specials=True).reshape(-1, 32).tolist() == frames.tolist()
    reader = layout.reader(MIMI)
    assert reader.push(np.concatenate([frames, frames])) == made
    assert reader.ended


def test_zeros_in_some_codebooks_are_codes():
    table = codes(32, 5)
    table[:31, 2] = 0
    made = bc.CodecTokens.from_codes(MIMI, table)
    reader = bc.Registry().layout("csm").reader(MIMI)
    assert reader.push(table.T) == made
    assert not reader.ended


def test_another_codec_has_too_few_codebooks():
    with pytest.raises(bc.InvalidInput, match="num_codebooks is 32; toy_8khz supports 2"):
        bc.Registry().layout("csm").reader(SPEC)
