"""The published files: where they are looked for, both layouts, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core import weights
from blazen_codec_core.conformance.signals import recording
from blazen_codec_core.nn.checkpoints import conversion
from blazen_codec_dac import checkpoint
from tests.helpers.narrow_dac import AUTHORS, BY_NAME

SMALL = "dac_16khz"
pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture(scope="module")
def theirs(codecs):
    """Their model with the weights of `random:0`."""
    return codecs(SMALL, engine="upstream").backend.loaded().network


def settings(name: str, **changes) -> dict:
    """What their checkpoints say of a model: what they can be made with, in plain types."""
    a = BY_NAME[name].architecture
    rates = {"encoder_rates": list(a.encoder_rates), "decoder_rates": list(a.decoder_rates)}
    return {**a.model_dump(), **rates, "quantizer_dropout": 0.5, **changes}


def release(theirs, path, **changes):
    """A file as they publish it."""
    torch.save({"state_dict": theirs.state_dict(), "metadata": {"kwargs": settings(SMALL, **changes)}}, path)
    return path


def hub_config(name: str, **changes) -> str:
    a = BY_NAME[name].architecture
    return json.dumps(
        {
            "model_type": "dac",
            "encoder_hidden_size": a.encoder_dim,
            "downsampling_ratios": a.encoder_rates,
            "decoder_hidden_size": a.decoder_dim,
            "upsampling_ratios": a.decoder_rates,
            "hidden_size": a.latent_dim,
            "n_codebooks": a.n_codebooks,
            "codebook_size": a.codebook_size,
            "codebook_dim": a.codebook_dim,
            "sampling_rate": a.sample_rate,
            **changes,
        }
    )


def on_the_hub(codecs, factors=None) -> dict[str, torch.Tensor]:
    network = codecs(SMALL).backend.loaded().network
    names = conversion.names(network, checkpoint.hub_rules(BY_NAME[SMALL]))
    return {key: tensor.clone() for key, tensor in conversion.alphas(conversion.to_published(network, names, factors)).items()}


def same(codecs, where) -> None:
    """Tokens with these weights are those of `random:0`."""
    codec, pcm = bc.load(SMALL, weights=where, device="cpu"), recording(BY_NAME[SMALL], 0.3)
    tokens, wanted = codec.encode(pcm, codec.sample_rate), codecs(SMALL).encode(pcm, codec.sample_rate)
    assert all(map(np.array_equal, tokens.codes, wanted.codes))


def test_the_authors_files_load(codecs, theirs, tmp_path):
    same(codecs, release(theirs, tmp_path / "any.pth"))
    release(theirs, tmp_path / BY_NAME[SMALL].weights.file)
    same(codecs, tmp_path)
    width = 16 * BY_NAME[SMALL].architecture.encoder_dim  # which a file that does not say it has
    assert BY_NAME[SMALL].architecture.latent_dim == width
    same(codecs, release(theirs, tmp_path / "no_latent.pth", latent_dim=None))


def test_the_hubs_files_load(codecs, tmp_path):
    (tmp_path / "config.json").write_text(hub_config(SMALL))
    for factors in (None, conversion.FACTORS[0]):
        save_file(on_the_hub(codecs, factors), tmp_path / "model.safetensors")
        same(codecs, tmp_path)


def test_names_are_the_published_ones(codecs, theirs):
    """All that the two publishers' models of this shape are saved with."""
    network = codecs(SMALL).backend.loaded().network
    assert set(checkpoint.to_published(network)) == set(theirs.state_dict())
    unit = {f"{layer}.{leaf}" for layer, leaves in UNIT.items() for leaf in leaves}
    convolution = ("weight", "bias")
    wanted = {f"{part}.conv{n}.{leaf}" for part in ("encoder", "decoder") for n in (1, 2) for leaf in convolution}
    wanted |= {"encoder.snake1.alpha", "decoder.snake1.alpha"}
    for block in range(4):
        wanted |= {f"encoder.block.{block}.conv1.{leaf}" for leaf in convolution}
        wanted |= {f"decoder.block.{block}.conv_t1.{leaf}" for leaf in convolution}
        for part in ("encoder", "decoder"):
            wanted |= {f"{part}.block.{block}.snake1.alpha"}
            wanted |= {f"{part}.block.{block}.res_unit{n}.{name}" for n in (1, 2, 3) for name in unit}
    for book in range(12):
        wanted |= {f"quantizer.quantizers.{book}.{name}.{leaf}" for name in ("in_proj", "out_proj") for leaf in convolution}
        wanted |= {f"quantizer.quantizers.{book}.codebook.weight"}
    assert set(on_the_hub(codecs)) == wanted


UNIT = {"snake1": ["alpha"], "conv1": ["weight", "bias"], "snake2": ["alpha"], "conv2": ["weight", "bias"]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample_rate": 24_000}, "sample_rate is 24000, but dac_16khz has 16000"),
        ({"n_codebooks": 32}, "n_codebooks is 32"),
        ({"encoder_rates": [2, 4, 8, 8]}, "encoder_rates"),
        ({"sample_rate": "x"}, "not a config for a model like dac_16khz"),
    ],
)
def test_checkpoints_of_another_model_are_refused(theirs, tmp_path, changes, says):
    with pytest.raises(bc.WeightsUnavailable, match=says):
        bc.load(SMALL, weights=release(theirs, tmp_path / "a.pth", **changes)).load()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": {}}, "so its model is unknown"),
        ({"state_dict": {}, "metadata": {"kwargs": settings(SMALL)}}, "is missing"),
        ({"state_dict": [1], "metadata": {"kwargs": settings(SMALL)}}, "holds no state dict"),
        ([1], "holds no state dict"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(bc.WeightsUnavailable, match=says):
        bc.load(SMALL, weights=tmp_path / "a.pth").load()


def test_a_config_of_another_model_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    (tmp_path / "config.json").write_text(hub_config(SMALL, upsampling_ratios=[8, 8, 4, 2]))
    with pytest.raises(bc.WeightsUnavailable, match="decoder_rates"):
        bc.load(SMALL, weights=tmp_path).load()


def test_the_authors_cache_is_used(theirs, codecs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    folder = tmp_path / ".cache" / "descript" / "dac"
    folder.mkdir(parents=True)
    path = release(theirs, folder / "weights_16khz_8kbps_0.0.5.pth")
    with pytest.raises(bc.WeightsUnavailable, match=f"here as {path}, is a pickle.*--trust-pickle"):
        weights.locate(BY_NAME[SMALL], bc.LoadOptions(offline=True))
    found = weights.locate(BY_NAME[SMALL], bc.LoadOptions(offline=True, trust_pickle=True))
    assert found.path == path
    same(codecs, folder)


def test_where_each_model_is_published():
    files = {
        "dac_16khz": ("0.0.5/weights_16khz.pth", "weights_16khz_8kbps_0.0.5.pth"),
        "dac_24khz": ("0.0.4/weights_24khz.pth", "weights_24khz_8kbps_0.0.4.pth"),
        "dac_44khz": ("0.0.1/weights.pth", "weights_44khz_8kbps_0.0.1.pth"),
        "dac_44khz_16kbps": ("1.0.0/weights_44khz_16kbps.pth", "weights_44khz_16kbps_1.0.0.pth"),
    }
    from dac import utils

    tags, urls = vars(utils)["__MODEL_LATEST_TAGS__"], vars(utils)["__MODEL_URLS__"]
    published_urls = {urls[kind, tag, bitrate] for (kind, bitrate), tag in tags.items()}
    assert {spec.weights.url + spec.weights.file for spec in AUTHORS} == published_urls
    for name, (url, cache) in files.items():
        source = BY_NAME[name].weights
        assert f"{source.url}{source.file}".endswith(url)
        assert source.caches == (f"~/.cache/descript/dac/{cache}",)
    assert [spec.name for spec in AUTHORS if not spec.mirrors] == ["dac_44khz_16kbps"]


def test_offline_says_where_it_was_looked_for_and_how_to_bring_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(bc.WeightsUnavailable) as caught:
        bc.load("dac_44khz", offline=True, cache_dir=tmp_path).load()
    for part in (
        "weights.pth is in none of",
        f"{tmp_path}/.cache/descript/dac/weights_44khz_8kbps_0.0.1.pth",
        f"{tmp_path}/github.com/descriptinc/descript-audio-codec/releases/download/0.0.1/weights.pth",
        "model.safetensors of descript/dac_44khz",
        "by hand",
    ):
        assert part in str(caught.value)
