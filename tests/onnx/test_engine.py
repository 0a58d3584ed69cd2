"""Exported folders behind the trait."""

from __future__ import annotations

import functools
import json
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance import Contracts, Subject
from tests.onnx.test_export import BLOCK, noise


def test_a_folder_is_a_codec(mixed, exported):
    folder, _ = exported
    codec = bc.load(folder)
    pcm = noise(30 * BLOCK + 5)
    tokens = codec.encode(pcm, 8000, num_codebooks=1)
    assert tokens == mixed.encode(pcm, 8000, num_codebooks=1)
    assert np.abs(codec.decode(tokens) - mixed.decode(tokens)).max() < 1e-5
    assert codec.weights_label == mixed.weights_label == "random:0"
    assert codec.device == "cpu"


def test_sessions_give_what_whole_signals_give(exported):
    codec = bc.load(exported[0])
    pcm = np.concatenate([noise(300), noise(300, 1)])
    whole = codec.encode(pcm, 8000)
    session, player = codec.encoder_session(2), codec.decoder_session()
    parts = [session.push(pcm[:, start : start + 23]) for start in range(0, 300, 23)] + [session.finish()]
    assert bc.CodecTokens.concat(parts) == whole
    heard = np.concatenate([*(player.push(part) for part in parts), player.finish()], axis=1)
    assert np.array_equal(heard, codec.decode(whole))
    assert heard.shape == pcm.shape


def test_noise_is_that_of_the_seed_or_off(mixed, exported):
    folder, _ = exported
    tokens = mixed.encode(noise(20 * BLOCK), 8000)
    audio = {seed: bc.load(folder, noise_seed=seed).decode(tokens) for seed in (0, 1)}
    assert np.abs(audio[0] - audio[1]).max() > 1e-3
    quiet = bc.load(folder, noise=False).decode(tokens)
    assert not np.array_equal(quiet, audio[0])
    assert np.array_equal(quiet, bc.load(folder, noise=False).decode(tokens))


def test_torch_is_not_imported(exported):
    folder, _ = exported
    code = (
        "import sys, numpy as np, blazen_codec_core as bc\n"
        f"codec = bc.load({str(folder)!r})\n"
        "codec.decode(codec.encode(np.zeros(500, np.float32), 8000))\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_provider_travels_as_its_folder(exported):
    codec = bc.load(exported[0])
    assert pickle.loads(pickle.dumps(codec)).encode(noise(99), 8000) == codec.encode(noise(99), 8000)


def test_names_of_models_come_before_folders(exported, tmp_path, monkeypatch):
    shutil.copytree(exported[0], tmp_path / "snac_tiny")
    monkeypatch.chdir(tmp_path)
    assert bc.load("snac_tiny").spec.family == "snac"
    assert bc.load("./snac_tiny").spec.family == bc.Registry().find("./snac_tiny").spec.family == "mixed"
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(bc.UnknownCodec):
            bc.load(name)


def test_a_half_that_was_left_out(exported):
    encoder = bc.load(exported[0], parts="encoder")
    tokens = encoder.encode(noise(99), 8000)
    with pytest.raises(bc.InvalidInput, match="without its decoder"):
        encoder.decode(tokens)


def test_folders_and_options_that_cannot_be_loaded(exported, tmp_path):
    folder, _ = exported
    with pytest.raises(bc.InvalidInput, match="are of mixed_8khz, not of snac_tiny"):
        bc.load("snac_tiny", engine="onnx", weights=folder)
    with pytest.raises(bc.InvalidInput, match="needs weights, the folder of an export"):
        bc.load("snac_tiny", engine="onnx")
    with pytest.raises(bc.InvalidInput, match=r"has no export\.json"):
        bc.load("snac_tiny", engine="onnx", weights=tmp_path)
    with pytest.raises(bc.DeviceUnavailable):
        bc.load(folder, device="mps").load()
    with pytest.raises(bc.DeviceUnavailable):
        bc.load(folder, dtype="float16").load()
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "encoder_whole.onnx").write_bytes(b"none")
    with pytest.raises(bc.CorruptFile, match=r"encoder_whole\.onnx cannot be loaded"):
        bc.load(broken).encode(noise(3), 8000)
    fields = json.loads((broken / "export.json").read_text())
    (broken / "export.json").write_text(json.dumps({**fields, "format": 2}))
    with pytest.raises(bc.CorruptFile, match="format"):
        bc.load(broken)


def places(value, path=()):
    """Paths to all values in JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_json_that_was_tampered_with_raises_codec_errors_alone(exported, damaged, data):
    fields = json.loads((exported[0] / "export.json").read_text())
    *path, last = data.draw(st.sampled_from([place for place in places(fields) if place]))
    functools.reduce(lambda value, key: value[key], path, fields)[last] = data.draw(
        st.none() | st.booleans() | st.integers(-3, 1 << 40) | st.text(max_size=5) | st.just([]) | st.just({})
    )
    (damaged / "export.json").write_text(json.dumps(fields))
    with suppress(bc.CodecError):
        codec = bc.load(damaged)
        codec.decode(codec.encode(noise(300), 8000))


@pytest.fixture
def damaged(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "damaged")


def test_segments_are_not_run(exported, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "segments")
    fields = json.loads((folder / "export.json").read_text())
    for part in fields["parts"].values():
        part["stream"] = None
    fields["codec"] |= {"segment": {"length": 128, "stride": 64}}
    (folder / "export.json").write_text(json.dumps(fields))
    with pytest.raises(bc.NotYetImplemented, match="does not cut signals into segments"):
        bc.load(folder).encode(noise(300), 8000)


@pytest.fixture(scope="session")
def snac_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "snac_tiny"
    bc.export("snac_tiny", folder)
    return folder


class TestEngine(Contracts):
    test_the_registry = test_listing = None  # contracts on plugins

    def pytest_generate_tests(self, metafunc):
        """Leave `subject` to the fixture."""

    @pytest.fixture(scope="session")
    @staticmethod
    def subject(snac_folder):
        return Subject(str(snac_folder))
