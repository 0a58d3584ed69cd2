"""The trait for PyTorch networks: invalid input, lifecycle, devices, weights."""

from __future__ import annotations

import dataclasses
import gc
import json
import pickle
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core import weights as weights_module
from tests.helpers.toy_codec import SPEC, ToyBackend


def toy(**options) -> ToyBackend:
    return ToyBackend(SPEC, bc.LoadOptions(**{"weights": "random:0", "device": "cpu", **options}))


PCM = np.random.default_rng(0).standard_normal(100).astype(np.float32) * 0.1


@pytest.mark.parametrize(
    ("pcm", "rate", "says"),
    [
        (np.zeros(0, np.float32), 8000, "empty"),
        (np.zeros((1, 0), np.float32), 8000, "empty"),
        (np.zeros((0, 5), np.float32), 8000, "empty"),
        (np.array([0, np.nan], np.float32), 8000, "NaN"),
        (np.array([0, np.inf], np.float32), 8000, "infinite"),
        (np.array([0, -np.inf], np.float32), 8000, "infinite"),
        (PCM, 16_000, "sample rate is 16000; toy_8khz takes 8000 Hz"),
        (PCM, 8000.5, "8000 Hz"),
        (PCM, "8000", "8000 Hz"),
        (PCM, True, "8000 Hz"),
        (PCM.reshape(1, 1, -1), 8000, "shape"),
        (np.float32(1), 8000, "shape"),
        (PCM.reshape(-1, 1), 8000, r"\(channels, samples\)"),
        ((PCM * 32767).astype(np.int16), 8000, "int16"),
        (PCM.astype(complex), 8000, "complex"),
        (["a", "b"], 8000, "U1"),
        ([[1.0], [1.0, 2.0]], 8000, "not an array"),
        (None, 8000, "shape"),
        (PCM.astype(np.float64) * 1e300, 8000, "reaches"),
        (PCM * 32767, 8000, "scale integer"),
    ],
)
def test_invalid_audio_is_refused(pcm, rate, says):
    with pytest.raises(bc.InvalidInput, match=says):
        toy().encode(pcm, rate)
    with pytest.raises(bc.InvalidInput):
        toy().encode_batch([PCM, pcm], rate)


@pytest.mark.parametrize(
    "pcm", [PCM.astype(np.float64), PCM.astype(np.float16).astype(np.float32), PCM[None], list(PCM), torch.from_numpy(PCM)]
)
def test_valid_audio_is_accepted(pcm):
    assert toy().encode(pcm, 8000).num_samples == 100


def test_unsupported_bandwidth_is_refused():
    codec = toy()
    assert codec.encode(PCM, 8000, bandwidth=codec.spec.bandwidth)
    with pytest.raises(bc.InvalidInput, match=r"bandwidth is 3.*; .* supports 12 kbps"):
        codec.encode(PCM, 8000, bandwidth=3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"codec": "toy:other"}, "tokens of toy:other"),
        ({"hop_length": 5}, "hop_length is 5"),
        ({"sample_rate": 16_000}, "sample_rate"),
        ({"codebook_size": 64}, "codebook_size"),
        ({"channels": 2}, "1 streams cannot be 2 channels"),
        ({"codes": (np.zeros((1, 0), int), np.zeros((1, 0), int)), "num_samples": 0}, "decodes multiples"),
    ],
)
def test_tokens_of_another_model_are_refused(change, says):
    codec = toy()
    tokens = dataclasses.replace(codec.encode(PCM, 8000), **change)
    with pytest.raises(bc.InvalidTokens, match=says):
        codec.decode(tokens)
    with pytest.raises(bc.InvalidTokens):
        codec.decode_batch([tokens])


def test_objects_other_than_tokens_are_refused():
    with pytest.raises(bc.InvalidTokens, match="expected CodecTokens"):
        toy().decode(np.zeros((1, 4)))  # type: ignore[arg-type]


class TestFlat:
    def test_flat_form_is_codebook_after_codebook(self):
        codec = toy()
        flat = codec.encode_pcm(PCM, 8000)
        tokens = codec.encode(PCM, 8000)
        assert flat.dtype == np.uint32
        assert np.array_equal(flat, np.concatenate([code[0] for code in tokens.codes]))
        audio = codec.decode_tokens(flat, 2)
        assert audio.shape == (tokens.frames * 4,)
        assert np.array_equal(audio[:100], codec.decode(tokens)[0])

    @pytest.mark.parametrize(
        ("flat", "books", "says"),
        [
            ([], 2, "0 flat"),
            ([1, 2, 3], 0, "2 codebooks, not 0"),
            ([1, 2, 3], 3, "2 codebooks, not 3"),
            ([1, 2, 3, 4], 2, "multiple of 3"),
            ([1, 2, 16], 2, "outside 0 … 15"),
            ([1, 2, -1], 2, "outside"),
            ([1, 2, 2**40], 2, "outside"),
            ([1.0, 2.0, 3.0], 2, "integers"),
        ],
    )
    def test_invalid_flat_tokens_are_refused(self, flat, books, says):
        with pytest.raises(bc.InvalidTokens, match=says):
            toy().decode_tokens(flat, books)

    def test_flat_form_is_mono(self):
        with pytest.raises(bc.InvalidInput, match="mono"):
            toy().encode_pcm(np.stack([PCM, PCM]), 8000)


class TestSessions:
    def test_sessions_finish_once(self):
        codec = toy()
        session = codec.encoder_session()
        session.push(PCM)
        tokens = session.finish()
        for call in (session.finish, lambda: session.push(PCM)):
            with pytest.raises(bc.InvalidInput, match="ended"):
                call()
        player = codec.decoder_session()
        player.push(bc.CodecTokens.concat([tokens]))
        player.finish()
        with pytest.raises(bc.InvalidInput, match="ended"):
            player.finish()

    def test_finish_without_input_is_refused(self):
        with pytest.raises(bc.InvalidInput, match="no audio was pushed"):
            toy().encoder_session().finish()
        with pytest.raises(bc.InvalidTokens, match="no tokens were pushed"):
            toy().decoder_session().finish()

    def test_empty_pushes_change_nothing(self):
        codec = toy()
        session = codec.encoder_session()
        parts = [session.push(PCM[:0]), session.push(PCM), session.push(PCM[:0]), session.finish()]
        assert bc.CodecTokens.concat(parts) == codec.encode(PCM, 8000)
        player = codec.decoder_session()
        audio = [player.push(part) for part in parts] + [player.finish()]
        assert np.array_equal(np.concatenate(audio, 1), codec.decode(bc.CodecTokens.concat(parts)))

    def test_channels_cannot_change(self):
        with pytest.raises(bc.InvalidInput, match="audio has 2 channels; the session has 1"):
            toy().encoder_session().push(np.stack([PCM, PCM]))
        for channels in (0, 33):
            with pytest.raises(bc.InvalidInput, match="channels"):
                toy().encoder_session(channels)

    def test_bad_audio_does_not_end_a_session(self):
        codec = toy()
        session = codec.encoder_session()
        with pytest.raises(bc.InvalidInput):
            session.push(np.array([np.nan], np.float32))
        assert bc.CodecTokens.concat([session.push(PCM), session.finish()]) == codec.encode(PCM, 8000)

    def test_tokens_of_another_recording_are_refused(self):
        codec = toy()
        tokens = codec.encode(PCM[:99], 8000)
        player = codec.decoder_session()
        player.push(tokens)
        with pytest.raises(bc.InvalidTokens, match="another recording"):
            player.push(tokens)

    @pytest.mark.parametrize("tile", [0, -2, 3])
    def test_tiles_must_be_whole_blocks(self, tile):
        with pytest.raises(bc.InvalidInput, match="multiple of 2"):
            toy().encoder_session(tile_frames=tile)

    @pytest.mark.parametrize("tile", [2, 16])
    def test_latency_samples_is_the_worst_case(self, tile):
        codec = toy()
        session = codec.encoder_session(tile_frames=tile)
        covered = worst = 0
        for pushed in range(1, 400):
            covered += session.push(np.zeros(1, np.float32)).num_samples
            worst = max(worst, pushed - covered)
        assert worst == session.latency_samples
        player = codec.decoder_session(tile_frames=tile)
        returned = worst = 0
        tokens = codec.encode(np.zeros(800, np.float32), 8000)
        for count, part in enumerate(tokens.parts(2), 1):
            returned += player.push(part).shape[1]
            worst = max(worst, count * 8 - returned)
        assert worst == player.latency_samples

    def test_a_failure_inside_the_network_is_an_inference_error_and_ends_the_session(self, monkeypatch):
        codec = toy()
        session = codec.encoder_session()

        def fail(*_):
            raise RuntimeError("out of memory, surely\nmore")

        monkeypatch.setattr(codec.loaded().network.quantizer, "step", fail)
        with pytest.raises(bc.InferenceError, match="out of memory, surely"):
            session.push(np.zeros(1000, np.float32))
        with pytest.raises(bc.InvalidInput, match="ended"):
            session.finish()


class TestLifecycle:
    def test_sixteen_threads_load_once(self):
        class Counted(ToyBackend):
            builds = 0

        codec = Counted(SPEC, bc.LoadOptions(weights="random:0", device="cpu"))
        barrier, results = threading.Barrier(16), []

        def work():
            barrier.wait()
            results.append(codec.encode(PCM, 8000))

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counted.builds == 1
        assert len(results) == 16
        assert all(result == results[0] for result in results)

    def test_construction_loads_nothing_and_unloading_frees(self):
        codec = toy()
        assert not codec.is_loaded
        codec.unload()
        codec.load()
        codec.load()
        network = weakref.ref(codec.loaded().network)
        codec.unload()
        gc.collect()
        assert not codec.is_loaded
        assert network() is None
        assert codec.encode(PCM, 8000)

    def test_a_session_outlives_unloading(self):
        codec = toy()
        session = codec.encoder_session()
        first = session.push(PCM)
        codec.unload()
        assert bc.CodecTokens.concat([first, session.finish()]) == codec.encode(PCM, 8000)

    def test_failed_load_can_be_repeated(self, monkeypatch):
        codec = toy()
        with monkeypatch.context() as patch:
            patch.setattr(ToyBackend, "build", lambda *_: (_ for _ in ()).throw(bc.WeightsUnavailable("gone")))
            with pytest.raises(bc.WeightsUnavailable):
                codec.load()
        codec.load()

    def test_works_inside_inference_mode(self):
        codec = toy()
        with torch.inference_mode():
            tokens = codec.encode(PCM, 8000)
        assert toy().encode(PCM, 8000) == tokens
        assert codec.decode(tokens).shape == (1, 100)


class TestDevices:
    @pytest.mark.parametrize("device", ["cuda:97", "tpu", "nonsense", "xpu", "cpu:5", ""])
    def test_missing_device_is_refused(self, device):
        with pytest.raises(bc.DeviceUnavailable):
            toy(device=device).load()

    def test_unsupported_device_is_refused(self):
        spec = SPEC.model_copy(update={"capabilities": bc.DeviceCapabilities(devices=("cuda",))})
        for device in ("cpu", "auto"):
            if device == "auto" and torch.cuda.is_available():
                continue
            with pytest.raises(bc.DeviceUnavailable, match="cuda"):
                ToyBackend(spec, bc.LoadOptions(device=device, weights="random:0")).load()

    def test_unsupported_dtype_is_refused(self):
        with pytest.raises(bc.DeviceUnavailable, match="does not run in float16; it runs in float32"):
            toy(dtype="float16").load()


class TestWhereWeightsAre:
    def find(self, **options):
        return weights_module.locate(SPEC, bc.LoadOptions(**options))

    def test_random_weights(self):
        assert self.find(weights="random:12").label == "random:12"
        for wrong in ("random:", "random:x", "random:-1", "random:1.5"):
            with pytest.raises(bc.InvalidInput, match="random:SEED"):
                self.find(weights=wrong)

    def test_a_file_and_a_folder(self, tmp_path):
        with pytest.raises(bc.WeightsUnavailable, match="neither"):
            self.find(weights=str(tmp_path))
        (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        assert self.find(weights=str(tmp_path)).path.name == "pytorch_model.bin"
        (tmp_path / "model.safetensors").write_bytes(b"x")
        (tmp_path / "config.json").write_text("{}")
        found = self.find(weights=str(tmp_path))
        assert (found.path.name, found.config.name) == ("model.safetensors", "config.json")
        assert self.find(weights=str(tmp_path / "pytorch_model.bin")).label.startswith("sha256:2d711642b726b044")

    @pytest.mark.parametrize("wrong", ["no-such-file", "./not/there", "a/b/c", "/no/such", "~nobody-here/x"])
    def test_missing_weights_are_refused(self, wrong):
        with pytest.raises(bc.WeightsUnavailable, match="no such file"):
            self.find(weights=wrong)

    @pytest.mark.parametrize("asked", [None, "someone/else"])
    def test_offline_error_names_file_folder_and_fix(self, tmp_path, asked):
        with pytest.raises(bc.WeightsUnavailable) as caught:
            self.find(weights=asked, offline=True, cache_dir=str(tmp_path))
        for part in ("model.safetensors", asked or "me/toy", str(tmp_path), "by hand"):
            assert part in str(caught.value)

    def test_cached_weights_are_used(self, tmp_path):
        folder = tmp_path / "models--me--toy"
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
        (snapshot / "model.safetensors").write_bytes(b"x")
        assert self.find(offline=True, cache_dir=str(tmp_path)).path.read_bytes() == b"x"
        pinned = SPEC.model_copy(update={"weights": SPEC.weights.model_copy(update={"sha256": "0" * 64})})
        with pytest.raises(bc.WeightsUnavailable, match="was not used"):
            weights_module.locate(pinned, bc.LoadOptions(offline=True, cache_dir=str(tmp_path)))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "code", "list", "lying.safetensors"])
def test_other_pickles_run_no_code(tmp_path, damage):
    from blazen_codec_core.nn.checkpoints import state_dicts

    path, evil = tmp_path / ("w.safetensors" if "safetensors" in damage else "w.bin"), tmp_path / "evil"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "truncated":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "code":
        path.write_bytes(pickle.dumps(Payload(evil), protocol=2))
    elif damage == "list":
        torch.save([1, 2], path)
    else:
        header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(bc.WeightsUnavailable, match=str(path.name)):
        state_dicts.tensors(state_dicts.read(path), path)
    assert not evil.exists()


def test_weights_with_nan_are_refused(tmp_path):
    from blazen_codec_core.nn.checkpoints import state_dicts

    with pytest.raises(bc.WeightsUnavailable, match="a holds NaN"):
        state_dicts.tensors({"a": torch.tensor([float("nan")])}, tmp_path)


def test_misspelt_option_is_refused():
    for call in (toy().encode, toy().encode_batch, bc.CodecBackend.encode_batch.__get__(toy())):
        with pytest.raises(TypeError, match="bandwith"):
            call([PCM], 8000, bandwith=3)
