"""Contracts on latents, for codecs that give them: exact, of the declared shape, and without side effects."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ..errors import CodecError, InvalidInput, NotYetImplemented
from ..provider import DynCodecProvider
from ..validation import MAX_CHANNELS, Latents, Pcm
from . import strategies
from .subject import Subject


@dataclass(frozen=True)
class Encoded:
    """A recording with its latents and the audio that they decode to."""

    pcm: Pcm
    latents: Latents
    audio: Pcm

    @classmethod
    def of(cls, codec: DynCodecProvider, pcm: Pcm) -> Encoded:
        latents = codec.encode_latents(pcm, codec.sample_rate)
        return cls(pcm, latents, codec.decode_latents(latents, pcm.shape[1]))


class WithLatents:
    """Contracts of codecs with latents, whether they have tokens or not."""

    @pytest.fixture(scope="session")
    @staticmethod
    def encoded(subject: Subject, codec: DynCodecProvider) -> Encoded:
        """Return a recording with its latents and decoded audio."""
        try:
            return Encoded.of(codec, subject.recording())
        except NotYetImplemented:
            if codec.spec.is_continuous:
                raise
            pytest.skip("not claimed: it gives no latents")

    def test_the_shapes_of_latents(self, codec: DynCodecProvider, subject: Subject, encoded: Encoded) -> None:
        """Latents: finite float32, a column for each frame, which decode to audio of the same length."""
        channels = codec.spec.latent_channels
        block = codec.spec.block_frames * codec.spec.hop_length
        for item in (encoded, *(Encoded.of(codec, pcm) for pcm in subject.recordings())):
            streams, samples = item.pcm.shape[0] // codec.channels, item.pcm.shape[1]
            assert item.latents.dtype == item.audio.dtype == np.float32
            assert channels is None or item.latents.shape[0] == streams * channels
            if codec.spec.padded:
                samples += codec.spec.missing_samples(samples)
            assert 0 <= item.latents.shape[1] * codec.spec.hop_length - samples < block
            assert np.isfinite(item.latents).all()
            assert np.isfinite(item.audio).all()
            assert item.audio.shape == item.pcm.shape
            whole = codec.decode_latents(item.latents)
            assert whole.shape[1] >= item.pcm.shape[1]
            assert np.array_equal(whole[:, : item.pcm.shape[1]], item.audio)

    def test_latents_and_the_number_of_threads(self, codec: DynCodecProvider, encoded: Encoded) -> None:
        """Latents: equal to the bit for any number of threads."""
        torch = pytest.importorskip("torch", reason="not claimed: PyTorch is not installed")
        before = torch.get_num_threads()
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                again = Encoded.of(codec, encoded.pcm)
                assert np.array_equal(again.latents, encoded.latents)
                assert np.array_equal(again.audio, encoded.audio)
        finally:
            torch.set_num_threads(before)

    def test_latents_of_streams(self, codec: DynCodecProvider, subject: Subject, encoded: Encoded) -> None:
        """Latents: each channel of a recording gives the latents of that channel alone, except for rounding."""
        if codec.channels > 1:
            pytest.skip("not claimed: it encodes its channels jointly")
        both = Encoded.of(codec, subject.recording(0.5, channels=2))
        rows = both.latents.shape[0] // 2
        for number, channel in enumerate(both.pcm):
            alone = Encoded.of(codec, channel[None])
            part = both.latents[number * rows : (number + 1) * rows]
            assert np.abs(part - alone.latents).max() < subject.rounding * max(1, np.abs(part).max())
            assert np.abs(both.audio[number] - alone.audio[0]).max() < subject.rounding

    def test_latents_of_another_process_life(self, codec: DynCodecProvider, encoded: Encoded) -> None:
        """Latents: reloading gives the same, and so do the async twins."""
        codec.unload()

        async def work() -> tuple[Latents, Pcm]:
            latents = await codec.aencode_latents(encoded.pcm, codec.sample_rate)
            return latents, await codec.adecode_latents(latents, encoded.pcm.shape[1])

        latents, audio = asyncio.run(work())
        assert codec.is_loaded
        assert np.array_equal(latents, encoded.latents)
        assert np.array_equal(audio, encoded.audio)

    def test_latents_of_halves(self, codec: DynCodecProvider, subject: Subject, encoded: Encoded) -> None:
        """Latents: a half loaded with `parts` gives the same, and refuses what the other half does."""
        encoder, decoder = subject.load(parts="encoder"), subject.load(parts="decoder")
        assert np.array_equal(encoder.encode_latents(encoded.pcm, codec.sample_rate), encoded.latents)
        assert np.array_equal(decoder.decode_latents(encoded.latents, encoded.pcm.shape[1]), encoded.audio)
        with suppress(InvalidInput):  # a backend may load both halves
            assert np.array_equal(decoder.encode_latents(encoded.pcm, codec.sample_rate), encoded.latents)
        with suppress(InvalidInput):
            assert np.array_equal(encoder.decode_latents(encoded.latents, encoded.pcm.shape[1]), encoded.audio)
        encoder.unload()
        decoder.unload()

    def test_invalid_audio_for_latents(self, codec: DynCodecProvider, subject: Subject, encoded: Encoded) -> None:
        """Refuses: invalid audio, in place of latents of it."""
        some, rate = subject.recording(0.05), codec.sample_rate
        wrong: list[Any] = [
            some[:, :0],
            some * np.nan,
            np.full_like(some, np.inf),
            some[None],
            some > 0,
            (some * 9).astype(np.int16),
        ]
        for pcm in [*wrong, None, "audio", np.zeros((MAX_CHANNELS + 1, 100), np.float32)]:
            with pytest.raises(InvalidInput):
                codec.encode_latents(pcm, rate)
        for other in (rate // 2, 0, str(rate), True):
            with pytest.raises(InvalidInput):
                codec.encode_latents(some, other)  # type: ignore[arg-type]

    def test_invalid_latents(self, codec: DynCodecProvider, encoded: Encoded) -> None:
        """Refuses: latents of other shapes and types, with NaN, and more samples than there are."""
        latents = encoded.latents
        wrong: list[Any] = [latents[:, :0], latents * np.nan, latents[None], latents[0], latents.astype(np.int32)]
        wrong += [latents.astype(complex), latents > 0, None, "latents", [[0.1], [0.2, 0.3]]]
        if latents.shape[0] > 1:
            wrong.append(latents[:-1])
        if codec.spec.block_frames > 1:
            wrong.append(latents[:, :-1])
        for value in wrong:
            with pytest.raises(InvalidInput):
                codec.decode_latents(value)
        most = codec.decode_latents(latents).shape[1]
        for count in (0, -1, most + 1, 1.5, "1", True):
            with pytest.raises(InvalidInput):
                codec.decode_latents(latents, count)  # type: ignore[arg-type]
        assert np.array_equal(codec.decode_latents(latents, encoded.pcm.shape[1]), encoded.audio)

    def test_anything_as_latents(self, codec: DynCodecProvider, encoded: Encoded) -> None:
        """Refuses: anything else in place of audio or latents, always with a CodecError."""

        @strategies.tries(30)
        @given(value=strategies.pcm(codec.spec), rate=strategies.sample_rates(codec.spec))
        def tried(value: Any, rate: Any) -> None:
            with suppress(CodecError):
                assert np.isfinite(codec.encode_latents(value, rate)).all()
            with suppress(CodecError):
                assert codec.decode_latents(value).dtype == np.float32

        tried()
        assert np.array_equal(codec.encode_latents(encoded.pcm, codec.sample_rate), encoded.latents)


class WithoutTokens:
    """Contracts of continuous codecs: everything about tokens is refused in words."""

    def test_there_are_no_tokens(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Declared: it has no tokens, and refuses to encode and decode them with a reason."""
        spec, pcm = codec.spec, subject.recording(0.05)
        assert (spec.num_codebooks, spec.usable_codebooks, spec.bandwidths, spec.bandwidth) == (0, (), (), 0)
        for refused in (
            lambda: codec.encode(pcm, codec.sample_rate),
            lambda: codec.encode_batch([pcm], codec.sample_rate),
            lambda: codec.encode_pcm(pcm[0], codec.sample_rate),
            lambda: codec.decode(None),  # type: ignore[call-overload]
            lambda: codec.decode_batch([None]),  # type: ignore[list-item]
            lambda: codec.decode_tokens(np.zeros(4, np.uint32), 1),
            codec.encoder_session,
            codec.decoder_session,
        ):
            with pytest.raises(NotYetImplemented, match="use encode_latents"):
                refused()
