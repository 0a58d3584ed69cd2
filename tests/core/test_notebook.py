"""What notebooks show of tokens."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.tokens import notebook


def tokens_of(frames: int, codec: str = "toy:toy") -> bc.CodecTokens:
    """Tokens of two streams and two codebooks that count up to 7."""
    codes = tuple(np.tile(np.arange(frames // stride) % 8, (2, 1)) for stride in (2, 1))
    return bc.CodecTokens(codec, codes, (2, 1), 8, 8000, 10, frames * 10, channels=2)


def decoded(html: str, kind: str) -> bytes:
    return base64.b64decode(re.search(rf'src="data:{kind};base64,([^"]*)"', html)[1])


@pytest.mark.parametrize("frames", [2, 12, 5000])
def test_a_picture_has_a_row_a_codebook_and_a_column_a_frame(frames):
    image = pytest.importorskip("PIL.Image")
    tokens = tokens_of(frames)
    picture = image.open(io.BytesIO(decoded(tokens._repr_html_(), "image/png")))
    assert picture.size == (min(frames, notebook.WIDEST), 4)
    shown = np.asarray(picture)
    np.testing.assert_array_equal(shown, notebook.image(tokens))
    if frames == 12:
        assert np.rint(shown[0] / 255 * 7).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        assert np.rint(shown[3] / 255 * 7).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


def test_names_are_no_markup_and_no_frames_no_picture():
    assert "<b>" not in tokens_of(2, "<b>:<b>")._repr_html_()
    assert tokens_of(0)._repr_html_() == "&lt;CodecTokens toy:toy, 0.00 s, 0.00 kbps, 2 streams, 2 codebooks of 0 tokens&gt;"


def test_a_player_holds_the_decoded_audio(codecs):
    codec = codecs("snac_tiny")
    tokens = codec.encode(voice(0.2, 24_000), 24_000)
    player = tokens.play(codec)
    assert repr(player) == "<Player of 0.20 s, 1 channel, 24000 Hz>"
    heard, rate = soundfile.read(io.BytesIO(decoded(player._repr_html_(), "audio/wav")), dtype="float32")
    assert rate == 24_000
    np.testing.assert_allclose(heard, codec.decode(tokens)[0].clip(-1, 1), atol=1e-4)
