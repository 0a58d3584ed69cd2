"""Memory of loaded models on a CPU, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.processors import blocks

MEASURE = """
import ctypes, json, sys
import numpy as np, psutil
import blazen_codec_core as bc

def used():
    ctypes.CDLL(None).malloc_trim(0)  # what remains is in use
    return psutil.Process().memory_info().rss

def run(codec, seconds, **options):
    pcm = np.zeros((codec.channels, round(seconds * codec.sample_rate)), np.float32)
    encoder, decoder = codec.encoder_session(**options), codec.decoder_session(**options)
    decoder.push(encoder.push(pcm)), decoder.push(encoder.finish()), decoder.finish()

tiny = bc.load("snac_tiny", device="cpu")
tiny.decode(tiny.encode(np.zeros((1, 24000), np.float32), 24000))
before = used()
codec = bc.load(sys.argv[1], weights="random:0", device="cpu")
codec.load()
found = {"loaded": used()}
run(codec, 0.5, tile_frames=codec.spec.block_frames)
found["short tiles"] = used()
run(codec, 4)
found["long tiles"] = used()
weights = sum(parameter.nbytes for parameter in codec.backend.loaded().network.parameters())
print(json.dumps({when: (rss - before) / weights for when, rss in found.items()}))
"""
MOST = {
    "snac_24khz": {"loaded": 1.25, "short tiles": 1.4, "long tiles": 1.8},
    "encodec_24khz": {"loaded": 1.6, "short tiles": 1.7, "long tiles": 2.1},
    "dac_44khz": {"loaded": 1.3, "short tiles": 1.4, "long tiles": 2.4},
}
"""Multiples of the size of the weights."""


@blocks
@pytest.mark.skipif(sys.platform != "linux", reason="the C library's heap is trimmed before it is measured")
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "snac_24khz" else pytest.mark.slow) for name in MOST])
def test_weights_are_held_once(name):
    command = [sys.executable, "-c", MEASURE, name]
    for _ in range(2):  # the first process may compile kernels
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        if not (over := {when for when, most in MOST[name].items() if found[when] > most}):
            break
    assert not over, found
