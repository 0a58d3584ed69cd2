"""Contracts on inputs: invalid input is refused with a message, and has no side effects."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..errors import CodecError, InvalidInput, InvalidTokens, ManyChannelsNotice
from ..provider import DynCodecProvider
from ..tokens.tokens import CodecTokens
from ..validation import MAX_AMPLITUDE, MAX_CHANNELS
from . import strategies
from .exactness import needs_streams
from .subject import Subject, Whole


def check_refused(codec: DynCodecProvider, pcm: Any, sample_rate: Any = None) -> None:
    """Assert that every entry point refuses the audio."""
    rate = codec.sample_rate if sample_rate is None else sample_rate
    with pytest.raises(InvalidInput) as caught:
        codec.encode(pcm, rate)
    assert str(caught.value)
    with pytest.raises(InvalidInput):
        codec.encode_batch([pcm], rate)


class Refusals:
    examples: ClassVar[int] = 60
    """Number of hypothesis examples per test."""

    @pytest.fixture
    def some(self, subject: Subject) -> Any:
        """Return short audio, float32 `(channels, samples)`."""
        return subject.recording(0.05)

    def test_empty_audio(self, codec: DynCodecProvider) -> None:
        """Refuses: empty audio."""
        for shape in ((0,), (codec.channels, 0), (0, 5)):
            check_refused(codec, np.zeros(shape, np.float32))

    def test_samples_that_are_no_numbers(self, codec: DynCodecProvider, some: Any) -> None:
        """Refuses: NaN and infinite samples, at any position."""
        for value in (np.nan, np.inf, -np.inf):
            for position in (0, some.shape[1] // 2, -1):
                wrong = some.copy()
                wrong[-1, position] = value
                check_refused(codec, wrong)

    def test_huge_samples(self, codec: DynCodecProvider, some: Any) -> None:
        """Refuses: huge values, such as unscaled integers."""
        for wrong in (some * 0 + 2 * MAX_AMPLITUDE, some.astype(np.float64) * 0 - 1e300):
            check_refused(codec, wrong)

    def test_another_rate(self, codec: DynCodecProvider, some: Any) -> None:
        """Refuses: other sample rates; audio is never resampled silently."""
        rate = codec.sample_rate
        for wrong in (rate // 2, rate + 1, 0, -rate, rate + 0.5, str(rate), True):
            check_refused(codec, some, wrong)

    def test_other_shapes(self, codec: DynCodecProvider, some: Any) -> None:
        """Refuses: audio of other shapes, and too many channels."""
        shapes: list[Any] = [some[None], np.float32(0.5), some.T, np.zeros((MAX_CHANNELS + 1, 100), np.float32)]
        for wrong in [*shapes, [[0.1], [0.1, 0.2]]]:
            check_refused(codec, wrong)

    def test_other_types(self, codec: DynCodecProvider, some: Any) -> None:
        """Refuses: integers, complex numbers, text, and objects other than arrays."""
        types: list[Any] = [(some * 32767).astype(np.int16), some.astype(complex), some.astype(str), some > 0]
        for wrong in [*types, None, "audio", {}]:
            check_refused(codec, wrong)

    def test_other_bandwidths(self, codec: DynCodecProvider, some: Any) -> None:
        """Refuses: unsupported bandwidths and numbers of codebooks."""
        numbers, bandwidths = (0, -1, codec.num_codebooks + 1, 1.5), (0, -1.0, 1e6, "6", float("nan"))
        choices: list[Any] = [*({"num_codebooks": n} for n in numbers), *({"bandwidth": kbps} for kbps in bandwidths)]
        for options in choices:
            with pytest.raises(InvalidInput):
                codec.encode(some, codec.sample_rate, **options)

    def test_tokens_of_another_model(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: tokens of another model, and objects other than tokens."""
        changes: list[dict[str, Any]] = [
            {"codec": "another:model"},
            {"sample_rate": codec.sample_rate + 1},
            {"codebook_size": codec.spec.codebook_size + 1},
            {"channels": whole.tokens.channels + whole.tokens.streams},
            {"extra": {"of_another_codec": 1}},
        ]
        wrong: list[Any] = [dataclasses.replace(whole.tokens, **change) for change in changes]
        for tokens in [*wrong, None, whole.pcm, list(whole.tokens.codes)]:
            with pytest.raises(InvalidTokens):
                codec.decode(tokens)
            with pytest.raises(InvalidTokens):
                codec.decode_batch([tokens])

    def test_tokens_out_of_range(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: tokens outside the codebook."""
        for value in (-1, codec.spec.codebook_size, 2**31, -(2**40)):
            codes = [code.astype(np.int64) for code in whole.tokens.codes]
            codes[-1][0, -1] = value
            with pytest.raises(InvalidTokens):
                codec.decode(CodecTokens.from_codes(codec.spec, codes))

    def test_misaligned_tokens(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: codebooks of inconsistent lengths, and incomplete blocks."""
        first, *others = whole.tokens.codes
        with pytest.raises(InvalidTokens):
            codec.decode(CodecTokens.from_codes(codec.spec, [first[:, :0], *(code[:, :-1] for code in others)]))
        if codec.channels == 1:
            flat = whole.tokens.flat()
            wrong = [flat[:0], flat[None], flat.astype(np.float32), [-1] * flat.size, [codec.spec.codebook_size] * flat.size]
            if sum(whole.tokens.frames // stride for stride in whole.tokens.strides) != whole.tokens.frames:
                wrong.append(flat[:-1])
            for tokens in wrong:
                with pytest.raises(InvalidTokens):
                    codec.decode_tokens(tokens, whole.tokens.num_codebooks)

    def test_another_number_of_codebooks(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: tokens with an unsupported number of codebooks."""
        most = codec.num_codebooks
        for books in (0, most + 1, -1, True, "2", None, 1.5):
            if codec.channels == 1:
                with pytest.raises(InvalidTokens):
                    codec.decode_tokens(whole.tokens.flat(), books)  # type: ignore[arg-type]
        code = np.zeros((1, whole.tokens.frames), np.int64)
        with pytest.raises(InvalidTokens):
            codec.decode(CodecTokens.from_codes(codec.spec, [code] * (most + 1)))

    def test_sessions(self, codec: DynCodecProvider, subject: Subject, some: Any) -> None:
        """Refuses: invalid input to an encoder session, which continues afterwards."""
        needs_streams(codec, "encode")
        with pytest.raises(InvalidInput):
            codec.encoder_session().finish()
        with pytest.raises(InvalidInput):
            codec.encoder_session(MAX_CHANNELS + 1)
        for tile in (0, -codec.spec.block_frames, codec.spec.block_frames + 1):
            if codec.spec.block_frames > 1 or tile < 1:
                with pytest.raises(InvalidInput):
                    codec.encoder_session(tile_frames=tile)
        session = codec.encoder_session()
        for wrong in (some * np.nan, np.zeros((codec.channels + 1, 5), np.float32), some.astype(np.int32), None):
            with pytest.raises(InvalidInput):
                session.push(wrong)
        parts = [session.push(some), session.push(some[:, :0]), session.finish()]
        assert CodecTokens.concat(parts) == codec.encode(some, codec.sample_rate)
        for call in (session.finish, lambda: session.push(some)):
            with pytest.raises(InvalidInput):
                call()

    def test_players(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: invalid input to a decoder session."""
        needs_streams(codec, "decode")
        with pytest.raises(InvalidTokens):
            codec.decoder_session().finish()
        player = codec.decoder_session()
        for wrong in (None, whole.pcm, dataclasses.replace(whole.tokens, codec="another:model")):
            with pytest.raises(InvalidTokens):
                player.push(wrong)  # type: ignore[arg-type]
        heard = [player.push(whole.tokens)]
        if not whole.tokens.continues:
            with pytest.raises(InvalidTokens):
                player.push(whole.tokens)
        assert np.array_equal(np.concatenate([*heard, player.finish()], axis=1), whole.audio)
        for call in (player.finish, lambda: player.push(whole.tokens)):
            with pytest.raises((InvalidInput, InvalidTokens)):
                call()

    def test_anything_as_audio(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: any invalid audio, always with a CodecError."""

        @strategies.tries(self.examples)
        @given(pcm=strategies.pcm(codec.spec), rate=strategies.sample_rates(codec.spec))
        def tried(pcm: Any, rate: Any) -> None:
            try:
                tokens = codec.encode(pcm, rate)
            except CodecError:
                return
            assert codec.decode(tokens).shape == np.atleast_2d(np.asarray(pcm)).shape

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ManyChannelsNotice)
            tried()
        assert codec.encode(whole.pcm, codec.sample_rate) == whole.tokens, "the codec changed after invalid input"

    def test_anything_as_tokens(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Refuses: any invalid tokens, always with a CodecError."""

        @strategies.tries(self.examples)
        @given(
            tokens=st.one_of(strategies.tokens(codec.spec), strategies.junk),
            flat=strategies.flat(codec.spec),
            books=st.integers(-1, codec.num_codebooks + 1),
        )
        def tried(tokens: Any, flat: Any, books: int) -> None:
            for decode in (partial(codec.decode, tokens), partial(codec.decode_tokens, flat, books)):
                with contextlib.suppress(CodecError):
                    assert np.isfinite(decode()).all()

        tried()
        assert np.array_equal(codec.decode(whole.tokens), whole.audio), "the codec changed after invalid input"
