from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import pickle
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

import blazen_codec_core as bc
from blazen_codec_core.files import replacing
from blazen_codec_core.tokens import container
from blazen_codec_core.tokens.flat import flatten, unflatten


@st.composite
def some_tokens(draw: st.DrawFn) -> bc.CodecTokens:
    strides = draw(st.sampled_from([(1,), (1, 1), (2, 1), (4, 2, 1), (8, 4, 2, 1)]))
    size = draw(st.sampled_from([2, 256, 1024, 4096, 70_000]))
    frames, streams = strides[0] * draw(st.integers(0, 6)), draw(st.integers(1, 3))
    codes = tuple(draw(hnp.arrays(np.int32, (streams, frames // s), elements=st.integers(0, size - 1))) for s in strides)
    return bc.CodecTokens(
        codec="toy:toy",
        codes=codes,
        strides=strides,
        codebook_size=size,
        sample_rate=8000,
        hop_length=10,
        num_samples=draw(st.integers(0, frames * 10)),
        channels=streams * draw(st.integers(1, 2)),
        weights=draw(st.sampled_from([None, "random:1"])),
        source=draw(st.sampled_from([None, bc.Source(44_100, 123)])),
    )


@st.composite
def in_segments(draw: st.DrawFn) -> bc.CodecTokens:
    """Tokens as a codec makes them that treats the signal in segments of 6 frames, up to 3 of which overlap the next."""
    segment = bc.Segment(length=60, stride=draw(st.sampled_from([60, 55, 44, 30])), normalized=draw(st.booleans()))
    samples, streams = draw(st.integers(0, 400)), draw(st.integers(1, 2))
    codes = tuple(
        draw(hnp.arrays(np.int32, (streams, segment.frames(samples, 10)), elements=st.integers(0, 7))) for _ in range(2)
    )
    scales = draw(hnp.arrays(np.float32, (streams, segment.count(samples)), elements=st.floats(0.125, 8, width=32)))
    return dataclasses.replace(
        TOKENS,
        codes=codes,
        strides=(1, 1),
        num_samples=samples,
        channels=streams,
        segment=segment,
        scales=scales if segment.normalized else None,
        source=draw(st.sampled_from([None, bc.Source(44_100, 123, 1)])),
    )


TOKENS = bc.CodecTokens(
    codec="toy:toy",
    codes=(np.array([[1, 2]]), np.array([[3, 4, 5, 6]])),
    strides=(2, 1),
    codebook_size=8,
    sample_rate=8000,
    hop_length=10,
    num_samples=33,
)


@given(tokens=some_tokens() | in_segments())
def test_a_file_holds_all(tokens, tmp_path_factory):
    path = tmp_path_factory.mktemp("container") / "a.tokens"
    tokens.save(path)
    assert bc.CodecTokens.open(path) == tokens


@given(tokens=some_tokens() | in_segments())
def test_they_are_pickled_and_copied(tokens):
    assert pickle.loads(pickle.dumps(tokens)) == copy.deepcopy(tokens) == tokens


@given(tokens=some_tokens(), groups=st.integers(1, 4))
def test_parts_on_end_are_the_whole(tokens, groups):
    parts = list(tokens.parts(tokens.strides[0] * groups))
    assert bc.CodecTokens.concat(parts) == tokens
    assert sum(part.num_samples for part in parts) == tokens.num_samples


@given(tokens=in_segments(), count=st.integers(1, 3))
def test_parts_of_whole_segments_on_end_are_the_whole(tokens, count):
    parts = list(tokens.parts(6 * count))
    assert bc.CodecTokens.concat(parts) == tokens
    assert sum(part.num_samples for part in parts) == tokens.num_samples
    assert all(part.continues and set(part.segment_frames) <= {6} for part in parts[:-1])
    assert [frames for part in parts for frames in part.segment_frames] == tokens.segment_frames
    if tokens.scales is not None:
        assert sum(part.scales.shape[1] for part in parts) == len(tokens.segment_frames)
    if tokens.streams == 2:
        halves = [tokens.stream(number) for number in range(2)]
        assert np.array_equal(np.concatenate([half.codes[0] for half in halves]), tokens.codes[0])


@given(tokens=st.one_of(some_tokens(), in_segments()), cuts=st.lists(st.floats(0, 0.1), max_size=3))
def test_consecutive_slices_are_the_whole(tokens, cuts):
    bounds = [None, *sorted(cuts), None]
    parts = [tokens[start:end] for start, end in itertools.pairwise(bounds)]
    joined = bc.CodecTokens.concat(parts)
    assert dataclasses.replace(joined, source=tokens.source) == tokens
    for part in parts:
        if part.source and part.num_samples != tokens.num_samples:
            assert part.source.num_samples == round(part.seconds * 44_100)


def test_slices_are_in_seconds_and_begin_at_the_nearest_group():
    tokens = dataclasses.replace(
        TOKENS, codes=(np.arange(8)[None] % 8, np.arange(16)[None] % 8), num_samples=155, source=bc.Source(16_000, 310)
    )
    assert len(tokens) == tokens.frames == 16
    part = tokens[0.0049:0.0101]  # groups last 2.5 ms
    assert [code.tolist() for code in part.codes] == [[[2, 3]], [[4, 5, 6, 7]]]
    assert (part.num_samples, part.source) == (40, bc.Source(16_000, 80))
    assert tokens[-0.005:] == tokens[0.0144:9.0]
    assert tokens[:] == tokens[0.0:1.0] == tokens
    assert (tokens[0.01:0.01].frames, tokens[0.01:0.0].num_samples, len(tokens[9.0:])) == (0, 0, 0)
    for wrong in (slice(1, 3), slice(0.0, 1.0, 2), slice("a", None), slice(float("nan"), 1.0), 0, 1.5):
        with pytest.raises(bc.InvalidInput, match=r"tokens\[1\.5:3\.0\].*crop"):
            tokens[wrong]
    with pytest.raises(TypeError):
        list(tokens)


def test_tokens_of_one_rate_are_an_array():
    both = dataclasses.replace(TOKENS, codes=(np.array([[1, 2], [3, 4]]),) * 3, strides=(1, 1, 1), num_samples=20, channels=2)
    assert np.asarray(both).dtype == np.int32
    assert np.asarray(both, np.int64).tolist() == [[[1, 2], [3, 4]]] * 3
    with pytest.raises(bc.InvalidTokens, match=r"strides \(2, 1\).*flat"):
        np.asarray(TOKENS)
    assert TOKENS.flat(np.int64).dtype == np.int64
    assert TOKENS.flat(np.int64).tolist() == TOKENS.flat().tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["t.npz", "t.ecdc", "t.wav", "t.tokens.gz"])
def test_a_container_has_no_suffix_of_another_format(tmp_path, name):
    with pytest.raises(bc.InvalidInput, match=rf"{name} has the suffix of another format; a token container is \.tokens"):
        TOKENS.save(tmp_path / name)
    assert not os.listdir(tmp_path)
    for fine in ("t.tokens", "t.TOKENS", "t.safetensors", "t"):
        TOKENS.save(tmp_path / fine)
        assert bc.CodecTokens.open(tmp_path / fine) == TOKENS


def test_audio_in_the_place_of_tokens_is_called_audio(tmp_path):
    bc.write_audio(tmp_path / "a.wav", np.zeros(99, np.float32), 8000)
    (tmp_path / "a.wav").rename(tmp_path / "a.tokens")
    with pytest.raises(bc.CorruptFile, match=r"a\.tokens is audio \(WAV\), not tokens; encode it"):
        bc.CodecTokens.open(tmp_path / "a.tokens")


def test_tokens_print_what_they_are():
    assert repr(TOKENS) == "<CodecTokens toy:toy, 0.00 s, 4.36 kbps, 2 codebooks of 2 + 4 tokens>"
    one = dataclasses.replace(TOKENS, codes=(np.array([[1, 2], [3, 4]]),), strides=(1,), num_samples=20, channels=2)
    assert repr(one) == "<CodecTokens toy:toy, 0.00 s, 4.80 kbps, 2 streams, 1 codebook of 2 tokens>"


@given(samples=st.integers(0, 3000), length=st.integers(1, 30), overlap=st.integers(0, 15), hop=st.integers(1, 10))
def test_segments_count_as_a_loop_over_them_does(samples, length, overlap, hop):
    length *= hop
    segment = bc.Segment(length=length, stride=length - min(overlap, length // 2))
    starts = range(0, samples, segment.stride)
    frames = [-(-min(length, samples - start) // hop) for start in starts]
    assert segment.count(samples) == len(frames)
    assert segment.frames(samples, hop) == sum(frames)
    assert [segment.frames_of(number, samples, hop) for number in range(len(frames))] == frames
    most = segment.samples(sum(frames), hop)
    assert most >= samples
    assert segment.frames(most, hop) <= sum(frames) < segment.frames(most + 1, hop)


@pytest.mark.parametrize("wrong", [{"length": 10, "stride": 11}, {"length": 10, "stride": 4}, {"length": 0, "stride": 0}])
def test_segments_overlap_once_at_most(wrong):
    with pytest.raises(ValueError, match=r"segment may overlap|greater than 0"):
        bc.Segment(**wrong)


SEGMENTED = dataclasses.replace(
    TOKENS,
    codes=(np.zeros((1, 8), int),),
    strides=(1,),
    num_samples=75,
    segment=bc.Segment(length=60, stride=55, normalized=True),
    scales=np.ones((1, 2), np.float32),
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_samples": 95}, "codes have 8 frames; 95 samples in segments need 10"),
        ({"num_samples": -1}, "num_samples is -1; expected an integer of at least 0"),
        ({"num_samples": 10**18}, "samples in segments"),
        ({"scales": np.ones((1, 3), np.float32)}, "scales have shape"),
        ({"scales": np.ones(2, np.float32)}, "scales have shape"),
        ({"scales": np.array([[1.0, 0.0]])}, "positive"),
        ({"scales": np.array([[1.0, np.nan]])}, "positive"),
        ({"scales": np.array([[1, 2]])}, "floating-point"),
        ({"segment": bc.Segment(length=65, stride=60)}, "multiple of frames"),
        ({"segment": None}, "scales have shape"),
        ({"codes": (np.zeros((1, 4), int),), "strides": (2,)}, "multiple of frames"),
    ],
)
def test_segments_and_scales_that_do_not_fit(change, says):
    with pytest.raises(bc.InvalidTokens, match=says):
        dataclasses.replace(SEGMENTED, **change)


def test_segments_are_not_cut_nor_gone_on_with():
    with pytest.raises(bc.InvalidTokens, match="multiple of 6"):
        list(SEGMENTED.parts(4))
    with pytest.raises(bc.InvalidTokens, match="separate recordings"):
        bc.CodecTokens.concat([SEGMENTED, SEGMENTED])
    with pytest.raises(bc.InvalidTokens, match="only some parts have scales"):
        SEGMENTED.check_joins(dataclasses.replace(SEGMENTED, scales=None))


@given(strides=st.sampled_from([(1,), (2, 1), (4, 2, 1), (8, 4, 2, 1), (4, 2, 1, 1)]), groups=st.integers(1, 9))
def test_flat_and_back(strides, groups):
    rng = np.random.default_rng(groups)
    codes = [rng.integers(0, 4096, groups * strides[0] // s) for s in strides]
    flat = flatten(codes)
    assert flat.dtype == np.uint32
    assert flat.size == sum(code.size for code in codes)
    assert all(map(np.array_equal, unflatten(flat, strides), codes))


def test_flat_is_codebook_after_codebook():
    assert TOKENS.flat().tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("flat", "says"),
    [
        ([], "0 flat tokens"),
        ([1] * 6, "multiple of 7"),
        ([[1] * 7], "shape"),
        ([1.5] * 7, "integers"),
    ],
)
def test_misaligned_flat_tokens_are_refused(flat, says):
    with pytest.raises(bc.InvalidTokens, match=says):
        unflatten(flat, (4, 2, 1))


def test_flat_is_of_one_stream():
    stereo = dataclasses.replace(TOKENS, codes=tuple(np.repeat(c, 2, 0) for c in TOKENS.codes), channels=2)
    with pytest.raises(bc.InvalidTokens, match="2"):
        stereo.flat()
    assert np.array_equal(stereo.stream(1).flat(), TOKENS.flat())
    with pytest.raises(bc.InvalidTokens, match="stream is 2; expected 0 to 1"):
        stereo.stream(2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codes": (np.array([[1, 8]]), np.array([[3, 4, 5, 6]]))}, "outside 0 … 7"),
        ({"codes": (np.array([[1, -1]]), np.array([[3, 4, 5, 6]]))}, "outside"),
        ({"codes": (np.array([[1.0, 2]]), np.array([[3, 4, 5, 6]]))}, "integers"),
        ({"codes": (np.array([1, 2]), np.array([[3, 4, 5, 6]]))}, "shape"),
        ({"codes": (np.array([[1, 2]]), np.array([[3, 4, 5]]))}, "inconsistent shapes"),
        ({"codes": (np.array([[1, 2]]),)}, "codes have 1 codebooks; expected 2"),
        ({"codes": ()}, "0 codebooks"),
        ({"codes": (np.zeros((0, 2), int), np.zeros((0, 4), int))}, "no streams"),
        ({"num_samples": 41}, "num_samples"),
        ({"num_samples": -1}, "num_samples"),
        ({"channels": 0.5}, "channels"),
    ],
)
def test_tokens_that_cannot_be_are_refused(change, says):
    with pytest.raises(bc.InvalidTokens, match=says):
        dataclasses.replace(TOKENS, **change)


def test_codes_are_owned_and_read_only():
    mine = np.array([[1, 2]])
    tokens = dataclasses.replace(TOKENS, codes=(mine, TOKENS.codes[1]))
    mine[0, 0] = 7
    assert tokens.codes[0][0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        tokens.codes[0][0, 0] = 5


def test_separate_recordings_do_not_join():
    with pytest.raises(bc.InvalidTokens, match="separate recordings"):
        bc.CodecTokens.concat([TOKENS, TOKENS])
    with pytest.raises(bc.InvalidTokens, match="codec differs"):
        bc.CodecTokens.concat([TOKENS, dataclasses.replace(TOKENS, codec="other:toy")])
    with pytest.raises(bc.InvalidTokens, match="no tokens"):
        bc.CodecTokens.concat([])


class TestCorruptFiles:
    def write(self, path, arrays=None, **changes):
        TOKENS.save(path)
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()[container.KEY])
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(arrays if arrays is not None else found, path, metadata={container.KEY: json.dumps({**header, **changes})})

    @pytest.mark.parametrize(
        "changes",
        [
            {"version": 99},
            {"strides": []},
            {"strides": [1] * 2000},
            {"strides": [3, 1]},
            {"codebook_size": 2},
            {"codebook_size": -1},
            {"num_samples": 10**15},
            {"channels": 0},
            {"sample_rate": "fast"},
            {"arrays": {"codes.0": np.zeros((1, 2), np.uint8)}},
            {"arrays": {"codes.0": np.zeros((1, 2), np.float32), "codes.1": np.zeros((1, 4), np.float32)}},
            {"arrays": {}},
        ],
    )
    def test_a_header_that_lies(self, tmp_path, changes):
        path = tmp_path / "a.tokens"
        self.write(path, **changes)
        with pytest.raises(bc.CorruptFile, match=r"a\.tokens"):
            bc.CodecTokens.open(path)

    def test_other_safetensors(self, tmp_path):
        save_file({"weight": np.zeros(3)}, tmp_path / "a.tokens")
        with pytest.raises(bc.CorruptFile, match="safetensors file without tokens"):
            bc.CodecTokens.open(tmp_path / "a.tokens")

    def test_missing_and_directory(self, tmp_path):
        for path in (tmp_path / "none.tokens", tmp_path):
            with pytest.raises(bc.InvalidInput, match="not a file"):
                bc.CodecTokens.open(path)

    @given(data=st.data())
    def test_any_damage_is_a_codec_error_or_other_tokens_by_as_much(self, tmp_path_factory, data):
        path = tmp_path_factory.mktemp("damage") / "a.tokens"
        TOKENS.save(path)
        whole = path.read_bytes()
        codes_begin = 8 + int.from_bytes(whole[:8], "little")
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            first = data.draw(st.sampled_from([0, codes_begin]))
            content[data.draw(st.integers(first, len(content) - 1))] = data.draw(st.integers(0, 9) | st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
        try:
            opened = bc.CodecTokens.open(path)
        except bc.CorruptFile:
            assert path.read_bytes() != whole
            return
        if content[:codes_begin] == whole[:codes_begin]:
            assert dataclasses.replace(opened, codes=TOKENS.codes) == TOKENS
            differing = sum(int((a != b).sum()) for a, b in zip(opened.codes, TOKENS.codes, strict=True))
            assert differing == sum(a != b for a, b in zip(content, whole, strict=True))  # a token is a byte here
        opened.save(path)
        assert bc.CodecTokens.open(path) == opened


class TestReplacing:
    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012
            temporary.write_bytes(b"half")
            raise RuntimeError
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["a.bin"]

    def test_a_new_file_has_the_usual_mode(self, tmp_path):
        with replacing(tmp_path / "a") as temporary:
            temporary.write_bytes(b"x")
        TOKENS.save(tmp_path / "c")
        (tmp_path / "b").write_bytes(b"x")
        assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1

    def test_a_place_that_is_not_there_is_said(self, tmp_path):
        with pytest.raises(bc.InvalidInput, match="cannot be written"), replacing(tmp_path / "none" / "a"):
            pass
