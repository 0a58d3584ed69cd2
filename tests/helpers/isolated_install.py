"""python tests/helpers/isolated_install.py NAME [WEIGHTS]: what a plugin brought along, and a round trip.

Run by `nox -s alone` and `nox -s build` in an environment that holds one plugin and nothing for tests.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions

import numpy as np

import blazen_codec_core as bc

name, weights = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
installed = sorted({distribution.name for distribution in distributions()})
print(f"{len(installed)} distributions: {' '.join(installed)}")
AUTHORS = ("snac", "encodec", "moshi", "transformers", "descript-audio-codec", "descript-audiotools", "qwen-tts-hf")
for unwanted in (*AUTHORS, "torchaudio", "pytest", "matplotlib"):
    assert unwanted not in installed, f"{unwanted} came along"
codec = bc.load(name, weights=weights)
pcm = np.sin(np.arange(codec.sample_rate) / 30).astype(np.float32)[None]
tokens = codec.encode(pcm, codec.sample_rate)
audio = codec.decode(tokens)
assert audio.shape == pcm.shape
print(f"{tokens} -> {audio.shape}")
refused = ""
try:
    bc.load(name, engine="upstream").load()
except bc.EngineNotAvailable as error:
    refused = str(error)
assert "pip install" in refused, "the authors' package is not installed, yet its engine loads, or does not say why not"
print(refused)
