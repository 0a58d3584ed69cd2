"""Synthetic training audio of the embedded models, generated from a seed.

Speech comes from espeak-ng in many voices, languages, rates and pitches; music and noise are synthesised.
Every clip then passes through a random room, equaliser, background, level and clipping, so that a model
trained on it also meets recordings that are not clean synthesis.

    python -m blazen_codec_training.synthetic_audio --minutes 60 --seed 0 --out corpus.npy
    python -m blazen_codec_training.synthetic_audio --held-out 24 --out held_out/

The second command writes WAV files for evaluation: sentences in voices that are not used for training. `--clips 150 --seed 12345`
writes clips of a corpus of another seed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from .prompts import HELD_OUT_SENTENCES, HELD_OUT_VOICES, SENTENCES, VOICES

SAMPLE_RATE = 24_000
Signal = NDArray[np.float32]


def espeak(text: str, voice: str, *, speed: int, pitch: int, word_gap: int = 0) -> Signal:
    """Speak a text with espeak-ng, as float32 (samples,) at 24 kHz."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "speech.wav"
        command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-g", str(word_gap), "-w", str(path), text]
        subprocess.run(command, check=True, capture_output=True)
        pcm, rate = soundfile.read(path, dtype="float32")
    return np.asarray(soxr.resample(pcm, rate, SAMPLE_RATE), dtype=np.float32)


def speech(rng: np.random.Generator) -> Signal:
    """Synthesize one to three sentences and a spoken number, in a random voice and language."""
    language = str(rng.choice(list(SENTENCES)))
    if rng.random() < 0.35:
        language = "en-us"
    lines = [str(line) for line in rng.choice(SENTENCES[language], size=int(rng.integers(1, 3)))]
    lines.append(f"{rng.integers(1, 10_000)}, {rng.integers(1, 100)}.")
    rng.shuffle(lines)
    text = " ".join(lines)
    if rng.random() < 0.4:  # a sequence of words that is no sentence
        words = text.split()
        rng.shuffle(words)
        text = " ".join(words)
    return espeak(
        text,
        f"{language}+{rng.choice(VOICES)}",
        speed=int(rng.integers(100, 230)),
        pitch=int(rng.integers(5, 95)),
        word_gap=int(rng.integers(0, 8)),
    )


def held_out_speech(index: int) -> Signal:
    """Synthesize a sentence in a voice, neither of which `speech` uses; determined by the index."""
    rng = np.random.default_rng((977, index))
    sentence = HELD_OUT_SENTENCES[index % len(HELD_OUT_SENTENCES)]
    voice = f"en-gb+{HELD_OUT_VOICES[index % len(HELD_OUT_VOICES)]}"
    return level(espeak(sentence, voice, speed=int(rng.integers(130, 190)), pitch=int(rng.integers(25, 75))), 0.08)


VOWEL_FORMANTS = ((200, 1000), (600, 2800), (1800, 3600), (3000, 4800), (4000, 6500))
"""Ranges of the resonances of a vocal tract in Hz."""


def babble(rng: np.random.Generator, seconds: float = 5.0) -> Signal:
    """Synthesize a wordless voice from phones of random resonances.

    Source: Klatt 1980, "Software for a cascade/parallel formant synthesizer". Unlike espeak-ng's voices, pitch, breath and
    loudness are unsteady.
    """
    n = round(seconds * SAMPLE_RATE)
    out, at = np.zeros(n, np.float32), 0
    base, breath = np.exp(rng.uniform(np.log(70), np.log(320))), rng.uniform(0.02, 0.4)
    throat, tilt = rng.uniform(0.85, 1.2), rng.uniform(200, 1800)
    pitch = base * 2 ** np.interp(
        np.arange(n), np.linspace(0, n, int(seconds * 4) + 2), rng.normal(0, 0.25, int(seconds * 4) + 2)
    )
    knots = np.arange(0, n + 99, 100)  # the last is at or after the last sample
    pitch *= 1 + 0.01 * np.interp(np.arange(n), knots, rng.standard_normal(len(knots)))
    phase = np.cumsum(pitch) / SAMPLE_RATE
    pulses = np.diff(np.floor(phase), prepend=0).astype(np.float32) * rng.uniform(0.8, 1.2, n)
    glottis = sosfilt(butter(2, tilt, fs=SAMPLE_RATE, output="sos"), pulses) * np.sqrt(SAMPLE_RATE / base) * 3
    glottis += breath * rng.standard_normal(n) * (0.3 + 0.7 * (phase % 1 < 0.4))
    while at < n:
        length, kind = int(rng.uniform(0.04, 0.25) * SAMPLE_RATE), rng.random()
        fade = int(0.012 * SAMPLE_RATE)
        part = slice(at, min(n, at + length + fade))
        if kind < 0.6:
            sound = formants(rng, glottis[part], throat, rng.uniform(1, 5))
        elif kind < 0.85:
            low = rng.uniform(800, 6000)
            band = butter(2, [low, min(low * rng.uniform(1.3, 3), 11_500)], "bandpass", fs=SAMPLE_RATE, output="sos")
            sound = sosfilt(band, rng.standard_normal(part.stop - at)) * rng.uniform(0.1, 0.8)
            sound += formants(rng, glottis[part], throat, 8) * rng.uniform(0, 0.3) * (rng.random() < 0.4)
            if rng.random() < 0.4:  # a stop: silence, then a burst
                sound *= np.exp(-np.arange(len(sound)) / SAMPLE_RATE * rng.uniform(40, 150))
        else:
            sound = np.zeros(part.stop - at, np.float32)
        window = np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / fade)
        out[part] += (level(sound, 10 ** rng.uniform(-0.8, 0)) if kind < 0.85 else sound) * window
        at += length
    return out


def formants(rng: np.random.Generator, source: Signal, throat: float, sharpness: float) -> Signal:
    """Filter a source by a cascade of resonances that glide over its length."""
    steps = 4
    ends = np.array([[rng.uniform(low, high) * throat for low, high in VOWEL_FORMANTS] for _ in range(2)])
    made = []
    for step, made_of in enumerate(np.array_split(source, steps)):
        piece = made_of
        for start, end in ends.T:
            centre = start + (end - start) * step / (steps - 1)
            radius = np.exp(-np.pi * (50 + centre / (4 * sharpness)) / SAMPLE_RATE)
            poles = [1, -2 * radius * np.cos(2 * np.pi * min(centre, 10_000) / SAMPLE_RATE), radius**2]
            piece = lfilter([sum(poles)], poles, piece)
        made.append(piece)
    return np.concatenate(made)


def tone(rng: np.random.Generator, seconds: float, pitch: float) -> Signal:
    """Synthesize a note: harmonics with a random spectral slope, vibrato, attack and decay."""
    n = int(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    vibrato = 1 + rng.uniform(0, 0.01) * np.sin(2 * np.pi * rng.uniform(4, 7) * t)
    phase = 2 * np.pi * np.cumsum(pitch * vibrato) / SAMPLE_RATE
    count = max(1, min(int(rng.integers(1, 24)), int(11_000 / pitch)))
    slope = rng.uniform(0.5, 2.0)
    sound = sum(
        rng.uniform(0.3, 1.0) * k**-slope * np.sin(k * phase + rng.uniform(0, 6.28)) * np.exp(-t * k * rng.uniform(0, 0.6))
        for k in range(1, count + 1)
    )
    attack = np.minimum(1, t / rng.uniform(0.003, 0.08))
    release = np.minimum(1, (seconds - t) / rng.uniform(0.02, 0.2))
    return np.asarray(sound * attack * release * np.exp(-t * rng.uniform(0, 4)), dtype=np.float32)


def music(rng: np.random.Generator, seconds: float = 6.0) -> Signal:
    """Synthesize melodies, chords and percussion over a random scale."""
    out = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    scale = rng.uniform(80, 400) * 2 ** (np.array([0, 2, 3, 5, 7, 8, 10, 12, 14, 15]) / 12)
    at = 0.0
    beat = rng.uniform(0.12, 0.6)
    while at < seconds:
        notes = rng.choice(scale, size=int(rng.choice([1, 1, 1, 2, 3, 4])), replace=False)
        if rng.random() < 0.8:
            for pitch in notes:
                add(out, tone(rng, beat * rng.uniform(0.8, 3), float(pitch)) * rng.uniform(0.3, 1), at)
        if rng.random() < 0.4:
            add(out, drum(rng) * rng.uniform(0.3, 1.2), at)
        at += beat * rng.choice([0.5, 1, 1, 2])
    return out


def drum(rng: np.random.Generator) -> Signal:
    t = np.arange(int(rng.uniform(0.03, 0.3) * SAMPLE_RATE)) / SAMPLE_RATE
    if rng.random() < 0.5:
        body = np.sin(2 * np.pi * rng.uniform(40, 120) * t * (1 + np.exp(-t * 60)))
    else:
        body = coloured_noise(rng, len(t), rng.uniform(-0.3, 1.0))
    return np.asarray(body * np.exp(-t * rng.uniform(10, 80)), np.float32)


def coloured_noise(rng: np.random.Generator, n: int, slope: float) -> Signal:
    """Generate noise of unit RMS, whose power falls as f**-slope."""
    spectrum = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
    spectrum /= np.maximum(np.arange(n // 2 + 1), 1.0) ** (slope / 2)
    noise = np.fft.irfft(spectrum, n)
    return np.asarray(noise / (np.sqrt(np.mean(noise**2)) + 1e-9), np.float32)


def noise(rng: np.random.Generator, seconds: float = 3.0) -> Signal:
    """Generate coloured noise with a slowly moving band and envelope: breath, wind, hiss, applause."""
    n = int(seconds * SAMPLE_RATE)
    low = rng.uniform(60, 3000)
    band = butter(2, [low, min(low * rng.uniform(2, 12), 11_000)], "bandpass", fs=SAMPLE_RATE, output="sos")
    envelope = np.interp(np.arange(n), np.linspace(0, n, 16), rng.uniform(0, 1, 16) ** 2)
    return np.asarray(sosfilt(band, coloured_noise(rng, n, rng.uniform(0, 1.5))) * envelope, np.float32)


def add(out: Signal, sound: Signal, at_seconds: float) -> None:
    start = int(at_seconds * SAMPLE_RATE)
    end = min(len(out), start + len(sound))
    out[start:end] += sound[: end - start]


def level(pcm: Signal, rms: float) -> Signal:
    return np.asarray(pcm * (rms / (np.sqrt(np.mean(pcm**2)) + 1e-6)), np.float32)


def room(rng: np.random.Generator, pcm: Signal) -> Signal:
    """Generate a room response: a direct path and a decaying tail of coloured noise."""
    n = int(rng.uniform(0.05, 0.5) * SAMPLE_RATE)
    tail = coloured_noise(rng, n, rng.uniform(0, 1)) * np.exp(-np.arange(n) / n * rng.uniform(4, 9))
    tail[: int(rng.uniform(0.001, 0.02) * SAMPLE_RATE)] = 0
    response = np.concatenate([[1.0], tail * rng.uniform(0.02, 0.15)])
    return np.asarray(fftconvolve(pcm, response)[: len(pcm)], np.float32)


def equalise(rng: np.random.Generator, pcm: Signal) -> Signal:
    """Apply a smooth random response within ±12 dB, sometimes band-limited like a telephone or an old tape."""
    knots = np.geomspace(60, 12_000, 8)
    gains = rng.uniform(-12, 12) * np.linspace(-0.5, 0.5, 8) + rng.normal(0, 4, 8)
    if rng.random() < 0.3:
        gains -= 40 * (knots > rng.uniform(3_000, 9_000))
    if rng.random() < 0.3:
        gains -= 30 * (knots < rng.uniform(80, 400))
    spectrum = np.fft.rfft(pcm)
    frequencies = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)
    response = np.interp(np.log(np.maximum(frequencies, 20)), np.log(knots), gains)
    return np.asarray(np.fft.irfft(spectrum * 10 ** (response / 20), len(pcm)), np.float32)


def treat(rng: np.random.Generator, pcm: Signal) -> Signal:
    """Apply random effects of a recording chain: room, equaliser, noise, level and clipping."""
    if rng.random() < 0.5:
        pcm = room(rng, pcm)
    if rng.random() < 0.7:
        pcm = equalise(rng, pcm)
    pcm = level(pcm, 1.0)
    if rng.random() < 0.5:
        pcm = pcm + coloured_noise(rng, len(pcm), rng.uniform(0, 2)) * 10 ** (-rng.uniform(15, 50) / 20)
    pcm = level(pcm, 10 ** (-rng.uniform(14, 34) / 20))
    if rng.random() < 0.1:
        pcm = np.clip(pcm, -0.25, 0.25)
    return np.asarray(np.clip(pcm, -1, 1), np.float32)


def clip(seed: int, index: int) -> Signal:
    """Generate clip number `index` of the corpus of `seed`: mostly speech, some music, noise and mixtures."""
    rng = np.random.default_rng((seed, index))
    kind = rng.random()
    if kind < 0.6:
        sound = speech(rng)
    elif kind < 0.75:
        sound = babble(rng)
    elif kind < 0.82:
        voice = level(speech(rng), 1.0)
        bed = music(rng, len(voice) / SAMPLE_RATE) if rng.random() < 0.5 else speech(rng)
        bed = np.resize(bed, len(voice)).astype(np.float32)
        sound = voice + level(bed, 10 ** (-rng.uniform(3, 20) / 20))
    elif kind < 0.95:
        sound = music(rng)
    else:
        sound = noise(rng)
    return treat(rng, sound)


def _clip_int16(job: tuple[int, int]) -> NDArray[np.int16]:
    return np.round(clip(*job) * 32767).astype(np.int16)


def corpus(seed: int, minutes: float, path: Path) -> NDArray[np.int16]:
    """Return all clips concatenated, int16 `(samples,)` at 24 kHz; generated once, then read from `path`."""
    if not path.exists():
        wanted, parts, have, index = int(minutes * 60 * SAMPLE_RATE), [], 0, 0
        with ProcessPoolExecutor() as pool:
            while have < wanted:
                for part in pool.map(_clip_int16, [(seed, index + i) for i in range(64)], chunksize=4):
                    parts.append(part)
                    have += len(part)
                index += 64
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, np.concatenate(parts)[:wanted])
        os.replace(temporary, path)
    return np.asarray(np.load(path, mmap_mode="r"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, metavar="COUNT", help="write COUNT recordings of held-out speech")
    parser.add_argument("--clips", type=int, metavar="COUNT", help="write COUNT clips")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.held_out or options.clips:
        options.out.mkdir(parents=True, exist_ok=True)
        for index in range(options.held_out or options.clips):
            pcm = held_out_speech(index) if options.held_out else clip(options.seed, index)
            soundfile.write(options.out / f"{index:03}.wav", pcm, SAMPLE_RATE, subtype="FLOAT")
        return
    whole = corpus(options.seed, options.minutes, options.out)
    print(f"{len(whole) / SAMPLE_RATE / 60:.1f} minutes in {options.out}")


if __name__ == "__main__":
    main()
