"""Tokens of every model are those that it gave when they were written down: `python test_known_tokens.py` writes them anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import recording

FILE = Path(__file__).with_name("known_tokens.safetensors")
TINY = ("dac_tiny", "encodec_tiny", "mimi_tiny", "snac_tiny")
LARGE = (
    "dac_16khz",
    "dac_24khz",
    "dac_44khz",
    "dac_44khz_16kbps",
    "encodec_24khz",
    "encodec_32khz",
    "encodec_48khz",
    "mimi",
    "qwen3tts_12hz",
    "snac_24khz",
    "snac_32khz",
    "snac_44khz",
)
SECONDS = {TINY: 20.0, LARGE: 3.0}
"""Of each signal; the tokens of all models are then enough to say 99.99 % of."""


def signals(spec: bc.CodecSpec, seconds: float) -> list[np.ndarray]:
    """A voice, noise that swells, and a chirp with clicks, each `(channels, samples)`."""
    time = np.arange(round(seconds * spec.sample_rate)) / spec.sample_rate
    draw = np.random.default_rng(28)
    noise = draw.standard_normal((spec.channels, time.size)) * np.linspace(0, 0.3, time.size)
    chirp = 0.4 * np.sin(2 * np.pi * (60 + 900 * time) * time) + (draw.random((spec.channels, time.size)) < 1e-4)
    return [recording(spec, seconds, seed=28), noise.astype(np.float32), chirp.astype(np.float32)]


def tokens_of(name: str, seconds: float) -> dict[str, np.ndarray]:
    """Codes, one array `(signals, frames)` a codebook."""
    codec = bc.load(name, device="cpu", **({} if name in TINY else {"weights": "random:28"}))
    encoded = [codec.encode(signal, codec.sample_rate) for signal in signals(codec.spec, seconds)]
    codec.unload()
    books = zip(*(tokens.codes for tokens in encoded), strict=True)
    return {f"{name}.{book:02}": np.concatenate(codes).astype(np.uint16) for book, codes in enumerate(books)}


def own_differences(found: list[np.ndarray], known: list[np.ndarray]) -> int:
    """Tokens that differ, but for those that follow from one of a codebook before, at the same time."""
    length = max(code.shape[-1] for code in known)
    differs, own = np.zeros((len(known[0]), length), bool), 0
    for mine, theirs in zip(found, known, strict=True):
        stride = length // mine.shape[-1]
        here = mine != theirs
        before = differs.reshape(len(known[0]), mine.shape[-1], stride).any(axis=-1)
        own += int((here & ~before).sum())
        differs |= np.repeat(here, stride, axis=-1)
    return own


def check(names: tuple[str, ...]) -> None:
    known, own, count = load_file(FILE), 0, 0
    for name in names:
        found = tokens_of(name, SECONDS[names])
        those = {key: codes for key, codes in known.items() if key.split(".")[0] == name}
        assert {key: codes.shape for key, codes in found.items()} == {key: codes.shape for key, codes in those.items()}
        own += own_differences(list(found.values()), [those[key] for key in found])
        count += sum(codes.size for codes in found.values())
    assert own <= count / 10_000


def test_tiny_models():
    check(TINY)


@pytest.mark.slow
def test_large_models():
    """With random weights, at full size."""
    check(LARGE)


@pytest.mark.parametrize("strides", [(1, 1, 1), (4, 2, 1)])
def test_a_token_that_differs_is_counted(strides):
    draw = np.random.default_rng(0)
    known = [draw.integers(0, 1024, (2, 1000 // stride)) for stride in strides]
    found = [code.copy() for code in known]
    assert own_differences(found, known) == 0
    found[0][1, 5] ^= 1
    found[1][1, 5 * strides[0] // strides[1]] ^= 1  # at the same time, and so a consequence
    found[2][0, 7] ^= 1
    assert own_differences(found, known) == 2


def write() -> None:
    """Write `FILE` from what the models give now."""
    made: dict[str, np.ndarray] = {}
    for names, seconds in SECONDS.items():
        for name in names:
            made |= tokens_of(name, seconds)
    save_file(made, FILE)


if __name__ == "__main__":
    write()
