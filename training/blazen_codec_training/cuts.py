"""Random cuts of recordings; those of a step depend only on the seed and the step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from blazen_codec_core.audio import AudioReader, resample
from blazen_codec_core.errors import CodecError, InvalidInput
from blazen_codec_core.validation import Pcm

from .recordings import Recording

GAINS_DB = (-8.0, 6.0)
"""Range of the random change of level."""
MOST_DRAWS = 1000
"""Recordings in a row that may be unreadable before the run ends."""
AHEAD = 2
"""Steps whose cuts are read while another step runs."""
SLACK_SECONDS = 0.05
"""Seconds read beyond a cut, so that resampling has enough samples."""


class Cuts:
    """Random cuts of recordings, `(cuts, channels, samples)`.

    A recording that cannot be read is reported, and another one is drawn. Longer recordings are drawn more often.

    Args:
        rate: Sample rate of the codec.
        channels: Channels of the codec. A recording with others gives one of its channels, in all of the codec's.
        samples: Samples of a cut.
        rows: Numbers of the cuts of a batch that this process reads.
        remark: Called with a message about each recording that cannot be read.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        rate: int,
        channels: int,
        samples: int,
        seed: int,
        rows: range,
        remark: Callable[[str], object],
    ) -> None:
        self._recordings, self._rate, self._channels, self._samples = recordings, rate, channels, samples
        self._seed, self._rows, self._remark = seed, rows, remark
        self._ends = np.cumsum([recording.seconds for recording in recordings])
        self._unreadable: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="cuts")
        self._pending: dict[int, Future[Pcm]] = {}

    def __call__(self, step: int) -> Tensor:
        """Return the cuts of a step, and begin to read those of the next ones."""
        for wanted in range(step, step + 1 + AHEAD):
            if wanted not in self._pending:
                self._pending[wanted] = self._pool.submit(self.read, wanted)
        return torch.from_numpy(self._pending.pop(step).result())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, step: int) -> Pcm:
        """Read the cuts of a step."""
        return np.stack([self._cut(np.random.default_rng((self._seed, 1, step, row))) for row in self._rows])

    def _cut(self, rng: np.random.Generator) -> Pcm:
        for _ in range(MOST_DRAWS):
            place = rng.uniform(0, self._ends[-1])
            recording = self._recordings[min(int(np.searchsorted(self._ends, place, "right")), len(self._recordings) - 1)]
            start = rng.uniform(0, max(0.0, recording.seconds - self._samples / self._rate))
            channel, gain = rng.random(), 10 ** (rng.uniform(*GAINS_DB) / 20)
            if recording.path in self._unreadable:
                continue
            try:
                pcm = self._read(recording.path, start, channel)
            except CodecError as error:
                self._skip(recording.path, error)
            else:
                return np.asarray(np.clip(pcm * gain, -1, 1), np.float32)
        raise InvalidInput(f"none of the recordings can be read any more; the last was {recording.path}")

    def _skip(self, path: str, error: CodecError) -> None:
        with self._lock:
            if path not in self._unreadable:
                self._unreadable.add(path)
                self._remark(f"skipped: {error}")

    def _read(self, path: str, start: float, channel: float) -> Pcm:
        """Read a cut from `start` seconds on; zeros follow the end of a short recording."""
        end = start + self._samples / self._rate + SLACK_SECONDS
        with AudioReader(path, start=start, end=end, at_most=True) as reader:
            pcm = np.concatenate(list(reader.blocks()), axis=1)
            if reader.channels != self._channels:
                pcm = np.repeat(pcm[int(channel * reader.channels)][None], self._channels, axis=0)
            pcm = resample(pcm, reader.sample_rate, self._rate)[:, : self._samples]
        return np.pad(pcm, ((0, 0), (0, self._samples - pcm.shape[1])))


def books(seed: int, step: int, count: int, choices: Sequence[int], dropout: float) -> Tensor:
    """Draw the number of codebooks of each of `count` signals of a step, `(count,)`.

    Args:
        choices: Numbers of codebooks that a signal may use, in ascending order.
        dropout: Share of the signals that use any of them; the others use all.
    """
    rng = np.random.default_rng((seed, 2, step))
    drawn = rng.choice(choices, count)
    return torch.from_numpy(np.where(rng.random(count) < dropout, drawn, choices[-1]))
