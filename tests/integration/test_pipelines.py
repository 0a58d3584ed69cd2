"""Codecs in several threads: the same results to the bit, errors, cancellation, forks and the host's settings."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.cancellation import cancel_scope
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.torch_backend import backend, guard, segments, side_by_side

TINY = ("snac_tiny", "encodec_tiny", "dac_tiny")
LARGE = ("encodec_24khz", "encodec_48khz", "snac_24khz", "dac_44khz")
THREADS = (1, 2, 3, 5)


@pytest.fixture
def with_threads(monkeypatch):
    """Sets the number of threads that calls use, however many cores there are."""

    def set_threads(count: int) -> None:
        for module in (backend, guard, segments):
            monkeypatch.setattr(module, "usable_threads", lambda: min(count, torch.get_num_threads() + 8 * (count > 1)))

    before = set(threading.enumerate())  # those of other tests may end meanwhile
    yield set_threads
    assert set(threading.enumerate()) <= before


def recording(codec: bc.DynCodecProvider, seconds: float) -> np.ndarray:
    return np.stack([voice(seconds, codec.sample_rate, seed) for seed in range(codec.channels)])


def in_pieces(codec: bc.DynCodecProvider, pcm: np.ndarray, seed: int) -> tuple[bc.CodecTokens, np.ndarray]:
    """Tokens and audio of sessions that are pushed pieces of random sizes."""
    draw = np.random.default_rng(seed)
    tile = codec.spec.tile_frames * codec.spec.hop_length
    coder, start, parts = codec.encoder_session(), 0, []
    while start < pcm.shape[1]:
        end = start + int(draw.integers(1, 6 * tile))
        parts.append(coder.push(pcm[:, start:end]))
        start = end
    tokens = bc.CodecTokens.concat([*parts, coder.finish()])
    player, block = codec.decoder_session(), codec.spec.block_frames
    size = codec.spec.tile_frames if codec.spec.segment else block * int(draw.integers(1, 6 * codec.spec.tile_frames // block))
    audio = [*(player.push(part) for part in tokens.parts(size)), player.finish()]
    return tokens, np.concatenate(audio, axis=1)


def check_exactness(name: str, seconds: float, with_threads) -> None:
    codec = bc.load(name, device="cpu", weights=None if name in TINY else "random:0")
    pcm = recording(codec, seconds)
    batch = [pcm[:, : pcm.shape[1] // part] for part in (1, 2, 4, 9)]
    with_threads(1)
    tokens = codec.encode(pcm, codec.sample_rate)
    audio = codec.decode(tokens)
    of_batch = [codec.encode(item, codec.sample_rate) for item in batch]
    heard = codec.decode_batch(of_batch)
    for number, threads in enumerate(THREADS):
        with_threads(threads)
        assert codec.encode(pcm, codec.sample_rate) == tokens
        assert np.array_equal(codec.decode(tokens), audio)
        same_tokens, same_audio = in_pieces(codec, pcm, number)
        assert same_tokens == tokens
        assert np.array_equal(same_audio, audio)
        assert codec.encode_batch(batch, codec.sample_rate) == of_batch
        assert all(map(np.array_equal, codec.decode_batch(of_batch), heard))


@pytest.mark.parametrize("name", TINY)
def test_results_do_not_depend_on_the_number_of_threads(name, with_threads):
    check_exactness(name, 4.3, with_threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_nor_do_those_of_large_models(name, with_threads):
    check_exactness(name, 3.7, with_threads)


@pytest.mark.parametrize("name", TINY)
def test_pytorchs_setting_does_not_change_the_audio(name):
    codec = bc.load(name, device="cpu")
    tokens, before = codec.encode(recording(codec, 2.0), codec.sample_rate), torch.get_num_threads()
    try:
        audio = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            audio.append(codec.decode(tokens))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(audio[0], audio[1])
    assert np.array_equal(audio[0], audio[2])


@pytest.mark.parametrize("name", TINY)
def test_steps_are_those_of_the_network(name):
    """Two tiles and an empty end, as sessions run them."""
    codec = bc.load(name, device="cpu")
    network, setup = codec.backend.loaded().network, codec.backend.setup(1)
    tile, hop = codec.spec.tile_frames, codec.spec.hop_length
    pcm = recording(codec, 5.0)[:, : 2 * tile * hop]
    with guard.network_guard(setup.device):
        state, decoding = network.encoder_state(setup), network.decoder_state(setup)
        signals = [*torch.from_numpy(pcm[:, :, None]).split(tile * hop, dim=1), torch.zeros(1, 0, 1)]
        codes = [network.encode_step(x, state, number == 2) for number, x in enumerate(signals)]
        joined = [torch.cat(parts, dim=1).numpy() for parts in zip(*codes, strict=True)]
        indices = [[torch.from_numpy(code[:, : tile // s]) for code, s in zip(joined, codec.spec.strides, strict=True)]] * 2
        indices.append([index[:, :0] for index in indices[0]])
        audio = [network.decode_step(part, decoding, number == 2) for number, part in enumerate(indices)]
    assert all(map(np.array_equal, codec.encode(pcm, codec.sample_rate).codes, joined))
    tokens = bc.CodecTokens.from_codes(codec.spec, [torch.cat(parts, 1).numpy() for parts in zip(*indices, strict=True)])
    assert np.array_equal(codec.decode(tokens)[0], torch.cat(audio, 1)[0, :, 0].numpy())


def test_sessions_of_two_callers(with_threads):
    codec = bc.load("snac_tiny", device="cpu")
    pcm = recording(codec, 4.0)
    tokens = codec.encode(pcm, codec.sample_rate)
    with_threads(3)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: codec.encode(pcm, codec.sample_rate), range(6))) == [tokens] * 6


def quantizer_calls(codec: bc.DynCodecProvider, monkeypatch, at: int, act) -> list[int]:
    """Let a stage run `act` at its call number `at`; return the numbers of its calls."""
    quantizer, calls = codec.backend.loaded().network.quantizer, []
    step = quantizer.step

    def counted(*arguments):
        calls.append(len(calls))
        if len(calls) == at:
            act()
        return step(*arguments)

    monkeypatch.setattr(quantizer, "step", counted)
    return calls


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_of_a_stage_ends_the_session(threads, with_threads, monkeypatch):
    codec = bc.load("snac_tiny", device="cpu")

    def fail():
        raise RuntimeError("out of luck")

    calls = quantizer_calls(codec, monkeypatch, 4, fail)
    with_threads(threads)
    session, pcm = codec.encoder_session(), recording(codec, 20.0)
    with pytest.raises(bc.CodecError, match="the network failed: out of luck"):
        session.push(pcm)
    assert len(calls) == 4
    with pytest.raises(bc.InvalidInput, match="the session has ended"):
        session.push(pcm)


@pytest.mark.parametrize("threads", THREADS)
def test_cancellation_stops_all_threads(threads, with_threads, monkeypatch):
    codec, given_up = bc.load("snac_tiny", device="cpu"), threading.Event()
    calls = quantizer_calls(codec, monkeypatch, 4, given_up.set)
    with_threads(threads)
    with cancel_scope(given_up), pytest.raises(bc.CodecError, match="cancelled"):
        codec.encode(recording(codec, 20.0), codec.sample_rate)
    assert len(calls) <= 4 + 2 * threads


def test_one_item_of_a_batch_fails(with_threads, monkeypatch):
    codec = bc.load("snac_tiny", device="cpu")

    def fail():
        raise RuntimeError("out of luck")

    quantizer_calls(codec, monkeypatch, 5, fail)
    with_threads(2)
    with pytest.raises(bc.CodecError, match="the network failed: out of luck"):
        codec.encode_batch([recording(codec, 2.0)] * 8, codec.sample_rate)


def test_no_recording_begins_after_one_has_failed(with_threads, monkeypatch):
    codec, begun = bc.load("encodec_tiny", device="cpu"), []
    state = side_by_side.EncodeSideBySide._new_state

    def new_state(coder, index):
        begun.append(index)
        return state(coder, index)

    def fail():
        raise RuntimeError("out of luck")

    with_threads(2)
    monkeypatch.setattr(side_by_side.EncodeSideBySide, "_new_state", new_state)
    quantizer_calls(codec, monkeypatch, 5, fail)
    with pytest.raises(bc.CodecError, match="the network failed: out of luck"):
        codec.encode_batch([recording(codec, 2.2)] * 60, codec.sample_rate)
    assert len(begun) < 40


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", TINY)
def test_an_interrupt_ends_the_session(name, threads, with_threads, monkeypatch):
    codec = bc.load(name, device="cpu")
    pcm = recording(codec, 20.0)
    tokens = codec.encode(pcm, codec.sample_rate)
    with_threads(threads)
    coder, player, network = codec.encoder_session(), codec.decoder_session(), codec.backend.loaded().network
    monkeypatch.setattr(network.quantizer, "step", lambda *_: interrupt())
    monkeypatch.setattr(network.decoder, "steps", lambda _: [lambda x, last: interrupt()])
    for session, piece in [(coder, pcm), (player, tokens)]:
        with pytest.raises(KeyboardInterrupt):
            session.push(piece)
        with pytest.raises(bc.InvalidInput, match="the session has ended"):
            session.push(piece)
        with pytest.raises(bc.InvalidInput, match="the session has ended"):
            session.finish()


@pytest.mark.parametrize("name", TINY)
def test_a_stream_that_cannot_be_opened_ends_the_session(name):
    codec, given_up = bc.load(name, device="cpu"), threading.Event()
    tokens, session = codec.encode(recording(codec, 1.0), codec.sample_rate), codec.decoder_session()
    given_up.set()
    with cancel_scope(given_up), pytest.raises(bc.CodecError, match="cancelled"):
        session.push(tokens)
    with pytest.raises(bc.InvalidInput, match="the session has ended"):
        session.push(tokens)


def test_a_failed_allocation_ends_the_session(monkeypatch):
    codec = bc.load("snac_tiny", device="cpu")
    session, pcm = codec.encoder_session(), recording(codec, 20.0)
    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            session.push(pcm)
    with pytest.raises(bc.InvalidInput, match="the session has ended"):
        session.finish()


FORKING = """
import os, sys, threading, time, warnings
import numpy as np, torch
warnings.simplefilter("ignore", DeprecationWarning)
import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.torch_backend import guard
guard.usable_threads = lambda: 3
codec = bc.load("dac_tiny", device="cpu")
pcm = voice(2.0, codec.sample_rate)
tokens = codec.encode(pcm, codec.sample_rate)
long, found = np.tile(pcm, 40), []
thread = threading.Thread(target=lambda: found.append(codec.encode(long, codec.sample_rate)))
thread.start()
for _ in range(3):
    time.sleep(0.2)
    assert thread.is_alive()
    if not (child := os.fork()):
        os._exit(0 if codec.encode(pcm, codec.sample_rate) == tokens else 3)
    assert thread.is_alive(), "the fork waited for the end"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
assert found == [codec.encode(long, codec.sample_rate)]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.slow
def test_a_fork_goes_before_the_next_tile():
    run = subprocess.run([sys.executable, "-c", FORKING], check=False, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
