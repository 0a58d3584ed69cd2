"""Contracts on outputs: chunk-exact, batch-exact, upstream-exact, bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Unpack

import numpy as np
import pytest

from ..errors import EngineNotAvailable
from ..pools import Pool, PoolStream
from ..provider import DynCodecProvider
from ..specs import Direction
from ..streaming import DecoderSessionOptions, EncoderSessionOptions
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .signals import pieces
from .subject import Subject, Whole

CHUNKS: tuple[int | list[int], ...] = (480, 12_345, [1, 7, 480, 12_345])


def needs_streams(codec: DynCodecProvider, *directions: Direction) -> None:
    """Skip a contract if the codec does not stream in these directions."""
    for direction in directions:
        if direction not in codec.spec.capabilities.streams:
            pytest.skip(f"not claimed: it does not {direction} in chunks")


def encode_chunks(
    codec: DynCodecProvider, pcm: Pcm, cuts: Iterable[slice], **options: Unpack[EncoderSessionOptions]
) -> list[CodecTokens]:
    """Encode audio with a session, and return the tokens of each chunk."""
    session = codec.encoder_session(pcm.shape[0], **options)
    return [*(session.push(pcm[:, cut]) for cut in cuts), session.finish()]


def decode_chunks(codec: DynCodecProvider, parts: Iterable[CodecTokens], **options: Unpack[DecoderSessionOptions]) -> Pcm:
    """Decode chunks of tokens with a session, and return the audio."""
    session = codec.decoder_session(**options)
    return np.concatenate([*(session.push(part) for part in parts), session.finish()], axis=1)


@contextmanager
def streams_per_batch(codec: DynCodecProvider, streams: int) -> Iterator[None]:
    """Run `streams` signals of a batch side by side, on any device."""
    before = codec.backend.streams_per_batch
    codec.backend.streams_per_batch = streams
    try:
        yield
    finally:
        codec.backend.streams_per_batch = before


def _pooled(pool: Pool[Any, Any], signals: Sequence[Any]) -> list[list[Any]]:
    """Outputs of streams that open one after the other, each pushed at once."""
    streams: list[PoolStream[Any, Any]] = []
    outputs: list[list[Any]] = []
    while len(streams) < len(signals) or not all(stream.ended for stream in streams):
        if len(streams) < len(signals):
            stream = pool.open()
            stream.push(signals[len(streams)])
            stream.finish()
            streams.append(stream)
            outputs.append([])
        for stream, output in pool.step().items():
            outputs[streams.index(stream)].append(output)
    return outputs


class Exact:
    side_by_side: ClassVar[tuple[int, ...]] = (5, 32)
    """Values of `CodecBackend.streams_per_batch` to test: numbers of signals that run side by side."""

    def differing_frames(self, codec: DynCodecProvider, pcm: Pcm, a: CodecTokens, b: CodecTokens) -> int:
        """Return the number of frames that differ.

        A plugin's tests may override this and fail if a difference is not a tie broken by float32 rounding.
        """
        assert [code.shape for code in a.codes] == [code.shape for code in b.codes]
        differs = [np.repeat(x != y, s, axis=1) for x, y, s in zip(a.codes, b.codes, a.strides, strict=True)]
        return int(np.logical_or.reduce(differs).sum())

    def check_ties(self, codec: DynCodecProvider, pcm: Pcm, a: CodecTokens, b: CodecTokens) -> None:
        """Assert that tokens are equal except for a few ties."""
        differing = self.differing_frames(codec, pcm, a, b)
        assert differing <= max(a.strides[0], a.frames // 500), f"{differing} of {a.frames} frames differ"

    def test_encoding_in_pieces(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Chunk-exact: encoding in chunks of any size gives the tokens of the whole signal."""
        needs_streams(codec, "encode")
        for chunk in CHUNKS:
            parts = encode_chunks(codec, whole.pcm, pieces(whole.pcm.shape[1], chunk))
            assert CodecTokens.concat(parts) == whole.tokens, f"chunks of {chunk} samples"

    def test_encoding_in_the_smallest_pieces(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Chunk-exact: encoding sample by sample gives the tokens of the whole signal."""
        needs_streams(codec, "encode")
        pcm = subject.recording(0.4)
        tokens = codec.encode(pcm, codec.sample_rate)
        for chunk in (1, 7):
            assert CodecTokens.concat(encode_chunks(codec, pcm, pieces(pcm.shape[1], chunk))) == tokens, (
                f"chunks of {chunk} samples"
            )

    def test_decoding_in_pieces(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Chunk-exact: decoding in chunks of any size gives the audio of the whole signal, bit-exactly."""
        needs_streams(codec, "decode")
        for frames in (subject.unit, 3 * subject.unit, 1000 * subject.unit):
            assert np.array_equal(decode_chunks(codec, whole.tokens.parts(frames)), whole.audio), f"chunks of {frames} frames"

    def test_playing_what_a_session_gives(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Chunk-exact: a decoder session accepts the chunks of an encoder session."""
        needs_streams(codec, "encode", "decode")
        parts = encode_chunks(codec, whole.pcm, pieces(whole.pcm.shape[1], [1, 7, 480, 12_345]))
        assert np.array_equal(decode_chunks(codec, parts), whole.audio)

    def test_other_tiles(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Chunk-exact: shorter tiles give the same tokens except for ties, and the same audio except for rounding."""
        if codec.spec.segment:
            pytest.skip("not claimed: its segments have a fixed length")
        if not codec.spec.capabilities.streams:
            pytest.skip("not claimed: it has no sessions")
        for tile in {codec.spec.block_frames, min(codec.spec.block_frames * 3, codec.spec.tile_frames)}:
            if "encode" in codec.spec.capabilities.streams:
                tokens = CodecTokens.concat(encode_chunks(codec, whole.pcm, [slice(None)], tile_frames=tile))
                self.check_ties(codec, whole.pcm, tokens, whole.tokens)
            if "decode" in codec.spec.capabilities.streams:
                assert np.abs(decode_chunks(codec, [whole.tokens], tile_frames=tile) - whole.audio).max() < subject.rounding

    def test_latency(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Chunk-exact: the first tokens need `first_samples`, and the latency is at most `latency_samples`."""
        needs_streams(codec, "encode")
        spec = codec.spec
        session = codec.encoder_session(latency="lowest")
        pcm = subject.recording(max(subject.seconds, 3 * session.latency_samples / spec.sample_rate))
        covered = worst = first = 0
        step = max(1, spec.hop_length // 4)
        for start in range(0, pcm.shape[1] - step, step):
            covered += session.push(pcm[:, start : start + step]).num_samples
            worst = max(worst, start + step - covered)
            first = first or (covered and start + step)
        assert first - step < session.first_samples <= first
        assert session.latency_samples - step < worst <= session.latency_samples

    def test_decoder_latency(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Chunk-exact: the first audio needs `first_frames`, and the latency is at most `latency_samples`."""
        needs_streams(codec, "decode")
        session = codec.decoder_session(latency="lowest")
        pushed = heard = worst = first = 0
        for part in whole.tokens.parts(subject.unit):
            made = session.push(part).shape[1]
            worst = max(worst, pushed * codec.spec.hop_length + part.frames * codec.spec.hop_length - heard - made)
            pushed, heard = pushed + part.frames, heard + made
            first = first or (heard and pushed)
        assert session.first_frames == first if first else session.first_frames > pushed
        assert worst <= session.latency_samples + subject.unit * codec.spec.hop_length

    def test_batches(self, codec: DynCodecProvider, subject: Subject, apart: list[Whole]) -> None:
        """Batch-exact: items of different lengths give the results of each item alone."""
        if codec.max_batch_size == 1 or not codec.spec.capabilities.batches:
            assert codec.encode_batch([item.pcm for item in apart], codec.sample_rate) == [item.tokens for item in apart]
            for item, pcm in zip(apart, codec.decode_batch([item.tokens for item in apart]), strict=True):
                assert np.array_equal(pcm, item.audio)
        else:
            self.check_batch(codec, subject, apart)
        assert codec.encode_batch([], codec.sample_rate) == codec.decode_batch([]) == []

    def test_side_by_side(self, codec: DynCodecProvider, subject: Subject, apart: list[Whole]) -> None:
        """Batch-exact: items side by side, as on a GPU, give the results of each alone, except for ties and rounding."""
        if not codec.spec.capabilities.batches:
            pytest.skip("not claimed: it runs one signal at a time")
        for streams in self.side_by_side:
            with streams_per_batch(codec, streams):
                self.check_batch(codec, subject, apart)

    def check_batch(self, codec: DynCodecProvider, subject: Subject, apart: list[Whole]) -> None:
        """Assert that a batch equals its items alone, except for ties and rounding."""
        for item, tokens in zip(apart, codec.encode_batch([item.pcm for item in apart], codec.sample_rate), strict=True):
            self.check_ties(codec, item.pcm, item.tokens, tokens)
            assert tokens.scales is None or np.allclose(item.tokens.scales, tokens.scales, rtol=1e-6, atol=0)  # type: ignore[arg-type]
        for item, pcm in zip(apart, codec.decode_batch([item.tokens for item in apart]), strict=True):
            assert pcm.shape == item.audio.shape
            assert np.abs(pcm - item.audio).max() < subject.rounding

    def test_pools(self, codec: DynCodecProvider, subject: Subject, apart: list[Whole]) -> None:
        """Batch-exact: streams of a pool, each beginning a step after the one before, give the results of each alone."""
        needs_streams(codec, "encode", "decode")
        items = [item for item in apart if item.tokens.streams == 1]
        with codec.encoder_pool(len(items), latency="throughput") as encoders:
            tokens = [CodecTokens.concat(parts) for parts in _pooled(encoders, [item.pcm for item in items])]
        with codec.decoder_pool(len(items), latency="throughput") as decoders:
            audio = [np.concatenate(parts, axis=1) for parts in _pooled(decoders, [item.tokens for item in items])]
        for item, made, pcm in zip(items, tokens, audio, strict=True):
            self.check_ties(codec, item.pcm, item.tokens, made)
            assert pcm.shape == item.audio.shape
            assert np.abs(pcm - item.audio).max() < subject.rounding

    def test_streams(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Batch-exact: each channel of a recording gives the tokens of that channel alone."""
        if codec.channels > 1:
            pytest.skip("not claimed: it encodes its channels jointly")
        both = subject.recording(0.5, channels=2)
        tokens = codec.encode(both, codec.sample_rate)
        assert (tokens.streams, tokens.channels) == (2, 2)
        for number, channel in enumerate(both):
            assert codec.encode(channel, codec.sample_rate).flat().tolist() == tokens.stream(number).flat().tolist()
        assert codec.decode(tokens).shape == both.shape

    def test_upstream(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Upstream-exact: the authors' package gives the same tokens and audio."""
        if codec.spec.upstream is None:
            pytest.skip("not claimed: it has no engine of its authors' package")
        theirs = subject.load(engine="upstream")
        try:
            theirs.load()
        except EngineNotAvailable as error:
            pytest.skip(str(error))
        pcm = subject.recording(0.6)
        mine, reference = (engine.encode(pcm, codec.sample_rate) for engine in (codec, theirs))
        differing = sum(int((a != b).sum()) for a, b in zip(mine.codes, reference.codes, strict=True))
        if differing > 1e-4 * sum(code.size for code in mine.codes):
            self.check_ties(codec, pcm, mine, reference)
        assert np.abs(codec.decode(reference) - theirs.decode(reference)).max() < 1e-4

    def test_memory(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Bounded: memory does not grow during sessions."""
        needs_streams(codec, *codec.spec.capabilities.streams or ("encode",))
        codec.unload()
        arguments = [subject.name, subject.device, *([subject.weights] if subject.weights else [])]
        one_heap = {**os.environ, "OMP_NUM_THREADS": "1"}  # each thread has its own heap, created and freed with it
        command = [sys.executable, "-m", "blazen_codec_core.conformance.memory", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, env=one_heap)
        seconds, *after, middle, end = (float(value) for value in run.stdout.split())
        print(f"RSS after each {seconds:g} s, MiB:", *map(round, after), f"in use: {middle:.1f} {end:.1f}")
        assert end - middle < (4 if sys.platform == "linux" else 32)
        assert max(after[3:]) - max(after[:3]) < 96  # fluctuations of the heap; up to 50 MiB have been observed
