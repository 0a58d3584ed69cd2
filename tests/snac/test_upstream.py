"""Ours against the authors' package, at full size with the same seeded random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import snac
import torch
from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_snac.backend import SnacBackend
from blazen_codec_snac.specs import SPECS
from tests.helpers.quantizer_ties import count_differing
from tests.helpers.upstream_roundtrip import there_and_back

MODELS = ["snac_24khz", "snac_32khz", "snac_44khz"]


@pytest.mark.parametrize("seconds", [0.001, 1.0, pytest.param(4.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    ["snac_24khz", pytest.param("snac_32khz", marks=pytest.mark.slow), "snac_44khz"],  # both of the latter are large
)
def test_tokens_and_audio_are_the_authors(codecs, name, seconds):
    ours = codecs(name)
    pcm = voice(seconds, ours.sample_rate)
    ((reference, wanted),) = there_and_back(codecs, name, [pcm])
    mine = ours.encode(pcm, ours.sample_rate)
    total = sum(code.size for code in mine.codes)
    differing = count_differing(ours, pcm, mine, reference)
    print(f"{name} {seconds} s: {total - differing} of {total} tokens equal")
    assert differing <= 1e-4 * total
    assert mine.num_samples == reference.num_samples
    audio = ours.decode(reference)
    assert audio.shape == wanted.shape == (1, pcm.size)
    assert np.abs(wanted).max() > 0.1, "the decoder says nothing; the comparison would be empty"
    assert np.abs(audio - wanted).max() < 1e-4


@pytest.mark.parametrize("name", ["snac_24khz", "snac_44khz"])
def test_without_noise_too(codecs, name):
    ours = codecs(name, noise=False)
    ((tokens, wanted),) = there_and_back(codecs, name, [voice(1, ours.sample_rate)], noise=False)
    silent, noisy = ours.decode(tokens), codecs(name).decode(tokens)
    assert np.abs(silent - wanted).max() < 1e-4
    assert np.abs(silent - noisy).max() > 1e-3


def settings(name: str) -> dict:
    spec = next(spec for spec in SPECS if spec.name == name)
    return json.loads(spec.architecture.model_dump_json())


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("snac_24khz", "snac_32khz", "snac_44khz")]
"""Four networks a test."""


@pytest.mark.parametrize("name", [*LARGE, "snac_tiny"])
def test_the_published_layout_loads(tmp_path, name):
    """Files as the authors write them, with their own initial weights."""
    torch.manual_seed(3)
    model = snac.SNAC(**settings(name)).eval()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(settings(name)))
    codec = bc.load(name, weights=tmp_path, device="cpu", noise=False)
    pcm = voice(1, codec.sample_rate)
    with torch.inference_mode():
        wanted = model.encode(torch.from_numpy(pcm)[None, None])
    tokens = codec.encode(pcm, codec.sample_rate)
    assert [code.shape for code in tokens.codes] == [tuple(code.shape) for code in wanted]
    agree = [float((a == b.numpy()).mean()) for a, b in zip(tokens.codes, wanted, strict=True)]
    assert agree[0] == 1.0
    assert np.mean(agree) > 0.999
    assert tokens.weights.startswith("sha256:")
    assert isinstance(codec.backend, SnacBackend)

    codec.unload()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for where in (tmp_path, tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"):
        assert bc.load(name, weights=where, device="cpu").encode(pcm, codec.sample_rate).flat().tolist() == tokens.flat().tolist()


@pytest.mark.parametrize("changes", [{"vq_strides": [2, 1, 1]}, {"sampling_rate": 16_000}, {"decoder_dim": 4}])
def test_a_config_of_another_model_is_refused(tmp_path, changes):
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    (tmp_path / "config.json").write_text(json.dumps({**settings("snac_24khz"), **changes}))
    with pytest.raises(bc.WeightsUnavailable, match=next(iter(changes))):
        bc.load("snac_24khz", weights=tmp_path).load()


@pytest.mark.parametrize("config", ["", "[]", "{}", "{", '{"encoder_dim": "x"}'])
def test_a_config_that_is_none_is_refused(tmp_path, config):
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(bc.WeightsUnavailable, match=r"not a config for a model like snac_24khz|config\.json is not JSON"):
        bc.load("snac_24khz", weights=tmp_path).load()


def damaged(change: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "encoder.block.0.bias"
    if change == "missing":
        del state[name]
    elif change == "extra":
        state["encoder.block.99.bias"] = torch.zeros(3)
    elif change == "shape":
        state[name] = torch.zeros(3)
    elif change == "transposed":
        key = "decoder.model.2.block.1.parametrizations.weight.original1"
        state[key] = state[key][:-1]
    elif change == "nan":
        state[name] = state[name] * float("nan")
    return state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", "encoder.block.0.bias is missing"),
        ("extra", "unknown tensors .1., such as encoder.block.99.bias"),
        ("shape", r"\(3,\); expected \(16,\)"),
        ("transposed", "has shape"),
        ("nan", "NaN"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, says):
    state = snac.SNAC(**settings("snac_tiny")).state_dict()
    save_file(damaged(change, dict(state)), tmp_path / "model.safetensors")
    with pytest.raises(bc.WeightsUnavailable, match=says):
        bc.load("snac_tiny", weights=tmp_path / "model.safetensors").load()


def test_the_authors_package_does_not_stream():
    codec = bc.load("snac_tiny", engine="upstream", weights="random:0")
    for session in (codec.encoder_session, codec.decoder_session):
        with pytest.raises(bc.NotYetImplemented, match="native"):
            session()


def test_names_and_ids():
    names = {spec.name: spec for spec in SPECS}
    assert bc.load("snac", weights="random:0").spec is names["snac_24khz"]
    assert bc.load("hubertsiuzdak/snac_44khz", weights="random:0").spec is names["snac_44khz"]
    codec = bc.load("snac_24khz", weights="random:0")
    assert (codec.id, codec.sample_rate, codec.num_codebooks) == ("snac:hubertsiuzdak/snac_24khz", 24_000, 3)
    kbps = {"snac_24khz": 0.98, "snac_32khz": 1.9, "snac_44khz": 2.6}
    for name, wanted in kbps.items():
        assert names[name].bandwidth == pytest.approx(wanted, abs=0.03)
    pads = {name: names[name].block_frames * names[name].hop_length for name in kbps}
    assert pads == {"snac_24khz": 2048, "snac_32khz": 12288, "snac_44khz": 12288}
