"""Sessions: one call at a time, latency by name, closing, and asyncio."""

from __future__ import annotations

import asyncio
import threading
import weakref

import numpy as np
import pytest

import blazen_codec_core as bc
from tests.helpers.toy_codec import SPEC, ToyBackend

RATE = SPEC.sample_rate
PCM = (0.1 * np.random.default_rng(0).standard_normal((1, 4000))).astype(np.float32)


@pytest.fixture
def codec():
    backend = ToyBackend(SPEC, bc.LoadOptions(weights="random:1"))
    return bc.CodecBackendHandle("toy:toy_8khz", SPEC, backend.options, lambda: backend).into_dyn(lambda *_: None)


@pytest.fixture
def held(codec, monkeypatch):
    """Hold a push in the network until the test lets it go on: `(entered, go_on)`."""
    entered, go_on = threading.Event(), threading.Event()
    layer = codec.backend.loaded().network.encoder.layers[0]
    step = type(layer).step

    def waiting(self, x, state, last):
        entered.set()
        assert go_on.wait(60)
        return step(self, x, state, last)

    monkeypatch.setattr(type(layer), "step", waiting)
    return entered, go_on


def test_a_second_thread_is_refused_and_harms_nothing(codec, held):
    entered, go_on = held
    session = codec.encoder_session()
    results = []
    thread = threading.Thread(target=lambda: results.append(session.push(PCM)))
    thread.start()
    assert entered.wait(60)
    for call in (lambda: session.push(PCM), session.finish, lambda: session.push_last(PCM)):
        with pytest.raises(bc.InvalidInput, match="another call to this session is running"):
            call()
    go_on.set()
    thread.join()
    assert bc.CodecTokens.concat([*results, session.finish()]) == codec.encode(PCM, RATE)


def test_closing_beside_a_call_frees_the_state_when_it_is_done(codec, held):
    entered, go_on = held
    session = codec.encoder_session()
    thread = threading.Thread(target=lambda: session.push(PCM))
    thread.start()
    assert entered.wait(60)
    session.close()
    go_on.set()
    thread.join()
    assert session.ended
    with pytest.raises(bc.InvalidInput, match="has ended"):
        session.finish()


def test_cancelling_a_push_ends_the_session(codec, held):
    entered, go_on = held
    session = codec.encoder_session()

    async def cancelled():
        task = asyncio.create_task(session.apush(PCM))
        await asyncio.to_thread(entered.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    go_on_later = threading.Timer(0.1, go_on.set)
    go_on_later.start()
    asyncio.run(cancelled())  # which waits for its threads
    assert session.ended


@pytest.mark.parametrize("end", ["close", "finish"])
def test_an_ended_session_holds_no_state(codec, end, monkeypatch):
    states = []
    network = codec.backend.loaded().network
    begin = network.encoder_state
    monkeypatch.setattr(network, "encoder_state", lambda *a: states.append(state := begin(*a)) or state)
    session = codec.encoder_session()
    state = weakref.ref(states.pop())
    session.push(PCM[:, :100])
    getattr(session, end)()
    assert state() is None
    session.close()
    assert session.latency_samples > 0


def test_leaving_with_closes(codec):
    with codec.encoder_session() as session, codec.decoder_session() as player:
        tokens = session.push_last(PCM)
        heard = player.push(tokens)
    assert session.ended
    assert player.ended
    with pytest.raises(bc.InvalidInput, match="has ended"):
        player.finish()
    assert heard.shape[1] <= PCM.shape[1]


def test_pushing_in_asyncio(codec):
    async def there_and_back():
        session, player = await codec.aencoder_session(), await codec.adecoder_session(latency="lowest")
        tokens = [await session.apush(PCM[:, :1500]), await session.apush(PCM[:, 1500:]), await session.afinish()]
        return bc.CodecTokens.concat(tokens), [await player.apush(tokens[0]), await player.apush_last(tokens[1])]

    tokens, heard = asyncio.run(there_and_back())
    assert tokens == codec.encode(PCM, RATE)
    assert np.concatenate(heard, axis=1).shape[1] == sum(part.shape[1] for part in heard)


@pytest.mark.parametrize("latency", ["lowest", "throughput"])
def test_latency_by_name(codec, latency):
    tile = {"lowest": SPEC.block_frames, "throughput": SPEC.tile_frames}[latency]
    mine, other = codec.encoder_session(latency=latency), codec.encoder_session(tile_frames=tile)
    assert (mine.latency_samples, mine.first_samples) == (other.latency_samples, other.first_samples)
    mine, other = codec.decoder_session(latency=latency), codec.decoder_session(tile_frames=tile)
    assert (mine.latency_samples, mine.first_frames) == (other.latency_samples, other.first_frames)


@pytest.mark.parametrize("name", ["encoder_session", "decoder_session"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": "low"}, "latency is 'low'; expected 'lowest' or 'throughput'"),
        ({"latency": None}, "latency is None"),
        ({"tile_frames": 0}, "tile_frames is 0; toy_8khz takes a positive multiple of 2"),
        ({"tile_frames": True}, "tile_frames is True"),
        ({"tile_frames": 2**40}, "at most 600 s"),
    ],
)
def test_options_that_cannot_be_used(codec, name, options, message):
    with pytest.raises(bc.InvalidInput, match=message):
        getattr(codec, name)(**options)


def test_parts_without_frames_set_the_number_of_streams(codec):
    mono, stereo = (codec.encode(np.repeat(PCM, channels, axis=0), RATE) for channels in (1, 2))
    player = codec.decoder_session()
    player.push(mono[:0.0])
    with pytest.raises(bc.InvalidTokens, match="channels differs: 1 and 2"):
        player.push(stereo)
    assert np.array_equal(player.push_last(mono), codec.decode(mono))
