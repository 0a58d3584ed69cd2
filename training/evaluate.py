"""How intelligible speech stays through a model: STOI and log-mel distance.

    python -m training.evaluate --codec snac_tiny recording.flac …

Held-out synthetic speech is always measured; recordings are resampled to the codec's rate, and their first channel is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pystoi import stoi

import blazen_codec_core as bc
from blazen_codec_core import audio, metrics

from . import sound


def scores(codec: bc.DynCodecProvider, pcm: sound.Signal) -> tuple[float, float]:
    """STOI and log-mel distance of one channel at the codec's rate."""
    decoded = codec.decode(codec.encode(pcm, codec.sample_rate))[0]
    return float(stoi(pcm, decoded, codec.sample_rate)), metrics.log_mel_distance(pcm, decoded, codec.sample_rate)


def usage(codec: bc.DynCodecProvider, signals: list[sound.Signal]) -> list[float]:
    """The share of each codebook's entries that the signals use."""
    used: list[set[int]] = [set() for _ in range(codec.num_codebooks)]
    for signal in signals:
        for book, codes in zip(used, codec.encode(signal, codec.sample_rate).codes, strict=True):
            book.update(codes.flatten().tolist())
    return [len(book) / codec.spec.codebook_size for book in used]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path)
    parser.add_argument("--codec", default="snac_tiny")
    parser.add_argument("--weights", help="as for blazen-codec; the codec's own by default")
    options = parser.parse_args()
    codec = bc.load(options.codec, weights=options.weights)
    held_out = [sound.held_out_speech(index) for index in range(24)]
    results = np.array([scores(codec, signal) for signal in held_out])
    print(f"held-out speech: STOI {results[:, 0].mean():.3f}, log-mel {results[:, 1].mean():.3f}, of {len(held_out)}")
    for path in options.recordings:
        pcm, rate = audio.read(path)
        intelligibility, distance = scores(codec, audio.resample(pcm[:1], rate, codec.sample_rate)[0])
        print(f"{path.name}: STOI {intelligibility:.3f}, log-mel {distance:.3f}")
    corpus = [sound.clip(12_345, index) for index in range(150)]
    print("entries used by 150 clips of another seed:", *(f"{share:.0%}" for share in usage(codec, corpus)))


if __name__ == "__main__":
    main()
