"""The published files: where they are looked for, both layouts, and what is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core import weights
from blazen_codec_core.conformance.signals import recording
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_encodec import checkpoint, language_model
from blazen_codec_encodec.backend import EncodecBackend
from tests.helpers.upstream_encodec import BY_NAME, LM_SEED

NAMES = sorted(BY_NAME)


@pytest.fixture(scope="module")
def theirs(codecs):
    """A state dict as the authors save it, what only training needs included, by model."""
    return {name: dict(codecs(name, engine="upstream").backend.loaded().network.state_dict()) for name in NAMES}


def on_the_hub(codecs, name: str, factors) -> dict[str, torch.Tensor]:
    """The same weights as the Hub has them."""
    network = codecs(name).backend.loaded().network
    state = conversion.to_published(network, checkpoint.names(network, checkpoint.HUB), factors)
    for book in range(len(network.quantizer)):
        for kind in ("inited", "cluster_size", "embed_avg"):
            state[f"quantizer.layers.{book}.codebook.{kind}"] = torch.zeros(3)
    return {key: tensor.clone() for key, tensor in state.items()}


def config(name: str, **changes) -> str:
    architecture = json.loads(BY_NAME[name].architecture.model_dump_json())
    return json.dumps({**architecture, "model_type": "encodec", "pad_mode": "reflect", **changes})


def same(codecs, name: str, where) -> bc.CodecTokens:
    """Tokens with these weights, which are those of `random:0`."""
    codec, pcm = bc.load(name, weights=where, device="cpu"), recording(BY_NAME[name], 1.1)
    tokens, wanted = codec.encode(pcm, codec.sample_rate), codecs(name).encode(pcm, codec.sample_rate)
    assert all(map(np.array_equal, tokens.codes, wanted.codes))
    return tokens


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_authors_files_load(codecs, theirs, tmp_path, name):
    path = tmp_path / BY_NAME[name].weights.file
    torch.save(theirs[name], path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(codecs, name, path).weights == f"sha256:{digest}"
    assert same(codecs, name, tmp_path).weights == f"sha256:{digest}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_hubs_files_load(codecs, tmp_path, name):
    (tmp_path / "config.json").write_text(config(name))
    for factors in (None, *conversion.FACTORS) if name == "encodec_24khz" else (None,):
        save_file(on_the_hub(codecs, name, factors), tmp_path / "model.safetensors")
        same(codecs, name, tmp_path)


def test_names_are_the_published_ones(theirs):
    """All that transformers' own model of this shape is saved with, at the places where the two layouts differ."""
    network = EncodecBackend(BY_NAME["encodec_48khz"]).build(weights.RandomWeights(0))
    hub = set(checkpoint.names(network, checkpoint.HUB).values())
    for wanted in (
        "encoder.layers.0.conv.weight",
        "encoder.layers.0.norm.bias",
        "encoder.layers.1.block.1.conv.bias",
        "encoder.layers.1.shortcut.norm.weight",
        "encoder.layers.13.lstm.weight_ih_l0",
        "decoder.layers.3.conv.weight",
        "decoder.layers.3.norm.weight",
        "quantizer.layers.15.codebook.embed",
    ):
        assert wanted in hub
    authors = set(checkpoint.names(network, checkpoint.AUTHORS).values())
    training = {
        f"quantizer.vq.layers.{n}._codebook.{kind}" for n in range(16) for kind in ("inited", "cluster_size", "embed_avg")
    }
    assert authors | training == set(theirs["encodec_48khz"])


@pytest.mark.parametrize("changes", [{"sampling_rate": 16_000}, {"use_causal_conv": False}, {"upsampling_ratios": [8, 5, 4, 4]}])
def test_a_config_of_another_model_is_refused(tmp_path, changes):
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    (tmp_path / "config.json").write_text(config("encodec_24khz", **changes))
    with pytest.raises(bc.WeightsUnavailable, match=next(iter(changes))):
        bc.load("encodec_24khz", weights=tmp_path).load()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"sampling_rate": "x"}'])
def test_a_config_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(bc.WeightsUnavailable, match=r"not a config for a model like encodec_24khz|config\.json is not JSON"):
        bc.load("encodec_24khz", weights=tmp_path).load()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("missing", r"encoder\.model\.0\.conv\.conv\.bias is missing"),
        ("extra", "unknown tensors .1., such as decoder.more"),
        ("shape", r"\(3,\); expected \(32,\)"),
        ("other", "another model"),
        ("nan", "NaN"),
    ],
)
def test_weights_of_another_model_are_refused(theirs, tmp_path, change, says):
    state = dict(theirs["encodec_48khz" if change == "other" else "encodec_24khz"])
    name = "encoder.model.0.conv.conv.bias"
    if change == "missing":
        del state[name]
    elif change == "extra":
        state["decoder.more"] = torch.zeros(1)
    elif change == "shape":
        state[name] = torch.zeros(3)
    elif change == "nan":
        state[name] = state[name] * float("nan")
    torch.save(state, tmp_path / "a.th")
    with pytest.raises(bc.WeightsUnavailable, match=says):
        bc.load("encodec_24khz", weights=tmp_path / "a.th").load()


class TestTheAuthorsCache:
    @pytest.fixture
    def spec(self, theirs, tmp_path, monkeypatch):
        """The model with a pin that fits the file in the cache of `torch.hub`."""
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
        spec = BY_NAME["encodec_24khz"]
        path = folder / spec.weights.file
        torch.save(theirs[spec.name], path)
        pin = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        return spec.model_copy(update={"weights": spec.weights.model_copy(update={"sha256": pin})})

    def test_it_is_used_and_the_licence_is_said(self, spec):
        codec = EncodecBackend(spec, bc.LoadOptions(offline=True, device="cpu"))
        with pytest.warns(
            bc.LicenseNotice, match=r"encodec:facebook/encodec_24khz: the weights were published under CC BY-NC 4\.0"
        ):
            codec.load()

    def test_a_file_that_is_not_the_published_one_is_not_used(self, spec):
        with pytest.raises(bc.WeightsUnavailable, match=r"was published with d7cc33bc.*was not used"):
            EncodecBackend(BY_NAME[spec.name], bc.LoadOptions(offline=True)).load()

    def test_the_same_file_by_its_path_has_the_same_licence(self, spec, tmp_path):
        path = tmp_path / "hub" / "checkpoints" / spec.weights.file
        assert weights.locate(spec, bc.LoadOptions(weights=str(path))).published
        assert not weights.locate(BY_NAME[spec.name], bc.LoadOptions(weights=str(path))).published


def test_offline_says_where_it_was_looked_for_and_how_to_bring_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(bc.WeightsUnavailable) as caught:
        bc.load("encodec_48khz", offline=True, cache_dir=tmp_path).load()
    for part in (
        "encodec_48khz-7e698e3e.th is in none of",
        f"{tmp_path}/torch/hub/checkpoints/encodec_48khz-7e698e3e.th",
        "https://dl.fbaipublicfiles.com/encodec/v0/encodec_48khz-7e698e3e.th",
        "model.safetensors of facebook/encodec_48khz",
        "by hand",
    ):
        assert part in str(caught.value)


ONCE = """
import sys, warnings
import blazen_codec_core as bc
from blazen_codec_core import weights
from blazen_codec_encodec.backend import EncodecBackend
from blazen_codec_encodec.specs import SPECS
weights.locate = lambda spec, options: weights.WeightFile(__import__("pathlib").Path(sys.argv[1]), published=True)
for _ in range(3):
    EncodecBackend(SPECS[0], bc.LoadOptions(device="cpu")).load()
"""


@pytest.mark.slow
def test_the_licence_is_said_once(theirs, tmp_path):
    torch.save(theirs["encodec_24khz"], tmp_path / "a.th")
    run = subprocess.run([sys.executable, "-c", ONCE, str(tmp_path / "a.th")], capture_output=True, text=True, check=True)
    assert run.stderr.count("LicenseNotice: encodec:facebook/encodec_24khz") == 1


@pytest.mark.parametrize("name", NAMES)
def test_random_language_models_are_what_pytorch_draws_and_leave_its_generator_alone(monkeypatch, name):
    spec = BY_NAME[name].language_model
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        wanted = language_model.LanguageModel(spec).state_dict()

    def shared(*args, **kwargs):
        raise AssertionError("the generator that threads share is not to be used")

    monkeypatch.setattr(torch, "manual_seed", shared)
    monkeypatch.setattr(torch, "set_rng_state", shared)
    before = torch.get_rng_state()
    found = language_model.load(spec, name, "random:3", bc.LoadOptions()).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", NAMES)
def test_language_models_have_the_authors_names(tmp_path, name):
    from tests.helpers.upstream_encodec import models

    spec = BY_NAME[name].language_model
    mine = language_model.load(spec, name, LM_SEED, bc.LoadOptions()).state_dict()
    authors = models.LMModel(spec.codebooks, spec.entries, num_layers=5, dim=200, past_context=spec.context).state_dict()
    assert {key: tensor.shape for key, tensor in mine.items()} == {key: tensor.shape for key, tensor in authors.items()}
    torch.save(mine, tmp_path / "lm.th")
    again = language_model.load(spec, name, str(tmp_path / "lm.th"), bc.LoadOptions()).state_dict()
    assert all(torch.equal(tensor, mine[key]) for key, tensor in again.items())
    del mine["emb.0.weight"]
    torch.save(mine, tmp_path / "lm.th")
    with pytest.raises(bc.WeightsUnavailable, match=r"1 missing, such as emb\.0\.weight"):
        language_model.load(spec, name, str(tmp_path / "lm.th"), bc.LoadOptions())
