"""Quality metrics of a decoded signal against the original, and use of codebooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInput
from ..installation import missing

Signal = NDArray[np.float32]


def si_sdr(original: Signal, decoded: Signal) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, "SDR - half-baked or well done?").

    Args:
        original, decoded: Signals of equal shape; several channels count as one long signal.

    Raises:
        InvalidInput: The signals have different lengths.
    """
    a, b = (np.asarray(signal, np.float64).reshape(-1) for signal in (original, decoded))
    if a.shape != b.shape:
        raise InvalidInput(f"the signals have {a.size} and {b.size} samples; expected equal lengths")
    a, b = a - a.mean(), b - b.mean()
    target = a * (a @ b) / max(a @ a, 1e-20)
    return float(10 * np.log10(max(target @ target, 1e-20) / max((b - target) @ (b - target), 1e-20)))


def mel(hertz: Any) -> Any:
    """Convert frequencies in hertz to the mel scale (O'Shaughnessy's formula)."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_filters(sample_rate: int, window: int, bands: int) -> NDArray[np.float64]:
    """Triangular filters of equal area on the mel scale, `(window / 2 + 1, bands)`, for a window in samples."""
    hertz = 700 * (10 ** (np.linspace(0, mel(sample_rate / 2), bands + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, window // 2 + 1)[:, None]
    rising = (bins - hertz[:-2]) / np.maximum(hertz[1:-1] - hertz[:-2], sample_rate / window)
    falling = (hertz[2:] - bins) / np.maximum(hertz[2:] - hertz[1:-1], sample_rate / window)
    filters = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(filters / np.maximum(filters.sum(0), 1e-3))


def spectrogram(signal: Signal, window: int = 1024, hop: int = 256) -> NDArray[np.float64]:
    """Magnitude STFT of one channel with a Hann window, `(frames, window / 2 + 1)`; frames are centred and zero-padded."""
    return magnitudes(np.pad(signal, (window // 2, window // 2)), window, hop)


def magnitudes(signal: Signal, window: int, hop: int) -> NDArray[np.float64]:
    """Magnitude STFT of one channel, `(frames, window / 2 + 1)`, of the frames that lie wholly within the signal."""
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(signal, np.float64), window)[::hop]
    return np.asarray(np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)))


def log_mel(signal: Signal, sample_rate: int, bands: int = 80) -> NDArray[np.float64]:
    """Log-mel spectrogram of one channel: log10 of mel magnitudes, floored at 1e-5, `(frames, bands)`."""
    return np.log10(np.maximum(spectrogram(signal) @ mel_filters(sample_rate, 1024, bands), 1e-5))


def log_mel_distance(original: Signal, decoded: Signal, sample_rate: int) -> float:
    """Mean absolute difference of `log_mel` over all channels of two signals `(channels, samples)`."""
    return _mean_over_channels(
        original, decoded, lambda a, b: float(np.abs(log_mel(a, sample_rate) - log_mel(b, sample_rate)).mean())
    )


PESQ_RATE = 16_000
"""Sample rate in hertz of wide-band PESQ."""


def stoi(original: Signal, decoded: Signal, sample_rate: int) -> float:
    """Short-time objective intelligibility (STOI), 0 to 1 (Taal et al. 2011), by pystoi; mean over channels.

    NaN if less than 0.4 s of a signal is loud enough.

    Args:
        original, decoded: Signals `(channels, samples)`.
        sample_rate: Rate in hertz.

    Raises:
        EngineNotAvailable: pystoi, of the extra `evaluate`, is not installed.
    """
    try:
        from pystoi import stoi as compute
    except ImportError as error:
        raise missing("STOI needs pystoi", "evaluate") from error
    return _mean_over_channels(original, decoded, lambda a, b: _stoi(compute, a, b, sample_rate))


def _stoi(compute: Any, original: Signal, decoded: Signal, sample_rate: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(compute(original, decoded, sample_rate))
        except (RuntimeWarning, ValueError):  # too little of the signal is loud enough
            return float("nan")


def pesq(original: Signal, decoded: Signal, sample_rate: int) -> float:
    """Perceptual evaluation of speech quality (PESQ), wide band, 1.04 to 4.64 (ITU-T P.862.2), by pesq; mean over channels.

    Signals are resampled to 16 kHz. NaN if pesq finds no speech in one.

    Args:
        original, decoded: Signals `(channels, samples)`.
        sample_rate: Rate in hertz.

    Raises:
        EngineNotAvailable: pesq, of the extra `evaluate`, is not installed.
    """
    try:
        from pesq import PesqError
        from pesq import pesq as compute
    except ImportError as error:
        raise missing("PESQ needs pesq", "evaluate") from error
    from ..audio import resample

    def score(a: Signal, b: Signal) -> float:
        resampled = (resample(signal[None], sample_rate, PESQ_RATE)[0] for signal in (a, b))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                return float(compute(PESQ_RATE, *resampled, "wb"))
            except (PesqError, ValueError):
                return float("nan")

    return _mean_over_channels(original, decoded, score)


def _mean_over_channels(original: Signal, decoded: Signal, score: Callable[[Signal, Signal], float]) -> float:
    pairs = zip(np.atleast_2d(original), np.atleast_2d(decoded), strict=True)
    return float(np.mean([score(a, b) for a, b in pairs]))


def usage(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Use of a codebook: fraction of its entries that occur, and entropy of the indices in bits.

    Args:
        counts: Occurrences of each entry, `(codebook_size,)`.
    """
    probabilities = counts[counts > 0] / max(1, counts.sum())
    return len(probabilities) / len(counts), float(-(probabilities * np.log2(probabilities)).sum())
