"""Samples of held-out recordings to listen to, and their measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from blazen_codec_core import audio
from blazen_codec_core.errors import CodecError
from blazen_codec_core.evaluation import metrics
from blazen_codec_core.files import make_folder
from blazen_codec_core.specs import CodecSpec
from blazen_codec_core.validation import Pcm

from .recordings import Recording

if TYPE_CHECKING:
    from blazen_codec_core.torch_backend.module import CodecModule

COUNT = 4
SECONDS = 5.0
"""Most seconds of a sample, from the beginning."""
MEASURES = {"log_mel_distance": metrics.log_mel_distance, "stoi": metrics.stoi}


class Samples:
    """Beginnings of a few held-out recordings.

    Args:
        folder: Folder that the samples are written to: the original once, and `step-N-NAME.wav`.
    """

    def __init__(self, recordings: Sequence[Recording], spec: CodecSpec, folder: Path) -> None:
        self._spec, self._folder, self._originals = spec, folder, dict[str, Pcm]()
        make_folder(folder)
        for recording in recordings:
            if len(self._originals) == COUNT:
                break
            stem = re.sub(r"[^\w-]+", "_", Path(recording.path).stem)
            name = f"{stem}-{len(self._originals) + 1}" if stem in self._originals else stem
            try:
                self._originals[name] = pcm = self._read(recording.path)
            except CodecError:  # the report names it
                continue
            audio.write(folder / f"original-{name}.wav", pcm, spec.sample_rate)

    def _read(self, path: str) -> Pcm:
        with audio.AudioReader(path, end=SECONDS, at_most=True) as reader:
            pcm = np.concatenate(list(reader.blocks()), axis=1)
            pcm = audio.resample(pcm, reader.sample_rate, self._spec.sample_rate)
        if pcm.shape[0] != self._spec.channels:
            pcm = np.repeat(pcm[:1], self._spec.channels, axis=0)
        return pcm

    @torch.no_grad()
    def write(self, module: CodecModule, step: int) -> dict[str, float]:
        """Write the samples of a step; return the mean measures."""
        scores: dict[str, list[float]] = {name: [] for name in MEASURES}
        for name, pcm in self._originals.items():
            decoded = self._decode(module, pcm)
            audio.write(self._folder / f"step-{step:06d}-{name}.wav", decoded, self._spec.sample_rate)
            for measure, function in MEASURES.items():
                scores[measure].append(function(pcm, decoded, self._spec.sample_rate))
        known = {name: [value for value in values if np.isfinite(value)] for name, values in scores.items()}
        return {name: float(np.mean(values)) for name, values in known.items() if values}

    def _decode(self, module: CodecModule, pcm: Pcm) -> Pcm:
        device = next(module.parameters()).device
        with torch.random.fork_rng(devices=[]):  # the noise of a decoder is the same at every step
            torch.manual_seed(0)
            decoded = module(torch.from_numpy(pcm)[None].to(device)).audio[0]
        return np.asarray(decoded.cpu().numpy(), np.float32)
