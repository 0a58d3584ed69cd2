"""The examples with tensors do what they say, with fewer steps than by hand."""

from __future__ import annotations

import math
import runpy

import pytest
import soundfile


@pytest.fixture
def main(root, request):
    return runpy.run_path(str(root / "examples/tensors" / f"{request.param}.py"))["main"]


@pytest.fixture
def speech(root) -> str:
    return str(root / "examples/speech.flac")


@pytest.mark.slow
@pytest.mark.parametrize("main", ["latent_flow"], indirect=True)
def test_a_flow_model_of_latents(main, speech, tmp_path):
    first, last = main(speech, str(tmp_path / "made.wav"), steps=60)
    assert last < 0.9 * first
    assert soundfile.info(tmp_path / "made.wav").duration == pytest.approx(2, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("main", ["through_a_frozen_codec"], indirect=True)
def test_a_filter_before_a_frozen_codec(main, speech):
    before, after = main(speech, steps=12)
    assert after < before


@pytest.mark.parametrize("main", ["codebook_embedding"], indirect=True)
def test_codebooks_as_an_embedding(main, speech):
    with_codebooks, with_random = main(speech, steps=40)
    assert with_codebooks < with_random
    assert with_codebooks < math.log(1024)


@pytest.mark.slow
@pytest.mark.parametrize("main", ["finetune"], indirect=True)
@pytest.mark.filterwarnings("ignore::blazen_codec_core.OtherWeightsNotice")
def test_a_tuned_decoder(main, speech, tmp_path):
    before, after = main(speech, str(tmp_path / "tuned"), steps=15)
    assert after < before
