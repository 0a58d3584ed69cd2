"""Contracts on loading, unloading, and sharing a model between threads, tasks and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from ..errors import InvalidInput
from ..provider import DynCodecProvider
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .exactness import needs_streams
from .subject import Subject, Whole

THREADS = 16


def there_and_back(codec: DynCodecProvider, pcm: Pcm) -> tuple[CodecTokens, Pcm]:
    """Encode and decode audio; run in another process with a pickled provider."""
    tokens = codec.encode(pcm, codec.sample_rate)
    return tokens, codec.decode(tokens)


class Lifecycle:
    def test_constructing(self, subject: Subject) -> None:
        """Lifecycle: creating a codec loads nothing; loading and unloading can be repeated."""
        codec = subject.load()
        assert not codec.is_loaded
        assert not codec.backend.is_loaded  # constructed now
        codec.unload()
        assert not codec.is_loaded
        for _ in range(2):
            codec.load()
            assert codec.is_loaded
        for _ in range(2):
            codec.unload()
            assert not codec.is_loaded

    def test_threads_load_once(self, subject: Subject, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lifecycle: 16 threads that use it at once load it once and get the same results."""
        codec = subject.load()
        backend: Any = codec.backend
        builds: list[int] = []
        if build := getattr(backend, "build", None):  # other backends cannot be observed from outside

            def counted(*arguments: Any) -> Any:
                builds.append(1)
                return build(*arguments)

            monkeypatch.setattr(backend, "build", counted)
        barrier = threading.Barrier(THREADS)
        pcm = whole.pcm[:, : codec.sample_rate // 20]

        def work(_: int) -> CodecTokens:
            barrier.wait()
            return codec.encode(pcm, codec.sample_rate)

        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(work, range(THREADS)))
        assert all(result == results[0] for result in results)
        assert len(builds) <= 1

    def test_reloading(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Lifecycle: reloading gives the same results."""
        codec.unload()
        assert codec.encode(whole.pcm, codec.sample_rate) == whole.tokens
        assert codec.is_loaded
        assert np.array_equal(codec.decode(whole.tokens), whole.audio)

    def test_halves(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Lifecycle: a half loaded with `parts` gives the same results, and refuses what the other half does."""
        encoder, decoder = subject.load(parts="encoder"), subject.load(parts="decoder")
        assert encoder.encode(whole.pcm, codec.sample_rate) == whole.tokens
        assert np.array_equal(decoder.decode(whole.tokens), whole.audio)
        assert encoder.weights_label == decoder.weights_label == codec.weights_label
        with suppress(InvalidInput):  # a backend may load both halves
            assert np.array_equal(encoder.decode_batch([whole.tokens])[0], codec.decode_batch([whole.tokens])[0])
        with suppress(InvalidInput):
            assert decoder.encode_batch([whole.pcm], codec.sample_rate) == codec.encode_batch([whole.pcm], codec.sample_rate)
        for half in (encoder, decoder):
            half.unload()

    def test_unloading_while_busy(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Lifecycle: unloading does not affect running calls."""
        stop = threading.Event()

        def unload() -> None:
            while not stop.wait(0.02):
                codec.unload()

        unloader = threading.Thread(target=unload)
        unloader.start()
        try:
            with ThreadPoolExecutor(2) as pool:
                encoded = [pool.submit(codec.encode, whole.pcm, codec.sample_rate) for _ in range(3)]
                decoded = [pool.submit(codec.decode, whole.tokens) for _ in range(3)]
                assert all(future.result() == whole.tokens for future in encoded)
                assert all(np.array_equal(future.result(), whole.audio) for future in decoded)
        finally:
            stop.set()
            unloader.join()

    def test_a_session_outlives_unloading(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Lifecycle: an open session continues after unloading."""
        needs_streams(codec, "encode")
        session = codec.encoder_session(whole.pcm.shape[0])
        half = whole.pcm.shape[1] // 2
        first = session.push(whole.pcm[:, :half])
        codec.unload()
        assert CodecTokens.concat([first, session.push(whole.pcm[:, half:]), session.finish()]) == whole.tokens

    def test_closing_a_session(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Lifecycle: a closed session refuses more, and the next one begins anew."""
        needs_streams(codec, "encode")
        with codec.encoder_session(whole.pcm.shape[0]) as session:
            session.push(whole.pcm)
        assert session.ended
        with pytest.raises(InvalidInput):
            session.push(whole.pcm)
        assert codec.encoder_session(whole.pcm.shape[0]).push_last(whole.pcm) == whole.tokens

    def test_pickling(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Sharing: a pickle has the name and options, not the weights."""
        codec.load()
        packed = pickle.dumps(codec)
        assert len(packed) < 4096
        other = pickle.loads(packed)
        assert not other.is_loaded
        assert (other.name, other.options, other.spec) == (codec.name, codec.options, codec.spec)

    def test_another_process(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Sharing: another process gives the same results, which can be sent back."""
        pcm = subject.recording(0.3)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            tokens, audio = pool.apply_async(there_and_back, (codec, pcm)).get(timeout=300)
        assert tokens == codec.encode(pcm, codec.sample_rate)
        assert np.abs(audio - codec.decode(tokens)).max() <= subject.rounding

    def test_number_of_threads(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Sharing: tokens do not depend on how many threads PyTorch has, and audio by no more than rounding."""
        torch = pytest.importorskip("torch", reason="not claimed: PyTorch is not installed")
        before = torch.get_num_threads()
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                assert codec.encode(whole.pcm, codec.sample_rate) == whole.tokens
                difference = np.abs(codec.decode(whole.tokens) - whole.audio).max()
                assert difference <= subject.rounding * max(1, np.abs(whole.audio).max())
        finally:
            torch.set_num_threads(before)

    def test_async(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Sharing: the async twins give the same results and do not block the event loop."""
        pcm = subject.recording()
        wanted = codec.encode(pcm, codec.sample_rate)

        async def work() -> tuple[CodecTokens, Pcm, int]:
            await codec.aload()
            task = asyncio.create_task(codec.aencode(pcm, codec.sample_rate))
            turns = 0
            while not task.done():
                await asyncio.sleep(0)
                turns += 1
            tokens = await task
            return tokens, await codec.adecode(tokens), turns

        tokens, audio, turns = asyncio.run(work())
        assert tokens == wanted
        assert np.array_equal(audio, codec.decode(wanted))
        assert turns > 1

    def test_many_tasks(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Sharing: concurrent tasks, some of them cancelled, get the results of each alone."""
        items = [subject.recording(0.05 + 0.01 * number, number) for number in range(4)]
        wanted = [codec.encode(item, codec.sample_rate) for item in items]

        async def work() -> list[CodecTokens | BaseException]:
            tasks = [asyncio.create_task(codec.aencode(items[number % 4], codec.sample_rate)) for number in range(24)]
            await asyncio.sleep(0)
            for task in tasks[::3]:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        for number, result in enumerate(asyncio.run(work())):
            assert isinstance(result, asyncio.CancelledError) or result == wanted[number % 4]
            assert number % 3 == 0 or isinstance(result, CodecTokens)
