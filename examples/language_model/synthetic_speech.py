"""Spoken digits of a few voices, by formant synthesis (Klatt 1980, "Software for a cascade/parallel formant synthesizer").

A voice is a pitch and a length of the vocal tract. Harmonics of the pitch, and noise, get the amplitudes of moving resonances.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import blazen_codec_core as bc

RATE = 24_000
VOICES = {"bass": (90.0, 0.88), "tenor": (135.0, 1.0), "alto": (205.0, 1.12), "treble": (290.0, 1.26)}
"""Pitch in Hz, and the factor of all formants."""


@dataclass(frozen=True)
class Phone:
    """A speech sound: formants in Hz, its length in seconds, and the levels of voice and noise."""

    formants: tuple[float, float, float]
    seconds: float = 0.09
    voice: float = 1.0
    noise: float = 0.0


PHONES = {
    "IY": Phone((280, 2250, 2900)),
    "IH": Phone((400, 1950, 2550)),
    "EH": Phone((550, 1800, 2480)),
    "AH": Phone((650, 1200, 2400)),
    "AA": Phone((740, 1100, 2450)),
    "AO": Phone((570, 850, 2400), 0.12),
    "OW": Phone((450, 800, 2350), 0.12),
    "UW": Phone((310, 900, 2250), 0.14),
    "W": Phone((300, 620, 2150), 0.06, 0.6),
    "R": Phone((350, 1080, 1450), 0.07, 0.7),
    "N": Phone((250, 1250, 2100), 0.08, 0.35),
    "V": Phone((300, 1100, 2200), 0.05, 0.3, 0.1),
    "Z": Phone((280, 1700, 6500), 0.07, 0.3, 0.3),
    "F": Phone((1400, 4200, 7500), 0.08, 0.0, 0.15),
    "TH": Phone((1500, 5200, 7800), 0.07, 0.0, 0.12),
    "S": Phone((4300, 5600, 7400), 0.1, 0.0, 0.4),
    "K": Phone((1800, 2500, 4500), 0.04, 0.0, 0.3),
    "T": Phone((3200, 4300, 6500), 0.03, 0.0, 0.5),
    "-": Phone((500, 1500, 2500), 0.04, 0.0, 0.0),
}
WORDS = {
    "one": "W AH N",
    "two": "T UW UW",
    "three": "TH R IY IY",
    "four": "F AO AO R",
    "five": "F AA IY V",
    "six": "S IH - K S",
    "seven": "S EH V EH N",
    "eight": "EH IY - T",
    "nine": "N AA IY N",
    "zero": "Z IH R OW",
}


def say(text: str, voice: str, seed: int = 0) -> np.ndarray:
    """Return the words of a text, float32 `(1, samples)`; pitch and lengths vary a little with the seed."""
    draw = np.random.default_rng(seed)
    pitch, tract = VOICES[voice]
    phones = [PHONES[name] for word in text.split() for name in ["-", *WORDS[word].split(), "-"]]
    lengths = np.array([phone.seconds for phone in phones]) * draw.uniform(0.9, 1.1, len(phones))
    middles = np.cumsum(lengths) - lengths / 2
    time = np.arange(int(RATE * lengths.sum())) / RATE
    formants = np.stack([np.interp(time, middles, [phone.formants[k] for phone in phones]) for k in range(3)]) * tract
    voiced, noisy = (np.interp(time, middles, [getattr(phone, kind) for phone in phones]) for kind in ("voice", "noise"))
    fall = pitch * draw.uniform(0.97, 1.03) * np.linspace(1.06, 0.94, len(time))
    phase = 2 * np.pi * np.cumsum(fall) / RATE
    sound = np.zeros(len(time))
    for number in range(1, int(5000 / pitch)):
        sound += voiced * _resonance(number * fall, formants) / number * np.sin(number * phase)
    sound += noisy * _shaped_noise(draw.standard_normal(len(time)), formants)
    return (0.25 * sound / np.abs(sound).max()).astype(np.float32)[None]


def _resonance(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Return the amplitude of parallel resonances at a frequency in Hz, of 60 Hz of bandwidth and more."""
    widths = 60 + 0.05 * formants
    return (1 / np.sqrt(1 + ((frequency - formants) / widths) ** 2)).sum(0)


def _shaped_noise(noise: np.ndarray, formants: np.ndarray, size: int = 512) -> np.ndarray:
    """Give noise the resonances of its time, by overlapping windows."""
    out, window = np.zeros(len(noise) + size), np.hanning(size)
    for start in range(0, len(noise) - size, size // 2):
        shape = _resonance(np.fft.rfftfreq(size, 1 / RATE), formants[:, start + size // 2, None])
        out[start : start + size] += window * np.fft.irfft(np.fft.rfft(window * noise[start : start + size]) * shape)
    return out[: len(noise)]


def write_recordings(folder: Path, count: int, words: int = 2) -> Path:
    """Write `count` recordings of each voice, and a list with their texts and voices; return the list."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, rows = np.random.default_rng(0), []
    for number in range(count * len(VOICES)):
        voice = list(VOICES)[number % len(VOICES)]
        text = " ".join(draw.choice(list(WORDS), words))
        bc.write_audio(folder / f"{number:04d}.wav", say(text, voice, number), RATE)
        rows.append({"path": f"{number:04d}.wav", "text": text, "voice": voice})
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "list.jsonl"
