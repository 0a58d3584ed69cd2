"""Streams over WebSockets: what they give, in any chunks, and what goes wrong on them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from itertools import pairwise

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
    return [data[start:end] for start, end in pairwise(bounds)]


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

    def test_audio_of_another_rate_is_resampled_alike_in_any_chunks(self, served, spoken):
        codec, _, _, _ = spoken["snac_tiny"]
        pcm = voice(0.7, 44_100)[None]
        session = codec.encoder_session(1, latency="lowest")
        tokens = bc.CodecTokens.concat([session.push(bc.resample(pcm, 44_100, 24_000)), session.finish()])

        @FEW
        @given(cuts=CUTS)
        def check(cuts):
            sent = pieces(pcm_to_bytes(pcm, "float32"), 4, cuts)
            heard = streamed(served, [*sent, END], direction="encode", sample_rate=44_100)
            assert b"".join(heard.data) == TokenGroups(codec.spec, 4).pack(tokens)
            assert (heard.last["taken"], heard.last["samples"]) == (pcm.shape[1], tokens.num_samples)

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

    @pytest.mark.parametrize("form", ["binary", "ids"])
    def test_ids_of_a_layout_stand_for_tokens(self, served, spoken, form):
        _, _, tokens, audio = spoken["snac_tiny"]
        ids = bc.Registry().layout("snac_interleaved").pack(tokens)
        if form == "binary":
            messages = pieces(ids.astype("<i4").tobytes(), 4, [3, 77, 78])
        else:
            messages = [{"type": "ids", "ids": ids[start : start + 5].tolist()} for start in range(0, len(ids), 5)]
        heard = streamed(served, [*messages, END], layout="snac_interleaved")
        np.testing.assert_array_equal(pcm_from_bytes(b"".join(heard.data), "float32", 1)[:, : audio.shape[1]], audio)

    def test_audio_gives_ids_of_a_layout(self, served, spoken):
        _, pcm, tokens, _ = spoken["snac_tiny"]
        heard = streamed(served, [pcm_to_bytes(pcm, "float32"), END], direction="encode", layout="snac_interleaved")
        np.testing.assert_array_equal(
            np.frombuffer(b"".join(heard.data), "<i4"), bc.Registry().layout("snac_interleaved").pack(tokens)
        )

    def test_text_of_a_language_model_gives_audio_and_its_end_ends_the_stream(self):
        codec = bc.load("snac_24khz", device="cpu", weights="random:0")
        frames = np.random.default_rng(0).integers(0, 4096, 28)
        tokens = bc.CodecTokens.from_codes(codec.spec, [frames[:4], frames[4:12], frames[12:]])
        layout = bc.Registry().layout("orpheus")
        vocabulary = layout.vocabulary(codec.spec)
        text = "".join(vocabulary.text.format(id) for id in layout.pack(tokens))
        with serving_api(("snac_24khz",), weights="random:0") as served:
            messages = [{"type": "text", "text": text[start : start + 50]} for start in range(0, len(text), 50)]
            end = [{"type": "ids", "ids": [vocabulary.markers.end]}, {"type": "text", "text": "<custom_token_9>"}, END]
            heard = streamed(served, [*messages, *end], codec="snac_24khz", layout="orpheus")
            assert heard.last["type"] == "ended", heard.last
            wanted = codec.decoder_session(latency="lowest").push_last(tokens)
            np.testing.assert_array_equal(pcm_from_bytes(b"".join(heard.data), "float32", 1), wanted)

    def test_wrong_ids_are_dropped_and_counted_if_asked(self, served, spoken):
        _, _, tokens, _ = spoken["snac_tiny"]
        ids = bc.Registry().layout("snac_interleaved").pack(tokens).tolist()
        ids[30] = 1 << 24
        wrong = streamed(served, [{"type": "ids", "ids": ids}, END], layout="snac_interleaved")
        assert wrong.last["code"] == "invalid_tokens"
        dropped = streamed(served, [{"type": "ids", "ids": ids}, END], layout="snac_interleaved", layout_errors="drop")
        assert dropped.last["lost"] == 1
        assert dropped.last["samples"] == (tokens.frames - 4) * tokens.hop_length

    def test_acknowledgements_say_what_was_taken(self, served, spoken):
        codec, _, tokens, _ = spoken["snac_tiny"]
        data = TokenGroups(codec.spec, 4).pack(tokens)
        with opened(served) as socket:
            hear(socket, "ready")
            socket.send(data[: len(data) // 5])
            first = hear(socket, "ack").last
            assert first == {"type": "ack", "messages": 1, "taken": tokens.frames // 5}
            socket.send(data[len(data) // 5 :])
            assert hear(socket, "ack").last == {"type": "ack", "messages": 2, "taken": tokens.frames}

    def test_a_ping_is_answered(self, served):
        with opened(served) as socket:
            hear(socket, "ready")
            socket.send(json.dumps({"type": "ping", "id": "x"}))
            assert hear(socket, "pong").last == {"type": "pong", "id": "x"}


WRONG = {
    "unknown codec": ({"codec": "dac_44khz"}, [], "unknown_codec", "is not offered here"),
    "path": ({"codec": "/etc/passwd"}, [], "unknown_codec", "is not offered here"),
    "direction": ({"direction": "both"}, [], "protocol", "direction"),
    "extra field": ({"weights": "random:0"}, [], "protocol", "weights"),
    "tile": ({"tile_frames": 3}, [], "invalid_input", "tile_frames"),
    "long tile": ({"tile_frames": 1 << 30}, [], "invalid_input", "tile_frames"),
    "books": ({"num_codebooks": 3}, [], "invalid_input", "num_codebooks"),
    "two sizes": ({"num_codebooks": 4, "bandwidth": 2.75}, [], "invalid_input", "only one"),
    "layout": ({"layout": "nonsense"}, [], "unknown_codec", "nonsense"),
    "layout of others": ({"layout": "moshi"}, [], "invalid_input", "supports 4"),
    "rate": ({"direction": "encode", "sample_rate": 7}, [], "invalid_input", "sample rate"),
    "decoded rate": ({"sample_rate": 16_000}, [], "invalid_input", "not converted"),
    "channels": ({"direction": "encode", "channels": 2}, [], "invalid_input", "channels"),
    "part of a group": ({}, [b"123"], "invalid_tokens", "whole groups"),
    "code": ({}, [np.full(11, 1024, "<i4").tobytes()], "invalid_tokens", "0 … 1023"),
    "negative code": ({}, [np.full(11, -1, "<i4").tobytes()], "invalid_tokens", "0 … 1023"),
    "part of a sample": ({"direction": "encode"}, [b"123"], "invalid_input", "whole samples"),
    "nan": ({"direction": "encode"}, [np.full(99, np.nan, "<f4").tobytes()], "invalid_input", "NaN"),
    "nothing": ({}, [END], "invalid_tokens", ""),
    "nothing encoded": ({"direction": "encode"}, [END], "invalid_input", ""),
    "ids without a layout": ({}, [{"type": "ids", "ids": [1]}], "protocol", "needs a layout"),
    "unknown message": ({}, [{"type": "flush"}], "protocol", "flush"),
    "no container": ({"tokens": "container"}, [b"x" * 99], "corrupt_file", "container"),
}


class TestWhatIsRefused:
    @pytest.mark.parametrize(("options", "messages", "code", "says"), WRONG.values(), ids=WRONG)
    def test_errors_are_data_with_a_code(self, served, options, messages, code, says):
        heard = streamed(served, messages, **options)
        assert heard.last["type"] == "error", heard.last
        assert heard.last["code"] == code, heard.last
        assert says in heard.last["message"]
        assert served.streams() == 0

    @pytest.mark.parametrize("first", ["no json", "[]", "{}", b"\0", '{"type": "end"}', "[" * 9999])
    def test_a_first_message_that_opens_nothing(self, served, first):
        with connect(f"ws://{served.where}/v1/stream") as socket:
            socket.send(first)
            assert hear(socket).last["code"] == "protocol"

    def test_segments_are_sent_as_containers_alone(self):
        with serving_api(("encodec_48khz",), weights="random:0") as served:
            assert streamed(served, [], codec="encodec_48khz").last["code"] == "not_yet_implemented"

    def test_a_message_after_the_end(self, served, spoken):
        codec, _, tokens, _ = spoken["snac_tiny"]
        heard = streamed(served, [*[TokenGroups(codec.spec, 4).pack(tokens)] * 9, END, END])
        assert heard.last["type"] == "ended" or heard.last["code"] == "protocol"

    def test_failures_are_counted(self, served):
        streamed(served, [], codec="nonsense")
        assert 'blazen_codec_rejected_total{reason="unknown_codec"}' in served.service.metrics.exposition().decode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
)
FIELDS = st.sampled_from(["ids", "text", "id", "type", "codec", "x"])
NONSENSE = (
    st.binary(max_size=200)
    | st.builds(lambda ints: np.array(ints, "<i4").tobytes(), st.lists(st.integers(-9, 2000), max_size=44))
    | st.builds(
        lambda kind, more: json.dumps({**more, "type": kind}),
        st.sampled_from(["ids", "text", "ping", "end", "open", "flush"]),
        st.dictionaries(FIELDS, JSON, max_size=2),
    )
    | st.text(max_size=50)
)
OPTIONS = [
    {},
    {"direction": "encode"},
    {"tokens": "container"},
    {"layout": "snac_interleaved"},
    {"layout": "snac_interleaved", "layout_errors": "drop"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()) or "plain")
def test_nonsense_ends_in_an_end_or_an_error_that_is_the_clients(served, caplog, options):
    @settings(max_examples=15)
    @given(messages=st.lists(NONSENSE, max_size=5))
    def check(messages):
        with opened(served, **options) as socket:
            assert hear(socket, "ready").last["type"] == "ready"
            with contextlib.suppress(ConnectionClosed):
                for message in [*messages, json.dumps(END)]:
                    socket.send(message)
            last = hear(socket).last
            assert last["type"] == "ended" or last["code"] in {"protocol", "invalid_input", "invalid_tokens", "corrupt_file"}, (
                last
            )

    check()
    assert not [record for record in caplog.records if record.exc_info]
    assert served.streams() == 0


class TestClientsThatHarm:
    """A healthy stream goes on beside each of them."""

    @pytest.fixture
    def strict(self):
        with serving_api(("snac_tiny",), idle_seconds=0.5, stall_seconds=0.5, queue_seconds=0.5) as server:
            yield server

    @pytest.fixture
    def healthy(self, spoken):
        codec, _, tokens, audio = spoken["snac_tiny"]
        data = TokenGroups(codec.spec, 4).pack(tokens)

        def check(served):
            heard = streamed(served, [data, END])
            np.testing.assert_array_equal(pcm_from_bytes(b"".join(heard.data), "float32", 1), audio)

        return check

    def until_free(self, served):
        started = time.monotonic()
        while served.streams() or served.service.open_streams:
            assert time.monotonic() - started < 20
            time.sleep(0.02)

    def test_one_that_says_nothing(self, strict, healthy):
        with connect(f"ws://{strict.where}/v1/stream") as silent, opened(strict) as idle:
            healthy(strict)
            assert hear(silent).last["code"] == "stalled"
            assert hear(idle).last["code"] == "stalled"
        self.until_free(strict)

    def test_pings_keep_a_stream_open(self, strict):
        with opened(strict) as socket:
            hear(socket, "ready")
            for _ in range(8):
                time.sleep(0.15)
                socket.send(json.dumps({"type": "ping"}))
            assert [message["type"] for message in hear(socket, "pong").said] == ["pong"]

    def test_one_that_takes_nothing_is_held_and_then_ended(self, strict, healthy, spoken, monkeypatch):
        monkeypatch.setattr("blazen_codec_core.server.door.CLOSE_SECONDS", 0.2)
        codec, _, tokens, _ = spoken["snac_tiny"]
        data = TokenGroups(codec.spec, 4).pack(tokens)
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", int(strict.where.split(":")[1])))
        with connect(f"ws://{strict.where}/v1/stream", sock=narrow, max_queue=1, compression=None, close_timeout=0.1) as stalls:
            stalls.send(json.dumps({"type": "open", "codec": "snac_tiny", "direction": "decode"}))
            for _ in range(60):  # seconds of audio
                stalls.send(data)
            healthy(strict)
            self.until_free(strict)
            assert "stalled" in strict.service.metrics.exposition().decode()
            started = time.monotonic()
            while strict.server.server_state.connections:  # although the client's end is open
                assert time.monotonic() - started < 20
                time.sleep(0.02)

    def test_one_that_vanishes_frees_its_stream_at_once(self, strict, healthy, spoken):
        codec, _, tokens, _ = spoken["snac_tiny"]
        with opened(strict) as socket:
            hear(socket, "ready")
            socket.send(TokenGroups(codec.spec, 4).pack(tokens))
            assert strict.streams() == 1
            socket.socket.close()
            started = time.monotonic()
            self.until_free(strict)
            assert time.monotonic() - started < 0.4
        healthy(strict)

    def test_one_that_floods_with_large_messages(self, served, healthy):
        with opened(served) as socket:
            hear(socket, "ready")
            socket.send(b"0" * (LARGEST_MESSAGE + 4))
            with pytest.raises(ConnectionClosed):
                socket.recv(PATIENCE)
        healthy(served)


class TestPlaces:
    def test_a_server_has_so_many_streams(self):
        with serving_api(("snac_tiny",), streams=2) as served, opened(served) as one, opened(served) as two:
            assert [hear(socket, "ready").last["type"] for socket in (one, two)] == ["ready"] * 2
            assert streamed(served, []).last["code"] == "busy"

    def test_a_pool_without_streams_makes_room_for_another(self):
        with serving_api(("snac_tiny",), pools=1) as served:
            with opened(served) as one:
                assert hear(one, "ready").last["type"] == "ready"
                assert streamed(served, [], latency="throughput").last["code"] == "busy"
            TestClientsThatHarm().until_free(served)
            with opened(served, latency="throughput") as other:
                assert hear(other, "ready").last["type"] == "ready"
            assert len(list(served.service.pools.stats())) == 1

    def test_streams_of_equal_options_share_a_pool(self, served):
        with opened(served) as one, opened(served) as two:
            hear(one, "ready"), hear(two, "ready")
            assert max(stats.open for labels, stats in served.service.pools.stats() if labels == ("snac_tiny", "decode")) == 2

    def test_pages_of_other_origins_are_refused(self, served):
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{served.where}/v1/stream", origin="http://evil.example").__enter__()
