"""The orders in which language models write DAC's tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import blazen_codec_core as bc

SPEC = bc.Registry().find("dac_44khz").spec


def tokens(frames: int, seed: int = 0) -> bc.CodecTokens:
    return bc.CodecTokens.from_codes(SPEC, np.random.default_rng(seed).integers(0, 1024, (9, frames)))


def parler_rows(made: bc.CodecTokens) -> list[list[int]]:
    """The rows of Parler-TTS's `build_delay_pattern_mask`: `B B a b E E`, where B is 1025 and E is 1024."""
    return [[1025] * (1 + k) + code[0].tolist() + [1024] * (9 - k) for k, code in enumerate(made.codes)]


def dia_rows(made: bc.CodecTokens) -> list[list[int]]:
    """Dia's channels: begin 1026 for one step and the delay, codes, end 1024, and padding 1025 to the last channel's end."""
    delays = [0, 8, 9, 10, 11, 12, 13, 14, 15]
    return [
        [1026] * (1 + delay) + code[0].tolist() + [1024] + [1025] * (15 - delay)
        for delay, code in zip(delays, made.codes, strict=True)
    ]


@pytest.mark.parametrize(("name", "rows", "delay"), [("parler_tts", parler_rows, 8), ("dia", dia_rows, 15)])
class TestModels:
    @given(frames=st.integers(1, 30), seed=st.integers(0, 99))
    def test_the_sequence_of_the_authors(self, name, rows, delay, frames, seed):
        made, layout = tokens(frames, seed), bc.Registry().layout(name)
        steps = np.array(rows(made)).T
        assert layout.pack(made, specials=True).reshape(-1, 9).tolist() == steps.tolist()
        assert layout.unpack(steps, SPEC) == layout.unpack(layout.pack(made), SPEC) == made

    def test_a_frame_is_there_as_soon_as_its_last_codebook(self, name, rows, delay):
        made, reader = tokens(4), bc.Registry().layout(name).reader(SPEC)
        parts = [reader.push([list(step)]) for step in zip(*rows(made), strict=True)]
        assert [part.frames for part in parts] == [0] * (1 + delay) + [1] * 4 + [0]
        assert reader.ended

    def test_a_prompt_ends_where_the_model_goes_on(self, name, rows, delay):
        made, layout = tokens(20), bc.Registry().layout(name)
        prompt = layout.writer(SPEC, specials=True).push(made)
        assert prompt.reshape(-1, 9).T.tolist() == [row[:21] for row in rows(made)]

    def test_a_generation_that_breaks_off(self, name, rows, delay):
        made, layout = tokens(20), bc.Registry().layout(name)
        steps = np.array(rows(made)).T[: 1 + 20]
        with pytest.raises(bc.InvalidTokens, match=f"21 steps end inside a frame; .* drops the last {delay}"):
            layout.unpack(steps, SPEC)
        assert layout.unpack(steps, SPEC, ragged="drop") == next(made.parts(20 - delay))


def test_a_model_that_says_nothing():
    end = [[1026] * 9, [1024] + [1026] * 8]
    reader = bc.Registry().layout("dia").reader(SPEC, errors="drop")
    assert reader.push(end).frames == 0
    table = np.array([[1026] * (1 + delay) + [1024] + [1025] * (15 - delay) for delay in (0, *range(8, 16))]).T
    reader = bc.Registry().layout("dia").reader(SPEC)
    assert reader.push(table).frames == 0
    assert reader.ended
