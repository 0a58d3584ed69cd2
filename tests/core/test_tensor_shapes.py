"""Tensors of another shape or type than the network's are refused, and never turned until they fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import blazen_codec_core as bc

TRANSPOSED = {
    "snac_tiny": "decoder.model.2.block.1.weight",
    "dac_tiny": "decoder.model.1.block.1.weight",
    "encodec_tiny": "decoder.model.3.convtr.convtr.weight",
}


@pytest.fixture(scope="module")
def whole():
    """Published tensors of the embedded models, weights whole, by model."""
    from blazen_codec_dac import checkpoint as dac
    from blazen_codec_encodec import checkpoint as encodec
    from blazen_codec_snac import checkpoint as snac

    makers = {"snac_tiny": snac.to_published, "dac_tiny": dac.to_published, "encodec_tiny": encodec.to_published}
    return {name: make(bc.load(name, device="cpu").backend.loaded().network, weight_norm=False) for name, make in makers.items()}


def saved(state, folder):
    folder.mkdir(exist_ok=True)
    torch.save({name: tensor.clone() for name, tensor in state.items()}, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize("name", TRANSPOSED)
def test_whole_weights_are_taken(whole, tmp_path, name):
    codec = bc.load(name, weights=saved(whole[name], tmp_path), device="cpu")
    pcm = np.random.default_rng(0).standard_normal(2000).astype(np.float32) / 9
    wanted = bc.load(name, device="cpu").encode(pcm, 24_000)
    assert all(map(np.array_equal, codec.encode(pcm, 24_000).codes, wanted.codes))


@pytest.mark.parametrize("order", [(1, 2, 0), (1, 0, 2), (2, 0, 1), (0, 2, 1)])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_convolutions_in_another_order_of_axes_are_refused(whole, tmp_path, name, order):
    state = dict(whole[name])
    key = TRANSPOSED[name]
    state[key] = state[key].permute(order).contiguous()
    with pytest.raises(bc.WeightsUnavailable, match=rf"{key} has shape \(.*\); expected \(.*\)"):
        bc.load(name, weights=saved(state, tmp_path), device="cpu").load()


@pytest.mark.parametrize("name", TRANSPOSED)
def test_factors_that_would_be_spread_over_other_axes_are_refused(whole, tmp_path, name):
    state = dict(whole[name])
    stem = TRANSPOSED[name].removesuffix("weight")
    v = state.pop(stem + "weight")
    for magnitude in (torch.ones(1, v.shape[1], 1), torch.ones(1, 1, v.shape[2]), torch.ones(1), torch.ones(v.shape)):
        factors = {stem + "weight_g": magnitude, stem + "weight_v": v}
        with pytest.raises(bc.WeightsUnavailable, match=rf"{stem}weight_g has shape"):
            bc.load(name, weights=saved(state | factors, tmp_path), device="cpu").load()


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_types_that_are_no_weights_are_refused(whole, tmp_path, dtype, leaf):
    state, key = dict(whole["dac_tiny"]), f"encoder.block.0.{leaf}"
    state[key] = state[key].to(dtype)
    with pytest.raises(bc.WeightsUnavailable, match=rf"{key} is {str(dtype).removeprefix('torch.')}"):
        bc.load("dac_tiny", weights=saved(state, tmp_path), device="cpu").load()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_taken(whole, tmp_path, dtype):
    bc.load("dac_tiny", weights=saved({k: v.to(dtype) for k, v in whole["dac_tiny"].items()}, tmp_path), device="cpu").load()


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t.repeat(2, *[1] * (t.dim() - 1)), lambda t: t.sum(), lambda t: t.to_sparse()]
)
@pytest.mark.parametrize(
    "key", ["decoder.model.0.weight", "encoder.block.1.block.0.block.0.alpha", "quantizer.quantizers.0.codebook.weight"]
)
def test_whatever_is_wrong_with_a_file_is_about_its_weights(whole, tmp_path, key, change):
    state = dict(whole["dac_tiny"])
    state[key] = change(state[key])
    with pytest.raises(bc.WeightsUnavailable, match=key):
        bc.load("dac_tiny", weights=saved(state, tmp_path), device="cpu").load()


def test_axes_of_length_1_do_not_matter(whole, tmp_path):
    state, key = dict(whole["dac_tiny"]), "encoder.block.1.block.0.block.0.alpha"
    assert state[key].dim() == 3
    state[key] = state[key].flatten()
    bc.load("dac_tiny", weights=saved(state, tmp_path), device="cpu").load()


def test_a_prefix_and_other_models_tensors_do_not_matter(whole, tmp_path):
    state = {f"audio_encoder.model.{name}": tensor.contiguous() for name, tensor in whole["dac_tiny"].items()}
    state["text_encoder.encoder.block.0.weight"] = torch.zeros(3, dtype=torch.int8)
    save_file(state, tmp_path / "model.safetensors")
    bc.load("dac_tiny", weights=tmp_path, device="cpu").load()
