from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import blazen_codec_core as bc


def spec(**changes) -> bc.CodecSpec:
    fields = {
        "api_version": 1,
        "name": "toy_8khz",
        "family": "toy",
        "description": "A toy",
        "backend": "toy.backend:Toy",
        "sample_rate": 8000,
        "hop_length": 100,
        "strides": (2, 1),
        "codebook_size": 1024,
        "block_frames": 2,
        "tile_frames": 8,
        "weights": bc.WeightSource(repo="me/toy", file="model.safetensors"),
        "license": "MIT",
    }
    return bc.CodecSpec(**{**fields, **changes})


def test_rates_follow_from_the_numbers():
    toy = spec()
    assert (toy.frame_rate, toy.token_rate, toy.num_codebooks) == (80, 120, 2)
    assert toy.bandwidth == pytest.approx(1.2)


def test_a_spec_is_frozen():
    with pytest.raises(ValidationError):
        spec().sample_rate = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Toy 8"},
        {"backend": "toy.backend"},
        {"sample_rate": 0},
        {"strides": ()},
        {"strides": (0, 1)},
        {"block_frames": 3},
        {"tile_frames": 3},
        {"nonsense": 1},
    ],
)
def test_a_wrong_spec_is_refused(wrong):
    with pytest.raises(ValidationError):
        spec(**wrong)


@pytest.mark.parametrize("wrong", [{}, {"package": "a", "repo": "b/c"}, {"repo": "b/c", "sha256": "short"}])
def test_weights_are_in_one_place_with_a_whole_checksum(wrong):
    with pytest.raises(ValidationError):
        bc.WeightSource(file="x", **wrong)


def test_options_are_checked_and_take_paths():
    options = bc.LoadOptions.of(weights=Path("a") / "b", device="cpu")
    assert options.weights == str(Path("a") / "b")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"engine": "fast"}, "engine"),
        ({"speed": 3}, "speed"),
        ({"noise_seed": -1}, "noise_seed"),
        ({"offline": "perhaps"}, "offline"),
    ],
)
def test_wrong_options_are_named(wrong, says):
    with pytest.raises(bc.InvalidInput, match=says):
        bc.load("snac_tiny", **wrong)


def test_a_floating_type_may_be_an_object():
    torch = pytest.importorskip("torch")
    for dtype, name in ((torch.bfloat16, "bfloat16"), (np.float32, "float32"), (np.dtype("float16"), "float16")):
        assert bc.LoadOptions.of(dtype=dtype).dtype == name
