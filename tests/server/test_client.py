"""The client: what it gives, and what becomes of it when servers are lost, drain or are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core import transcode
from blazen_codec_core.client import Client, streams
from blazen_codec_core.conformance.signals import voice
from tests.helpers.live_server import PATIENCE, serving_api, wav

SECRET = "s" * 32


@pytest.fixture(scope="module")
def served():
    with serving_api(("snac_tiny", "mimi_tiny", "encodec_tiny")) as server:
        yield server


@pytest.fixture
def client(served):
    return Client(served.url)


@pytest.fixture(scope="module")
def codec():
    return bc.load("snac_tiny", device="cpu")


@pytest.fixture(scope="module")
def tokens(codec):
    return codec.encode(voice(4.0, 24_000), 24_000)


@pytest.fixture(scope="module")
def audio(codec, tokens):
    """What a session of the server's tile makes of the tokens."""
    return codec.decoder_session(latency="lowest").push_last(tokens)


def joined(parts) -> np.ndarray:
    return np.concatenate([np.zeros((1, 0), np.float32), *parts], axis=1)


class TestStreams:
    async def test_tokens_give_audio_as_they_do_here(self, client, tokens, audio):
        async with client.decoder("snac_tiny") as stream:

            async def feed():
                for part in tokens.parts(12):
                    await stream.apush(part)
                await stream.afinish()

            feeding = asyncio.create_task(feed())
            parts = [pcm async for pcm in stream]
            await feeding
        np.testing.assert_array_equal(joined(parts), audio)
        assert len(parts) > 10
        assert (stream.ready.sample_rate, stream.ready.codec, stream.reconnects) == (24_000, "snac:snac_tiny", 0)

    def test_so_without_an_event_loop(self, client, tokens, audio):
        with client.decoder("snac_tiny") as stream:
            stream.push(tokens)
            stream.finish()
            np.testing.assert_array_equal(joined(stream), audio)
            with pytest.raises(bc.InvalidInput, match="ended"):
                stream.push(tokens)
        with pytest.raises(bc.InvalidInput, match="closed"):
            list(stream)

    @pytest.mark.parametrize("name", ["snac_tiny", "mimi_tiny", "encodec_tiny"])
    async def test_audio_gives_tokens_as_it_does_here(self, client, name):
        codec = bc.load(name, device="cpu")
        pcm = voice(1.01, codec.sample_rate)
        session = codec.encoder_session(1, latency="lowest")
        wanted = bc.CodecTokens.concat([session.push(pcm), session.finish()])
        async with client.encoder(name) as stream:
            for part in np.array_split(pcm, 7):
                await stream.apush(part)
            await stream.afinish()
            assert bc.CodecTokens.concat([part async for part in stream]) == wanted

    async def test_ids_of_a_layout(self, client, tokens, audio):
        ids = bc.Registry().layout("snac_interleaved").pack(tokens)
        async with client.decoder("snac_tiny", layout="snac_interleaved") as stream:
            for part in np.array_split(ids, 9):
                await stream.apush(part)
            await stream.afinish()
            np.testing.assert_array_equal(joined([pcm async for pcm in stream])[:, : audio.shape[1]], audio)

    async def test_more_than_a_message_holds_and_more_than_a_server_queues(self, codec, monkeypatch):
        monkeypatch.setattr("blazen_codec_core.client.client.CODES_AT_ONCE", 500)
        tokens = codec.encode(voice(20.0, 24_000), 24_000)
        with serving_api(queue_seconds=0.5) as served:
            async with Client(served.url).decoder("snac_tiny", latency="throughput") as stream:
                await stream.apush(tokens)
                await stream.afinish()
                got = joined([pcm async for pcm in stream])
        np.testing.assert_array_equal(got, codec.decoder_session(latency="throughput").push_last(tokens))

    async def test_pcm16_is_rounded(self, client, tokens, audio):
        async with client.decoder("snac_tiny", sample_format="pcm16") as stream:
            await stream.apush(tokens)
            await stream.afinish()
            np.testing.assert_allclose(joined([pcm async for pcm in stream]), audio, atol=0.5 / 32768)

    async def test_a_stream_that_is_left_is_free(self, served, client, tokens):
        async with client.decoder("snac_tiny") as stream:
            await stream.apush(tokens)
            async for _ in stream:
                break
        started = time.monotonic()
        while served.streams():
            assert time.monotonic() - started < 10
            await asyncio.sleep(0.01)


class TestWholeRecordings:
    def test_encode_and_decode_are_those_of_a_provider(self, client, codec):
        pcm = np.stack([voice(1.0, 24_000, seed) for seed in range(2)])
        tokens = client.encode("snac_tiny", pcm, 24_000)
        assert tokens == codec.encode(pcm, 24_000)
        np.testing.assert_array_equal(client.decode(tokens), codec.decode(tokens))

    async def test_async_twins(self, client, codec):
        pcm = voice(0.5, 24_000)
        tokens = await client.aencode("snac_tiny", pcm, 24_000)
        np.testing.assert_array_equal(await client.adecode(tokens), codec.decode(tokens))
        assert [entry["name"] for entry in await client.acodecs()] == ["snac_tiny", "mimi_tiny", "encodec_tiny"]

    def test_a_file_of_another_rate(self, client, codec, tmp_path):
        (tmp_path / "in.wav").write_bytes(wav(1.0, 44_100, 2))
        tokens = client.encode_file("snac_tiny", tmp_path / "in.wav")
        assert tokens == transcode.encode(codec, transcode.Recording.at(tmp_path / "in.wav", codec))
        assert client.encode_file("snac_tiny", tmp_path / "in.wav", mono=True).streams == 1
        assert client.decode(tokens).shape == codec.decode(tokens).shape

    def test_a_bandwidth(self, client):
        codec = bc.load("encodec_tiny", device="cpu")
        pcm = voice(0.5, 24_000)
        assert client.encode("encodec_tiny", pcm, 24_000, num_codebooks=2) == codec.encode(pcm, 24_000, num_codebooks=2)


class TestErrors:
    def test_errors_have_their_classes(self, client, tokens, tmp_path):
        (tmp_path / "in.wav").write_bytes(b"dear diary" * 99)
        with pytest.raises(bc.CorruptFile):
            client.encode_file("snac_tiny", tmp_path / "in.wav")
        with pytest.raises(bc.UnknownCodec):
            client.encode_file("dac_44khz", tmp_path / "in.wav")
        with pytest.raises(bc.UnknownCodec):
            client.encode("dac_44khz", np.zeros(99, np.float32), 24_000)
        with pytest.raises(bc.InvalidInput, match="16000"):
            client.encode("snac_tiny", np.zeros(99, np.float32), 16_000)
        with pytest.raises(bc.InvalidTokens):
            client.decode("tokens")
        with pytest.raises(bc.InvalidInput, match="http"):
            Client("ftp://example.com")

    async def test_so_on_streams(self, client, tokens):
        with pytest.raises(bc.UnknownCodec):
            await client.decoder("dac_44khz").__aenter__()
        with pytest.raises(bc.InvalidInput, match="tile_frames"):
            client.decoder("snac_tiny", tile_frames="many")
        async with client.decoder("mimi_tiny") as stream:
            with contextlib.suppress(bc.InvalidTokens):
                await stream.apush(tokens)
            with pytest.raises(bc.InvalidTokens, match="snac:snac_tiny"):
                [pcm async for pcm in stream]
            with pytest.raises(bc.InvalidTokens):
                await stream.apush(tokens)
        async with client.decoder("snac_tiny") as stream:
            with pytest.raises(bc.InvalidTokens, match="layout="):
                await stream.apush([1, 2, 3])

    async def test_a_server_that_is_not_there(self):
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = nobody.getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}", retries=1)
        with pytest.raises(bc.ConnectionLost):
            await client.decoder("snac_tiny").__aenter__()
        with pytest.raises(bc.ConnectionLost):
            client.codecs()

    async def test_tokens_that_are_wrong(self):
        with serving_api(tokens=(SECRET,)) as served:
            with pytest.raises(bc.ServiceError) as refused:
                await Client(served.url, "wrong").decoder("snac_tiny").__aenter__()
            assert refused.value.code == "unauthorized"
            with pytest.raises(bc.ServiceError):
                Client(served.url).codecs()
            async with Client(served.url, SECRET).decoder("snac_tiny") as stream:
                assert stream.ready.channels == 1


class TestLostConnections:
    async def test_a_stream_goes_on_over_another_connection_to_the_bit(self, served, client, tokens, audio):
        parts, got = list(tokens.parts(20)), []
        async with client.decoder("snac_tiny") as stream:
            for number, part in enumerate(parts):
                await stream.apush(part)
                if number:
                    got.append(await stream.anext())
                if number in (5, 6, 12):
                    await asyncio.to_thread(served.break_connections)
            await stream.afinish()
            got += [pcm async for pcm in stream]
            assert stream.reconnects >= 2
        np.testing.assert_array_equal(joined(got), audio)

    async def test_one_that_breaks_while_it_opens_is_tried_again(self, served, tokens, audio):
        address, broken = urlsplit(served.url), 0

        async def copy(source, target):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
            target.close()

        async def relay(reader, writer):
            nonlocal broken
            await reader.read(1)
            if broken < 2:
                broken += 1
                writer.close()
                return
            back, there = await asyncio.open_connection(address.hostname, address.port)
            there.write(b"G")  # of GET
            await asyncio.gather(copy(reader, there), copy(back, writer), return_exceptions=True)

        async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Client(f"http://127.0.0.1:{port}").decoder("snac_tiny") as stream:
                await stream.apush(tokens)
                await stream.afinish()
                got = [pcm async for pcm in stream]
        assert broken == 2
        np.testing.assert_array_equal(joined(got), audio)

    async def test_so_do_tokens(self, served, client, codec):
        pcm = voice(3.0, 24_000)
        session = codec.encoder_session(1, latency="lowest")
        wanted = bc.CodecTokens.concat([session.push(pcm), session.finish()])
        got = []
        async with client.encoder("snac_tiny") as stream:
            for number, part in enumerate(np.array_split(pcm, 20)):
                await stream.apush(part)
                if number == 10:
                    got.append(await stream.anext())
                    await asyncio.to_thread(served.break_connections)
            await stream.afinish()
            got += [part async for part in stream]
            assert stream.reconnects == 1
        assert bc.CodecTokens.concat(got) == wanted

    async def test_other_output_than_before_is_an_error_and_no_gap(self, served, client, tokens, audio):
        async with client.decoder("snac_tiny") as stream:
            await stream.apush(tokens)
            first = await stream.anext()
            np.testing.assert_array_equal(first, audio[:, : first.shape[1]])
            stream._digest.update(b"x")  # as if the lost server had sent something else
            await asyncio.to_thread(served.break_connections)
            with pytest.raises(bc.ConnectionLost, match="differs"):
                [pcm async for pcm in stream]

    async def test_more_than_is_kept_cannot_be_sent_again(self, served, client, tokens, monkeypatch):
        monkeypatch.setattr(streams, "KEPT_BYTES", 1000)
        async with client.decoder("snac_tiny") as stream:
            for part in tokens.parts(4):
                await stream.apush(part)
            await asyncio.to_thread(served.break_connections)
            with pytest.raises(bc.ConnectionLost, match="not kept"):
                [pcm async for pcm in stream]

    async def test_an_end_without_its_totals_is_an_error(self, tokens):
        """Of a server that closes politely, in the middle."""
        from websockets.asyncio.server import serve

        async def polite(connection):
            await connection.recv()
            await connection.send(
                '{"type":"ready","codec":"a:b","sample_rate":1,"channels":1,"hop_length":1,"strides":[1],"tile_frames":1,'
                '"first_frames":1,"latency_samples":1}'
            )
            await connection.send(b"\0\0\0\0")

        async with serve(polite, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Client(f"http://127.0.0.1:{port}", retries=0).decoder("snac_tiny") as stream:
                with pytest.raises(bc.ConnectionLost):
                    [pcm async for pcm in stream]


class TestDraining:
    async def test_open_streams_go_on_and_no_new_ones_are_opened(self, tokens, audio):
        with serving_api(drain_seconds=20) as served:
            client = Client(served.url, retries=0)
            async with client.decoder("snac_tiny") as stream:
                await stream.apush(next(iter(tokens.parts(200))))
                served.stop()
                with pytest.raises(bc.ServiceError) as refused:
                    await client.decoder("snac_tiny").__aenter__()
                assert refused.value.code == "draining"
                with pytest.raises(urllib.error.HTTPError, match="503"):
                    await asyncio.to_thread(urllib.request.urlopen, f"{served.url}/ready")
                with pytest.raises(bc.ServiceError) as refused:
                    await client.aencode("snac_tiny", np.zeros(2400, np.float32), 24_000)
                assert refused.value.code == "draining"
                for part in list(tokens.parts(200))[1:]:
                    await stream.apush(part)
                await stream.afinish()
                np.testing.assert_array_equal(joined([pcm async for pcm in stream]), audio)
            await until_ended(served)

    async def test_streams_that_go_on_for_too_long_are_told(self, tokens):
        with serving_api(drain_seconds=0.3) as served:
            async with Client(served.url, retries=0).decoder("snac_tiny") as stream:
                served.stop()
                with pytest.raises(bc.ServiceError) as ended:
                    [pcm async for pcm in stream]
                assert ended.value.code == "draining"
            await until_ended(served)

    async def test_a_second_signal_ends_at_once(self, tokens):
        with serving_api(drain_seconds=600) as served:
            async with Client(served.url, retries=0).decoder("snac_tiny") as stream:
                served.stop()
                served.stop()
                with pytest.raises(bc.ServiceError):
                    [pcm async for pcm in stream]
            await until_ended(served)

    async def test_a_stream_moves_to_the_next_server(self, tokens, audio):
        """As in a rolling restart, behind one address."""
        got = []
        with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
            served = first.enter_context(serving_api(drain_seconds=0.1))
            async with Client(served.url, retries=20).decoder("snac_tiny") as stream:
                for part in list(tokens.parts(40))[:5]:
                    await stream.apush(part)
                got.append(await stream.anext())
                served.stop()
                await asyncio.to_thread(first.close)
                second.enter_context(serving_api(port=int(served.where.split(":")[1])))
                for part in list(tokens.parts(40))[5:]:
                    await stream.apush(part)
                await stream.afinish()
                got += [pcm async for pcm in stream]
            assert stream.reconnects
        np.testing.assert_array_equal(joined(got), audio)


async def until_ended(served) -> None:
    started = time.monotonic()
    while served.server.started and not served.server.should_exit:
        assert time.monotonic() - started < 20
        await asyncio.sleep(0.02)


@pytest.mark.slow
def test_a_killed_server_is_an_error_and_sigterm_lets_streams_end(tokens, audio):
    program = [sys.executable, "-m", "blazen_codec_core.cli.main", "serve", "-c", "snac_tiny", "--no-page", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def started() -> tuple[subprocess.Popen[str], Client]:
        process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment)
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        return process, Client(url, retries=1)

    process, client = started()
    try:
        with client.decoder("snac_tiny") as stream:
            stream.push(tokens)
            first = next(iter(stream))
            np.testing.assert_array_equal(first, audio[:, : first.shape[1]])
            process.kill()
            process.wait(PATIENCE)
            with pytest.raises(bc.ConnectionLost):
                list(stream)
    finally:
        process.kill()
        process.communicate()
    process, client = started()
    try:
        with client.decoder("snac_tiny") as stream:
            stream.push(tokens)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None
            stream.finish()
            np.testing.assert_array_equal(joined(stream), audio)
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_the_page_on_serving_runs_as_written(served, root, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(root / "examples")
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"```python\n(.*?)```", (root / "docs/serving.md").read_text("utf-8"), re.DOTALL)
    assert block.count("http://127.0.0.1:8765") == 1
    exec(compile(block.replace("http://127.0.0.1:8765", served.url), "docs/serving.md", "exec"), {})
