"""Streams over WebSockets: what they give, in any chunks, and what goes wrong on them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.protocol import LARGEST_MESSAGE, TokenGroups, pcm_from_bytes, pcm_to_bytes
from tests.helpers.live_server import PATIENCE, Served, serving_api

CODECS = ("snac_tiny", "mimi_tiny", "encodec_tiny")
FEW = settings(max_examples=8)


@pytest.fixture(scope="module")
def served():
    with serving_api(CODECS) as server:
        yield server


@pytest.fixture(scope="module")
def spoken():
    """Codecs, with their tokens of a second of audio, and what a session of the same tile makes of these."""
    made = {}
    for name in CODECS:
        codec = bc.load(name, device="cpu")
        pcm = voice(1.0, codec.sample_rate)[None]
        session = codec.encoder_session(1, latency="lowest")
        tokens = bc.CodecTokens.concat([session.push(pcm), session.finish()])
        made[name] = codec, pcm, tokens, codec.decoder_session(latency="lowest").push_last(tokens)
    return made


class Heard:
    """All that a stream was told until its end."""

    def __init__(self) -> None:
        self.said: list[dict] = []
        self.data: list[bytes] = []

    def of(self, kind: str) -> dict:
        return next(message for message in self.said if message["type"] == kind)

    @property
    def last(self) -> dict:
        return self.said[-1]


@contextlib.contextmanager
def opened(served: Served, codec: str = "snac_tiny", direction: str = "decode", **options):
    with connect(f"ws://{served.where}/v1/stream", max_size=None, compression=None) as socket:
        socket.send(json.dumps({"type": "open", "codec": codec, "direction": direction, **options}))
        yield socket


def hear(socket: ClientConnection, until: str | None = None) -> Heard:
    """What comes until the server closes, or until a message of a kind."""
    heard = Heard()
    try:
        while True:
            message = socket.recv(PATIENCE)
            if isinstance(message, bytes):
                heard.data.append(message)
                continue
            heard.said.append(json.loads(message))
            if heard.last["type"] == until:
                return heard
    except ConnectionClosed:
        return heard


def streamed(served: Served, messages, **options) -> Heard:
    with opened(served, **options) as socket:
        first = hear(socket, "ready")
        if first.last["type"] == "ready":
            with contextlib.suppress(ConnectionClosed):
                for message in messages:
                    socket.send(message if isinstance(message, bytes) else json.dumps(message))
        rest = hear(socket)
        rest.said = first.said + rest.said
        return rest


def pieces(data: bytes, unit: int, cuts: list[int]) -> list[bytes]:
    """Bytes cut into messages of whole units, some empty."""
    bounds = [0, *sorted(cut % (len(data) // unit + 1) * unit for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]


END = {"type": "end"}
CUTS = st.lists(st.integers(0, 1 << 30), max_size=12)


class TestWhatStreamsGive:
    @pytest.mark.parametrize("name", CODECS)
    def test_tokens_in_any_chunks_give_the_audio_of_a_session_to_the_bit(self, served, spoken, name):
        codec, _, tokens, audio = spoken[name]
        groups = TokenGroups(codec.spec, tokens.num_codebooks)
        data = groups.pack(tokens)

        @FEW
        @given(cuts=CUTS)
        def check(cuts):
            unit = len(data) * groups.frames // tokens.frames
            heard = streamed(served, [*pieces(data, unit, cuts), END], codec=name)
            assert heard.last["type"] == "ended", heard.last
            got = pcm_from_bytes(b"".join(heard.data), "float32", 1)
            np.testing.assert_array_equal(got[:, : audio.shape[1]], audio)
            assert heard.last["samples"] == got.shape[1] == tokens.frames * tokens.hop_length
            assert heard.last["taken"] == tokens.frames

        check()

    @pytest.mark.parametrize("name", CODECS)
    def test_audio_in_any_chunks_gives_the_tokens_of_a_session(self, served, spoken, name):
        codec, pcm, tokens, _ = spoken[name]
        groups = TokenGroups(codec.spec, tokens.num_codebooks)

        @FEW
        @given(cuts=CUTS)
        def check(cuts):
            sent = pieces(pcm_to_bytes(pcm, "float32"), 4, cuts)
            heard = streamed(served, [*sent, END], codec=name, direction="encode")
            assert heard.last["type"] == "ended", heard.last
            assert b"".join(heard.data) == groups.pack(tokens)
            assert heard.last == {
                "type": "ended",
                "taken": pcm.shape[1],
                "samples": pcm.shape[1],
                "frames": tokens.frames,
                "lost": 0,
            }

        check()

    def test_containers_carry_the_length_of_the_audio(self, served, spoken):
        _, pcm, tokens, audio = spoken["mimi_tiny"]
        heard = streamed(served, [tokens.to_bytes(), END], codec="mimi_tiny", tokens="container")
        np.testing.assert_array_equal(pcm_from_bytes(b"".join(heard.data), "float32", 1), audio)
        back = streamed(served, [pcm_to_bytes(pcm, "float32"), END], codec="mimi_tiny", direction="encode", tokens="container")
        assert bc.CodecTokens.concat([bc.CodecTokens.from_bytes(part) for part in back.data]) == tokens

    def test_pcm16_is_the_audio_rounded(self, served, spoken):
        codec, _, tokens, audio = spoken["snac_tiny"]
        data = TokenGroups(codec.spec, 4).pack(tokens)
        heard = streamed(served, [data, END], sample_format="pcm16")
        got = np.frombuffer(b"".join(heard.data), "<i2")
        np.testing.assert_array_equal(got, np.clip(np.rint(audio[0] * 32768), -32768, 32767))

    def test_a_tile_for_throughput_gives_its_own_audio(self, served, spoken):
        codec, _, tokens, _ = spoken["snac_tiny"]
        heard = streamed(served, [TokenGroups(codec.spec, 4).pack(tokens), END], latency="throughput")
        wanted = codec.decoder_session(latency="throughput").push_last(tokens)
        np.testing.assert_array_equal(pcm_from_bytes(b"".join(heard.data), "float32", 1), wanted)
        assert heard.of("ready")["tile_frames"] == codec.spec.tile_frames

    def test_fewer_codebooks_are_the_first_ones(self, served, spoken):
        codec, pcm, _, _ = spoken["mimi_tiny"]
        count = codec.spec.usable_codebooks[0]
        heard = streamed(served, [pcm_to_bytes(pcm, "float32"), END], codec="mimi_tiny", direction="encode", num_codebooks=count)
        codes = np.frombuffer(b"".join(heard.data), "<i4").reshape(-1, count)
        np.testing.assert_array_equal(codes[:, 0], spoken["mimi_tiny"][2].codes[0][0])

    @pytest.mark.parametrize("form", ["binary", "ids", "text"])
    def test_ids_of_a_layout_stand_for_tokens(self, served, spoken, form):
        """Orpheus's, which has the codebooks of SNAC at 24 kHz; it is not loaded, so a layout of as many is taken."""
        codec, _, tokens, audio = spoken["encodec_tiny"]
        layout = bc.Registry().layout("flat") if form == "text" else None
        name = layout_for(codec)
        ids = bc.Registry().layout(name).pack(tokens)
        if form == "binary":
            messages = pieces(ids.astype("<i4").tobytes(), 4, [3, 77, 78])
        elif form == "ids":
            messages = [{"type": "ids", "ids": ids[start : start + 7].tolist()} for start in range(0, len(ids), 7)]
        else:
            pytest.skip(f"{layout} has no text")
        heard = streamed(served, [*messages, END], codec="encodec_tiny", layout=name)
        np.testing.assert_array_equal(pcm_from_bytes(b"".join(heard.data), "float32", 1)[:, : audio.shape[1]], audio)
