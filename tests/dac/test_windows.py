"""The arithmetic of windows, and that a network without padding gives what one with padding gives, but for the seams."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blazen_codec_core.nn import reset_parameters
from blazen_codec_dac.chunked_decoder import window_decoder
from blazen_codec_dac.chunks import Windows
from blazen_codec_dac.network import DacNetwork, decoder
from blazen_codec_dac.specs import SPECS, DacArchitecture

SMALL = DacArchitecture(
    sample_rate=8000, encoder_dim=4, encoder_rates=(3, 5), decoder_dim=16, decoder_rates=(5, 3), n_codebooks=2, codebook_size=16
)


@pytest.mark.parametrize("architecture", [SMALL, *(spec.architecture for spec in SPECS)], ids=str)
def test_as_many_samples_as_the_layers_make(architecture):
    for padded in (True, False):
        with torch.device("meta"):
            layers = decoder(architecture, padded=padded, mirrored=False)
        windows = Windows(architecture, 1000, padded)
        for frames in (1, 2, 5, 10, 20, 33, 64, 1000):
            assert windows.samples(frames) == layers.frames_out(frames, True)


@settings(max_examples=20)
@given(before=st.integers(0, 40), inside=st.integers(50, 70), after=st.integers(0, 40))
def test_the_middle_of_a_window_is_that_of_the_whole(before, inside, after):
    network = DacNetwork(SMALL)
    reset_parameters(network, 0)
    z = torch.randn(1, before + inside + after, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network.decoder(z)
        part = window_decoder(network, Windows(SMALL, inside, padded=False))(z[:, before : before + inside])
    assert part.shape[1] == SMALL.window_samples(inside, padded=False)
    seam = SMALL.hop_length  # where only one of the frames that a transposed convolution adds up is in the window
    middle = part[:, seam:-seam]
    margin = (inside * SMALL.hop_length - part.shape[1]) // 2
    around = range(before * SMALL.hop_length + margin + seam - 3, before * SMALL.hop_length + margin + seam + 4)
    assert min(float((whole[:, at : at + middle.shape[1]] - middle).abs().max()) for at in around) < 1e-5
    assert middle.shape[1] > 200


def test_weights_are_shared_not_copied():
    network = DacNetwork(SMALL)
    twin = window_decoder(network, Windows(SMALL, 10, padded=False))
    ours = {parameter.data_ptr() for parameter in network.decoder.parameters()}
    assert {parameter.data_ptr() for parameter in twin.parameters()} == ours
