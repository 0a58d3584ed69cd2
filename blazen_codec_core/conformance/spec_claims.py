"""Contracts on specs: their claims are true."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..errors import CodecError, DeviceUnavailable, NotYetImplemented
from ..plugins.registry import Registry
from ..pools import SessionPool
from ..provider import DynCodecProvider
from ..tokens.tokens import CodecTokens
from .subject import Subject, Whole

DEVICES = ("cuda", "mps", "cpu")
DTYPES = ("float32", "tfloat32", "float16", "bfloat16", "float64")


class Declared:
    def test_the_registry(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Declared: the plugin is in use, and all names find the model."""
        registry = Registry()
        entry = registry.find(subject.name)
        assert [record.in_use for record in registry.plugins.records if record.name == entry.plugin] == [True]
        for name in (entry.qualified_name, entry.spec.name, *entry.spec.aliases):
            assert registry.find(name) == entry
        assert registry.find(codec.name).spec == codec.spec == codec.backend.spec
        assert codec.provider_kind == "codec"
        assert codec.id.startswith(f"{codec.spec.family}:")

    def test_listing(self, subject: Subject) -> None:
        """Declared: the spec is plain data, and listing it imports no torch and no backend."""
        assert json.loads(subject.spec.model_dump_json())["name"] == subject.spec.name
        module = subject.spec.backend.partition(":")[0]
        code = (
            "import sys, blazen_codec_core as bc\n"
            f"assert {subject.spec.name!r} in [spec.name for spec in bc.list_codecs()]\n"
            f"assert not {{'torch', {module!r}}} & set(sys.modules), 'torch or the backend was imported'"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace", check=False)
        assert run.returncode == 0, run.stderr

    def test_the_numbers(self, codec: DynCodecProvider, whole: Whole) -> None:
        """Declared: rate, hop and strides give the number of tokens, and all tokens are in the codebooks."""
        spec, tokens = codec.spec, whole.tokens
        assert tokens.codec == spec.identity
        assert tokens.strides == spec.strides[: spec.used_codebooks]
        assert (tokens.sample_rate, tokens.hop_length) == (spec.sample_rate, spec.hop_length)
        assert tokens.num_samples == whole.pcm.shape[1]
        samples = tokens.num_samples + spec.missing_samples(tokens.num_samples)
        if spec.segment is None:
            assert 0 <= tokens.frames * spec.hop_length - samples < spec.block_frames * spec.hop_length
        for code, stride in zip(tokens.codes, tokens.strides, strict=True):
            assert code.shape == (whole.pcm.shape[0] // spec.channels, tokens.frames // stride)
        assert tokens.weights

    def test_the_length(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Declared: audio decodes to finite float32 of the same length, the same each time."""
        assert whole.audio.dtype == np.float32
        assert whole.audio.shape == whole.pcm.shape
        assert np.isfinite(whole.audio).all()
        assert np.array_equal(codec.decode(whole.tokens), whole.audio)
        for samples in (1, codec.spec.hop_length - 1 or 1, codec.spec.hop_length + 1):
            pcm = whole.pcm[:, :samples]
            assert codec.decode(codec.encode(pcm, codec.sample_rate)).shape == pcm.shape

    def test_the_codebooks(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Declared: every listed number of codebooks can be encoded and decoded."""
        pcm = subject.recording(0.1)
        usable = codec.spec.usable_codebooks
        for books in dict.fromkeys((usable[0], usable[len(usable) // 2], usable[-1])):
            tokens = codec.encode(pcm, codec.sample_rate, num_codebooks=books)
            assert tokens.num_codebooks == books
            assert codec.encode(pcm, codec.sample_rate, bandwidth=codec.spec.kbps(books)) == tokens
            assert codec.decode(tokens).shape == pcm.shape

    def test_the_flat_form(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Declared: mono tokens have a flat uint32 form, codebook after codebook, which decodes to the same audio."""
        if codec.channels != 1:
            pytest.skip("not claimed: flat tokens are for mono audio")
        pcm = subject.recording(0.2)
        tokens = codec.encode(pcm, codec.sample_rate, num_codebooks=codec.num_codebooks)
        flat = codec.encode_pcm(pcm[0], codec.sample_rate)
        assert flat.dtype == np.uint32
        assert np.array_equal(flat, np.concatenate([code[0] for code in tokens.codes]))
        audio = codec.decode_tokens(flat, tokens.num_codebooks)
        assert audio.ndim == 1
        assert np.array_equal(audio[: pcm.shape[1]], codec.decode(tokens)[0])

    def test_the_container(self, codec: DynCodecProvider, whole: Whole, tmp_path: Path) -> None:
        """Declared: tokens can be written to a file and read back."""
        whole.tokens.save(tmp_path / "a.tokens")
        assert CodecTokens.open(tmp_path / "a.tokens") == whole.tokens

    def test_the_devices(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Declared: it runs on the listed devices, if available, and refuses others."""
        can = codec.spec.capabilities.devices
        assert can
        assert codec.device.partition(":")[0] in can
        pcm = subject.recording(0.05)
        for device in (*DEVICES, "no-such-device"):
            other = subject.load(device=device)
            if device in can and is_there(device):
                tokens = other.encode(pcm, codec.sample_rate)
                assert other.device.partition(":")[0] == device
                assert other.decode(tokens).shape == pcm.shape
            else:
                with pytest.raises(DeviceUnavailable):
                    other.load()
            other.unload()

    @pytest.mark.filterwarnings("ignore::blazen_codec_core.SlowerNotice")
    def test_the_types(self, codec: DynCodecProvider, subject: Subject) -> None:
        """Declared: it runs in the listed floating types, and refuses others."""
        can = codec.spec.capabilities.dtypes
        pcm = subject.recording(0.05)
        for dtype in DTYPES:
            other = subject.load(dtype=dtype)
            if dtype in can:
                assert other.decode(other.encode(pcm, codec.sample_rate)).dtype == np.float32
            else:
                with pytest.raises(CodecError):
                    other.load()
            other.unload()

    def test_the_streams(self, codec: DynCodecProvider) -> None:
        """Declared: sessions in other directions raise `NotYetImplemented`."""
        streams = codec.spec.capabilities.streams
        if "encode" not in streams:
            with pytest.raises(NotYetImplemented):
                codec.encoder_session()
        if "decode" not in streams:
            with pytest.raises(NotYetImplemented):
                codec.decoder_session()
        if "encode" in streams and "decode" in streams:
            assert codec.encoder_session().latency_samples >= 0
            assert codec.decoder_session().latency_samples >= 0

    def test_the_pools(self, codec: DynCodecProvider, subject: Subject, whole: Whole) -> None:
        """Declared: streams of pools run as one batch in the listed directions, and one waits for its listener alone."""
        for direction in codec.spec.capabilities.pools:
            is_encoder = direction == "encode"
            pool: Any = (codec.encoder_pool if is_encoder else codec.decoder_pool)(2, max_queue=1e-3)
            assert not isinstance(pool, SessionPool), f"its streams {direction} in a session each"
            pieces = np.array_split(whole.pcm, 9, axis=1) if is_encoder else list(whole.tokens.parts(subject.unit))
            heard, held, late = asyncio.run(_listened(pool, pieces))
            assert held, f"it runs on to {direction} what nobody takes"
            if is_encoder:
                assert CodecTokens.concat(late) == CodecTokens.concat(heard)
            else:
                assert np.array_equal(np.concatenate(late, axis=1), np.concatenate(heard, axis=1))


async def _listened(pool: Any, pieces: list[Any]) -> tuple[list[Any], bool, list[Any]]:
    """Outputs of a stream, whether another one of the same signal waits meanwhile, and the outputs of that."""

    async def feed(stream: Any) -> None:
        for piece in pieces:
            await stream.apush(piece)
        stream.finish()

    async with pool.serving():
        streams = [pool.open(), pool.open()]
        feeding = [asyncio.create_task(feed(stream)) for stream in streams]
        heard = [output async for output in streams[0]]
        held = streams[1].is_held and not streams[1].ended
        late = [output async for output in streams[1]]
        await asyncio.gather(*feeding)
    return heard, held, late


def is_there(device: str) -> bool:
    """Tell whether a device is available; the CPU is, even without PyTorch."""
    if device == "cpu":
        return True
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available())
