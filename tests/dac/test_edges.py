"""Ours against the authors' package where signals and windows end, which is the same in networks of any width."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording
from blazen_codec_dac.specs import WINDOW_FRAMES, WINDOW_PADDED

pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.mark.parametrize("name", ["dac_16khz", "dac_44khz"])
def test_the_samples_that_strides_of_five_leave_out(codecs, name):
    """The authors' decoder makes 8 samples less than whole frames at 16 and 24 kHz; ours goes on with its mirror image."""
    ours, theirs = codecs(name), codecs(name, engine="upstream")
    spec = ours.spec
    missing = {"dac_16khz": 8, "dac_44khz": 0}[name]
    pcm = recording(spec, 1)[:, : 5 * spec.hop_length]
    tokens = ours.encode(pcm, spec.sample_rate)
    audio = ours.decode(tokens)
    assert audio.shape == pcm.shape

    import torch

    with torch.inference_mode():
        network = theirs.backend.loaded().network
        codes = torch.tensor(np.stack(tokens.codes, axis=1)).long()
        made = network.decode(network.quantizer.from_codes(codes)[0])[0].numpy()
    assert made.shape[1] == audio.shape[1] - missing
    assert np.abs(audio[:, : made.shape[1]] - made).max() < 1e-4
    assert np.array_equal(audio[:, made.shape[1] :], audio[:, made.shape[1] - missing - 1 : made.shape[1] - 1][:, ::-1])


def test_silence_and_loud_noise(codecs):
    ours, theirs = codecs("dac_16khz"), codecs("dac_16khz", engine="upstream")
    for pcm in (np.zeros((1, 3000)), np.random.default_rng(0).uniform(-1, 1, (1, 9000))):
        mine, reference = (codec.encode(pcm.astype(np.float32), codec.sample_rate) for codec in (ours, theirs))
        assert mine == reference
        assert np.abs(ours.decode(mine) - theirs.decode(mine)).max() < 1e-4


@pytest.mark.parametrize("padded", [False, True])
def test_windows_are_decoded_as_the_authors_do(codecs, padded):
    frames = 23
    ours, theirs = codecs("dac_16khz"), codecs("dac_16khz", engine="upstream")
    spec = ours.spec
    rng = np.random.default_rng(frames)
    codes = [rng.integers(0, 1024, (1, 2 * frames)) for _ in range(4)]
    samples = 2 * spec.architecture.window_samples(frames, padded=padded) - 5
    tokens = bc.CodecTokens.from_codes(spec, codes, num_samples=samples)
    tokens = dataclasses.replace(tokens, extra={WINDOW_FRAMES: frames, WINDOW_PADDED: padded})
    audio = ours.decode(tokens)
    assert audio.shape == (1, samples)
    assert np.abs(audio - theirs.decode(tokens)).max() < 1e-4
    session = ours.decoder_session(tile_frames=9)
    parts = [session.push(part) for part in tokens.parts(7)]
    assert np.abs(np.concatenate([*parts, session.finish()], axis=1) - audio).max() < 1e-5
    plain = dataclasses.replace(tokens, extra={})
    if padded:
        both = ours.decode_batch([tokens, plain])
        assert np.array_equal(both[0], audio)
        assert both[1].shape == audio.shape
        assert np.abs(both[1] - audio).max() > 1e-3


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"window": 3}, "have the extra window, which dac_16khz does not support"),
        ({WINDOW_FRAMES: 20}, "whether they were padded"),
        ({WINDOW_FRAMES: 0, WINDOW_PADDED: True}, "is a number of frames"),
        ({WINDOW_FRAMES: "20", WINDOW_PADDED: True}, "is a number of frames"),
        ({WINDOW_FRAMES: 3, WINDOW_PADDED: False}, "num_samples of the tokens is 640; dac_16khz decodes them to at most 0"),
    ],
)
def test_windows_that_none_can_be(extra, says):
    codec = bc.load("dac_16khz", weights="random:0")
    tokens = bc.CodecTokens.from_codes(codec.spec, [[1, 2]])
    with pytest.raises(bc.InvalidTokens, match=says):
        codec.decode(dataclasses.replace(tokens, extra=extra))
